"""Two rows side by side: the tasks that both have, and how sure a comparison is. Imports no torch.

An interval is made once from the per-example predictions and kept under `intervals/` by the hash of
all that it depends on.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from angels_share.files import hash_of, write_json
from eval_harness.results.predictions import ClassPredictions
from eval_harness.results.record import TaskResult
from eval_harness.results.store import InvalidResult, path_of, read_predictions
from eval_harness.tables import bootstrap as intervals
from eval_harness.tables.row import Cell, Row
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import GLUE

INTERVALS = "intervals"

Comparison = Literal["shares", "changes"]
_COMPARISONS: Mapping[Comparison, Callable[[Sequence[intervals.Paired], int], intervals.Interval]]
_COMPARISONS = {"shares": intervals.shares, "changes": intervals.changes}


def common_tasks(row: Row, other: Row) -> tuple[str, ...]:
    """GLUE's tasks that both were judged on, with the same examples, read and scored alike."""
    return tuple(
        task
        for task in GLUE
        if task in row.cells
        and task in other.cells
        and row.cells[task].counted
        and other.cells[task].counted
        and row.cells[task].data == other.cells[task].data
        and _scored_alike(row.cells[task], other.cells[task])
    )


_SCORING = ("version", "labels", "measures", "columns")
"""Settings of a task; the first results don't name all of them."""


def _scored_alike(cell: Cell, other: Cell) -> bool:
    ours, theirs = map(_scoring, (cell, other))
    return all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())


def _scoring(cell: Cell) -> dict[str, Any]:
    tasks = (result.settings.task for result in cell.results)
    return {name: task[name] for task in tasks for name in _SCORING if name in task}


def total(row: Row, tasks: Sequence[str]) -> float:
    """The sum of the medians."""
    return sum(row.cells[task].median or 0.0 for task in tasks)


def kept_interval(
    comparison: Comparison, row: Row, other: Row, tasks: Sequence[str], root: Path
) -> intervals.Interval:
    """The kept interval of exactly these predictions, or a new one, or why there is none."""
    try:
        return _interval(comparison, row, other, tasks, root)
    except InvalidResult as error:
        name = error.path.relative_to(root).as_posix()
        return intervals.Interval(None, f"{name} {error.reason}")


def _interval(
    comparison: Comparison, row: Row, other: Row, tasks: Sequence[str], root: Path
) -> intervals.Interval:
    inputs = {task: [_inputs(each.cells[task]) for each in (row, other)] for task in tasks}
    recipe: dict[str, Any] = {"version": intervals.RECIPE, "resamples": intervals.RESAMPLES}
    if comparison != "shares":  # the first ones that were kept were all of these
        recipe["comparison"] = comparison
    made_of = {"recipe": recipe, "inputs": inputs}
    name = hash_of(made_of, 16)
    path = root / INTERVALS / f"{name}.json"
    kept = _kept(path, made_of)
    if kept is None:
        pairs = [_paired(task, row.cells[task], other.cells[task], root) for task in tasks]
        kept = _COMPARISONS[comparison](pairs, int(name, 16))
        write_json(path, {"made_of": made_of, **asdict(kept)})
    return kept


def _inputs(cell: Cell) -> dict[str, str]:
    """The results that count and the hashes of their predictions."""
    return {result.key: str((result.predictions or {})["sha256"]) for result in _counted(cell)}


def _counted(cell: Cell) -> list[TaskResult]:
    pairs = zip(cell.results, cell.scores, strict=True)
    return [result for result, score in pairs if score is not None]


def _kept(path: Path, made_of: Mapping[str, Any]) -> intervals.Interval | None:
    """What was kept of exactly these inputs; whatever else is there is made again."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["made_of"] != made_of:
            return None
        if kept["percent"] is None:
            return intervals.Interval(None, str(kept["why"]))
        low, high = map(float, kept["percent"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return intervals.Interval((low, high)) if low <= high else None


def _paired(task: str, student: Cell, other: Cell, root: Path) -> intervals.Paired:
    """All seeds' predictions for the examples of the task's first split."""
    first: tuple[list[str], NDArray[Any]] | None = None
    columns: list[list[NDArray[Any]]] = []
    for cell in (student, other):
        columns.append([])
        for result in _counted(cell):
            ids, labels, said = _said(task, read_predictions(root, result, ClassPredictions))
            first = first or (ids, labels)
            if ids != first[0] or not np.array_equal(labels, first[1]):
                raise InvalidResult(
                    path_of(root, result.key), "judges other examples than the rest"
                )
            columns[-1].append(said)
    assert first is not None
    ours, theirs = (np.stack(each, axis=1) for each in columns)
    return intervals.Paired(task_named(task), first[1], ours, theirs)


def _said(task: str, predictions: ClassPredictions) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """Ids, labels and predictions of the first split."""
    splits = np.asarray(predictions.split)
    here = splits == splits[0]
    logits = predictions.logits[here]
    said = logits[:, 0] if task_named(task).is_regression else logits.argmax(axis=1)
    ids = [name for name, chosen in zip(predictions.ids, here, strict=True) if chosen]
    return ids, np.asarray(predictions.labels)[here], said
