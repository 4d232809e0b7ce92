"""Probing models as they are, before any fine-tuning: held-out text, minimal pairs, features."""
