"""Table 1: GLUE, medians over seeds with spread and means; and custom tasks in a table like it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from eval_harness.intervals.bootstrap import RESAMPLES
from eval_harness.rows.labels import footnotes_of, one_line
from eval_harness.rows.row import Row
from eval_harness.tables.cells import (
    COUNT,
    MEAN_OF,
    MODEL,
    RETAINED,
    SCORE,
    columns_of,
    count_of,
    count_of_tasks,
    custom_tasks_of,
    mean_cell,
    mean_of_cell,
    name_cell,
    published_name,
    score_cell,
    tasks_of_every_mean,
    tasks_of_mean,
    title_of,
    titles_of,
)
from eval_harness.tables.notes import cell_notes, count_notes
from eval_harness.tables.paper import corrected
from eval_harness.tables.retained import ComparedRow, Retained
from eval_harness.tables.table import (
    Number,
    Table,
    Value,
    drop_empty_columns,
    make_table,
    stand_in_first,
)
from eval_harness.tasks.registry import CUSTOM, GLUE, MISMATCHED


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
    shared = bool(tasks_of_every_mean(ours))
    rows = [_paper_row(paper, name, ours) for name in paper["table1"]["rows"]]
    for each in shown:
        retained = _retained_cell(each.retained) if each.retained else None
        rows.append({**glue_row(each.row, tasks, shared=shared), RETAINED: retained})
    names = (MODEL, COUNT, SCORE, *map(title_of, tasks), MEAN_OF, RETAINED)
    columns, cells = drop_empty_columns(names, rows)
    teachers = [each.retained.teacher for each in shown if each.retained]
    notes = (
        *footnotes_of([*ours, *teachers]),
        *count_notes(ours, tasks),
        *mean_notes(ours, beside_the_papers=True),
        *cell_notes(ours, tasks),
        *_retained_notes(shown),
        *not_counted,
    )
    return make_table(paper, "table1", "Table 1: GLUE, dev sets", columns, cells, notes=notes)


def custom_table(rows: Sequence[Row], not_counted: Sequence[str]) -> Table | None:
    """Return the table of the custom tasks; None where none has results.

    Args:
        rows: our rows.
        not_counted: notes on files that don't count.
    """
    tasks = custom_tasks_of(rows)
    if not tasks and not not_counted:
        return None
    shown = [row for row in rows if row.cells.keys() & set(tasks)]
    titles = titles_of(shown)
    shared = len({tasks_of_mean(row, tasks) for row in shown} - {()}) == 1
    cells: list[dict[str, Value]] = [
        {
            MODEL: name_cell(row),
            COUNT: count_of([row.cells[task] for task in tasks if task in row.cells]),
            **{titles[task]: score_cell(row, task) for task in tasks},
            # The mean of one task stands there already.
            MEAN_OF: mean_of_cell(row, tasks, titles, shared=shared) if len(tasks) > 1 else None,
        }
        for row in shown
    ]
    names = (MODEL, COUNT, *(titles[task] for task in tasks), MEAN_OF)
    columns, body = drop_empty_columns(names, cells)
    notes = (
        *footnotes_of(shown),
        *count_notes(shown, tasks),
        *cell_notes(shown, tasks),
        *not_counted,
    )
    return Table(
        CUSTOM,
        "Custom tasks",
        tuple(columns or (MODEL,)),
        tuple(map(tuple, body)),
        tuple(map(one_line, stand_in_first(notes))),
    )


def glue_row(row: Row, tasks: Sequence[str], *, shared: bool) -> dict[str, Value]:
    """Return one of our rows by column: name, seeds, mean and a cell for each task.

    Args:
        row: one of our rows.
        tasks: the table's tasks.
        shared: whether the means of all its rows are over the same tasks.
    """
    tasks_in_mean = tasks_of_mean(row)
    has_all = len(tasks_in_mean) == len(GLUE)
    return {
        MODEL: name_cell(row),
        COUNT: count_of([row.cells[task] for task in tasks if task in row.cells]),
        SCORE: mean_cell(row, tasks_in_mean) if has_all else None,
        **{title_of(task): score_cell(row, task) for task in tasks},
        MEAN_OF: None if has_all else mean_of_cell(row, GLUE, titles_of([row]), shared=shared),
    }


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
        text = f"{mean:.1f} ({count_of_tasks(len(tasks))})"
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
    elif any(tasks_of_mean(row) not in ((), GLUE) for row in rows):
        notes.append(f"{MEAN_OF}: over those in brackets, which differ from row to row.")
    if any(MISMATCHED in row.cells for row in rows):
        notes.append(f"{SCORE} and {MEAN_OF} use MNLI's matched part.")
    return notes


def _retained_notes(compared: Sequence[ComparedRow]) -> list[str]:
    """Return what Retained means, whose teacher it refers to, and where it can't be told."""
    by_teacher: dict[str, list[str]] = defaultdict(list)
    no_interval = []
    for each in compared:
        if (retained := each.retained) is not None:
            tasks = ", ".join(map(title_of, retained.tasks))
            by_teacher[f"{_teacher(retained)} over {tasks}"].append(each.row.short)
            if retained.why_no_interval:
                no_interval.append(f"No interval for {each.row.short}: {retained.why_no_interval}.")
    not_told = [
        f"Retained is unknown for {each.row.short}: {each.why_not}."
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
        return retained.teacher.short
    where = "" if single == retained.tasks else f" on {', '.join(map(title_of, single))}"
    return f"{retained.teacher.short} (one seed{where})"
