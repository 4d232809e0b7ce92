"""The Hub, both ways: what is read from it, and what goes up to it. Imports no torch."""
