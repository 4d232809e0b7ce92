"""The rows that results form: a model under settings, with a cell for each task."""
