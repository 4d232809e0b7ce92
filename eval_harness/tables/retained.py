"""How much of its teacher's score a student retained, and how certain that is. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from angels_share.names import short_name_of
from eval_harness.rows.row import Row
from eval_harness.runs.run import Model
from eval_harness.tables.comparison import cached_interval, common_tasks, sum_of_medians


@dataclass(frozen=True)
class Retained:
    """A student's percentage of its teacher's mean score, over the tasks that both have."""

    teacher: Row
    tasks: tuple[str, ...]
    share: float
    interval: tuple[float, float] | None
    why_no_interval: str = ""

    @property
    def tasks_of_one_seed(self) -> tuple[str, ...]:
        """The tasks on which the teacher's score is a single run's."""
        cells = self.teacher.cells
        return tuple(task for task in self.tasks if len(cells[task].counted_scores) == 1)


@dataclass(frozen=True)
class ComparedRow:
    """A row and what it retained of its teacher's score, or why that can't be told."""

    row: Row
    retained: Retained | None = None
    why_not: str = ""


def compare_with_teacher(row: Row, rows: Sequence[Row], root: Path) -> ComparedRow:
    """Compare a row with its teacher's row, if there is one with common tasks.

    `why_not` is filled in where some rows might be the teacher's, but none certainly is.

    Args:
        row: the student's row.
        rows: all rows.
        root: the results folder; a new interval is cached there.
    """
    likely = [
        other
        for other in rows
        if other is not row and _is_comparable(other, row) and common_tasks(row, other)
    ]
    candidates = _with_its_weights(row, likely)
    best = _most_alike(row, candidates)
    if len(best) != 1:
        return ComparedRow(row, why_not=_why_not(row, likely, best))
    (teacher,) = best
    tasks = common_tasks(row, teacher)
    ours, theirs = (sum_of_medians(one, tasks) for one in (row, teacher))
    if theirs <= 0:
        return ComparedRow(row)
    interval = cached_interval("shares", row, teacher, tasks, root)
    share = 100 * (ours / theirs)
    return ComparedRow(row, Retained(teacher, tasks, share, interval.percent, interval.why))


_SAME = ("recipe", "limit", "choose", "dtype")


def _is_comparable(other: Row, row: Row) -> bool:
    """Return whether a row may be the teacher's: that of a model fine-tuned without distillation.

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
    """Return whether weights or names agree; a published student has a published teacher."""
    if student.teacher is None:
        return False
    if _is_known_to_have_taught(teacher, student):
        return True
    if student.revision is not None and teacher.revision is None:
        return False
    known = short_name_of(student.teacher)
    return teacher.name == student.teacher or (
        known is not None and short_name_of(teacher.name) is known
    )


def _is_known_to_have_taught(teacher: Model, student: Model) -> bool:
    # Names prove little: a student's record has only the last part of its teacher's path.
    weights = student.teacher_weights
    return weights is not None and weights in (teacher.weights, teacher.revision)


def _with_its_weights(row: Row, likely: Sequence[Row]) -> list[Row]:
    """Return the rows with its teacher's weights; if none, those whose weights are unknown."""
    if row.settings.get("method") or row.model.teacher_weights is None:
        return list(likely)
    certain = [other for other in likely if _is_known_to_have_taught(other.model, row.model)]
    return certain or [
        other for other in likely if (other.model.weights or other.model.revision) is None
    ]


def _most_alike(row: Row, candidates: Sequence[Row]) -> list[Row]:
    """Return the rows most like this one if all are of one model, else all: nobody could choose."""
    if len({other.model.key for other in candidates}) > 1:
        return list(candidates)
    likeness = [_likeness(other, row) for other in candidates]
    pairs = zip(candidates, likeness, strict=True)
    return [other for other, degree in pairs if degree == max(likeness)]


def _likeness(other: Row, row: Row) -> tuple[bool, bool, int, int]:
    keys = (row.settings.keys() | other.settings.keys()) - {"method"}
    same_settings = all(row.settings.get(key) == other.settings.get(key) for key in keys)
    same_variant = other.variant == row.variant
    return same_settings, same_variant, len(common_tasks(row, other)), len(other.results)


def _why_not(row: Row, likely: Sequence[Row], best: Sequence[Row]) -> str:
    if not likely:
        return ""
    if best:
        labels = "; ".join(other.label for other in best)
        return f"any of these may be its teacher's row: {labels}"
    labels = "; ".join(other.label for other in likely)
    return f"its teacher had other weights ({str(row.model.teacher_weights)[:8]}) than {labels}"
