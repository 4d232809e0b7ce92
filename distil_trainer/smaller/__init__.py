"""Models made smaller after their training: cut, and written as files that need no Python."""
