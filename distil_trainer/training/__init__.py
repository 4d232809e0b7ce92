"""The Trainer with its arguments, checks, checkpoints and metrics."""
