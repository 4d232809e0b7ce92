"""Names beside the points of a chart, where they hit nothing. Imports matplotlib."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eval_harness.report.palette import INK


class _Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def hits(self, other: "_Box") -> bool:
        """Return whether two rectangles share any place."""
        apart = self.left >= other.right or other.left >= self.right
        return not (apart or self.bottom >= other.top or other.bottom >= self.top)

    def reaching(self, x: float, y: float) -> "_Box":
        """Return the rectangle that has a point, too: what a line to it may run through."""
        return _Box(min(self.left, x), min(self.bottom, y), max(self.right, x), max(self.top, y))

    def is_within(self, frame: "_Box") -> bool:
        """Return whether all of it is within another one."""
        return (
            self.left >= frame.left
            and self.right <= frame.right
            and self.bottom >= frame.bottom
            and self.top <= frame.top
        )


class _Place(NamedTuple):
    """Where a name may stand: its offset from the point, in printer's points, and its alignment."""

    right: float
    up: float
    across: str
    along: str

    def box(self, point: tuple[float, float], size: tuple[float, float], scale: float) -> _Box:
        """Return the box in pixels of a name of this size, where a point has `scale` pixels."""
        left = point[0] + self.right * scale - size[0] * _ALIGNED[self.across]
        bottom = point[1] + self.up * scale - size[1] * _ALIGNED[self.along]
        return _Box(left, bottom, left + size[0], bottom + size[1])


_PLACES = (
    _Place(0, 7, "center", "bottom"), _Place(0, -7, "center", "top"),
    _Place(8, 0, "left", "center"), _Place(-8, 0, "right", "center"),
    _Place(5, 5, "left", "bottom"), _Place(-5, 5, "right", "bottom"),
    _Place(5, -5, "left", "top"), _Place(-5, -5, "right", "top"),
    _Place(0, 19, "center", "bottom"), _Place(0, -19, "center", "top"),
    _Place(14, 12, "left", "bottom"), _Place(-14, 12, "right", "bottom"),
    _Place(14, -12, "left", "top"), _Place(-14, -12, "right", "top"),
    _Place(20, 24, "left", "bottom"), _Place(-20, 24, "right", "bottom"),
    _Place(20, -24, "left", "top"), _Place(-20, -24, "right", "top"),
)  # fmt: skip
_NEAR = 8
"""How many of these need no line from the point to the name."""
_ALIGNED = {"left": 0.0, "bottom": 0.0, "center": 0.5, "right": 1.0, "top": 1.0}
_RADIUS = 5.0
"""Printer's points around a point that no name may hit."""
_TRIES = 20_000


def name_points(
    axes: Axes, named: Sequence[tuple[str, float, float]], others: Sequence[tuple[float, float]]
) -> bool:
    """Write names beside points, where they hit no point, no other name and no edge.

    The figure must be complete: its layout decides which places are free.

    Args:
        axes: the panel.
        named: names with their points.
        others: further points.

    Returns:
        Whether there was a place for all; if not, no name is written.
    """
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
    scale = figure.dpi / 72
    pixels = [axes.transData.transform((x, y)) for _, x, y in named]
    every = [*pixels, *(axes.transData.transform(point) for point in others)]
    radius = _RADIUS * scale
    points = [_Box(x - radius, y - radius, x + radius, y + radius) for x, y in every]
    boxes, reaches = [], []
    for (name, _, _), (x, y) in zip(named, pixels, strict=True):
        measured = axes.text(0, 0, name)
        extent = measured.get_window_extent(renderer)
        measured.remove()
        size = (extent.width + 2, extent.height)
        boxes.append([place.box((x, y), size, scale) for place in _PLACES])
        reaches.append(
            [box if number < _NEAR else box.reaching(x, y) for number, box in enumerate(boxes[-1])]
        )
    inside, edge = axes.get_window_extent(), figure.bbox
    beside = [other.get_window_extent().x0 for other in figure.axes]
    right = min([each for each in beside if each >= inside.x1], default=edge.x1 - 2 * scale)
    frame = _Box(inside.x0, inside.y0, right, edge.y1 - 2 * scale)
    free = [
        [
            number
            for number, (box, reach) in enumerate(zip(boxes[name], reaches[name], strict=True))
            if box.is_within(frame)
            and not box.hits(points[name])
            and not any(reach.hits(point) for other, point in enumerate(points) if other != name)
        ]
        for name in range(len(named))
    ]
    chosen = _chosen(reaches, free)
    if chosen is None:
        return False
    for (name, x, y), number in zip(named, chosen, strict=True):
        _write(axes, name, (x, y), number)
    return True


def _write(axes: Axes, name: str, point: tuple[float, float], number: int) -> None:
    place = _PLACES[number]
    line = {"arrowstyle": "-", "color": INK, "alpha": 0.45, "lw": 0.6, "shrinkA": 0, "shrinkB": 4}
    note = axes.annotate(
        name,
        point,
        (place.right, place.up),
        textcoords="offset points",
        ha=place.across,
        va=place.along,
        alpha=0.75,
        arrowprops=line if number >= _NEAR else None,
    )
    note.set_in_layout(False)


def _chosen(boxes: Sequence[Sequence[_Box]], free: Sequence[Sequence[int]]) -> list[int] | None:
    """Return a free place for each name so that no two hit; None if none was found."""
    order = sorted(range(len(boxes)), key=lambda name: len(free[name]))
    chosen: dict[int, int] = {}
    tries = 0

    def place(depth: int) -> bool:
        nonlocal tries
        if depth == len(order):
            return True
        name = order[depth]
        for number in free[name]:
            tries += 1
            if tries > _TRIES:
                return False
            if not any(boxes[name][number].hits(boxes[one][at]) for one, at in chosen.items()):
                chosen[name] = number
                if place(depth + 1):
                    return True
                del chosen[name]
        return False

    return [chosen[name] for name in range(len(boxes))] if place(0) else None
