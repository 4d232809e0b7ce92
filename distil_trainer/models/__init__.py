"""Architectures, students and loading."""
