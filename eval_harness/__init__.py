"""Evaluation: fine-tunes models on benchmarks over several seeds and tabulates the medians."""
