"""Table 2: IMDb and SQuAD, each measure with its own median."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eval_harness.tables.cells import figure, published_name
from eval_harness.tables.notes import notes
from eval_harness.tables.row import Row
from eval_harness.tables.table import Number, Table, Value, table_of
from eval_harness.tasks.registry import TASKS

TASKS_OF_TABLE2 = tuple(task.name for task in TASKS if task.table == "table2")


class _Column(NamedTuple):
    """A column: our rows' cell, the name of the paper's, and the decimals of both."""

    cell: str
    published: str | None = None
    digits: int = 1


_COLUMNS = {
    "IMDb": _Column("imdb", "imdb", digits=2),
    "SQuAD EM": _Column("squad EM", "squad_em"),
    "SQuAD F1": _Column("squad", "squad_f1"),
    "SQuAD 2.0 EM": _Column("squad_v2 EM"),
    "SQuAD 2.0 F1": _Column("squad_v2"),
}


def table2(paper: Mapping[str, Any], rows: Sequence[Row], not_counted: Sequence[str]) -> Table:
    """The paper's rows, then those of ours that have something here.

    Args:
        paper: the published numbers.
        rows: ours.
        not_counted: what is to be said of files that don't count.
    """
    shown = [row for row in rows if row.cells.keys() & set(TASKS_OF_TABLE2)]
    columns = {
        title: column
        for title, column in _COLUMNS.items()
        if column.published or any(column.cell in row.cells for row in shown)
    }
    cells: list[Sequence[Value]] = [
        (published_name(name), *(_printed(row, column) for column in columns.values()))
        for name, row in paper["table2"]["rows"].items()
    ]
    for row in shown:
        ours = (figure(row, each.cell, each.digits, always_count=True) for each in columns.values())
        cells.append((row.label, *ours))
    said = (*notes(shown, TASKS_OF_TABLE2), *not_counted)
    titles = ("Model", *columns)
    return table_of(paper, "table2", "Table 2: IMDb and SQuAD", titles, cells, notes=said)


def _printed(row: Mapping[str, float | None], column: _Column) -> Number | None:
    """A published number; its table has none of SQuAD 2.0."""
    value = row[column.published] if column.published else None
    return None if value is None else Number(f"{value:.{column.digits}f}", value)
