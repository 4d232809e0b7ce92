"""A made-up world in the real data's file formats."""
