"""What a student kept of its teacher's score, and how sure that is. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from angels_share.names import known_as
from eval_harness.runs.run import Model
from eval_harness.tables.comparison import common_tasks, kept_interval, total
from eval_harness.tables.row import Row


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


def retained(row: Row, rows: Sequence[Row], root: Path) -> tuple[Retained | None, str]:
    """A row against its teacher's row; None where there is none, or nothing in common.

    Returns:
        What it kept; else why there is nothing to say, where rows are there that look like its
        teacher's.
    """
    likely = [
        other
        for other in rows
        if other is not row and _is_comparable(other, row) and common_tasks(row, other)
    ]
    candidates = _of_its_teacher(row, likely)
    best = _most_alike(row, candidates)
    if len(best) != 1:
        return None, _why_none(row, likely, best)
    (teacher,) = best
    tasks = common_tasks(row, teacher)
    ours, theirs = (total(each, tasks) for each in (row, teacher))
    if theirs <= 0:
        return None, ""
    interval = kept_interval("shares", row, teacher, tasks, root)
    return Retained(teacher, tasks, 100 * (ours / theirs), interval.percent, interval.why), ""


_SAME = ("recipe", "limit", "choose", "dtype")


def _is_comparable(other: Row, row: Row) -> bool:
    """Whether a row may be its teacher's: a model as it is, fine-tuned plainly.

    Another recipe, limit, choice of the epoch or dtype would compare two experiments.
    """
    if other.settings.get("method"):
        return False
    if any(other.settings.get(key) != row.settings.get(key) for key in _SAME):
        return False
    if method := row.settings.get("method"):
        return bool(other.model.key == method["options"].get("teacher_model"))
    return other.model.key != row.model.key and _may_have_taught(other.model, row.model)


def _may_have_taught(teacher: Model, student: Model) -> bool:
    """By its weights, else by its name; a published model's teacher is a published one."""
    if student.teacher is None:
        return False
    if _is_known_to_have_taught(teacher, student):
        return True
    if student.revision is not None and teacher.revision is None:
        return False
    known = known_as(student.teacher)
    return teacher.name == student.teacher or (
        known is not None and known_as(teacher.name) is known
    )


def _is_known_to_have_taught(teacher: Model, student: Model) -> bool:
    """Names alone prove little: a student's record keeps the last part of its teacher's path."""
    wanted = student.teacher_weights
    return wanted is not None and wanted in (teacher.weights, teacher.revision)


def _of_its_teacher(row: Row, likely: Sequence[Row]) -> list[Row]:
    """Those with the weights of its teacher; else those of which nobody knows the weights."""
    if row.settings.get("method") or row.model.teacher_weights is None:
        return list(likely)
    certain = [other for other in likely if _is_known_to_have_taught(other.model, row.model)]
    return certain or [
        other for other in likely if (other.model.weights or other.model.revision) is None
    ]


def _most_alike(row: Row, candidates: Sequence[Row]) -> list[Row]:
    """Of a single model's rows the one most like this row; all that fit where that isn't told.

    Other hyper-parameters are the next best thing to the same.
    """
    if len({other.model.key for other in candidates}) > 1:
        return list(candidates)
    likeness = [_likeness(other, row) for other in candidates]
    pairs = zip(candidates, likeness, strict=True)
    return [other for other, each in pairs if each == max(likeness)]


def _likeness(other: Row, row: Row) -> tuple[bool, bool, int, int]:
    keys = (row.settings.keys() | other.settings.keys()) - {"method"}
    alike = all(row.settings.get(key) == other.settings.get(key) for key in keys)
    of_a_time = other.part == row.part
    return alike, of_a_time, len(common_tasks(row, other)), len(other.results)


def _why_none(row: Row, likely: Sequence[Row], best: Sequence[Row]) -> str:
    if not likely:
        return ""
    if best:
        labels = "; ".join(other.label for other in best)
        return f"which of these is its teacher's row can't be told: {labels}"
    labels = "; ".join(other.label for other in likely)
    return f"its teacher had other weights ({str(row.model.teacher_weights)[:8]}) than {labels}"
