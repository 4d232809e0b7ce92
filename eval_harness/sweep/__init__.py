"""Which runs are missing, in which order, and who executes them. No torch."""
