"""The tasks: one row per task, one row per kind of task. Imports no torch."""
