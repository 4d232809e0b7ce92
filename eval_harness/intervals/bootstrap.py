"""A paired bootstrap over the evaluation examples: how certain a comparison of two models is.

Each resample draws every task's examples anew, the same ones for both models and all their seeds;
metrics, medians over seeds, the mean over tasks and then the ratio or the difference are computed
again. A resample is a count per example, so that a metric of all resamples and seeds is a handful
of matrix products. Needs numpy alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval_harness.tasks.entities import ENTITY_METRICS, measure
from eval_harness.tasks.registry import EntityMetric, Metric, Task

RECIPE = 2
"""Raise it when equal predictions give another interval: cached ones are then computed again."""
RESAMPLES = 1000
_NUMBERS_AT_ONCE = 4_000_000
_UNDEFINED = 0.025
"""If more resamples than this have no value, an end of the middle 95 % may be one of them."""

Numbers = NDArray[np.float64]
Column = NDArray[Any]


@dataclass(frozen=True)
class PairedPredictions:
    """A task's labels and two models' predictions, a column per seed."""

    task: Task
    labels: Column
    student: Column
    other: Column
    """Those of the teacher, or of the student trained with the full loss."""


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of the resamples, in percent or points, or why it cannot be given."""

    percent: tuple[float, float] | None
    why: str = ""


def share_interval(tasks: Sequence[PairedPredictions], seed: int) -> Interval:
    """Return the interval of the student's share of the teacher's score.

    None if too many resamples have an undefined score, or a teacher's score of 0 or less.
    """
    student, teacher = bootstrap_totals(tasks, seed)
    if why := _why_undefined(student, teacher):
        return Interval(None, why)
    usable = np.isfinite(student) & np.isfinite(teacher) & (teacher > 0)
    if 1 - usable.mean() > _UNDEFINED:
        return Interval(None, "the teacher's own interval reaches down to 0")
    return _middle(student[usable] / teacher[usable])


def change_interval(tasks: Sequence[PairedPredictions], seed: int) -> Interval:
    """Return the interval of the difference of the mean scores.

    None if too many resamples have an undefined score.
    """
    student, full = bootstrap_totals(tasks, seed)
    if why := _why_undefined(student, full):
        return Interval(None, why)
    difference = (student - full) / len(tasks)
    return _middle(difference[np.isfinite(difference)])


def score_interval(tasks: Sequence[PairedPredictions], seed: int) -> Interval:
    """Return the interval of the mean score of the first model of each pair.

    None if too many resamples have an undefined score.
    """
    alone = [replace(each, other=each.other[:, :0]) for each in tasks]
    totals, _ = bootstrap_totals(alone, seed)
    if why := _why_undefined(totals):
        return Interval(None, why)
    return _middle(totals[np.isfinite(totals)] / len(tasks))


def _why_undefined(*totals: Numbers) -> str:
    undefined = 1 - np.isfinite(totals).all(axis=0).mean()
    if undefined <= _UNDEFINED:
        return ""
    return f"in {100 * undefined:.1f} % of the resamples a score is not defined"


def _middle(values: Numbers) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5))
    return Interval((round(100 * float(low), 6), round(100 * float(high), 6)))


def bootstrap_totals(
    tasks: Sequence[PairedPredictions], seed: int, resamples: int = RESAMPLES
) -> Numbers:
    """Return both models' sums of medians, [2, resamples]; NaN where one is undefined.

    Args:
        tasks: the predictions of each task.
        seed: of the drawing.
        resamples: how often the examples are drawn.
    """
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
        if both.shape[1] > seeds:
            totals[1] += np.median(scores[:, seeds:], axis=1)
    return totals


def draws(random: np.random.Generator, size: int, resamples: int) -> Iterator[Numbers]:
    """Yield how often each example was drawn, [resamples, size], in batches of resamples.

    Args:
        random: the source of the draws.
        size: number of examples.
        resamples: number of resamples in all.
    """
    at_once = max(1, _NUMBERS_AT_ONCE // size)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = random.integers(0, size, (rows, size))
        # Each resample's examples get numbers of their own: one bincount then counts all of them.
        drawn += np.arange(rows)[:, None] * size
        yield np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(float)


def task_scores(task: Task, counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    """Return a task's score, [resamples, columns], each example weighted by its count.

    Args:
        task: whose primary metrics are averaged.
        counts: how often each example was drawn, [resamples, examples].
        predictions: [examples, columns].
        labels: [examples].
    """
    return metric_scores(task.primary, counts, predictions, labels)


def metric_scores(
    metrics: Sequence[Metric], counts: Numbers, predictions: Column, labels: Column
) -> Numbers:
    """Return the mean of some metrics, [resamples, columns], each example weighted by its count.

    Args:
        metrics: their names.
        counts: how often each example was drawn, [resamples, examples].
        predictions: [examples, columns].
        labels: [examples].
    """
    scores = [_METRICS[name](counts, predictions, labels) for name in metrics]
    mean: Numbers = np.mean(scores, axis=0)
    return mean


def _accuracy(counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    right = _sums(counts, predictions == labels[:, None])
    return _divide(right, counts.sum(axis=1)[:, None], np.nan)


def _f1(counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    # 2 TP / (predicted positives + true positives), which equals 2 PR / (P + R).
    hits = _sums(counts, (predictions == 1) & (labels == 1)[:, None])
    positives = _sums(counts, predictions == 1) + _sums(counts, (labels == 1)[:, None])
    return _divide(2 * hits, positives, 0.0)


def _f1_macro(counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    # The mean over the classes that a label or a prediction of the resample has.
    total = np.zeros((len(counts), predictions.shape[1]))
    classes = np.zeros_like(total)
    for name in np.union1d(labels, predictions):
        hits = _sums(counts, (predictions == name) & (labels == name)[:, None])
        found = _sums(counts, predictions == name) + _sums(counts, (labels == name)[:, None])
        total += _divide(2 * hits, found, 0.0)
        classes += found > 0
    return _divide(total, classes, np.nan)


def _matthews(counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    # The form for any number of classes: a correlation of one-hot predictions and labels.
    total = counts.sum(axis=1)[:, None]
    covariance = total * _sums(counts, predictions == labels[:, None])
    predicted_variance, label_variance = total**2, total**2
    for name in np.union1d(labels, predictions):
        predicted = _sums(counts, predictions == name)
        labelled = _sums(counts, (labels == name)[:, None])
        covariance = covariance - predicted * labelled
        predicted_variance = predicted_variance - predicted**2
        label_variance = label_variance - labelled**2
    spread = np.sqrt(predicted_variance * label_variance)
    return _divide(covariance, spread, 0.0)


def _pearson(counts: Numbers, predictions: Column, labels: Column) -> Numbers:
    # Centred first: sums of squares of numbers far from 0 lose their digits.
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
    """Return Pearson's correlation of the ranks within each resample."""
    y = _centred_ranks(counts, labels)
    columns = []
    for column in predictions.T:
        x = _centred_ranks(counts, column)
        products = ((counts * a * b).sum(axis=1) for a, b in ((x, y), (x, x), (y, y)))
        columns.append(_correlation(*products))
    return np.stack(columns, axis=1)


def _centred_ranks(counts: Numbers, values: Column) -> Numbers:
    """Return each example's mid-rank in a resample, less the mean rank, [resamples, examples]."""
    # Equal values form a group; all its draws share the middle of the ranks that they occupy.
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    below = np.cumsum(drawn, axis=1) - drawn
    middle = below + (drawn + 1) / 2 - (counts.sum(axis=1)[:, None] + 1) / 2
    ranks: Numbers = middle[:, group]
    return ranks


def _correlation(covariance: Numbers, variance_x: Numbers, variance_y: Numbers) -> Numbers:
    # Rounding can leave the variance of a constant slightly below 0.
    spread = np.sqrt(np.maximum(variance_x, 0) * np.maximum(variance_y, 0))
    return _divide(covariance, spread, np.nan)


def _entities(name: EntityMetric) -> Callable[[Numbers, Column, Column], Numbers]:
    """Return a metric of entities, whose predictions are their counts, [sentences, columns, 6]."""

    def measured(counts: Numbers, predictions: Column, _labels: Column) -> Numbers:
        return measure(name, np.tensordot(counts, predictions.astype(float), axes=1))

    return measured


def _sums(counts: Numbers, values: Column) -> Numbers:
    sums: Numbers = counts @ values.astype(float)
    return sums


def _divide(above: Numbers, below: Numbers, otherwise: float) -> Numbers:
    """Return the quotient, and `otherwise` where the divisor is not above 0."""
    below = np.broadcast_to(below, above.shape)
    quotient: Numbers = np.divide(
        above, below, out=np.full(above.shape, otherwise), where=below > 0
    )
    return quotient


_METRICS: dict[Metric, Callable[[Numbers, Column, Column], Numbers]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "f1_micro": _accuracy,  # equal where each example has one class
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
    **{name: _entities(name) for name in ENTITY_METRICS},
}
