"""Which tasks there are: one row per task, one per kind. No torch."""
