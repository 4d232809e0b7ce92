"""What a student kept of its teacher's score, and how sure that is. Imports no torch.

An interval is made once from the per-example predictions and kept under `intervals/` by the hash of
all that it depends on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angels_share.files import hash_of, write_json
from angels_share.names import known_as
from eval_harness import intervals
from eval_harness.results import Predictions, TaskResult
from eval_harness.rows import Cell, Row
from eval_harness.store import InvalidResult, path_of, read_logits
from eval_harness.tasks import GLUE, task_named

INTERVALS = "intervals"


@dataclass(frozen=True)
class Retained:
    """The share of the teacher's mean score, in percent, over the tasks that both have."""

    teacher: Row
    tasks: tuple[str, ...]
    share: float
    interval: tuple[float, float] | None
    why_no_interval: str = ""

    @property
    def tasks_of_one_seed(self) -> tuple[str, ...]:
        """Where the teacher's score is a single run's."""
        return tuple(task for task in self.tasks if len(self.teacher.cells[task].counted) == 1)


def retained(row: Row, rows: Sequence[Row], root: Path) -> Retained | None:
    """A row against its teacher's row; None where there is none, or nothing in common."""
    teacher = _teacher_of(row, rows)
    if teacher is None:
        return None
    tasks = _common(row, teacher)
    ours, theirs = (_total(each, tasks) for each in (row, teacher))
    if theirs <= 0:
        return None
    share = 100 * (ours / theirs)
    try:
        interval = _interval(row, teacher, tasks, root)
    except InvalidResult as error:
        name = error.path.relative_to(root).as_posix()
        interval = intervals.Interval(None, f"{name} {error.reason}")
    return Retained(teacher, tasks, share, interval.percent, interval.why)


def _total(row: Row, tasks: Sequence[str]) -> float:
    return sum(row.cells[task].median or 0.0 for task in tasks)


def _teacher_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """Of the rows of its teacher as it is, fine-tuned plainly, the one most like this row.

    Another recipe, limit, choice of the epoch or dtype would compare two experiments; other
    hyper-parameters are the next best thing to the same.
    """
    if row.model.teacher is None and not row.settings.get("method"):
        return None
    candidates = [
        other
        for other in rows
        if other is not row and _is_teacher(other, row) and _common(row, other)
    ]
    return max(candidates, key=lambda other: _likeness(other, row), default=None)


_SAME = ("recipe", "limit", "choose", "dtype")


def _is_teacher(other: Row, row: Row) -> bool:
    if other.settings.get("method"):
        return False
    if any(other.settings.get(key) != row.settings.get(key) for key in _SAME):
        return False
    if method := row.settings.get("method"):
        return bool(other.model.key == method["options"].get("teacher_model"))
    if other.model.key == row.model.key:
        return False
    known = known_as(str(row.model.teacher))
    return other.model.name == row.model.teacher or (
        known is not None and known_as(other.model.name) is known
    )


def _likeness(other: Row, row: Row) -> tuple[bool, bool, int, int, str]:
    keys = (row.settings.keys() | other.settings.keys()) - {"method"}
    alike = all(row.settings.get(key) == other.settings.get(key) for key in keys)
    of_a_time = other.part == row.part
    return alike, of_a_time, len(_common(row, other)), len(other.results), other.label


def _common(row: Row, other: Row) -> tuple[str, ...]:
    """GLUE's tasks that both were judged on, with the same examples."""
    return tuple(
        task
        for task in GLUE
        if task in row.cells
        and task in other.cells
        and row.cells[task].counted
        and other.cells[task].counted
        and row.cells[task].data == other.cells[task].data
    )


def _interval(row: Row, teacher: Row, tasks: Sequence[str], root: Path) -> intervals.Interval:
    """The kept interval of exactly these predictions, or a new one."""
    inputs = {task: [_inputs(each.cells[task]) for each in (row, teacher)] for task in tasks}
    recipe = {"version": intervals.RECIPE, "resamples": intervals.RESAMPLES}
    made_of = {"recipe": recipe, "inputs": inputs}
    name = hash_of(made_of, 16)
    path = root / INTERVALS / f"{name}.json"
    kept = _kept(path, made_of)
    if kept is None:
        pairs = [_paired(task, row.cells[task], teacher.cells[task], root) for task in tasks]
        kept = intervals.limits(pairs, int(name, 16))
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


def _paired(task: str, student: Cell, teacher: Cell, root: Path) -> intervals.Paired:
    """All seeds' predictions for the examples of the task's first split."""
    first: tuple[list[str], NDArray[Any]] | None = None
    columns: list[list[NDArray[Any]]] = []
    for cell in (student, teacher):
        columns.append([])
        for result in _counted(cell):
            ids, labels, said = _said(task, read_logits(root, result))
            first = first or (ids, labels)
            if ids != first[0] or not np.array_equal(labels, first[1]):
                raise InvalidResult(
                    path_of(root, result.key), "judges other examples than the rest"
                )
            columns[-1].append(said)
    assert first is not None
    ours, theirs = (np.stack(each, axis=1) for each in columns)
    return intervals.Paired(task_named(task), first[1], ours, theirs)


def _said(task: str, predictions: Predictions) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """Ids, labels and predictions of the first split."""
    splits = np.asarray(predictions.split)
    here = splits == splits[0]
    logits = predictions.logits[here]
    said = logits[:, 0] if task_named(task).is_regression else logits.argmax(axis=1)
    ids = [name for name, chosen in zip(predictions.ids, here, strict=True) if chosen]
    return ids, np.asarray(predictions.labels)[here], said
