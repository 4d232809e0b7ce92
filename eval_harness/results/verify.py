"""The proof of a result: its scores, computed again from the predictions beside it. No torch.

Of questions the gold answers are not stored, but each answer's scores are: their means are checked,
those over questions with and without an answer (`has_answer_f1` and the like) are not.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval_harness.results.predictions import (
    AnsweredQuestions,
    ClassPredictions,
    Predictions,
    ScoredDocuments,
    TaggedSentences,
)
from eval_harness.results.record import TaskResult
from eval_harness.results.store import (
    RUNS,
    Found,
    Invalid,
    InvalidResult,
    find,
    path_of,
    read_any_predictions,
)
from eval_harness.tasks.entities import entity_metrics
from eval_harness.tasks.registry import TASKS, Task

_TOLERANCE = 1e-6
"""Far above what versions and processors differ by, far below what a table shows."""

_Scores = Mapping[str, float | None]


def disagreement(root: Path | str, result: TaskResult) -> str | None:
    """Return how a saved result and its predictions disagree; None if they agree.

    Withheld predictions disagree with nothing.

    Args:
        root: the results folder.
        result: the result, as it was loaded.

    Returns:
        Half a line: the predictions are damaged, or a score is not theirs.
    """
    if result.predictions is None:
        return None
    try:
        predictions = read_any_predictions(root, result)
    except InvalidResult as error:
        return f"its predictions {error.path.name}: {error.reason}"
    first = predictions.split[0] if len(predictions.split) else ""
    if first not in result.scores:
        return f"scores.{first} is missing" if first else "its predictions hold no example"
    averages = _averages(result)
    whole = _mean_of_splits(result) if averages else result.scores[first].get("score")
    if not (_is_equal(result.score, whole) if averages else result.score == whole):
        of = "the mean of its splits" if averages else f"the score of {first}"
        return f"score {result.score} is not {of}"
    return next(
        filter(None, (_of_split(result, predictions, each) for each in result.scores)), None
    )


def _averages(result: TaskResult) -> bool:
    return any(task.averages for task in TASKS if task.name == result.task)


def _mean_of_splits(result: TaskResult) -> float | None:
    scores = [of_split.get("score") for of_split in result.scores.values()]
    defined = [score for score in scores if score is not None]
    return sum(defined) / len(defined) if len(defined) == len(scores) else None


def _of_split(result: TaskResult, predictions: Predictions, split: str) -> str | None:
    """Return how a split's scores and predictions disagree; None if they agree."""
    scores = result.scores[split]
    chosen = np.asarray(predictions.split) == split
    if not chosen.any():
        return f"scores.{split} has no predictions"
    try:
        recomputed = _recomputed(result, predictions, chosen)
    except (KeyError, ValueError, TypeError) as error:  # metrics or labels of nobody
        return f"scores.{split} can't be computed from its predictions: {error}"
    for name, value in recomputed.items():
        if name not in scores:
            return f"scores.{split}.{name} is missing"
        if not _is_equal(scores[name], value):
            return f"scores.{split}.{name} is {scores[name]}, but {value} by its predictions"
    return None


def agreeing(root: Path | str, found: Found) -> Found:
    """Return a folder's content without the results that disagree with their predictions."""
    agree, invalid = dict[str, TaskResult](), list(found.invalid)
    for key, result in found.by_key.items():
        if why := disagreement(root, result):
            invalid.append(Invalid(f"{RUNS}/{key}.json", why))
        else:
            agree[key] = result
    return Found(agree, tuple(sorted(invalid, key=lambda file: file.path)))


def why_not_counted(root: Path, keys: Collection[str]) -> dict[str, str]:
    """Return why results of these keys don't count though each is valid by itself, by key.

    Another file contradicts it, or its predictions do: what `tables --verify` names.
    """
    if not any(path_of(root, key).exists() for key in keys):
        return {}
    found = find(root)
    asked = {key: result for key, result in found.by_key.items() if key in keys}
    named = agreeing(root, Found(asked, found.invalid)).invalid
    by_path = {file.path: file.reason for file in named}
    return {key: by_path[path] for key in keys if (path := f"{RUNS}/{key}.json") in by_path}


def _is_equal(saved: float | None, value: float | None) -> bool:
    if saved is None or value is None:
        return saved is value
    return abs(saved - value) <= _TOLERANCE * max(1.0, abs(value))


def _recomputed(result: TaskResult, predictions: Predictions, chosen: NDArray[np.bool_]) -> _Scores:
    """Return the scores of the chosen examples, as far as predictions tell."""
    if isinstance(predictions, AnsweredQuestions):
        exact, f1 = (float(each[chosen].mean()) for each in (predictions.exact, predictions.f1))
        return {"exact_match": exact, "f1": f1, "score": f1}
    split = str(np.asarray(predictions.split)[chosen][0])
    if isinstance(predictions, TaggedSentences):
        return _of_tags(result, split, predictions, np.flatnonzero(chosen))
    if isinstance(predictions, ScoredDocuments):
        return predictions.measures(result.settings.task["values"]["scoring"], chosen)
    if not isinstance(predictions, ClassPredictions):
        return {}  # a kind that was added: nothing here knows its metrics
    return _of_classes(result, split, predictions.logits[chosen], predictions.labels[chosen])


def _of_tags(
    result: TaskResult, split: str, predictions: TaggedSentences, chosen: NDArray[np.int64]
) -> _Scores:
    gold, tags = ([each[row] for row in chosen] for each in (predictions.gold, predictions.tags))
    measures: dict[str, float] = entity_metrics(gold, tags)
    task = _task(result, split, 0)
    saved = result.scores[split].get("score")
    primary = sum(measures[name] for name in task.primary) / len(task.primary)
    measures["score"] = primary if task in TASKS else _nearest_mean(measures, task.primary, saved)
    return measures


def _of_classes(
    result: TaskResult, split: str, logits: NDArray[np.float32], labels: NDArray[Any]
) -> _Scores:
    from eval_harness.tasks.metrics import compute_metrics  # scikit-learn takes a second

    task = _task(result, split, logits.shape[1])
    if task.is_regression:
        answers: NDArray[Any] = logits[:, 0].astype(np.float64)
    else:
        answers, labels = logits.argmax(axis=1), labels.astype(np.int64)
    measures = compute_metrics(task, answers, labels)
    if task not in TASKS:
        measures["score"] = _nearest_mean(measures, task.primary, result.scores[split].get("score"))
    return {name: value if math.isfinite(value) else None for name, value in measures.items()}


def _task(result: TaskResult, split: str, columns: int) -> Task:
    """Return what the metrics depend on; a custom task's stand in its results' settings.

    There they are not divided into those whose mean is the score and the rest, which follow.
    """
    for task in TASKS:
        if task.name == result.task:
            return task
    own = result.settings.task
    labels = own.get("labels", map(str, range(columns) if columns > 1 else ()))
    measures = own.get("measures", [name for name in result.scores[split] if name != "score"])
    return Task(result.task, result.task, (), tuple(labels), tuple(measures))


def _nearest_mean(
    measures: Mapping[str, float], names: Sequence[str], saved: float | None
) -> float:
    """Return the mean of the first few metrics that is nearest to the saved score."""
    means = [
        sum(measures[name] for name in names[:count]) / count for count in range(1, len(names) + 1)
    ]
    if saved is None:
        return next(filter(math.isnan, means), means[0])
    return min(means, key=lambda mean: math.inf if math.isnan(mean) else abs(mean - saved))
