"""Differences of two models with their uncertainty: over examples, and over pre-training seeds.

Examples are resampled, the same draws for both models and all their seeds. Seeds never are: three
give ten distinct resamples, whose spread is far too small. From three seeds on they have a variance
of their own, as in a t test. The squares of the half widths that either would give alone add up to
that of the interval (Zou and Donner's method of variance estimates recovery), so it has the t
interval's width where seeds decide, and the bootstrap's where examples do.
`tests/eval_harness/intervals/test_differences.py` simulates how often intervals cover the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

RESAMPLES = 1000
FEWEST_SEEDS = 3
"""Of two seeds a t interval is right, but thirteen standard errors wide: it isn't printed."""
FEWEST_EXAMPLES = 30
"""Of fewer a bootstrap interval is too narrow: three pairs would be enough for certainty."""
_LEVEL = 0.95
_ROUNDING = 1e-12
_MOST_UNDEFINED = 0.025


@dataclass(frozen=True)
class Scores:
    """The scores of a model, or of several that differ only in the seed of their pre-training.

    Attributes:
        points: the score of each of them.
        resampled: [models, resamples], under the same draws of examples for all.
        seeds: the seed of each; two models with the same seeds are compared seed by seed.
        examples: the number of examples.
        counted: a hash of the words or tokens of each example, where a score is per word or token.
    """

    points: Numbers
    resampled: Numbers
    seeds: tuple[int | None, ...]
    examples: int
    counted: str = ""


@dataclass(frozen=True)
class Difference:
    """How much higher a model's score is than another's.

    Attributes:
        value: the difference of the means over seeds.
        half: half the width of the 95 % interval, which is symmetric; None where there is none.
        p: the probability of a difference as large by chance; None where there is no interval.
        why: the reason where there is no interval.
    """

    value: float
    half: float | None = None
    p: float | None = None
    why: str = ""


def mean_over_tasks(scores: Sequence[Scores]) -> Scores:
    """Return a model's mean score over tasks, for every seed that all of them have.

    Args:
        scores: those of each task, each resampled by draws of its own.
    """
    seeds = [seed for seed in scores[0].seeds if all(seed in each.seeds for each in scores)]
    chosen = [[each.seeds.index(seed) for seed in seeds] for each in scores]
    pairs = list(zip(scores, chosen, strict=True))
    return Scores(
        np.mean([each.points[numbers] for each, numbers in pairs], axis=0),
        np.mean([each.resampled[numbers] for each, numbers in pairs], axis=0),
        tuple(seeds),
        sum(each.examples for each in scores),
    )


def difference(model: Scores, other: Scores) -> Difference | None:
    """Return how much higher a model's score is than another's; None if one is undefined.

    A single model has no variance over seeds: it is taken as it is, and what is found is about it
    alone.
    """
    return mean_difference([(model, other)])


def mean_difference(pairs: Sequence[tuple[Scores, Scores]]) -> Difference | None:
    """Return the mean of a model's differences from another over tasks; None if one is undefined.

    Each task has a variance over its own seeds, however many these are.

    Args:
        pairs: the model's and the other's scores on each task, each task with draws of its own.
    """
    count = len(pairs)
    value = float(np.mean([ours.points.mean() - theirs.points.mean() for ours, theirs in pairs]))
    if not np.isfinite(value):
        return None
    if any(ours.counted != theirs.counted for ours, theirs in pairs):
        return Difference(value, why="other tokenizer")
    sizes = [len(each.points) for pair in pairs for each in pair]
    if any(1 < size < FEWEST_SEEDS for size in sizes):
        return Difference(value, why="n too small")
    resampled = np.mean(
        [ours.resampled.mean(axis=0) - theirs.resampled.mean(axis=0) for ours, theirs in pairs],
        axis=0,
    )
    defined = resampled[np.isfinite(resampled)]
    if len(defined) < (1 - _MOST_UNDEFINED) * len(resampled):
        return Difference(value, why="undefined in too many resamples")
    examples = sum(ours.examples for ours, _ in pairs)
    over_seeds = [
        (variance / count**2, freedom)
        for ours, theirs in pairs
        for variance, freedom in _variances_over_seeds(ours, theirs)
    ]
    if count > 1:
        over_seeds = _pooled(over_seeds)
    over_examples = (float(defined.var(ddof=1)), examples - 1)
    found = _with_interval(value, [over_examples, *over_seeds])
    is_same = found.half == 0 and found.p == 1
    if examples < FEWEST_EXAMPLES and not is_same:
        return Difference(value, why="too few examples")
    return found


def _pooled(variances: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the sum of tasks' variances with its degrees of freedom, by Satterthwaite.

    Tasks are independent: with three seeds on each of nine the sum is known far better than any
    part, and an interval that took each part's t quantile would be nearly twice too wide.
    """
    total = sum(variance for variance, _ in variances)
    if total == 0:
        return []
    spread = sum(variance**2 / freedom for variance, freedom in variances)
    return [(total, total**2 / spread)]


def _variances_over_seeds(model: Scores, other: Scores) -> list[tuple[float, float]]:
    """Return the variances of the difference over seeds, each with its degrees of freedom."""
    ours, theirs = model.points, other.points
    varying = [ours - theirs] if model.seeds == other.seeds else [ours, theirs]
    return [
        (float(points.var(ddof=1)) / len(points), len(points) - 1)
        for points in varying
        if len(points) > 1
    ]


def _with_interval(value: float, variances: Sequence[tuple[float, float]]) -> Difference:
    from scipy.special import stdtrit  # here: most tables need none of it

    def half_width(level: float) -> float:
        terms = (
            float(stdtrit(freedom, 0.5 + level / 2)) ** 2 * variance
            for variance, freedom in variances
        )
        return float(np.sqrt(sum(terms)))

    half = half_width(_LEVEL)
    if half <= _ROUNDING * max(1.0, abs(value)):  # the models are the same, or differ by a constant
        return Difference(value, 0.0, 1.0 if abs(value) <= _ROUNDING else 0.0)
    # p is 1 minus the level at which the interval would just reach 0.
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if half_width(middle) < abs(value) else (low, middle)
    return Difference(value, half, 1 - low)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, by Holm's method, in the same order."""
    order = np.argsort(probabilities)
    adjusted = [0.0] * len(probabilities)
    highest = 0.0
    for rank, number in enumerate(order):
        highest = max(highest, (len(probabilities) - rank) * probabilities[number])
        adjusted[number] = min(1.0, highest)
    return adjusted
