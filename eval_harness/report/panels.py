"""What the report's figures have in common: panels, legends, one mark for each model."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval_harness.report import svg
from eval_harness.report.palette import LIGHT


@dataclass(frozen=True)
class Picture:
    """A figure as it is shown: in words for who can't see it, and as files."""

    name: str
    title: str
    caption: str
    words: tuple[str, ...]
    svg: str
    png: bytes


Mark = tuple[str, str]
"""A colour and a marker."""


def marks_of(labels: Sequence[str]) -> dict[str, Mark]:
    """One for each label, the same in all figures; the first 49 differ, the first 7 in both."""
    size = len(LIGHT)
    return {
        label: (LIGHT[number % size], svg.MARKERS[(number + number // size) % size])
        for number, label in enumerate(dict.fromkeys(labels))
    }


def made(
    name: str, title: str, caption: str, words: Sequence[str], draw: Callable[[], Figure]
) -> Picture:
    """Draws a figure and writes it in both forms; equal data give equal bytes."""
    with svg.inked():
        drawing = draw()
        element = svg.svg(drawing, name, title, words)
        return Picture(name, title, caption, tuple(words), element, svg.png(drawing))


def in_order(marks: Mapping[str, Mark], labels: Sequence[str]) -> list[str]:
    """Those of the labels that bear a mark, in the marks' order; the paper's bear none."""
    return [label for label in marks if label in labels]


def below(drawing: Figure, count: int, **shared: Any) -> list[Axes]:
    """Panels one below the other."""
    return list(drawing.subplots(count, 1, squeeze=False, **shared).ravel())


def in_pairs(drawing: Figure, count: int) -> list[Axes]:
    """Panels in two columns; one that isn't needed is taken away."""
    panels = list(drawing.subplots(math.ceil(count / 2), 2, squeeze=False).ravel())
    for panel in panels[count:]:
        panel.remove()
    return panels[:count]


def label_rows(axes: Axes, labels: Sequence[str], places: Sequence[float] | None = None) -> None:
    """Labels from the top down, without an axis."""
    places = list(range(len(labels))) if places is None else places
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", pad=7)  # an arrow stands on the edge
    axes.set_ylim(max(places) + 0.6, min(places) - 0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def offset(number: int, count: int) -> float:
    """Where one of several stands in its row, which is 1 high."""
    return (number - (count - 1) / 2) * 0.7 / count


_LEGEND_WIDTH = 34
"""Letters of a label that fit into a line."""


def add_legend(drawing: Figure, labels: Sequence[str], marks: Mapping[str, Mark]) -> None:
    """Above the panels, in two columns where the labels are short."""
    if not labels:
        return
    handles = [
        Line2D([], [], color=colour, marker=marker, lw=0, ms=6, label=_wrapped(label))
        for label in labels
        for colour, marker in [marks[label]]
    ]
    drawing.legend(
        handles=handles, loc="outside upper left", ncols=_legend_columns(labels), borderaxespad=0.4
    )


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, _LEGEND_WIDTH)) or label


def _legend_columns(labels: Sequence[str]) -> int:
    longest = max(map(len, labels), default=0)
    return 3 if longest <= 7 else 2 if longest <= 14 else 1


def legend_height(labels: Sequence[str]) -> float:
    """Inches that a legend takes of its drawing."""
    lines = sum(_wrapped(label).count("\n") + 1 for label in labels)
    return 0.21 * math.ceil(lines / _legend_columns(labels)) + 0.15
