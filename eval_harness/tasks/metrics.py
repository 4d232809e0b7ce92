"""The metrics of the tasks, from scikit-learn and scipy. Imports no torch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

from eval_harness.tasks.registry import Metric, Task

Labels = NDArray[Any] | Sequence[float]


def _correlation(correlate: Callable[..., Any], predictions: Labels, labels: Labels) -> float:
    """Return a correlation; NaN, without scipy's warning, where a constant makes it undefined."""
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return float("nan")
    return float(correlate(predictions, labels).statistic)


def _f1(average: str) -> Callable[[Labels, Labels], float]:
    """Return an F1; of the classes, those that neither label nor prediction has don't count."""

    def measured(predictions: Labels, labels: Labels) -> float:
        return float(metrics.f1_score(labels, predictions, average=average, zero_division=0))

    return measured


_METRICS: dict[Metric, Callable[[Labels, Labels], float]] = {
    "accuracy": lambda predictions, labels: float(metrics.accuracy_score(labels, predictions)),
    "f1": _f1("binary"),
    "f1_macro": _f1("macro"),
    "f1_micro": _f1("micro"),
    "matthews": lambda predictions, labels: float(metrics.matthews_corrcoef(labels, predictions)),
    "pearson": lambda predictions, labels: _correlation(stats.pearsonr, predictions, labels),
    "spearman": lambda predictions, labels: _correlation(stats.spearmanr, predictions, labels),
}


def compute_metrics(task: Task, predictions: Labels, labels: Labels) -> dict[str, float]:
    """Return a task's metrics and its score, the mean of the primary ones; 1 is perfect.

    Args:
        task: names the metrics.
        predictions: class ids, or for a regression numbers on the labels' scale.
        labels: likewise.

    Raises:
        ValueError: no labels, or another number of predictions.
    """
    if len(predictions) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(predictions)} predictions for {len(labels)} labels")
    names = (*task.primary, *task.also)
    values: dict[str, float] = {name: _METRICS[name](predictions, labels) for name in names}
    score = sum(values[name] for name in task.primary) / len(task.primary)
    return {**values, "score": score}
