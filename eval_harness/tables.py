"""Tables 1-4 as markdown: a pure function of files. Imports no torch, scikit-learn or scipy."""

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tabulate import tabulate

from angels_share.files import write_atomically
from eval_harness.paper import footnotes, load_paper
from eval_harness.retained import retained
from eval_harness.rows import one_line, rows_of
from eval_harness.store import RUNS, Found, Invalid, find
from eval_harness.table1 import (
    MEAN_OF,
    RETAINED,
    Line,
    cell_text,
    columns_of,
    glue_row,
    mean_notes,
    notes,
    paper_row,
    published_name,
    retained_notes,
    title_of,
)

if TYPE_CHECKING:
    import pandas as pd

ABLATIONS = {
    "no-ce": "no L_ce",
    "no-cos": "no L_cos",
    "no-mlm": "no L_mlm",
    "random-init": "triple loss, random initialization",
}


class _Column(NamedTuple):
    """A column of Table 2: our rows' cell, the name of the paper's, and the decimals of both."""

    cell: str
    published: str | None = None
    digits: int = 1


_TABLE2_TASKS = ("imdb", "squad", "squad_v2")
_TABLE2 = {
    "IMDb": _Column("imdb", "imdb", digits=2),
    "SQuAD EM": _Column("squad EM", "squad_em"),
    "SQuAD F1": _Column("squad", "squad_f1"),
    "SQuAD 2.0 EM": _Column("squad_v2 EM"),
    "SQuAD 2.0 F1": _Column("squad_v2"),
}

Cells = Sequence[str | float | None]


@dataclass(frozen=True)
class Table:
    """A table before it is written; its cells are texts, and a blank one means not measured."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def frame(self) -> "pd.DataFrame":
        """The same for further computing; pandas alone would be a fifth of the time of `tables`."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self.columns))


@dataclass(frozen=True)
class Ours:
    """What we measured: the rows to show, what each retained, and the files that don't count."""

    lines: Sequence[Line] = ()
    invalid: Sequence[Invalid] = ()

    def of(self, models: Collection[str]) -> "Ours":
        """What is of these models alone."""
        folders = tuple(f"{RUNS}/{model}/" for model in models)
        return Ours(
            [line for line in self.lines if line.row.model.key in models],
            [each for each in self.invalid if each.path.startswith(folders)],
        )


def write_tables(root: Path | str, models: Collection[str] | None = None) -> list[str]:
    """Makes the tables from a results folder's files and writes them there.

    Args:
        root: the results folder.
        models: keys of the models of which the answer speaks; the files speak of all.

    Returns:
        The texts of Tables 1-4, then one line if there are files that don't count.
    """
    return list(write_by_name(root, models).values())


def write_by_name(root: Path | str, models: Collection[str] | None = None) -> dict[str, str]:
    """`write_tables`, for those who want some of them: `table1` ... `table4`, `not counted`."""
    with _without_collection():
        return _write(load_paper(), Path(root), models)


def _write(
    paper: Mapping[str, Any], folder: Path, models: Collection[str] | None
) -> dict[str, str]:
    ours = measured(find(folder), folder)
    made = tables(paper, ours)
    for table in made:
        write_atomically(folder / f"{table.name}.md", to_markdown(table))
    if models is not None:
        ours = ours.of(models)
        made = tables(paper, ours)
    texts = {table.name: to_markdown(table) for table in made}
    if ours.invalid:
        texts["not counted"] = _how_many(ours.invalid, folder)
    return texts


@contextmanager
def _without_collection() -> Iterator[None]:
    """Results are trees, without cycles: looking for cycles costs a third of the time here."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _how_many(invalid: Sequence[Invalid], folder: Path) -> str:
    """One line; each file stands in the notes of the table where it would count."""
    places = dict.fromkeys(str(folder / f"{_table_of(each)}.md") for each in invalid)
    files = f"{len(invalid)} file{'s' if len(invalid) > 1 else ''}"
    return f"not counted: {files}; which and why: the notes of {' and '.join(places)}"


def measured(found: Found, root: Path) -> Ours:
    """The rows of what was found; intervals that are new are made and kept under the root."""
    rows = rows_of(found)
    lines = [Line(row, retained(row, rows, root)) for row in rows]
    return Ours(lines, [each for each in found.invalid if not each.is_passing])


def tables(paper: Mapping[str, Any], ours: Ours = Ours()) -> list[Table]:
    """The paper's four tables, its rows first and ours after them."""
    return [_table1(paper, ours), _table2(paper, ours), _table3(paper), _table4(paper)]


def to_markdown(table: Table) -> str:
    """Readable as plain text, rendered as a table; equal tables give equal bytes."""
    alignment = ("left", *("right" for _ in table.columns[1:]))
    # Without numparse 89.0 stays 89.0.
    body = tabulate(
        table.rows, table.columns, tablefmt="pipe", colalign=alignment, disable_numparse=True
    )
    notes = "\n".join(f"- {note}" for note in table.notes)
    return "\n\n".join(part for part in (f"# {table.title}", body, notes) if part) + "\n"


def _table(
    paper: Mapping[str, Any],
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Cells],
    *,
    notes: Sequence[str] = (),
) -> Table:
    cells = tuple(tuple(map(_cell, row)) for row in rows)
    every = (paper[name]["what"], *footnotes(paper, name), *notes)
    return Table(name, title, tuple(columns), cells, tuple(map(one_line, every)))


def _cell(value: str | float | None) -> str:
    """One decimal for a score; a count or a text as it is; nothing for what isn't there."""
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else one_line(str(value)).replace("|", "\\|")


def _table1(paper: Mapping[str, Any], ours: Ours) -> Table:
    tasks = columns_of([line.row for line in ours.lines])
    shown = [line for line in ours.lines if line.row.cells.keys() & set(tasks)]
    ours_shown = [line.row for line in shown]
    rows = [paper_row(paper, name, ours_shown) for name in paper["table1"]["rows"]]
    rows += [glue_row(line, tasks) for line in shown]
    titles = map(title_of, tasks)
    columns = [
        column
        for column in ("Model", "n", "Score", *titles, MEAN_OF, RETAINED)
        if any(row.get(column) is not None for row in rows)
    ]
    said = (
        *mean_notes(ours_shown),
        *notes(ours_shown, tasks),
        *retained_notes(shown),
        *_not_counted(ours.invalid, "table1"),
    )
    cells = [[row.get(column) for column in columns] for row in rows]
    return _table(paper, "table1", "Table 1: GLUE, dev sets", columns, cells, notes=said)


def _not_counted(invalid: Sequence[Invalid], table: str) -> list[str]:
    """The files that don't count, each in the table where it would be."""
    return [f"Not counted: {each}." for each in invalid if _table_of(each) == table]


def _table_of(invalid: Invalid) -> str:
    folders = invalid.path.split("/")
    return "table2" if any(task in folders for task in _TABLE2_TASKS) else "table1"


def _table2(paper: Mapping[str, Any], ours: Ours) -> Table:
    shown = [line.row for line in ours.lines if line.row.cells.keys() & set(_TABLE2_TASKS)]
    columns = {
        title: column
        for title, column in _TABLE2.items()
        if column.published or any(column.cell in row.cells for row in shown)
    }
    rows: list[Cells] = [
        (published_name(name), *(_printed(row, column) for column in columns.values()))
        for name, row in paper["table2"]["rows"].items()
    ]
    for row in shown:
        cells = (cell_text(row, each.cell, each.digits, always_count=True)
                 for each in columns.values())  # fmt: skip
        rows.append((row.label, *cells))
    said = (*notes(shown, _TABLE2_TASKS), *_not_counted(ours.invalid, "table2"))
    titles = ("Model", *columns)
    return _table(paper, "table2", "Table 2: IMDb and SQuAD", titles, rows, notes=said)


def _printed(row: Mapping[str, float | None], column: _Column) -> str | None:
    """A published number; its table has none of SQuAD 2.0."""
    value = row[column.published] if column.published else None
    return None if value is None else f"{value:.{column.digits}f}"


def _table3(paper: Mapping[str, Any]) -> Table:
    rows = [
        (published_name(name), row["parameters_millions"], row["seconds"])
        for name, row in paper["table3"]["rows"].items()
    ]
    columns = ("Model", "Parameters (M)", "Seconds")
    return _table(paper, "table3", "Table 3: size and speed", columns, rows)


def _table4(paper: Mapping[str, Any]) -> Table:
    rows = [
        (published_name(ABLATIONS[name]), f"{change:+.2f}")
        for name, change in paper["table4"]["rows"].items()
    ]
    columns = ("Left out", "Change of score")
    return _table(paper, "table4", "Table 4: what each part is worth", columns, rows)
