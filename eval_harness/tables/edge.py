"""From teacher to edge: a line of models, each made from the one before, and what each step cost.

Scores come from results, sizes from the line's own file, times from the last session of `speed`
that timed the most of its models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval_harness.intervals.bootstrap import Interval
from eval_harness.results.lineages import Generation, Line, Lines
from eval_harness.results.speed import Session, Timed, ratio
from eval_harness.results.store import Invalid
from eval_harness.rows.labels import footnotes_of, one_line
from eval_harness.rows.row import Row
from eval_harness.tables.cells import score_cell, titles_of
from eval_harness.tables.comparison import cached_interval, why_not_comparable
from eval_harness.tables.notes import cell_notes
from eval_harness.tables.table import Named, Number, Table, Value, stand_in_first

EDGE = "table-edge"
_STEP, _HOW, _SIZE, _PARAMETERS, _TIME = (
    "Step",
    "How it was made",
    "MB",
    "M parameters",
    "ms a pair",
)


@dataclass(frozen=True)
class Step:
    """A model of a line with what is known of it.

    Attributes:
        made: what the line's file says of it.
        row: its row of results; None where it has none any more.
        changes: the difference of its score from the first model's, in points, by task.
        intervals: the interval of each, over examples.
        timed: its times; None where no session has them.
    """

    made: Generation
    row: Row | None
    changes: Mapping[str, float]
    intervals: Mapping[str, Interval]
    timed: Timed | None

    def score(self, task: str) -> float | None:
        """Return its score in percent; None where it has none."""
        cell = self.row.cells.get(task) if self.row else None
        return None if cell is None or cell.median is None else 100 * cell.median


@dataclass(frozen=True)
class Edge:
    """A line, its steps, and the session that timed the most of them."""

    line: Line
    steps: tuple[Step, ...]
    session: Session | None

    @property
    def label(self) -> str:
        """What the line is called: its first and last model."""
        return f"{self.steps[0].made.label} to {self.steps[-1].made.label}"


def find_edges(
    lines: Lines, rows: Sequence[Row], sessions: Sequence[Session], root: Path
) -> list[Edge]:
    """Return every line with the results of its models.

    Args:
        lines: the lines of a results folder.
        rows: its rows.
        sessions: its sessions of `speed`, oldest first.
        root: the folder, where intervals are cached.
    """
    by_label = {row.label: row for row in rows}
    return [_edge(line, by_label, sessions, root) for line in lines.lines if line.models]


def _edge(line: Line, rows: Mapping[str, Row], sessions: Sequence[Session], root: Path) -> Edge:
    session = _session_of(line, sessions)
    timed = {each.key: each for each in session.models} if session else {}
    first = rows.get(line.models[0].row)
    steps = []
    for made in line.models:
        row = rows.get(made.row)
        changes: dict[str, float] = {}
        intervals: dict[str, Interval] = {}
        for task in line.tasks if row is not None and first is not None and row != first else ():
            assert row is not None
            assert first is not None
            if why_not_comparable(row, first, task) is None:
                medians = [each.cells[task].median or 0.0 for each in (row, first)]
                changes[task] = 100 * (medians[0] - medians[1])
                intervals[task] = cached_interval("changes", row, first, (task,), root)
        steps.append(Step(made, row, changes, intervals, timed.get(made.key)))
    return Edge(line, tuple(steps), session)


def _session_of(line: Line, sessions: Sequence[Session]) -> Session | None:
    keys = {each.key for each in line.models}
    known = [len(keys & {each.key for each in session.models}) for session in sessions]
    if not known or max(known) == 0:
        return None
    newest = len(known) - 1 - known[::-1].index(max(known))
    return sessions[newest]


def edge_tables(edges: Sequence[Edge], invalid: Sequence[Invalid]) -> list[Table]:
    """Return a table of each line.

    Args:
        edges: the lines.
        invalid: files of lines that don't count.
    """
    tables = []
    for number, edge in enumerate(edges, 1):
        notes = list(_notes(edge))
        if number == 1:
            notes += [f"Not counted: {file}." for file in invalid]
        rows = [each.row for each in edge.steps if each.row is not None]
        titles = titles_of(rows)
        columns = [_STEP, _HOW]
        for task in edge.line.tasks:
            columns += [titles[task], f"{titles[task]} vs first"]
        columns += [_SIZE, _PARAMETERS, *([_TIME] if edge.session else [])]
        name = EDGE if number == 1 else f"{EDGE}-{number}"
        cells = tuple(tuple(_cells(edge, step)) for step in edge.steps)
        title = one_line(f"From teacher to edge: {edge.label}")
        tables.append(
            Table(name, title, tuple(columns), cells, tuple(map(one_line, stand_in_first(notes))))
        )
    return tables


def _cells(edge: Edge, step: Step) -> Iterator[Value]:
    made = step.made
    yield Named(made.label, {"row": made.row, "sha256": made.sha256})
    yield made.what or None
    for task in edge.line.tasks:
        yield score_cell(step.row, task) if step.row and task in step.row.cells else None
        yield _change(step, task)
    yield None if made.bytes is None else Number(f"{made.bytes / 1e6:.1f}", made.bytes)
    count = made.parameters
    yield None if count is None else Number(f"{count / 1e6:.2f}", count)
    if edge.session:
        yield _time(edge, step)


def _change(step: Step, task: str) -> Value:
    if task not in step.changes:
        return None
    change, limits = step.changes[task], step.intervals[task].percent
    if limits is None:
        return Number(f"{change:+.1f}", change)
    low, high = limits
    more = {"low": low, "high": high}
    return Number(f"{change:+.1f} ({low:+.1f} to {high:+.1f})", change, more)


def _time(edge: Edge, step: Step) -> Value:
    if step.timed is None or edge.session is None:
        return None
    threads = edge.session.setup.threads[0]
    timing = step.timed.timing(threads)
    first = edge.steps[0].timed
    if first is None or first is step.timed:
        return Number(f"{timing.p50:.2f}", timing.p50)
    times = ratio(first.timing(threads), timing)
    return Number(f"{timing.p50:.2f} ({times.value:.1f} x)", timing.p50, {"times": times.value})


def _limit(step: Step) -> int | None:
    return step.row.settings.get("limit") if step.row is not None else None


def _notes(edge: Edge) -> Iterator[str]:
    rows = [each.row for each in edge.steps if each.row is not None]
    yield (
        "Scores: the median over seeds. vs first: the difference from the first model, in points, "
        "with the 95 % interval over evaluation examples (bootstrap, paired), for these weights: "
        "other seeds of training may give another one."
    )
    yield "MB: weights on disk, in millions of bytes."
    if edge.session is not None:
        session, threads = edge.session, edge.session.setup.threads[0]
        yield (
            f"ms a pair: median at batch size 1, {threads} thread{'s' if threads > 1 else ''}, "
            f"{session.machine.processor}; x: times as fast as the first."
        )
    for limit in sorted({row.settings.get("limit") or 0 for row in rows} - {0}):
        of = [each.made.label for each in edge.steps if _limit(each) == limit]
        yield f"At most {limit:,} examples a split: {', '.join(of)}."
    missing = [each.made.label for each in edge.steps if each.row is None]
    if missing:
        yield f"No results any more: {', '.join(missing)}."
    for task in edge.line.tasks:
        for step in edge.steps:
            if (found := step.intervals.get(task)) and found.percent is None:
                yield f"No interval of {step.made.label}: {found.why}."
    yield from footnotes_of(rows)
    yield from cell_notes(rows, edge.line.tasks)
