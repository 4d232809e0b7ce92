"""The demo world: a small synthetic language and tasks in it, in the real data's file formats."""
