"""Comparison of two rows: their common tasks and a cached bootstrap interval. Imports no torch.

An interval is computed once from the per-example predictions and cached under `intervals/` by the
hash of everything that it depends on.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from angels_share.files import hash_of, write_json
from eval_harness.results.predictions import ClassPredictions
from eval_harness.results.store import InvalidResult, path_of, read_predictions
from eval_harness.tables import bootstrap
from eval_harness.tables.bootstrap import Interval, PairedPredictions
from eval_harness.tables.differences import RESAMPLES, Scores
from eval_harness.tables.row import Cell, Row
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import GLUE

INTERVALS = "intervals"

Comparison = Literal["shares", "changes", "scores"]
_COMPARISONS: Mapping[Comparison, Callable[[Sequence[PairedPredictions], int], Interval]] = {
    "shares": bootstrap.share_interval,
    "changes": bootstrap.change_interval,
    "scores": bootstrap.score_interval,
}


def common_tasks(row: Row, other: Row) -> tuple[str, ...]:
    """Return the GLUE tasks that both have scores for, on the same examples and scored alike."""
    return tuple(
        task
        for task in GLUE
        if task in row.cells
        and task in other.cells
        and row.cells[task].counted_scores
        and other.cells[task].counted_scores
        and row.cells[task].data_hash == other.cells[task].data_hash
        and _scored_alike(row.cells[task], other.cells[task])
    )


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
    cells = [row.cells[task] for task in tasks]
    seeds = set.intersection(*({result.seed for result in cell.counted_results} for cell in cells))
    points: list[NDArray[Any]] = []
    resampled: list[NDArray[Any]] = []
    examples = 0
    for number, (task, cell) in enumerate(zip(tasks, cells, strict=True)):
        chosen = [result for result in cell.counted_results if result.seed in seeds]
        part = replace(cell, results=tuple(chosen), scores=tuple(result.score for result in chosen))
        paired = _pair_predictions(task, part, part, root)
        size = len(paired.labels)
        random = np.random.default_rng([0, number])
        every = bootstrap.draws(random, size, RESAMPLES)
        scores = [
            bootstrap.task_scores(paired.task, counts, paired.student, paired.labels)
            for counts in (np.ones((1, size)), *every)
        ]
        points.append(scores[0][0])
        resampled.append(np.concatenate(scores[1:]).T)
        examples += size
    return Scores(
        100 * np.mean(points, axis=0),
        100 * np.mean(resampled, axis=0),
        tuple(sorted(seeds)),
        examples,
    )


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
            ids, labels, predicted = _first_split(task, predictions)
            first = first or (ids, labels)
            if ids != first[0] or not np.array_equal(labels, first[1]):
                raise InvalidResult(path_of(root, result.key), "has other examples than the rest")
            columns[-1].append(predicted)
    assert first is not None
    ours, theirs = (np.stack(of_cell, axis=1) for of_cell in columns)
    return PairedPredictions(task_named(task), first[1], ours, theirs)


def _first_split(
    task: str, predictions: ClassPredictions
) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """Return ids, labels and predictions of the first split: MNLI's matched part, no test set."""
    splits = np.asarray(predictions.split)
    in_first = splits == splits[0]
    logits = predictions.logits[in_first]
    predicted = logits[:, 0] if task_named(task).is_regression else logits.argmax(axis=1)
    ids = [name for name, chosen in zip(predictions.ids, in_first, strict=True) if chosen]
    return ids, np.asarray(predictions.labels)[in_first], predicted
