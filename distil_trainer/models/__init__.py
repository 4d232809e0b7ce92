"""Models: supported architectures, students made from teachers, and loading."""
