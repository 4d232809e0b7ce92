"""Formats of a table: markdown, CSV, JSON and LaTeX. Equal tables give equal bytes."""

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from unicodedata import combining, east_asian_width

from tabulate import tabulate

from eval_harness.tables.table import Named, Number, Table, Value, text_of


class Format(NamedTuple):
    """A format: its files' suffix, and the function that writes a table in it."""

    suffix: str
    write: Callable[[Table], str]


WIDTH = 120
"""Columns of a terminal in which a markdown table can be read."""


def to_markdown(table: Table) -> str:
    """Return the table as markdown that reads well as plain text, too.

    A table wider than a terminal becomes several, each of which begins with the first column.
    """
    columns, *rows = (
        [_MARKUP.sub(_ESCAPED, cell) for cell in row] for row in (table.columns, *table.rows)
    )
    bodies = [
        # tabulate would read 89.0 as a number and print 89.
        tabulate(
            [[row[number] for number in block] for row in rows],
            [columns[number] for number in block],
            tablefmt="pipe",
            colalign=["left" if number == 0 else "right" for number in block],
            disable_numparse=True,
        )
        for block in _blocks([columns, *rows])
    ]
    notes = "\n".join(_wrapped_note(_escape_note(note)) for note in table.notes)
    return (
        "\n\n".join(part for part in (f"# {_escape_note(table.title)}", *bodies, notes) if part)
        + "\n"
    )


def _blocks(rows: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return which columns fit side by side; the first one begins every block."""
    # tabulate leaves a blank on either side of a cell, and two more beside a header.
    first, *others = (
        max(_width(header) + 2, *map(_width, cells), 0) + 3
        for header, *cells in zip(*rows, strict=True)
    )
    blocks, used = [[0]], first + 1
    for number, width in enumerate(others, 1):
        if len(blocks[-1]) > 1 and used + width > WIDTH:
            blocks.append([0])
            used = first + 1
        blocks[-1].append(number)
        used += width
    return blocks


def _width(text: str) -> int:
    """Return the number of columns that a text takes in a terminal."""
    return sum(0 if combining(sign) else 1 + (east_asian_width(sign) in "WF") for sign in text)


def _wrapped_note(note: str) -> str:
    """Return a note as an item of a list, broken between words but not within a command."""
    held = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", "\0"), note)
    lines = textwrap.wrap(
        held, WIDTH - 2, break_long_words=False, break_on_hyphens=False, subsequent_indent=""
    )
    return "- " + "\n  ".join(lines).replace("\0", " ")


_MARKUP = re.compile(r"[\\|<*`]|(?<![^\W_])_|_(?![^\W_])|\[(?=[^\]]*\]\()")
"""What markdown takes for markup; an underscore within a word is not, nor a mark like `[a]`."""
_ESCAPED = r"\\\g<0>"


def _escape_note(note: str) -> str:
    """Escape a note, except commands between backticks: the only markup that notes use."""
    code = re.compile("(`[^`]+`)")
    return "".join(
        part if code.fullmatch(part) else _MARKUP.sub(_ESCAPED, part) for part in code.split(note)
    )


def to_csv(table: Table) -> str:
    """Return the printed cells, a blank line, then the notes, a line each."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    writer.writerow([])
    writer.writerows([note] for note in table.notes)
    return stream.getvalue()


def to_json(table: Table) -> str:
    """Return each cell's text, its unrounded number in the table's unit, and its further fields."""
    rows = [
        {name: _cell(value) for name, value in zip(table.columns, row, strict=True)}
        for row in table.cells
    ]
    whole = {
        "table": table.name,
        "title": table.title,
        "columns": table.columns,
        "rows": rows,
        "notes": table.notes,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _cell(value: Value) -> dict[str, Any] | None:
    if value is None:
        return None
    cell: dict[str, Any] = {"text": text_of(value)}
    if isinstance(value, Number):
        return {**cell, "number": value.number, **value.more}
    if isinstance(value, Named):
        return {**cell, **value.more}
    return cell if isinstance(value, str) else {**cell, "number": value}


def to_latex(table: Table) -> str:
    """Return a tabular with booktabs rules, and the notes below it, a paragraph each."""
    cells = [[_escape_latex(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *rows = (_latex_row(row, widths) for row in cells)
    columns = "".join(side[0] for side in _alignment(table))
    notes = "".join(f"{_escape_latex(note)}\\par\n" for note in table.notes)
    lines = (
        f"% {table.title}",
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        header,
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
        *(("\\par\\medskip", f"{{\\footnotesize\\raggedright\n{notes}}}") if notes else ()),
    )
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    if first.startswith(("[", "*")):
        first = f"{{}}{first}"  # LaTeX would read it as an argument of the \\ before it
    padded = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
    return " & ".join((first.ljust(widths[0]), *padded)) + " \\\\"


_LATEX: Mapping[str, str] = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "^": "\\^{}",
    "~": "\\textasciitilde{}",
    "<": "\\ensuremath{<}",
    ">": "\\ensuremath{>}",
    "`": "\\textasciigrave{}",
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _alignment(table: Table) -> tuple[str, ...]:
    return ("left", *("right" for _ in table.columns[1:]))


FORMATS: Mapping[str, Format] = {
    "markdown": Format(".md", to_markdown),
    "csv": Format(".csv", to_csv),
    "json": Format(".json", to_json),
    "latex": Format(".tex", to_latex),
}
