"""Table 1: GLUE, medians over seeds with their spread, means, and what was retained."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from eval_harness.intervals.bootstrap import RESAMPLES
from eval_harness.tables.cells import (
    COUNT,
    MEAN_OF,
    MODEL,
    RETAINED,
    SCORE,
    columns_of,
    count_of,
    mean_cell,
    published_name,
    score_cell,
    tasks_of_every_mean,
    tasks_of_mean,
    title_of,
)
from eval_harness.tables.notes import cell_notes
from eval_harness.tables.paper import corrected
from eval_harness.tables.retained import ComparedRow, Retained
from eval_harness.tables.row import Row
from eval_harness.tables.table import Number, Table, Value, drop_empty_columns, make_table
from eval_harness.tasks.registry import GLUE, MISMATCHED


def table1(
    paper: Mapping[str, Any], compared: Sequence[ComparedRow], not_counted: Sequence[str]
) -> Table:
    """Make Table 1: the paper's rows, then ours that have a column here.

    Args:
        paper: the published numbers.
        compared: our rows with what they retained.
        not_counted: notes on files that don't count.
    """
    tasks = columns_of([each.row for each in compared])
    shown = [each for each in compared if each.row.cells.keys() & set(tasks)]
    ours = [each.row for each in shown]
    rows = [_paper_row(paper, name, ours) for name in paper["table1"]["rows"]]
    for each in shown:
        retained = _retained_cell(each.retained) if each.retained else None
        rows.append({**glue_row(each.row, tasks), RETAINED: retained})
    names = (MODEL, COUNT, SCORE, *map(title_of, tasks), MEAN_OF, RETAINED)
    columns, cells = drop_empty_columns(names, rows)
    notes = (
        *mean_notes(ours, beside_the_papers=True),
        *cell_notes(ours, tasks),
        *_retained_notes(shown),
        *not_counted,
    )
    return make_table(paper, "table1", "Table 1: GLUE, dev sets", columns, cells, notes=notes)


def glue_row(row: Row, tasks: Sequence[str]) -> dict[str, Value]:
    """Return one of our rows by column: label, seeds, mean and a cell for each task."""
    tasks_in_mean = tasks_of_mean(row)
    mean = mean_cell(row, tasks_in_mean)
    has_all = len(tasks_in_mean) == len(GLUE)
    cells: dict[str, Value] = {
        MODEL: row.label,
        COUNT: count_of([row.cells[task] for task in tasks if task in row.cells]),
        SCORE: mean if has_all else None,
        **{title_of(task): score_cell(row, task) for task in tasks},
    }
    if mean and not has_all:
        text = f"{mean.text} of {len(tasks_in_mean)}"
        cells[MEAN_OF] = Number(text, mean.number, {"of": list(tasks_in_mean)})
    return cells


def _paper_row(paper: Mapping[str, Any], name: str, rows: Sequence[Row]) -> dict[str, Value]:
    """Return a published row by column, its mean over the tasks of all our means."""
    published = paper["table1"]["rows"][name]
    cells: dict[str, Value] = {
        MODEL: published_name(name),
        SCORE: published["score"],
        **{title_of(task): published[task] for task in GLUE},
    }
    if tasks := tasks_of_every_mean(rows):
        right = corrected(paper, "table1", name)
        mean = sum(right[task] for task in tasks) / len(tasks)
        text = f"{mean:.1f} of {len(tasks)}"
        cells[MEAN_OF] = Number(text, round(mean, 10), {"of": list(tasks)})
    return cells


def _retained_cell(retained: Retained) -> Number:
    interval = retained.interval
    limits = f" [{interval[0]:.1f} to {interval[1]:.1f}]" if interval else ""
    more = {"interval": interval, "teacher": retained.teacher.label, "of": list(retained.tasks)}
    return Number(f"{retained.share:.1f}{limits}", round(retained.share, 10), more)


def mean_notes(rows: Sequence[Row], *, beside_the_papers: bool) -> list[str]:
    """Return which tasks the means are over.

    Args:
        rows: our rows.
        beside_the_papers: whether the table shows means of the paper's rows, too.
    """
    notes = []
    if common := tasks_of_every_mean(rows):
        papers = ""
        if beside_the_papers:
            papers = "; the paper's mean is computed here from its scores"
            papers += ", its misprint corrected" if "mnli" in common else ""
        notes.append(f"{MEAN_OF}: over {', '.join(map(title_of, common))}{papers}.")
    else:
        by_tasks: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for row in rows:
            if (tasks := tasks_of_mean(row)) and tasks != GLUE:
                by_tasks[tasks].append(row.label)
        means = [
            f"{', '.join(map(title_of, tasks))} ({'; '.join(labels)})"
            for tasks, labels in by_tasks.items()
        ]
        if means:
            notes.append(f"{MEAN_OF}: over {'; '.join(means)}.")
    if any(MISMATCHED in row.cells for row in rows):
        notes.append("Score and Mean of k use MNLI's matched part.")
    return notes


def _retained_notes(compared: Sequence[ComparedRow]) -> list[str]:
    """Return what Retained means, whose teacher it refers to, and where it can't be told."""
    by_teacher: dict[str, list[str]] = defaultdict(list)
    no_interval = []
    for each in compared:
        if (retained := each.retained) is not None:
            tasks = ", ".join(map(title_of, retained.tasks))
            by_teacher[f"{_teacher(retained)} over {tasks}"].append(each.row.label)
            if retained.why_no_interval:
                no_interval.append(f"No interval for {each.row.label}: {retained.why_no_interval}.")
    not_told = [
        f"Retained is unknown for {each.row.label}: {each.why_not}."
        for each in compared
        if each.why_not
    ]
    if not by_teacher:
        return not_told
    return [
        "Retained: mean of the medians over the common tasks, as a percentage of the teacher's; "
        f"in brackets a 95 % interval from resampling the evaluation examples {RESAMPLES:,} times, "
        "the same ones for both; it does not cover variation over seeds.",
        *(f"Retained, of {teacher}: {'; '.join(rows)}." for teacher, rows in by_teacher.items()),
        *no_interval,
        *not_told,
    ]


def _teacher(retained: Retained) -> str:
    """Return the teacher's label, and where it has one seed: its spread is unknown there."""
    single = retained.tasks_of_one_seed
    if not single:
        return retained.teacher.label
    where = "" if single == retained.tasks else f" on {', '.join(map(title_of, single))}"
    return f"{retained.teacher.label} (one seed{where})"
