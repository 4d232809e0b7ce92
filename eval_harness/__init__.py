"""Judging models: fine-tunes on a benchmark over several seeds, takes medians, makes the tables."""
