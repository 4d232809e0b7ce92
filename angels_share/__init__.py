"""Code that both packages share: flags, one-line errors, names, files. Imports no torch."""

__version__ = "0.1.0"
