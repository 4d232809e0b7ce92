"""One file per command of `python -m distil_trainer`."""
