"""Runs: a model, a task, a seed and settings, and the key of their result. No torch."""
