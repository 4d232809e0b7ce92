"""The Trainer: arguments, checks, checkpoints, resuming."""
