"""Data behind the report's charts, scores in percent. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angels_share.ablations import ABLATIONS
from angels_share.names import short_name_of
from eval_harness.results.record import TaskResult
from eval_harness.results.speed import Session, Speeds, Timed, ratio
from eval_harness.rows.row import Row
from eval_harness.tables.cells import (
    columns_of,
    count_of,
    custom_tasks_of,
    published_name,
    tasks_of_mean,
    title_of,
    titles_of,
)
from eval_harness.tables.comparison import cached_interval, sum_of_medians
from eval_harness.tables.paper import corrected
from eval_harness.tables.probed import Probed
from eval_harness.tables.retained import ComparedRow
from eval_harness.tables.table0 import title_of_measure
from eval_harness.tables.table2 import TASKS_OF_TABLE2
from eval_harness.tables.table4 import Change
from eval_harness.tasks.registry import ENTITIES, GLUE, MISMATCHED, TASKS, XNLI

ALL = "all tasks"


@dataclass(frozen=True)
class RetainedShare:
    """A student's percentage of its teacher's score on one task, or on all that both have."""

    label: str
    teacher: str
    task: str
    percent: float
    interval: tuple[float, float] | None


def retained_shares(compared: Sequence[ComparedRow], root: Path) -> list[RetainedShare]:
    """Return all shares row by row; the one over all tasks is Table 1's."""
    return [share for each in compared for share in _retained_shares(each, root)]


def _retained_shares(compared: ComparedRow, root: Path) -> list[RetainedShare]:
    retained, row = compared.retained, compared.row
    if retained is None:
        return []
    teacher = retained.teacher
    shares = []
    if len(retained.tasks) > 1:
        shares.append(
            RetainedShare(row.short, teacher.short, ALL, retained.share, retained.interval)
        )
    for task in retained.tasks:
        of_teacher = sum_of_medians(teacher, (task,))
        if of_teacher > 0:
            percent = 100 * sum_of_medians(row, (task,)) / of_teacher
            interval = cached_interval("shares", row, teacher, (task,), root).percent
            shares.append(
                RetainedShare(row.short, teacher.short, title_of(task), percent, interval)
            )
    return shares


@dataclass(frozen=True)
class SeedScores:
    """A row's scores on a task by seed, and which of these runs were degenerate."""

    label: str
    task: str
    scores: tuple[float, ...]
    degenerate: tuple[bool, ...]
    median: float


FURTHER_TASKS = tuple(task.name for task in TASKS if task.table in (ENTITIES, XNLI))
"""The built-in tasks of neither Table 1 nor Table 2."""
SECOND_CELLS = {MISMATCHED, *(task.second.cell for task in TASKS if task.second)}
"""The cells that show another measure of a task than its score."""
_SCORE_TITLES = {"squad": "SQuAD F1", "squad_v2": "SQuAD 2.0 F1"}
"""Titles of scores that the tables show beside another metric of the same task."""


def seed_scores(rows: Sequence[Row]) -> list[SeedScores]:
    """Return the scores task by task, in the tables' order, without MNLI's mismatched part."""
    titles = {**titles_of(rows), **_SCORE_TITLES}
    tasks = [task for task in tasks_in_order(rows) if task != MISMATCHED]
    cells = (
        (row.short, task, row.cells[task]) for task in tasks for row in rows if task in row.cells
    )
    return [
        SeedScores(
            label,
            titles[task],
            tuple(100 * score for score in cell.counted_scores),
            tuple(is_degenerate(result) for result in cell.counted_results),
            100 * cell.median,
        )
        for label, task, cell in cells
        if cell.median is not None
    ]


def tasks_in_order(rows: Sequence[Row]) -> list[str]:
    """Return the cells of all tables in their order, last those of custom tasks."""
    return [*columns_of(rows), *TASKS_OF_TABLE2, *FURTHER_TASKS, *custom_tasks_of(rows)]


def is_degenerate(result: TaskResult) -> bool:
    """Return whether a run gave one answer to everything, or nearly one number."""
    return any(mark.startswith("degenerate") for mark in result.marks)


@dataclass(frozen=True)
class ProbePoints:
    """A row's scores of one measure of `probe`.

    Attributes:
        label: the row's label.
        measure: the measure's title, with its direction.
        digits: decimals to print.
        scores: the score of each pre-training seed.
        half: half of the 95 % interval of the difference from the reference, if there is one.
    """

    label: str
    measure: str
    digits: int
    scores: Sequence[float]
    half: float | None

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return sum(self.scores) / len(self.scores)


def probe_points(probed: Probed) -> list[ProbePoints]:
    """Return the points of every row and measure, those that no loss trained first."""
    points = []
    for measure in sorted(probed.measures, key=lambda each: each.trained):
        for label, scores in probed.scores[measure.name].items():
            change = probed.differences.get((measure.name, label))
            half = change.half if change else None
            values = [float(point) for point in scores.points]
            points.append(
                ProbePoints(label, title_of_measure(measure), measure.digits, values, half)
            )
    return points


@dataclass(frozen=True)
class CostPoint:
    """A model's score and its cost: its size or its speed."""

    label: str
    score: float
    cost: float
    is_paper: bool = False


@dataclass(frozen=True)
class CostPoints:
    """Scores against size and speed, all over the same tasks.

    Attributes:
        tasks: the tasks of every score.
        sizes: points whose cost is in millions of parameters.
        speeds: points whose cost is how many times as fast as `reference` the model is.
        reference: the name of the session's first model.
        threads: the number of threads of the times.
        titles: the titles of the tasks.
    """

    tasks: tuple[str, ...] = ()
    sizes: Sequence[CostPoint] = ()
    speeds: Sequence[CostPoint] = ()
    reference: str = ""
    threads: int = 0
    titles: Sequence[str] = ()

    @property
    def has_ours(self) -> bool:
        """Whether any point is ours rather than the paper's."""
        return any(not point.is_paper for point in (*self.sizes, *self.speeds))


def cost_points(paper: Mapping[str, Any], rows: Sequence[Row], speeds: Speeds) -> CostPoints:
    """Return a point for every row with a score and a size or a speed.

    Speeds are of one session, since only these compare. The paper's three models are added, their
    speeds only where ours are ratios to BERT-base, too.

    Args:
        paper: the published numbers.
        rows: our rows.
        speeds: our sessions.
    """
    tasks = _tasks_to_compare(rows)
    named = titles_of(rows)
    titles = [_SCORE_TITLES.get(task, named[task]) for task in tasks]
    scores = {row.short: score for row in rows if (score := _score_over(row, tasks)) is not None}
    scored = [row for row in rows if row.short in scores]
    # On made-up data the paper's scores say nothing beside ours.
    stand_in = any("name" in result.data for row in rows for result in row.results)
    paper_sizes, paper_speeds = ([], []) if stand_in else _published(paper, tasks)
    sizes = [
        CostPoint(row.short, scores[row.short], timed.parameters / 1e6)
        for row in scored
        if (timed := newest_timed(row, speeds)) is not None
    ]
    session = session_to_compare(scored, speeds)
    if session is None:
        return CostPoints(tasks, [*paper_sizes, *sizes], titles=titles)
    reference, threads = session.models[0], session.setup.threads[0]
    times = [
        CostPoint(
            row.short,
            scores[row.short],
            ratio(reference.timing(threads), timed.timing(threads)).value,
        )
        for row in scored
        if (timed := timed_in(row, session)) is not None
    ]
    if short_name_of(reference.name) is short_name_of("bert"):
        times = [*paper_speeds, *times]
    return CostPoints(tasks, [*paper_sizes, *sizes], times, reference.name, threads, titles)


def _tasks_to_compare(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the largest set of tasks that two rows share, so that all means are over it.

    They are of GLUE, or if no row has any of these, IMDb, SQuAD and custom ones.
    """
    among: Sequence[str] = GLUE
    if not any(map(tasks_of_mean, rows)):
        among = [task for task in tasks_in_order(rows) if task not in SECOND_CELLS]
    sets = [frozenset(tasks_of_mean(row, among)) for row in rows]
    shared = [tasks for tasks in sets if sum(tasks <= other for other in sets) > 1]
    largest = max(
        shared or sets, key=lambda tasks: (len(tasks), sorted(tasks)), default=frozenset()
    )
    return tuple(task for task in among if task in largest)


def _score_over(row: Row, tasks: Sequence[str]) -> float | None:
    """Return a row's mean over these tasks, if it has them all."""
    if not tasks or tasks_of_mean(row, tasks) != tuple(tasks):
        return None
    return 100 * sum_of_medians(row, tasks) / len(tasks)


def timed_in(row: Row, session: Session) -> Timed | None:
    """Return a row's model in a session; a published one may have been timed by its config."""
    for model in session.models:
        if model.key in row.keys:
            return model
    published = short_name_of(row.model.name) if row.model.revision is not None else None
    return next(
        (model for model in session.models if published and short_name_of(model.name) is published),
        None,
    )


def newest_timed(row: Row, speeds: Speeds) -> Timed | None:
    """Return a row's model in the newest session that has it."""
    timed = (timed_in(row, session) for session in reversed(speeds.sessions))
    return next((model for model in timed if model is not None), None)


def session_to_compare(rows: Sequence[Row], speeds: Speeds) -> Session | None:
    """Return the session with the most scored models, at least two; the newest of such."""
    counts = {
        number: len({model.key for row in rows if (model := timed_in(row, session)) is not None})
        for number, session in enumerate(speeds.sessions)
    }
    best = max(counts, key=lambda number: (counts[number], number), default=None)
    return speeds.sessions[best] if best is not None and counts[best] > 1 else None


def _published(
    paper: Mapping[str, Any], tasks: Sequence[str]
) -> tuple[list[CostPoint], list[CostPoint]]:
    """Return sizes and speeds of the paper's three models: corrected scores, times BERT-base's."""
    if not tasks or not set(tasks) <= set(GLUE):
        return [], []
    sizes, speeds = [], []
    models = paper["table3"]["rows"]
    for name, row in models.items():
        scores = corrected(paper, "table1", name)
        score = sum(scores[task] for task in tasks) / len(tasks)
        label, speed = published_name(name), models["BERT-base"]["seconds"] / row["seconds"]
        sizes.append(CostPoint(label, score, row["parameters_millions"], is_paper=True))
        speeds.append(CostPoint(label, score, speed, is_paper=True))
    return sizes, speeds


@dataclass(frozen=True)
class AblationEffect:
    """The change of the score, in points, when something is left out of the loss.

    Attributes:
        label: the row from which it was left out.
        left_out: its name in `ABLATIONS`.
        points: the change of the mean over as many `tasks`.
        interval: the interval of `points`.
        n: the seeds behind that row's medians.
        full: the row of the full loss.
        n_full: the seeds behind that one's medians.
        tasks: the number of tasks that both have.
    """

    label: str
    left_out: str
    points: float
    interval: tuple[float, float] | None
    n: str
    full: str
    n_full: str
    tasks: int


def ablation_effects(changes: Sequence[Change]) -> list[AblationEffect]:
    """Return the changes that are known, in the order of the paper's table."""
    order = {name: index for index, name in enumerate(ABLATIONS)}
    effects = [
        AblationEffect(
            change.row.short,
            change.left_out,
            change.points,
            change.interval,
            _count(change.row, change.tasks),
            change.full.short,
            _count(change.full, change.tasks),
            len(change.tasks),
        )
        for change in changes
        if change.points is not None and change.full is not None and change.left_out in order
    ]
    return sorted(effects, key=lambda effect: (order[effect.left_out], effect.label))


def _count(row: Row, tasks: Sequence[str]) -> str:
    return count_of([row.cells[task] for task in tasks])
