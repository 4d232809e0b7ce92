"""One file per command: its flags, then what it does."""
