"""What a GPU gives (`python -m benchmarks.gpu`), and whether it is right (`--check`)."""
