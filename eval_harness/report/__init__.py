"""The results as one HTML page with charts."""
