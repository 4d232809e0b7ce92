"""What the report's charts share: panels, legends, one mark per model. Imports matplotlib."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from angels_share.errors import UserError
from angels_share.files import write_atomically
from eval_harness.report import svg
from eval_harness.report.palette import CHART_ENDINGS, LIGHT


@dataclass(frozen=True)
class Chart:
    """A drawn chart: described in words for readers who cannot see it, and as SVG and PNG."""

    name: str
    title: str
    caption: str
    words: tuple[str, ...]
    svg: str = field(repr=False)
    png: bytes = field(repr=False)

    def save(self, path: Path | str) -> Path:
        """Write the chart into a file, as its ending says: .svg or .png.

        Raises:
            UserError: another ending, or the file can't be written.
        """
        file = Path(path).expanduser()
        if file.suffix not in CHART_ENDINGS:
            raise UserError(f"{path}: must end in {' or '.join(CHART_ENDINGS)}")
        return write_atomically(
            file, svg.standalone(self.svg) if file.suffix == ".svg" else self.png
        )

    def _repr_png_(self) -> bytes:
        """Return the chart as a notebook shows it."""
        return self.png


Mark = tuple[str, str]
"""A colour and a marker."""


def marks_of(labels: Sequence[str]) -> dict[str, Mark]:
    """Return a mark per label; the first 49 differ, the first 7 in both colour and marker."""
    size = len(LIGHT)
    return {
        label: (LIGHT[number % size], svg.MARKERS[(number + number // size) % size])
        for number, label in enumerate(dict.fromkeys(labels))
    }


def render(
    name: str, title: str, caption: str, words: Sequence[str], draw: Callable[[], Figure]
) -> Chart:
    """Draw a chart in the report's style, as SVG and PNG; equal data give equal bytes.

    Args:
        name: stem of its files, and its id in the page.
        title: heading of the chart.
        caption: text below it.
        words: what it shows, with numbers, for readers who cannot see it.
        draw: draws it.
    """
    with svg.chart_style():
        figure = draw()
        element = svg.to_svg(figure, name, title, words)
        return Chart(name, title, caption, tuple(words), element, svg.to_png(figure))


def in_order(marks: Mapping[str, Mark], labels: Sequence[str]) -> list[str]:
    """Return the labels that have a mark, in the marks' order; the paper's rows have none."""
    return [label for label in marks if label in labels]


def stacked(figure: Figure, count: int, **shared: Any) -> list[Axes]:
    """Add panels one below the other.

    Args:
        figure: where to add them.
        count: number of panels.
        shared: `sharex` and the like, for `subplots`.
    """
    return list(figure.subplots(count, 1, squeeze=False, **shared).ravel())


def in_two_columns(figure: Figure, count: int) -> list[Axes]:
    """Add panels in two columns, the last of an odd number on the left."""
    panels = list(figure.subplots(math.ceil(count / 2), 2, squeeze=False).ravel())
    for panel in panels[count:]:
        panel.remove()
    return panels[:count]


def label_rows(axes: Axes, labels: Sequence[str], places: Sequence[float] | None = None) -> None:
    """Label the rows of a chart from the top down, in place of an axis.

    Args:
        axes: the panel.
        labels: one per row.
        places: the rows' vertical positions [0, 1, 2, ...].
    """
    places = list(range(len(labels))) if places is None else places
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", pad=7)  # room for an arrow at the edge
    axes.set_ylim(max(places) + 0.6, min(places) - 0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def offset(number: int, count: int) -> float:
    """Return the vertical offset of one of several marks within a row of height 1."""
    return (number - (count - 1) / 2) * 0.7 / count


_LEGEND_WIDTH = 34
"""Characters of a label that fit into a line."""


_LEGEND_ABOVE = 6
"""Labels of a legend that stands above the panels: a longer one would hide them on a phone."""


def add_legend(
    figure: Figure,
    labels: Sequence[str],
    marks: Mapping[str, Mark],
    hollow: Mapping[str, Mark] | None = None,
) -> None:
    """Add a legend above the panels, or below them if it is long; short labels in columns.

    Args:
        figure: where to add it.
        labels: the labels to explain.
        marks: the marks by label.
        hollow: further labels, whose marks are drawn hollow.
    """
    hollow = hollow or {}
    every = {**{label: marks[label] for label in labels}, **hollow}
    if not every:
        return
    handles = [
        Line2D([], [], color=colour, marker=marker, lw=0, ms=6, label=_wrapped(label),
               mfc="none" if label in hollow else colour)
        for label, (colour, marker) in every.items()
    ]  # fmt: skip
    figure.legend(
        handles=handles,
        loc="outside upper left" if len(every) <= _LEGEND_ABOVE else "outside lower left",
        ncols=_legend_columns(list(every)),
        borderaxespad=0.4,
    )


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, _LEGEND_WIDTH)) or label


def _legend_columns(labels: Sequence[str]) -> int:
    longest = max(map(len, labels), default=0)
    return 3 if longest <= 7 else 2 if longest <= 14 else 1


def legend_height(labels: Sequence[str]) -> float:
    """Return the height of a legend in inches."""
    lines = sum(_wrapped(label).count("\n") + 1 for label in labels)
    return 0.21 * math.ceil(lines / _legend_columns(labels)) + 0.15
