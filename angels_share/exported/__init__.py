"""Exported models in the runtime that they are for."""
