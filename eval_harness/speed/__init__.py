"""Timing of models side by side, each in its own process."""
