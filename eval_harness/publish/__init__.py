"""What goes up to the Hub from results: their part of a model card. Imports no torch."""
