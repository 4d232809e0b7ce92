"""Text as token sequences, and sequences as batches."""
