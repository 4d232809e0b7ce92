"""How sure a comparison of two models is: a paired bootstrap over the evaluation examples.

Each resample draws every task's examples anew, the same ones for both models and all their seeds;
measures, medians over seeds, the mean over tasks and then the ratio or the difference are taken
again. A resample is a count for each example, so a measure of all resamples and seeds is a handful
of matrix products. numpy alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval_harness.tasks.registry import Measure, Task

RECIPE = 2
"""Raise it when equal predictions give another interval: kept ones are then made again."""
RESAMPLES = 1000
_NUMBERS_AT_ONCE = 4_000_000
_UNDEFINED = 0.025
"""With more resamples than this without a share, an end of the middle 95 % may be one of them."""

Numbers = NDArray[np.float64]
Column = NDArray[Any]


@dataclass(frozen=True)
class Paired:
    """A task's labels and what two models said of them: a column for each seed."""

    task: Task
    labels: Column
    student: Column
    other: Column
    """The teacher, or the student of which nothing was left out."""


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of the resamples, in percent or points, or why there is no such thing."""

    percent: tuple[float, float] | None
    why: str = ""


def shares(tasks: Sequence[Paired], seed: int) -> Interval:
    """Of the share of the teacher's score, unless too many resamples have none that means much."""
    student, teacher = bootstrap(tasks, seed)
    if why := _undefined(student, teacher):
        return Interval(None, why)
    sound = np.isfinite(student) & np.isfinite(teacher) & (teacher > 0)
    if 1 - sound.mean() > _UNDEFINED:
        return Interval(None, "the teacher's own interval reaches down to 0")
    return _middle(student[sound] / teacher[sound])


def changes(tasks: Sequence[Paired], seed: int) -> Interval:
    """Of the difference of the mean scores, unless too many resamples have none."""
    student, full = bootstrap(tasks, seed)
    if why := _undefined(student, full):
        return Interval(None, why)
    difference = (student - full) / len(tasks)
    return _middle(difference[np.isfinite(difference)])


def _undefined(*totals: Numbers) -> str:
    undefined = 1 - np.isfinite(totals).all(axis=0).mean()
    if undefined <= _UNDEFINED:
        return ""
    return f"in {100 * undefined:.1f} % of the resamples a score is not defined"


def _middle(values: Numbers) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5))
    return Interval((round(100 * float(low), 6), round(100 * float(high), 6)))


def bootstrap(tasks: Sequence[Paired], seed: int, resamples: int = RESAMPLES) -> Numbers:
    """Both models' sums of medians, [2, resamples]; NaN where one isn't defined."""
    totals = np.zeros((2, resamples))
    for number, paired in enumerate(tasks):
        random = np.random.default_rng([seed, number])
        seeds = paired.student.shape[1]
        both = np.concatenate([paired.student, paired.other], axis=1)
        scores = np.concatenate(
            [
                task_scores(paired.task, counts, both, paired.labels)
                for counts in draws(random, len(paired.labels), resamples)
            ]
        )
        totals[0] += np.median(scores[:, :seeds], axis=1)
        totals[1] += np.median(scores[:, seeds:], axis=1)
    return totals


def draws(random: np.random.Generator, size: int, resamples: int) -> Iterator[Numbers]:
    """How often each example was drawn, [resamples, size], some resamples at a time."""
    at_once = max(1, _NUMBERS_AT_ONCE // size)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = random.integers(0, size, (rows, size))
        drawn += np.arange(rows)[:, None] * size
        yield np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(float)


def task_scores(task: Task, counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    """A task's score, [resamples, columns of predictions], examples counted as often as drawn."""
    measures = [_MEASURES[name](counts, predictions, labels) for name in task.primary]
    scores: Numbers = np.mean(measures, axis=0)
    return scores


def _accuracy(counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    right = _sums(counts, predictions == labels[:, None])
    return _divided(right, counts.sum(axis=1)[:, None], np.nan)


def _f1(counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    hits = _sums(counts, (predictions == 1) & (labels == 1)[:, None])
    either = _sums(counts, predictions == 1) + _sums(counts, (labels == 1)[:, None])
    return _divided(2 * hits, either, 0.0)


def _matthews(counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    total = counts.sum(axis=1)[:, None]
    covariance = total * _sums(counts, predictions == labels[:, None])
    own_predictions, own_labels = total**2, total**2
    for each in np.union1d(labels, predictions):
        said, true = _sums(counts, predictions == each), _sums(counts, (labels == each)[:, None])
        covariance = covariance - said * true
        own_predictions, own_labels = own_predictions - said**2, own_labels - true**2
    spread = np.sqrt(own_predictions * own_labels)
    return _divided(covariance, spread, 0.0)


def _pearson(counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    # Moved to their means first: sums of squares of numbers far from 0 lose their digits.
    x = predictions - predictions.mean(axis=0, dtype=float)
    y = (labels - labels.mean(dtype=float))[:, None]
    total = counts.sum(axis=1)[:, None]
    sum_x, sum_y = _sums(counts, x), _sums(counts, y)
    return _correlation(
        _sums(counts, x * y) - sum_x * sum_y / total,
        _sums(counts, x * x) - sum_x**2 / total,
        _sums(counts, y * y) - sum_y**2 / total,
    )


def _spearman(counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    """Pearson's of the ranks within each resample, where equals share the middle of their ranks."""
    y = _centred_ranks(counts, labels)
    columns = []
    for column in predictions.T:
        x = _centred_ranks(counts, column)
        products = ((counts * a * b).sum(axis=1) for a, b in ((x, y), (x, x), (y, y)))
        columns.append(_correlation(*products))
    return np.stack(columns, axis=1)


def _centred_ranks(counts: Numbers, values: Column) -> Numbers:
    """Each example's mid-rank among those drawn, less the mean rank, [resamples, examples]."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    below = np.cumsum(drawn, axis=1) - drawn
    middle = below + (drawn + 1) / 2 - (counts.sum(axis=1)[:, None] + 1) / 2
    ranks: Numbers = middle[:, group]
    return ranks


def _correlation(together: Numbers, own_x: Numbers, own_y: Numbers) -> Numbers:
    spread = np.sqrt(np.maximum(own_x, 0) * np.maximum(own_y, 0))
    return _divided(together, spread, np.nan)


def _sums(counts: Numbers, values: Column) -> Numbers:
    sums: Numbers = counts @ values.astype(float)
    return sums


def _divided(above: Numbers, below: Numbers, otherwise: float) -> Numbers:
    """The quotient, and something else where there is none."""
    below = np.broadcast_to(below, above.shape)
    quotient: Numbers = np.divide(
        above, below, out=np.full(above.shape, otherwise), where=below > 0
    )
    return quotient


_MEASURES: dict[Measure, Callable[[Numbers, Column, Column], Numbers]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
