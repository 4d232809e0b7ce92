"""A task's data, wherever they come from, as typed splits. No torch."""
