"""The report as one HTML page: nothing in it is loaded from anywhere. Imports no torch."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Protocol

from angels_share import __version__
from eval_harness.report.palette import (
    DARK,
    INK,
    INK_IN_THE_DARK,
    LIGHT,
    PAPER,
    PAPER_IN_THE_DARK,
    variables,
)
from eval_harness.tables.cells import title_of
from eval_harness.tables.table import Number, Published, Table, Value, text_of
from eval_harness.tables.table1 import Line

_PAGE = Path(__file__).parent / "page"


class Shown(Protocol):
    """A figure, however it was drawn."""

    @property
    def name(self) -> str:
        """What its files and ids are called."""

    @property
    def title(self) -> str:
        """What stands above it."""

    @property
    def caption(self) -> str:
        """What stands below it."""

    @property
    def svg(self) -> str:
        """An `<svg>` element."""


@dataclass(frozen=True)
class Missing:
    """A figure that there is no data for, and the command that makes some."""

    name: str
    title: str
    command: str


@dataclass(frozen=True)
class Content:
    """All that the page says.

    Attributes:
        title: of the page.
        facts: what it is of, by name.
        lines: the rows; those with a share retained are said first.
        figures: those with data.
        missing: those without.
        tables: as they are printed.
        command: what the page was made with.
    """

    title: str
    facts: Mapping[str, str]
    lines: Sequence[Line]
    figures: Sequence[Shown]
    missing: Sequence[Missing]
    tables: Sequence[Table]
    command: str


def page(content: Content) -> str:
    """The whole page; equal contents give equal bytes."""
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = [
        ("kept", "What was kept", _kept(content.lines)),
        ("about", "What this is of", _about(content.facts)),
        ("figures", "Figures", _figures(content.figures, content.missing)),
        ("tables", "Tables", "\n".join(map(_table, content.tables))),
    ]
    sections = [section for section in sections if section[-1]]
    return Template(_read("page.html")).substitute(
        title=escape(content.title),
        heading=escape(content.title),
        digest=digest,
        style=Template(_read("page.css")).substitute(
            ink=INK,
            paper=PAPER,
            light=variables(LIGHT),
            ink_in_the_dark=INK_IN_THE_DARK,
            paper_in_the_dark=PAPER_IN_THE_DARK,
            dark=variables(DARK),
        ),
        nav=" ".join(f'<a href="#{name}">{title}</a>' for name, title, _ in sections),
        main="\n".join(
            f'<section id="{name}" aria-labelledby="{name}-head">\n'
            f'<h2 id="{name}-head">{title}</h2>\n{text}\n</section>'
            for name, title, text in sections
        ),
        command=escape(content.command),
        version=escape(__version__),
        script=script,
    )


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _about(facts: Mapping[str, str]) -> str:
    said = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    return "<dl>\n" + "\n".join(said) + "\n</dl>"


def _kept(lines: Iterable[Line]) -> str:
    """What most people came for: a sentence for each student."""
    said = []
    for line in lines:
        if (kept := line.kept) is not None:
            limits = f" ({kept.interval[0]:.1f} to {kept.interval[1]:.1f})" if kept.interval else ""
            tasks = title_of(kept.tasks[0]) if len(kept.tasks) == 1 else f"{len(kept.tasks)} tasks"
            said.append(
                f"<li><strong>{kept.share:.1f}&nbsp;%</strong> of {escape(kept.teacher.label)}'s "
                f"score is what {escape(line.row.label)} kept{limits}, over {escape(tasks)}.</li>"
            )
    return f'<ul class="kept">\n{"".join(said)}\n</ul>\n' if said else ""


def _figures(figures: Sequence[Shown], missing: Sequence[Missing]) -> str:
    drawn = "\n".join(
        f'<figure id="{each.name}">\n<h3>{escape(each.title)}</h3>\n{each.svg}\n'
        f"<figcaption>{escape(each.caption)}</figcaption>\n</figure>"
        for each in figures
    )
    wanted = "\n".join(
        f"<li>{escape(each.title)}: <code>{escape(each.command)}</code></li>" for each in missing
    )
    parts = [f'<div class="figures">\n{drawn}\n</div>'] if drawn else []
    if wanted:
        parts += [f"<h3>No data yet</h3>\n<p>What would make some:</p>\n<ul>\n{wanted}\n</ul>"]
    return "\n".join(parts)


def _table(table: Table) -> str:
    """A table in a box of its own, which scrolls where the screen is narrow."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "\n".join(map(_row, table.cells))
    notes = "\n".join(f"<li>{_note(note)}</li>" for note in table.notes)
    name = escape(table.name)
    return (
        f'<div class="table">\n<h3 id="{name}">{escape(table.title)}</h3>\n'
        f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n"
        f'<ul class="notes">\n{notes}\n</ul>\n</div>'
    )


def _note(text: str) -> str:
    """A note is markdown, of which it uses no more than a command between backticks."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _row(cells: Sequence[Value]) -> str:
    first, *others = map(text_of, cells)
    published = ' class="paper"' if isinstance(cells[0], Published) else ""
    rest = "".join(
        f"<td{_number(cell)}>{escape(text)}</td>"
        for cell, text in zip(cells[1:], others, strict=True)
    )
    return f'<tr{published}><th scope="row">{_breakable(first)}</th>{rest}</tr>'


def _breakable(name: str) -> str:
    """A name that on a narrow screen is broken between its words rather than within one."""
    return re.sub("(?<=[_/])", "<wbr>", escape(name))


def _number(cell: Value) -> str:
    """What a cell is sorted by, where it is more than what is printed."""
    number = cell.number if isinstance(cell, Number) else None
    return "" if number is None else f' data-number="{number!r}"'
