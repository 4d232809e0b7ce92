"""The measures of the tasks, on scikit-learn and scipy. Imports no torch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

from eval_harness.tasks.registry import Measure, Task

Labels = NDArray[Any] | Sequence[float]


def _correlation(measure: Callable[..., Any], predictions: Labels, labels: Labels) -> float:
    """A correlation with a constant is undefined; NaN says so, and no warning is needed."""
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return float("nan")
    return float(measure(predictions, labels).statistic)


_MEASURES: dict[Measure, Callable[[Labels, Labels], float]] = {
    "accuracy": lambda predictions, labels: float(metrics.accuracy_score(labels, predictions)),
    "f1": lambda predictions, labels: float(metrics.f1_score(labels, predictions, zero_division=0)),
    "matthews": lambda predictions, labels: float(metrics.matthews_corrcoef(labels, predictions)),
    "pearson": lambda predictions, labels: _correlation(stats.pearsonr, predictions, labels),
    "spearman": lambda predictions, labels: _correlation(stats.spearmanr, predictions, labels),
}


def measure(task: Task, predictions: Labels, labels: Labels) -> dict[str, float]:
    """Every measure of a task and its score (the plain mean of the primary ones); 1 is perfect.

    Predictions are class ids, or numbers on the labels' scale for a regression.
    """
    if len(predictions) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(predictions)} predictions for {len(labels)} labels")
    measures = (*task.primary, *task.also)
    values: dict[str, float] = {name: _MEASURES[name](predictions, labels) for name in measures}
    score = sum(values[name] for name in task.primary) / len(task.primary)
    return {**values, "score": score}
