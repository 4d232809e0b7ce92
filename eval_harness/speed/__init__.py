"""Timing models side by side; only the bench imports torch."""
