"""The leaderboard: any number of models in one table, over the tasks that all of them share."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval_harness.intervals.bootstrap import RESAMPLES
from eval_harness.report.chart_data import SECOND_CELLS, newest_timed, tasks_in_order, timed_in
from eval_harness.results.speed import Session, Speeds
from eval_harness.rows.labels import footnotes_of, one_line
from eval_harness.rows.row import Row
from eval_harness.tables.cells import (
    COUNT,
    MODEL,
    SCORE,
    count_of,
    mean_cell,
    name_cell,
    tasks_of_mean,
    titles_of,
)
from eval_harness.tables.comparison import cached_interval
from eval_harness.tables.table import Number, Table, Value, drop_empty_columns
from eval_harness.tasks.kinds import TEXTS
from eval_harness.tasks.registry import GLUE, TASKS

_INTERVAL, _PARAMETERS, _MB, _MS = "95 % interval", "Parameters (M)", "MB", "ms a pair"
_RESAMPLED = {task.name for task in TASKS if task.kind is TEXTS and not task.averages}
"""The tasks whose predictions alone give the score; a custom one's metrics are in its file."""


def leaderboard(rows: Sequence[Row], speeds: Speeds, root: Path) -> Table | None:
    """Return the models by their score, the best first; None of fewer than two models.

    Args:
        rows: our rows.
        speeds: our sessions.
        root: the results folder; new intervals are cached there.
    """
    tasks = shared_tasks(rows)
    ranked = [row for row in rows if tasks and set(tasks) <= _scored(row).keys()]
    if len({row.model.key for row in ranked}) < 2:
        return None
    ranked = [row for row in ranked if _alike(row, ranked, tasks)]
    session = _session(ranked, speeds)
    body = [_row(row, tasks, speeds, session, root) for row in ranked]
    body.sort(key=_by_score)
    names = (MODEL, SCORE, _INTERVAL, _PARAMETERS, _MB, _MS, COUNT)
    columns, cells = drop_empty_columns(names, body)
    left_out = [row.short for row in rows if row not in ranked]
    notes = [*footnotes_of(ranked), *_notes(tasks, columns, titles_of(ranked), session)]
    if left_out:
        notes.append(f"Not here, since not evaluated on the same: {'; '.join(left_out)}.")
    return Table(
        "leaderboard",
        "Leaderboard",
        tuple(columns),
        tuple(map(tuple, cells)),
        tuple(map(one_line, notes)),
    )


def _scored(row: Row) -> dict[str, str]:
    """Return the hash of the data of each task that a row has a score for."""
    return {
        task: cell.data_hash
        for task, cell in row.cells.items()
        if cell.median is not None and task not in SECOND_CELLS
    }


def shared_tasks(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the tasks that all rows share: of GLUE where two have one, else of all others.

    Rows without any of them don't count, nor the fewer rows that lack some of the nine. Where no
    task is common to all, it is the largest set that two rows share.
    """
    of_glue = [tasks for row in rows if (tasks := frozenset(tasks_of_mean(row)))]
    whole = sum(len(tasks) == len(GLUE) for tasks in of_glue)
    if whole > 1 and 2 * whole >= len(of_glue):
        return GLUE
    sets = of_glue if len(of_glue) > 1 else [frozenset(_scored(row)) for row in rows]
    common = frozenset.intersection(*sets) if sets else frozenset()
    if not common:
        pairs = [one & other for number, one in enumerate(sets) for other in sets[number + 1 :]]
        common = max(pairs, key=lambda tasks: (len(tasks), sorted(tasks)), default=frozenset())
    return tuple(task for task in tasks_in_order(rows) if task in common)


def _alike(row: Row, rows: Sequence[Row], tasks: Sequence[str]) -> bool:
    """Return whether a row was evaluated on the examples that most rows were."""
    for task in tasks:
        counts = Counter(each.cells[task].data_hash for each in rows)
        if counts[row.cells[task].data_hash] < max(counts.values()):
            return False
    return True


def _session(rows: Sequence[Row], speeds: Speeds) -> Session | None:
    """Return the session with the most of these models, the newest of such."""
    counts = [
        sum(timed_in(row, session) is not None for row in rows) for session in speeds.sessions
    ]
    best = max(range(len(counts)), key=lambda number: (counts[number], number), default=None)
    return speeds.sessions[best] if best is not None and counts[best] else None


def _row(
    row: Row, tasks: Sequence[str], speeds: Speeds, session: Session | None, root: Path
) -> dict[str, Value]:
    newest = newest_timed(row, speeds)
    timed = timed_in(row, session) if session else None
    cells: dict[str, Value] = {
        MODEL: name_cell(row),
        SCORE: mean_cell(row, tasks),
        _INTERVAL: _interval(row, tasks, root),
        COUNT: count_of([row.cells[task] for task in tasks]),
    }
    if newest is not None:
        cells[_PARAMETERS] = _millions(newest.parameters)
        cells[_MB] = _megabytes(newest.file_bytes, newest.file_dtype)
    if timed is not None and session is not None:
        milliseconds = 1000 * timed.timing(session.setup.threads[0]).seconds / session.setup.pairs
        cells[_MS] = Number(f"{milliseconds:.3g}", milliseconds)
    return cells


def _interval(row: Row, tasks: Sequence[str], root: Path) -> Value:
    """Return `58.1 to 61.7`; None where predictions are withheld or tell nothing of the score."""
    if not set(tasks) <= _RESAMPLED:
        return None
    found = cached_interval("scores", row, row, tasks, root).percent
    if found is None:
        return None
    low, high = found
    return Number(f"{low:.1f} to {high:.1f}", low, {"interval": [low, high]})


def _millions(count: int) -> Number:
    return Number(f"{count / 1e6:.{1 if count >= 1e6 else 3}f}", count / 1e6)


def _megabytes(count: int | None, dtype: str | None) -> Number | None:
    if count is None:
        return None
    size = _millions(count)
    return Number(f"{size.text} ({dtype})", size.number) if dtype else size


def _by_score(cells: Mapping[str, Value]) -> tuple[float, str]:
    score, name = cells[SCORE], cells[MODEL]
    number = score.number if isinstance(score, Number) and score.number is not None else 0.0
    return -number, str(name)


def _notes(
    tasks: Sequence[str],
    columns: Sequence[str],
    titles: Mapping[str, str],
    session: Session | None,
) -> list[str]:
    over = "GLUE: the mean of its nine tasks"
    if tuple(tasks) != GLUE:
        over = f"the mean over what all have: {', '.join(titles[task] for task in tasks)}"
        over = over if len(tasks) > 1 else f"{titles[tasks[0]]}, which all have"
    notes = [f"{SCORE}: {over}; each task's is the median over seeds (n)."]
    if _INTERVAL in columns:
        notes.append(
            f"{_INTERVAL}: of the score, from resampling the evaluation examples {RESAMPLES:,} "
            "times; it does not cover variation over seeds. Blank where predictions are missing."
        )
    if _MS in columns and session is not None:
        threads = session.setup.threads[0]
        notes.append(
            f"{_MS}: at batch size 1 with {threads} thread{'s' if threads > 1 else ''}, all in one "
            "session of `speed`: times compare only within one."
        )
    return notes
