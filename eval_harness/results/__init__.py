"""Results and their files: typed, checked, written whole or not at all. No torch."""
