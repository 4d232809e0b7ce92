"""Comparison of two rows: their common tasks and a cached bootstrap interval. Imports no torch.

An interval is computed once from the per-example predictions and cached under `intervals/` by the
hash of everything that it depends on.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from angels_share.files import hash_of, write_json
from eval_harness.intervals import bootstrap
from eval_harness.intervals.bootstrap import Interval, PairedPredictions
from eval_harness.intervals.differences import RESAMPLES, Scores, mean_over_tasks
from eval_harness.intervals.kept import INTERVALS, Kept, keep, read_kept, require_kept
from eval_harness.results.predictions import (
    AnsweredQuestions,
    ClassPredictions,
    Predictions,
    TaggedSentences,
)
from eval_harness.results.record import TaskResult
from eval_harness.results.store import (
    InvalidResult,
    path_of,
    read_any_predictions,
    read_predictions,
)
from eval_harness.rows.row import Cell, Row
from eval_harness.tasks.entities import all_counts
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import GLUE, TASKS, Metric

Comparison = Literal["shares", "changes", "scores"]
_COMPARISONS: Mapping[Comparison, Callable[[Sequence[PairedPredictions], int], Interval]] = {
    "shares": bootstrap.share_interval,
    "changes": bootstrap.change_interval,
    "scores": bootstrap.score_interval,
}


def common_tasks(row: Row, other: Row) -> tuple[str, ...]:
    """Return the GLUE tasks that both have scores for, on the same examples and scored alike."""
    return tuple(task for task in GLUE if why_not_comparable(row, other, task) is None)


def why_not_comparable(row: Row, other: Row, task: str) -> str | None:
    """Return why two rows can't be compared on a task; None if they can."""
    for each in (row, other):
        if task not in each.cells or not each.cells[task].counted_scores:
            return f"{each.label} has no score"
    if row.cells[task].data_hash != other.cells[task].data_hash:
        return f"{row.label} and {other.label} were evaluated on other data"
    if not _scored_alike(row.cells[task], other.cells[task]):
        return f"{row.label} and {other.label} were scored differently"
    return None


_SCORING = ("version", "labels", "measures", "columns")
"""Settings of a task; the first results do not have all of them."""


def _scored_alike(cell: Cell, other: Cell) -> bool:
    ours, theirs = map(_scoring, (cell, other))
    return all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())


def _scoring(cell: Cell) -> dict[str, Any]:
    tasks = (result.settings.task for result in cell.results)
    return {name: task[name] for task in tasks for name in _SCORING if name in task}


def sum_of_medians(row: Row, tasks: Sequence[str]) -> float:
    """Return the sum of a row's medians over these tasks."""
    return sum(row.cells[task].median or 0.0 for task in tasks)


def cached_interval(
    comparison: Comparison, row: Row, other: Row, tasks: Sequence[str], root: Path
) -> Interval:
    """Return the cached interval for exactly these predictions, or compute and cache it.

    Args:
        comparison: "shares" of the other row's score, "changes" from it, or the row's own "scores",
            for which the other is the same row.
        row: the student's row.
        other: the row that it is compared with.
        tasks: the tasks that both have.
        root: the results folder.

    Returns:
        The interval, or why it has none: also where predictions are damaged.
    """
    try:
        return _interval(comparison, row, other, tasks, root)
    except InvalidResult as error:
        name = error.path.relative_to(root).as_posix()
        return Interval(None, f"{name} {error.reason}")


def _interval(
    comparison: Comparison, row: Row, other: Row, tasks: Sequence[str], root: Path
) -> Interval:
    inputs = {task: [_hashes(one.cells[task]) for one in (row, other)] for task in tasks}
    recipe: dict[str, Any] = {"version": bootstrap.RECIPE, "resamples": bootstrap.RESAMPLES}
    if comparison != "shares":  # the first cached intervals were all shares and don't name it
        recipe["comparison"] = comparison
    made_of = {"recipe": recipe, "inputs": inputs}
    name = hash_of(made_of, 16)
    path = root / INTERVALS / f"{name}.json"
    interval = _read_cached(path, made_of)
    if interval is None:
        pairs = [
            _pair_predictions(task, row.cells[task], other.cells[task], root) for task in tasks
        ]
        interval = _COMPARISONS[comparison](pairs, int(name, 16))
        with suppress(OSError):  # where a cache can't be kept, it is made again the next time
            write_json(path, {"made_of": made_of, **asdict(interval)})
    return interval


def scores_by_seed(row: Row, tasks: Sequence[str], root: Path) -> Scores:
    """Return a row's mean score over tasks, in percent, for every seed that all tasks have.

    Args:
        row: the row.
        tasks: its tasks, each with scores.
        root: the results folder, which holds the predictions.

    Raises:
        InvalidResult: predictions are missing, damaged, or of other examples.
    """
    return mean_over_tasks(
        [
            task_scores(row, task, root, number=number, resamples=RESAMPLES)[0]
            for number, task in enumerate(tasks)
        ]
    )


def task_scores(
    row: Row, task: str, root: Path, *, number: int, resamples: int
) -> tuple[Scores, str]:
    """Return a row's score on a task, in percent, for every seed, and a hash of the examples.

    Args:
        row: the row.
        task: a task that it has scores for.
        root: the results folder, which holds the predictions.
        number: of the bootstrap's draws. Rows that are compared on a task need equal ones, tasks
            that are averaged different ones.
        resamples: how often the examples are drawn.

    Raises:
        InvalidResult: predictions are missing, damaged, or of other examples.
    """
    cell = row.cells[task]
    made_of = _scores_made_of(cell, task, number, resamples)
    kept = read_kept(root, made_of)
    if kept is None:
        kept = keep(
            root, made_of, {task: _resampled(root, cell.counted_results, number, resamples)}
        )
    (found,) = kept.values()
    seeds = tuple(result.seed for result in cell.counted_results)
    return Scores(found.points, found.resampled, seeds, found.count), found.examples


def keep_task_scores(row: Row, task: str, root: Path, *, number: int, resamples: int) -> None:
    """Keep these scores, for when the predictions are withheld.

    Raises:
        InvalidResult: predictions are missing or damaged, and nothing was kept of them.
        RunFailed: they can't be kept: no room, say.
    """
    task_scores(row, task, root, number=number, resamples=resamples)
    require_kept(root, _scores_made_of(row.cells[task], task, number, resamples))


def _scores_made_of(cell: Cell, task: str, number: int, resamples: int) -> dict[str, Any]:
    return {
        "scores": task,
        "predictions": _hashes(cell),
        "metrics": [*primary_metrics(cell.counted_results)],
        "draws": str(number),
        "resamples": resamples,
    }


def _resampled(root: Path, results: Sequence[TaskResult], number: int, resamples: int) -> Kept:
    evaluated = [_evaluated(root, result) for result in results]
    for result, each in zip(results, evaluated, strict=True):
        if each.examples != evaluated[0].examples:
            raise InvalidResult(path_of(root, result.key), "has other examples than the rest")
    labels = evaluated[0].labels
    predictions = np.stack([each.predictions for each in evaluated], axis=1)
    score = _score_of(results, evaluated[0].kind)
    random = np.random.default_rng([0, number])
    size = len(predictions)
    resampled = [
        score(counts, predictions, labels) for counts in bootstrap.draws(random, size, resamples)
    ]
    return Kept(
        100 * score(np.ones((1, size)), predictions, labels)[0],
        100 * np.concatenate(resampled).T,
        evaluated[0].examples,
        size,
    )


@dataclass(frozen=True)
class _Evaluated:
    """One result's predictions on the first split, as its score needs them."""

    kind: type[Predictions]
    examples: str
    labels: NDArray[Any]
    predictions: NDArray[Any]


def _evaluated(root: Path, result: TaskResult) -> _Evaluated:
    predictions = read_any_predictions(root, result)
    if isinstance(predictions, AnsweredQuestions):  # each question's F1, whose mean is the score
        examples = hash_of(list(predictions.ids), 16)
        return _Evaluated(AnsweredQuestions, examples, predictions.f1, predictions.f1)
    if isinstance(predictions, TaggedSentences):
        return _entities_in(predictions)
    if not isinstance(predictions, ClassPredictions):
        kind = type(predictions).__name__
        raise InvalidResult(path_of(root, result.key), f"has no score per example ({kind})")
    if _averages(result):
        return _right_in_all_splits(root, result, predictions)
    is_regression = predictions.logits.shape[1] == 1
    ids, labels, predicted = _first_split(predictions, is_regression=is_regression)
    return _Evaluated(ClassPredictions, hash_of([ids, labels.tolist()], 16), labels, predicted)


def _entities_in(predictions: TaggedSentences) -> _Evaluated:
    """Return the counts of each sentence of the first split, which all metrics are made of."""
    rows = [row for row, split in enumerate(predictions.split) if split == predictions.split[0]]
    ids, gold, tags = (
        [of_all[row] for row in rows]
        for of_all in (predictions.ids, predictions.gold, predictions.tags)
    )
    counts = all_counts(gold, tags)
    return _Evaluated(TaggedSentences, hash_of([ids, gold], 16), counts[:, 2], counts)


def _averages(result: TaskResult) -> bool:
    return any(task.averages for task in TASKS if task.name == result.task)


def _right_in_all_splits(
    root: Path, result: TaskResult, predictions: ClassPredictions
) -> _Evaluated:
    """Return for each example the share of splits in which the answer is right.

    The splits are translations of one another, so an example is drawn in all of them at once, and
    the mean of these shares is the mean of the splits' accuracies.
    """
    splits = np.asarray(predictions.split)
    answers, labels = predictions.logits.argmax(axis=1), np.asarray(predictions.labels)
    right = [(answers == labels)[splits == name] for name in dict.fromkeys(predictions.split)]
    if len({len(each) for each in right}) > 1:
        raise InvalidResult(path_of(root, result.key), "has splits of unequal sizes")
    examples = hash_of([list(predictions.split), list(predictions.ids), labels.tolist()], 16)
    share = np.mean(right, axis=0)
    return _Evaluated(AnsweredQuestions, examples, share, share)


_Score = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], NDArray[Any]]
"""The scores, [resamples, seeds], of counts, predictions and labels."""


def _score_of(results: Sequence[TaskResult], predictions: type[Predictions]) -> _Score:
    if predictions is AnsweredQuestions:  # a number per example, whose mean is the score
        return lambda counts, f1, _labels: (counts @ f1) / counts.sum(axis=1)[:, None]
    return partial(bootstrap.metric_scores, primary_metrics(results))


def primary_metrics(results: Sequence[TaskResult]) -> tuple[Metric, ...]:
    """Return the metrics whose mean is the score of a task's results.

    The results of a custom task record them. Older ones record all metrics, the primary ones first,
    but not how many these are: as many as have means nearest to the scores of all seeds.
    """
    first = results[0]
    for task in TASKS:
        if task.name == first.task:
            return task.primary
    if recorded := first.data.get("primary"):
        return tuple(recorded)
    measures: list[Metric] = list(first.settings.task.get("measures", ()))
    choices = [tuple(measures[:count]) for count in range(1, len(measures) + 1)]
    return min(choices, key=lambda names: sum(_misfit(result, names) for result in results))


def _misfit(result: TaskResult, names: Sequence[Metric]) -> float:
    """Return how far the mean of some metrics is from a result's score; infinite if one lacks."""
    saved = next(each for each in result.scores.values() if each.get("score") == result.score)
    values = [saved.get(name) for name in names]
    if result.score is None or None in values:
        return math.inf
    return abs(sum(value or 0.0 for value in values) / len(values) - result.score)


def _hashes(cell: Cell) -> dict[str, str]:
    """Return the hashes of the counted results' predictions, by the result's key."""
    return {result.key: str(result.saved_predictions["sha256"]) for result in cell.counted_results}


def _read_cached(path: Path, made_of: Mapping[str, Any]) -> Interval | None:
    """Return the interval cached for exactly these inputs; None for any other or a torn file."""
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
        if cached["made_of"] != made_of:
            return None
        if cached["percent"] is None:
            return Interval(None, str(cached["why"]))
        low, high = map(float, cached["percent"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Interval((low, high)) if low <= high else None


def _pair_predictions(task: str, student: Cell, other: Cell, root: Path) -> PairedPredictions:
    """Return both rows' predictions on the task's first split, a column per seed.

    Raises:
        InvalidResult: a result's predictions are damaged, or of other examples.
    """
    first: tuple[list[str], NDArray[Any]] | None = None
    columns: list[list[NDArray[Any]]] = []
    for cell in (student, other):
        columns.append([])
        for result in cell.counted_results:
            predictions = read_predictions(root, result, ClassPredictions)
            is_regression = task_named(task).is_regression
            ids, labels, predicted = _first_split(predictions, is_regression=is_regression)
            first = first or (ids, labels)
            if ids != first[0] or not np.array_equal(labels, first[1]):
                raise InvalidResult(path_of(root, result.key), "has other examples than the rest")
            columns[-1].append(predicted)
    assert first is not None
    ours, theirs = (np.stack(of_cell, axis=1) for of_cell in columns)
    return PairedPredictions(task_named(task), first[1], ours, theirs)


def _first_split(
    predictions: ClassPredictions, *, is_regression: bool
) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """Return ids, labels and predictions of the first split: MNLI's matched part, no test set."""
    splits = np.asarray(predictions.split)
    in_first = splits == splits[0]
    logits = predictions.logits[in_first]
    predicted = logits[:, 0] if is_regression else logits.argmax(axis=1)
    ids = [name for name, chosen in zip(predictions.ids, in_first, strict=True) if chosen]
    return ids, np.asarray(predictions.labels)[in_first], predicted
