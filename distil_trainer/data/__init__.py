"""From text to token sequences, and from sequences to batches."""
