"""The report as one self-contained HTML page, which loads nothing. Imports no torch."""

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
from eval_harness.report.highlights import Highlight
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
from eval_harness.tables.retained import ComparedRow
from eval_harness.tables.table import Number, Published, Table, Value, text_of

_MOST_SENTENCES = 8
"""Students whose sentences stand open; more are in the chart and the leaderboard, too."""
_PAGE = Path(__file__).parent / "page"


class DrawnChart(Protocol):
    """What the page needs of a `panels.Chart`, without importing matplotlib."""

    @property
    def name(self) -> str:
        """The stem of its files, and its id in the page."""

    @property
    def title(self) -> str:
        """Its heading."""

    @property
    def caption(self) -> str:
        """The text below it."""

    @property
    def svg(self) -> str:
        """An `<svg>` element."""


@dataclass(frozen=True)
class MissingChart:
    """A chart without data, and the command that produces some."""

    name: str
    title: str
    command: str


@dataclass(frozen=True)
class Content:
    """The content of the page.

    Attributes:
        title: title and heading of the page.
        highlights: the numbers that stand first.
        footnotes: what the marks in names stand for.
        leaderboard: the models by their score, if there are several.
        facts: models, data, machines and so on, by name.
        compared: our rows, for what each retained.
        charts: the charts with data.
        missing: those without.
        tasks: what each task asks, and what its score is.
        tables: all tables.
        command: the command that wrote the page.
    """

    title: str
    highlights: Sequence[Highlight]
    footnotes: Sequence[str]
    leaderboard: Table | None
    facts: Mapping[str, str]
    compared: Sequence[ComparedRow]
    charts: Sequence[DrawnChart]
    missing: Sequence[MissingChart]
    tasks: Mapping[str, str]
    tables: Sequence[Table]
    command: str


def page(content: Content) -> str:
    """Return the whole page; equal contents give equal bytes."""
    script = _read("page.js")
    first, others = content.charts[:1], content.charts[1:]
    sections = [
        ("glance", "At a glance", _glance(content.highlights, content.footnotes, first)),
        ("leaders", "Leaderboard", _leaderboard(content.leaderboard)),
        ("retained", "What was retained", _retained(content.compared, content.footnotes)),
        ("charts", "Charts", _charts(others, content.missing)),
        ("tables", "Tables", "\n".join([_tasks(content.tasks), *map(_table, content.tables)])),
        ("about", "About these results", _about(content.facts)),
    ]
    sections = [section for section in sections if section[-1]]
    return Template(_read("page.html")).substitute(
        title=escape(content.title),
        heading=escape(content.title),
        data=escape(content.facts.get("Data", "none yet")),
        digest=digest_of(script),
        style=style(),
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


def digest_of(script: str) -> str:
    """Return the source by which a page's security policy allows a script that stands in it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def style() -> str:
    """Return the style sheet of our pages, in light and dark mode."""
    return Template(_read("page.css")).substitute(
        ink=INK,
        paper=PAPER,
        light=variables(LIGHT),
        ink_in_the_dark=INK_IN_THE_DARK,
        paper_in_the_dark=PAPER_IN_THE_DARK,
        dark=variables(DARK),
    )


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _about(facts: Mapping[str, str]) -> str:
    items = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    return "<dl>\n" + "\n".join(items) + "\n</dl>"


def _glance(
    highlights: Sequence[Highlight], footnotes: Sequence[str], charts: Sequence[DrawnChart]
) -> str:
    """Return the first screen: some numbers, and one chart beside them."""
    cards = "\n".join(
        f"<li><strong>{escape(each.number)}</strong> "
        f"{escape(each.text).replace(' %', '&nbsp;%')}</li>"
        for each in highlights
    )
    notes = _footnotes(footnotes, [each.text for each in highlights])
    parts = [f'<div><ul class="numbers">\n{cards}\n</ul>\n{notes}</div>'] if cards else []
    parts += map(_figure, charts)
    return f'<div class="glance">\n{"".join(parts)}\n</div>' if parts else ""


def _footnotes(footnotes: Sequence[str], texts: Iterable[str]) -> str:
    """Return what the marks that these texts have stand for."""
    whole = " ".join(texts)
    used = [note for note in footnotes if note.partition(" ")[0] in whole]
    return "".join(f'<p class="quiet">{escape(note)}</p>\n' for note in used)


def _leaderboard(table: Table | None) -> str:
    return _table(table, with_title=False) if table is not None else ""


def _tasks(tasks: Mapping[str, str]) -> str:
    """Return a line for each task: what it asks, and what its score is."""
    items = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in tasks.items())
    return (
        "<details open>\n<summary>What the tasks ask, and what their scores are</summary>\n"
        '<dl class="tasks">\n' + "\n".join(items) + "\n</dl>\n</details>"
    )


def _figure(chart: DrawnChart) -> str:
    return (
        f'<figure id="{chart.name}">\n<h3>{escape(chart.title)}</h3>\n{chart.svg}\n'
        f"<figcaption>{escape(chart.caption)}</figcaption>\n</figure>"
    )


def _retained(compared: Iterable[ComparedRow], footnotes: Sequence[str]) -> str:
    """Return what most readers came for: a sentence per student."""
    items = []
    for each in compared:
        if (retained := each.retained) is not None:
            interval, of_tasks = retained.interval, retained.tasks
            limits = f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else ""
            tasks = title_of(of_tasks[0]) if len(of_tasks) == 1 else f"{len(of_tasks)} tasks"
            items.append(
                f"<li><strong>{retained.share:.1f}&nbsp;%</strong>{limits} of "
                f"{escape(retained.teacher.short)}'s score retained by {escape(each.row.short)}, "
                f"over {escape(tasks)}.</li>"
            )
    if not items:
        return ""
    notes = _footnotes(footnotes, items)
    sentences = f'<ul class="retained">\n{"".join(items)}\n</ul>\n{notes}'
    if len(items) <= _MOST_SENTENCES:
        return sentences
    return f"<details>\n<summary>{len(items)} students</summary>\n{sentences}</details>\n"


def _charts(charts: Sequence[DrawnChart], missing: Sequence[MissingChart]) -> str:
    drawn = "\n".join(map(_figure, charts))
    commands = "\n".join(
        f"<li>{escape(chart.title)}: <code>{escape(chart.command)}</code></li>" for chart in missing
    )
    parts = [f'<div class="charts">\n{drawn}\n</div>'] if drawn else []
    if commands:
        parts.append(
            "<h3>No data yet</h3>\n<p>These commands produce the data of further charts:</p>\n"
            f"<ul>\n{commands}\n</ul>"
        )
    return "\n".join(parts)


def _table(table: Table, *, with_title: bool = True) -> str:
    """Return a table in a box that scrolls sideways on a narrow screen."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "\n".join(map(_row, table.cells))
    notes = "\n".join(f"<li>{_note(note)}</li>" for note in table.notes)
    name, hidden = escape(table.name), "" if with_title else " hidden"
    return (
        f'<div class="table">\n<h3 id="{name}"{hidden}>{escape(table.title)}</h3>\n'
        f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n"
        f'<ul class="notes">\n{notes}\n</ul>\n</div>'
    )


def _note(text: str) -> str:
    """Return a note as HTML; commands between backticks are the only markup that notes use."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _row(cells: Sequence[Value]) -> str:
    first, *others = map(text_of, cells)
    published = ' class="paper"' if isinstance(cells[0], Published) else ""
    rest = "".join(
        f"<td{_sort_key(cell)}>{escape(text)}</td>"
        for cell, text in zip(cells[1:], others, strict=True)
    )
    return f'<tr{published}><th scope="row">{_breakable(first)}</th>{rest}</tr>'


def _breakable(name: str) -> str:
    """Return a name that a narrow screen breaks between its words rather than within one."""
    return re.sub("(?<=[_/])", "<wbr>", escape(name))


def _sort_key(cell: Value) -> str:
    """Return the attribute that a cell is sorted by, if it has more digits than are printed."""
    number = cell.number if isinstance(cell, Number) else None
    return "" if number is None else f' data-number="{number!r}"'
