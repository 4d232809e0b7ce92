"""Lengths of STS-B's dev pairs in tokens, for timing models without a tokenizer or the data."""

import random

SHORTEST = 11
COUNTS = (
    1, 6, 17, 11, 34, 60, 79, 69, 67, 61, 93, 63, 53, 45, 39, 32, 19, 31, 27, 19, 22, 27, 33, 30,
    39, 23, 28, 33, 28, 30, 29, 29, 26, 27, 26, 22, 16, 18, 21, 8, 11, 9, 14, 9, 7, 3, 5, 9, 11,
    10, 4, 9, 5, 10, 6, 2, 2, 3, 7, 5, 3, 4, 3, 2, 1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1,
)  # fmt: skip
"""Number of pairs per length, from the shortest length on: the 1,500 pairs of the Hub's validation
split (nyu-mll/glue, stsb) in WordPiece tokens of bert-base-uncased, with [CLS] and both [SEP]."""


def lengths(count: int | None, seed: int) -> list[int]:
    """Return the lengths of `count` pairs, sampled without replacement; of all if it is None."""
    population = [SHORTEST + extra for extra, pairs in enumerate(COUNTS) for _ in range(pairs)]
    size = len(population) if count is None else count
    return random.Random(seed).sample(population, size)  # noqa: S311
