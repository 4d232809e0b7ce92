"""Results and their files: typed, validated, written atomically. No torch."""
