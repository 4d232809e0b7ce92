"""Tables 1-4 as markdown: a pure function of files. Imports no torch, scikit-learn or scipy."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from angels_share.files import write_atomically
from eval_harness import table1
from eval_harness.paper import footnotes, load_paper
from eval_harness.retained import Retained
from eval_harness.rows import Row, rows_of
from eval_harness.store import Found, Invalid, find
from eval_harness.tasks import GLUE

if TYPE_CHECKING:
    import pandas as pd

ABLATIONS = {
    "no-ce": "no L_ce",
    "no-cos": "no L_cos",
    "no-mlm": "no L_mlm",
    "random-init": "triple loss, random initialization",
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

    rows: Sequence[Row] = ()
    shares: Mapping[str, Retained | None] = field(default_factory=dict)
    invalid: Sequence[Invalid] = ()


def write_tables(root: Path | str, models: Collection[str] | None = None) -> list[str]:
    """Makes the tables from a results folder's files and writes them there.

    Args:
        root: the results folder.
        models: keys of the models whose rows the returned tables show; the files show all.

    Returns:
        The texts of Tables 1-4, then a line for each file that doesn't count.
    """
    folder = Path(root)
    paper, found = load_paper(), find(folder)
    ours = measured(found, folder)
    made = tables(paper, ours)
    for table in made:
        write_atomically(folder / f"{table.name}.md", to_markdown(table))
    if models is not None:
        rows = [row for row in ours.rows if row.model.key in models]
        made = tables(paper, replace(ours, rows=rows))
    return [*map(to_markdown, made), *(f"not counted: {each}" for each in found.invalid)]


def measured(found: Found, root: Path) -> Ours:
    """The rows of what was found; intervals that are new are made and kept under the root."""
    rows = rows_of(found)
    return Ours(rows, table1.shares(rows, root), found.invalid)


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
    every = (paper[name]["what"], *footnotes(paper, name), *map(_one_line, notes))
    return Table(name, title, tuple(columns), cells, every)


def _cell(value: str | float | None) -> str:
    """One decimal for a score; a count or a text as it is; nothing for what isn't there."""
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else _one_line(str(value)).replace("|", "\\|")


def _one_line(text: str) -> str:
    """A model's name may hold anything that a folder's may."""
    return " ".join(text.split())


def _published(name: str) -> str:
    return f"{name} (paper)"


def _table1(paper: Mapping[str, Any], ours: Ours) -> Table:
    tasks = table1.columns_of(ours.rows)
    shown = [row for row in ours.rows if row.cells.keys() & set(tasks)]
    published = [
        {
            "Model": _published(name),
            "Score": row["score"],
            **{table1.title_of(task): row[task] for task in GLUE},
        }
        for name, row in paper["table1"]["rows"].items()
    ]
    measured_here = [table1.glue_row(row, tasks, ours.shares.get(row.label)) for row in shown]
    rows: list[Mapping[str, str | float | None]] = [*published, *measured_here]
    titles = (table1.title_of(task) for task in tasks)
    columns = [
        column
        for column in ("Model", "n", "Score", *titles, table1.MEAN_OF, table1.RETAINED)
        if any(row.get(column) is not None for row in rows)
    ]
    notes = (
        *table1.notes(shown, tasks),
        *table1.retained_notes(shown, ours.shares),
        *_not_counted(ours.invalid, imdb=False),
    )
    cells = [[row.get(column) for column in columns] for row in rows]
    return _table(paper, "table1", "Table 1: GLUE, dev sets", columns, cells, notes=notes)


def _not_counted(invalid: Sequence[Invalid], *, imdb: bool) -> list[str]:
    """The files that don't count, each in the table where it would be."""
    return [f"Not counted: {each}." for each in invalid if ("/imdb/" in each.path) == imdb]


def _table2(paper: Mapping[str, Any], ours: Ours) -> Table:
    rows: list[Cells] = [
        (_published(name), f"{row['imdb']:.2f}" if row["imdb"] else None, *_squad(row))
        for name, row in paper["table2"]["rows"].items()
    ]
    shown = [row for row in ours.rows if "imdb" in row.cells]
    rows += [
        (row.label, table1.cell_text(row, "imdb", 2, always_count=True), None, None)
        for row in shown
    ]
    columns = ("Model", "IMDb", "SQuAD EM", "SQuAD F1")
    notes = (*table1.notes(shown, ["imdb"]), *_not_counted(ours.invalid, imdb=True))
    return _table(paper, "table2", "Table 2: IMDb and SQuAD", columns, rows, notes=notes)


def _squad(row: Mapping[str, float]) -> tuple[float, float]:
    return row["squad_em"], row["squad_f1"]


def _table3(paper: Mapping[str, Any]) -> Table:
    rows = [
        (_published(name), row["parameters_millions"], row["seconds"])
        for name, row in paper["table3"]["rows"].items()
    ]
    columns = ("Model", "Parameters (M)", "Seconds")
    return _table(paper, "table3", "Table 3: size and speed", columns, rows)


def _table4(paper: Mapping[str, Any]) -> Table:
    rows = [
        (_published(ABLATIONS[name]), f"{change:+.2f}")
        for name, change in paper["table4"]["rows"].items()
    ]
    columns = ("Left out", "Change of score")
    return _table(paper, "table4", "Table 4: what each part is worth", columns, rows)
