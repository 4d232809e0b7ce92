"""Results as the paper's tables: a pure function of files. Imports no torch."""
