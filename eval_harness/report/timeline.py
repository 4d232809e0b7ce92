"""The paper's Figure 1, parameters of published models through the years, with ours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from eval_harness.report import svg
from eval_harness.report.chart_data import newest_timed
from eval_harness.report.names import name_points
from eval_harness.report.palette import INK
from eval_harness.report.panels import (
    Chart,
    Mark,
    add_legend,
    in_order,
    legend_height,
    marks_of,
    render,
)
from eval_harness.results.speed import Speeds
from eval_harness.rows.row import Row

NAME, TITLE = "parameters-over-time", "Parameters through the years"
_MOST_TICKS = 5
_GAP = 1.0
"""Years without a model from which on the axis is broken: the published ones need the room."""


@dataclass(frozen=True)
class Sized:
    """A model, the day of its release or of our newest result, and its size."""

    label: str
    day: date
    millions: float

    @property
    def year(self) -> float:
        """The day as a year with its fraction."""
        return self.day.year + (self.day.timetuple().tm_yday - 1) / 366


def published_sizes(paper: Mapping[str, Any]) -> list[Sized]:
    """Return the models of the paper's Figure 1, by the month of their release."""
    return [
        Sized(name, date.fromisoformat(f"{row['released']}-15"), row["parameters_millions"])
        for name, row in paper["figure1"]["rows"].items()
    ]


def our_sizes(rows: Sequence[Row], speeds: Speeds) -> list[Sized]:
    """Return those of our models whose parameters a session of `speed` has counted, each once."""
    found: dict[str, Sized] = {}
    for row in rows:
        timed = newest_timed(row, speeds)
        try:
            day = datetime.fromisoformat(max(result.finished for result in row.results)).date()
        except ValueError:  # results may come from anybody
            continue
        if timed is not None:
            known = found.get(row.model.key, Sized(row.short, day, timed.parameters / 1e6))
            found[row.model.key] = Sized(known.label, max(day, known.day), known.millions)
    return list(found.values())


def timeline(published: Sequence[Sized], ours: Sequence[Sized], marks: Mapping[str, Mark]) -> Chart:
    """Draw the published models hollow, and ours filled."""
    words = [
        f"{whose}: {'; '.join(map(_in_words, each))}."
        for whose, each in (("Published", published), ("Ours", ours))
    ]
    caption = (
        "Hollow: published models, in millions of parameters as the paper's Figure 1 prints them, "
        "by the month of their release. Filled: ours, on the day of their newest result. Each line "
        "of the scale is ten times the one below."
    )

    def draw() -> Figure:
        figure, has_names = _figure(published, ours, marks, in_legend=False)
        return figure if has_names else _figure(published, ours, marks, in_legend=True)[0]

    return render(NAME, TITLE, caption, words, draw)


def _in_words(model: Sized) -> str:
    return f"{model.label} {model.millions:g} ({model.day:%Y-%m})"


def _figure(
    published: Sequence[Sized], ours: Sequence[Sized], marks: Mapping[str, Mark], *, in_legend: bool
) -> tuple[Figure, bool]:
    """Return the figure, and whether the published models have their names."""
    shown = in_order(marks, [model.label for model in ours])
    hollow = marks_of([model.label for model in published]) if in_legend else {}
    millions = [model.millions for model in (*published, *ours)]
    decades = math.log10(max(millions) / min(millions))
    height = min(max(3.6, 1.3 * decades), 6.0)
    figure = svg.new_figure(height + legend_height([*shown, *hollow]))
    then, now = _panels(figure, published, ours)
    for model in published:
        colour, marker = hollow.get(model.label, (INK, "o"))
        then.plot(model.year, model.millions, marker, mfc="none", mec=colour, alpha=0.7, ms=6)
    for model in ours:
        colour, marker = marks[model.label]
        now.plot(model.year, model.millions, marker, color=colour, ms=6.5, zorder=3)
    add_legend(figure, shown, marks, hollow)
    named = [(model.label, model.year, model.millions) for model in published]
    others = [(model.year, model.millions) for model in ours] if now is then else []
    return figure, in_legend or name_points(then, named, others)


def _panels(figure: Figure, published: Sequence[Sized], ours: Sequence[Sized]) -> tuple[Axes, Axes]:
    """Return the panel of the published models and that of ours, which may be the same one."""
    then, now = [model.year for model in published], [model.year for model in ours]
    if min(now) - max(then) <= _GAP:
        (axes,) = figure.subplots(1, 1, squeeze=False).ravel()
        panels = [(axes, [*then, *now])]
    else:
        axes, other = figure.subplots(1, 2, sharey=True, width_ratios=(6, 1))
        panels = [(axes, then), (other, now)]
        other.spines["left"].set_visible(False)
    for panel, years in panels:
        low, high = min(years) - 0.2, max(years) + 0.2
        panel.set(xlim=(low, high), yscale="log")
        whole = range(math.ceil(low), math.ceil(high))
        ticks = whole[:: math.ceil(len(whole) / _MOST_TICKS)]
        panel.set_xticks(list(ticks), list(map(str, ticks)))
    if panels[-1][0] is not axes:  # a narrow one: it names its years rather than their beginnings
        first, last = (math.floor(end) for end in (min(now), max(now)))
        text = str(first) if first == last else f"{first} to {last % 100}"
        panels[-1][0].set_xticks([(min(now) + max(now)) / 2], [text])
    millions = [model.millions for model in (*published, *ours)]
    axes.set_ylim(min(millions) / 1.6, max(millions) * 1.6)
    axes.yaxis.set_major_locator(LogLocator())
    axes.yaxis.set_minor_locator(LogLocator(subs=()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_ylabel("million parameters")
    return panels[0][0], panels[-1][0]
