"""What the report's figures show: results as numbers to draw, percentages throughout. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angels_share.ablations import ABLATIONS
from angels_share.names import known_as
from eval_harness.results.record import TaskResult
from eval_harness.results.speed import Session, Speeds, Timed, ratio
from eval_harness.tables.cells import columns_of, count_of, published_name, tasks_of_mean, title_of
from eval_harness.tables.comparison import kept_interval, total
from eval_harness.tables.paper import corrected
from eval_harness.tables.row import Cell, Row
from eval_harness.tables.table1 import Line
from eval_harness.tables.table2 import TASKS_OF_TABLE2
from eval_harness.tables.table4 import Change
from eval_harness.tasks.registry import GLUE, MISMATCHED

ALL = "all tasks"


@dataclass(frozen=True)
class Share:
    """What a row kept of its teacher's score on one task, or on all that both have."""

    label: str
    teacher: str
    task: str
    percent: float
    interval: tuple[float, float] | None


def shares_of(lines: Sequence[Line], root: Path) -> list[Share]:
    """All shares row by row; the one over all tasks is that of Table 1."""
    return [share for line in lines for share in _shares(line, root)]


def _shares(line: Line, root: Path) -> list[Share]:
    kept, label = line.kept, line.row.label
    if kept is None:
        return []
    teacher = kept.teacher.label
    whole = [Share(label, teacher, ALL, kept.share, kept.interval)] if len(kept.tasks) > 1 else []
    return whole + [
        Share(label, teacher, title_of(task), *_kept_of(task, line.row, kept.teacher, root))
        for task in kept.tasks
        if total(kept.teacher, (task,)) > 0
    ]


def _kept_of(
    task: str, row: Row, teacher: Row, root: Path
) -> tuple[float, tuple[float, float] | None]:
    percent = 100 * total(row, (task,)) / total(teacher, (task,))
    return percent, kept_interval("shares", row, teacher, (task,), root).percent


@dataclass(frozen=True)
class Seeds:
    """The scores that a row's seeds gave on a task, and which of them gave one answer to all."""

    label: str
    task: str
    scores: tuple[float, ...]
    degenerate: tuple[bool, ...]
    median: float


_OF_TWO_COLUMNS = {"squad": "SQuAD F1", "squad_v2": "SQuAD 2.0 F1"}
"""What a score is called where the tables have another measure beside it."""


def seeds_of(rows: Sequence[Row]) -> list[Seeds]:
    """Task by task, in the order of the tables; MNLI's second part comes from the same runs."""
    tasks = [task for task in (*columns_of(rows), *TASKS_OF_TABLE2) if task != MISMATCHED]
    cells = ((row.label, task, row.cells[task]) for task in tasks for row in rows
             if task in row.cells)  # fmt: skip
    return [
        Seeds(
            label,
            _OF_TWO_COLUMNS.get(task, title_of(task)),
            tuple(100 * each for each in cell.counted),
            tuple(_is_degenerate(result) for result in _counted(cell)),
            100 * cell.median,
        )
        for label, task, cell in cells
        if cell.median is not None
    ]


def _counted(cell: Cell) -> list[TaskResult]:
    pairs = zip(cell.results, cell.scores, strict=True)
    return [result for result, score in pairs if score is not None]


def _is_degenerate(result: TaskResult) -> bool:
    return any(mark.startswith("degenerate") for mark in result.marks)


@dataclass(frozen=True)
class Place:
    """A model's score, and what it costs: its size, or how many times as fast as another it is."""

    label: str
    score: float
    cost: float
    is_paper: bool = False


@dataclass(frozen=True)
class Places:
    """Score against size and speed, all scores over the same tasks."""

    tasks: tuple[str, ...] = ()
    sizes: Sequence[Place] = ()
    """In millions of parameters."""
    speeds: Sequence[Place] = ()
    """In times as fast as `first` on as many `threads`."""
    first: str = ""
    threads: int = 0

    @property
    def has_ours(self) -> bool:
        """Whether there is more than the paper's."""
        return any(not place.is_paper for place in (*self.sizes, *self.speeds))


def places_of(paper: Mapping[str, Any], rows: Sequence[Row], measured: Speeds) -> Places:
    """Every row with a score and a size; speeds are those of one session, since only they compare.

    The paper's three stand beside them, its speeds only where ours are ratios to BERT-base too.
    """
    tasks = _tasks_to_compare(rows)
    scores = {row.label: score for row in rows if (score := _score_over(row, tasks)) is not None}
    judged = [row for row in rows if row.label in scores]
    published = _published(paper, tasks)
    sizes = [
        Place(row.label, scores[row.label], found.parameters / 1e6)
        for row in judged
        if (found := _newest(row, measured)) is not None
    ]
    session = _to_compare(judged, measured)
    if session is None:
        return Places(tasks, [*published["sizes"], *sizes])
    first, threads = session.models[0], session.setup.threads[0]
    speeds = [
        Place(row.label, scores[row.label], _times(session, found, threads))
        for row in judged
        if (found := _timed(row, session)) is not None
    ]
    beside = published["speeds"] if known_as(first.name) is known_as("bert") else []
    return Places(tasks, [*published["sizes"], *sizes], [*beside, *speeds], first.name, threads)


def _tasks_to_compare(rows: Sequence[Row]) -> tuple[str, ...]:
    """The most of GLUE's tasks that two rows share, so that no row is better for an easier mean."""
    sets = [frozenset(tasks_of_mean(row)) for row in rows]
    shared = [each for each in sets if sum(each <= other for other in sets) > 1]
    largest = max(shared or sets, key=lambda each: (len(each), sorted(each)), default=frozenset())
    return tuple(task for task in GLUE if task in largest)


def _score_over(row: Row, tasks: Sequence[str]) -> float | None:
    """A row's mean over these tasks, if it has them all."""
    if not tasks or not set(tasks) <= set(tasks_of_mean(row)):
        return None
    return 100 * total(row, tasks) / len(tasks)


def _timed(row: Row, session: Session) -> Timed | None:
    """A row's model in a session; a published one may have been timed by its config alone."""
    for model in session.models:
        if model.key == row.model.key:
            return model
    named = known_as(row.model.name) if row.model.revision is not None else None
    return next(
        (model for model in session.models if named and known_as(model.name) is named), None
    )


def _newest(row: Row, measured: Speeds) -> Timed | None:
    found = (_timed(row, session) for session in reversed(measured.sessions))
    return next((model for model in found if model is not None), None)


def _to_compare(rows: Sequence[Row], measured: Speeds) -> Session | None:
    """The newest session of those with the most models that have a score; none of one alone."""
    counts = {
        number: len({model.key for row in rows if (model := _timed(row, session)) is not None})
        for number, session in enumerate(measured.sessions)
    }
    best = max(counts, key=lambda number: (counts[number], number), default=None)
    return measured.sessions[best] if best is not None and counts[best] > 1 else None


def _times(session: Session, model: Timed, threads: int) -> float:
    return ratio(session.models[0].timing(threads), model.timing(threads)).value


def _published(paper: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, list[Place]]:
    """The paper's three over the same tasks, its misprint corrected; as fast as its BERT-base."""
    if not tasks:
        return {"sizes": [], "speeds": []}
    table = paper["table3"]["rows"]
    slowest = table["BERT-base"]["seconds"]
    scores = {
        name: sum(corrected(paper, "table1", name)[task] for task in tasks) / len(tasks)
        for name in table
    }
    costs = {
        name: {"sizes": row["parameters_millions"], "speeds": slowest / row["seconds"]}
        for name, row in table.items()
    }
    return {
        what: [
            Place(published_name(name), scores[name], costs[name][what], is_paper=True)
            for name in table
        ]
        for what in ("sizes", "speeds")
    }


@dataclass(frozen=True)
class Loss:
    """What leaving something out changed, in points.

    Attributes:
        label: of the row from which it was left out.
        left_out: its name in `ABLATIONS`.
        points: of the mean over as many `tasks`.
        interval: of the points.
        n: the seeds behind that row's medians.
        full: of the row that it is compared with.
        n_full: the seeds behind that one's.
        tasks: how many both have.
    """

    label: str
    left_out: str
    points: float
    interval: tuple[float, float] | None
    n: str
    full: str
    n_full: str
    tasks: int


def losses_of(found: Sequence[Change]) -> list[Loss]:
    """The changes that are known, in the order of the paper's table."""
    places = list(ABLATIONS)
    known = [
        Loss(
            each.row.label,
            each.left_out,
            each.points,
            each.interval,
            _count(each.row, each.tasks),
            each.full.label,
            _count(each.full, each.tasks),
            len(each.tasks),
        )
        for each in found
        if each.points is not None and each.full is not None and each.left_out in places
    ]
    return sorted(known, key=lambda each: (places.index(each.left_out), each.label))


def _count(row: Row, tasks: Sequence[str]) -> str:
    return count_of([row.cells[task] for task in tasks])
