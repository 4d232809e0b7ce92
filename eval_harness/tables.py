"""Tables 1-4 as markdown: a pure function of files. Imports no torch, scikit-learn or scipy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from eval_harness.paper import footnotes
from eval_harness.tasks import GLUE, task_named

ABLATIONS = {
    "no-ce": "no L_ce",
    "no-cos": "no L_cos",
    "no-mlm": "no L_mlm",
    "random-init": "triple loss, random initialization",
}


Row = Sequence[str | float | None]


@dataclass(frozen=True)
class Table:
    """A table before it is written; its cells are texts, and a blank one means not measured."""

    name: str
    title: str
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()


def tables(paper: Mapping[str, Any]) -> list[Table]:
    """The paper's four tables from the published numbers alone."""
    return [_table1(paper), _table2(paper), _table3(paper), _table4(paper)]


def to_markdown(table: Table) -> str:
    """Readable as plain text, rendered as a table; equal tables give equal bytes."""
    alignment = ("left", *("right" for _ in table.frame.columns[1:]))
    # Without numparse 89.0 stays 89.0.
    body = table.frame.to_markdown(
        index=False, tablefmt="pipe", colalign=alignment, disable_numparse=True
    )
    notes = "\n".join(f"- {note}" for note in table.notes)
    return "\n\n".join(part for part in (f"# {table.title}", body, notes) if part) + "\n"


def _table(
    paper: Mapping[str, Any], name: str, title: str, columns: Sequence[str], rows: Sequence[Row]
) -> Table:
    cells = [[_cell(value) for value in row] for row in rows]
    notes = (paper[name]["what"], *footnotes(paper, name))
    return Table(name, title, pd.DataFrame(cells, columns=list(columns)), notes)


def _cell(value: str | float | None) -> str:
    """One decimal for a score; a count or a text as it is; nothing for what isn't there."""
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _published(name: str) -> str:
    return f"{name} (paper)"


def _table1(paper: Mapping[str, Any]) -> Table:
    rows = [
        (_published(name), *(row[key] for key in ("score", *GLUE)))
        for name, row in paper["table1"]["rows"].items()
    ]
    columns = ("Model", "Score", *(task_named(name).title for name in GLUE))
    return _table(paper, "table1", "Table 1: GLUE, dev sets", columns, rows)


def _table2(paper: Mapping[str, Any]) -> Table:
    rows = [
        (_published(name), f"{row['imdb']:.2f}" if row["imdb"] else None, *_squad(row))
        for name, row in paper["table2"]["rows"].items()
    ]
    columns = ("Model", "IMDb", "SQuAD EM", "SQuAD F1")
    return _table(paper, "table2", "Table 2: IMDb and SQuAD", columns, rows)


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
