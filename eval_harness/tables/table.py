"""A table before it is written: texts for the eye, numbers for further computing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eval_harness.tables.paper import footnotes
from eval_harness.tables.row_labels import one_line

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Number:
    """A number as it is printed, the number itself, and what else there is to say of it."""

    text: str
    number: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Published(str):
    """The name of a row that was printed elsewhere: no number in it is ours."""

    __slots__ = ()


Value = str | float | Number | None
"""A cell; None is blank: not measured."""


@dataclass(frozen=True)
class Table:
    """A table and its notes; `name` is what its files are called."""

    name: str
    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """What is printed in each cell."""
        return tuple(tuple(map(text_of, row)) for row in self.cells)

    @property
    def frame(self) -> "pd.DataFrame":
        """The same for further computing; pandas alone would be a fifth of the time of `tables`."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self.columns))


def table_of(
    paper: Mapping[str, Any],
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Value]],
    *,
    notes: Sequence[str] = (),
    section: str | None = None,
) -> Table:
    """A table with what is said of the published numbers, then the notes.

    Args:
        paper: the published numbers.
        name: what its files are called.
        title: what stands above it.
        columns: their names.
        rows: a cell for each column.
        notes: what must be known of our own rows.
        section: where its published numbers are; under its name where it isn't given.
    """
    section = section or name
    every = (paper[section]["what"], *footnotes(paper, section), *notes)
    cells = tuple(map(tuple, rows))
    return Table(name, title, tuple(columns), cells, tuple(map(one_line, every)))


def filled(
    columns: Sequence[str], rows: Sequence[Mapping[str, Value]]
) -> tuple[list[str], list[list[Value]]]:
    """The columns in which some row has something, and the rows' cells in them."""
    shown = [name for name in columns if any(row.get(name) is not None for row in rows)]
    return shown, [[row.get(name) for name in shown] for row in rows]


def text_of(value: Value) -> str:
    """One decimal for a score; a count or a text as it is; nothing for what isn't there."""
    if value is None:
        return ""
    if isinstance(value, Number):
        return one_line(value.text)
    return f"{value:.1f}" if isinstance(value, float) else one_line(str(value))
