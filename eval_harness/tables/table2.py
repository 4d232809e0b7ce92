"""Table 2: IMDb and SQuAD, each metric with its own median."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eval_harness.rows.labels import footnotes_of
from eval_harness.rows.row import Row
from eval_harness.tables.cells import (
    COUNT,
    MODEL,
    count_of,
    name_cell,
    published_name,
    score_cell,
)
from eval_harness.tables.notes import cell_notes, count_notes
from eval_harness.tables.table import Number, Table, Value, drop_empty_columns, make_table
from eval_harness.tasks.registry import TASKS, Task

TASKS_OF_TABLE2 = tuple(task.name for task in TASKS if task.table == "table2")


class _Column(NamedTuple):
    """A column: the name of our rows' cell, the paper's key for it, and the decimals of both."""

    cell: str
    published: str | None = None
    digits: int = 1


_PUBLISHED = {
    "imdb": _Column("imdb", "imdb", digits=2),
    "squad EM": _Column("squad EM", "squad_em"),
    "squad": _Column("squad", "squad_f1"),
}
"""The columns of the paper's table, by our rows' cell."""


def columns_of_tasks(tasks: Sequence[Task]) -> dict[str, _Column]:
    """Return the columns by title: a task's second one first, as the paper has EM before F1."""
    titled: dict[str, str] = {}
    for task in tasks:
        if task.second:
            titled[task.second.title] = task.second.cell
        # The score of a task of questions is F1, which its title doesn't say.
        titled[f"{task.title} F1" if task.second else task.title] = task.name
    return {title: _PUBLISHED.get(cell, _Column(cell)) for title, cell in titled.items()}


_COLUMNS = columns_of_tasks([task for task in TASKS if task.table == "table2"])


def table2(paper: Mapping[str, Any], rows: Sequence[Row], not_counted: Sequence[str]) -> Table:
    """Make Table 2: the paper's rows, then ours that have a column here.

    Args:
        paper: the published numbers.
        rows: our rows.
        not_counted: notes on files that don't count.
    """
    shown = [row for row in rows if row.cells.keys() & set(TASKS_OF_TABLE2)]
    columns = {
        title: column
        for title, column in _COLUMNS.items()
        if column.published or any(column.cell in row.cells for row in shown)
    }
    cells: list[dict[str, Value]] = [
        {
            MODEL: published_name(name),
            **{title: _published_cell(row, column) for title, column in columns.items()},
        }
        for name, row in paper["table2"]["rows"].items()
    ]
    cells += [_row(row, columns) for row in shown]
    notes = (
        *footnotes_of(shown),
        *count_notes(shown, [column.cell for column in columns.values()]),
        *cell_notes(shown, TASKS_OF_TABLE2),
        *not_counted,
    )
    titles, body = drop_empty_columns((MODEL, COUNT, *columns), cells)
    return make_table(paper, "table2", "Table 2: IMDb and SQuAD", titles, body, notes=notes)


def _row(row: Row, columns: Mapping[str, _Column]) -> dict[str, Value]:
    """Return one of our rows by column."""
    counted = [row.cells[each.cell] for each in columns.values() if each.cell in row.cells]
    return {
        MODEL: name_cell(row),
        COUNT: count_of(counted),
        **{title: score_cell(row, each.cell, each.digits) for title, each in columns.items()},
    }


def _published_cell(row: Mapping[str, float | None], column: _Column) -> Number | None:
    """Return a published number; the paper has none for SQuAD 2.0."""
    value = row[column.published] if column.published else None
    return None if value is None else Number(f"{value:.{column.digits}f}", value)
