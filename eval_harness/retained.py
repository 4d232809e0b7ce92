"""What a student kept of its teacher's score, and how sure that is. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from angels_share.names import known_as
from eval_harness.pairs import common_tasks, kept_interval, total
from eval_harness.rows import Row


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
    tasks = common_tasks(row, teacher)
    ours, theirs = (total(each, tasks) for each in (row, teacher))
    if theirs <= 0:
        return None
    interval = kept_interval("shares", row, teacher, tasks, root)
    return Retained(teacher, tasks, 100 * (ours / theirs), interval.percent, interval.why)


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
        if other is not row and _is_teacher(other, row) and common_tasks(row, other)
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
    return alike, of_a_time, len(common_tasks(row, other)), len(other.results), other.label
