"""The card that goes up with a model: facts, and their text and metadata. Imports no torch."""
