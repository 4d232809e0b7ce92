"""Strict readers of files: rows as they come, or columns by their names."""
