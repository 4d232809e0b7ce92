"""Confidence intervals: of shares and differences, over examples and over seeds."""
