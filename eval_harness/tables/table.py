"""A table before it is formatted: the text to print and the number behind each cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eval_harness.rows.labels import one_line
from eval_harness.tables.paper import footnotes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Number:
    """A number: its printed text, its value, and further fields for the JSON format."""

    text: str
    number: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Named:
    """The name of one of our rows, and further fields for the JSON format."""

    text: str
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Published(str):
    """The name of a row with published numbers only: none of them is ours."""

    __slots__ = ()


STAND_IN = "Stand-in data: "
"""How a note begins that says so."""

Value = str | float | Number | Named | None
"""A cell; None is blank: not measured."""


@dataclass(frozen=True)
class Table:
    """A table and its notes; `name` is the stem of its files."""

    name: str
    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The printed text of each cell."""
        return tuple(tuple(map(text_of, row)) for row in self.cells)

    @property
    def frame(self) -> "pd.DataFrame":
        """The printed texts as a data frame."""
        import pandas as pd  # here: it would be a fifth of the time of `tables`

        return pd.DataFrame(self.rows, columns=list(self.columns))


def make_table(
    paper: Mapping[str, Any],
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Value]],
    *,
    notes: Sequence[str] = (),
    section: str | None = None,
) -> Table:
    """Make a table whose notes begin with those on the published numbers.

    Args:
        paper: the published numbers.
        name: stem of the table's files.
        title: heading of the table.
        columns: column headers.
        rows: one cell per column.
        notes: notes on our own rows.
        section: key of the published numbers in `paper` [`name`].
    """
    section = section or name
    # A score of no real task comes before all others: the paper's rows stand above it.
    all_notes = stand_in_first([paper[section]["what"], *footnotes(paper, section), *notes])
    cells = tuple(map(tuple, rows))
    return Table(name, title, tuple(columns), cells, tuple(map(one_line, all_notes)))


def stand_in_first(notes: Sequence[str]) -> list[str]:
    """Return the notes, first of all those which say that data are not the real ones."""
    return sorted(notes, key=lambda note: not note.startswith(STAND_IN))


def drop_empty_columns(
    columns: Sequence[str], rows: Sequence[Mapping[str, Value]]
) -> tuple[list[str], list[list[Value]]]:
    """Return the columns that have a value in some row, and the rows' cells in these columns."""
    shown = [name for name in columns if any(row.get(name) is not None for row in rows)]
    return shown, [[row.get(name) for name in shown] for row in rows]


def text_of(value: Value) -> str:
    """Return the printed text: floats with one decimal, blanks empty, anything else unchanged."""
    if value is None:
        return ""
    if isinstance(value, Number | Named):
        return one_line(value.text)
    return f"{value:.1f}" if isinstance(value, float) else one_line(str(value))
