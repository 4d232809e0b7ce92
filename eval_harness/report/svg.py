"""Drawings as SVG that follows a page's light or dark, and as PNG. matplotlib draws.

matplotlib writes colours; in the SVG they become `currentColor` and `var(--c0)` ..., so that
whoever shows it decides. Equal drawings give equal bytes.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eval_harness.report.palette import (
    DARK,
    INK,
    INK_IN_THE_DARK,
    LIGHT,
    PAPER,
    PAPER_IN_THE_DARK,
    variables,
)

WIDTH = 3.75
"""Inches, of 72 points each: on a phone, where it is as wide as the screen, a point is more than a
pixel and its texts can be read."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # matplotlib's own, the same on all machines
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handletextpad": 0.4,
    "legend.borderpad": 0.2,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color", "hatch.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.7,
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.fonttype": "none",  # letters stay letters: to be found, copied, and shown in any font
    "svg.hashsalt": "angels-share",
    "text.parse_math": False,  # a model's name is no formula
}


@contextmanager
def inked() -> Iterator[None]:
    """Everything that is drawn within looks alike, whatever the user's own settings are."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # A PNG shows a box for a letter that this font lacks; the page has the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def figure(height: float) -> Figure:
    """An empty drawing of the one width."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def png(drawing: Figure) -> bytes:
    """For where SVG isn't shown: on white."""
    FigureCanvasAgg(drawing)
    stream = io.BytesIO()
    drawing.savefig(stream, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def svg(drawing: Figure, name: str, title: str, words: Sequence[str]) -> str:
    """An `<svg>` element to stand in a page: what it shows is also said, and its ids are its own.

    Args:
        drawing: what to write.
        name: no other drawing's on that page.
        title: what it is, in a few words.
        words: what can be seen in it, numbers too, for who can't see it.
    """
    stream = io.StringIO()
    silent = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    drawing.savefig(stream, format="svg", transparent=True, metadata=silent)
    whole = re.sub(r"<style.*?</style>", "", stream.getvalue(), flags=re.DOTALL)
    body = whole[whole.index(">", whole.index("<svg")) + 1 :]
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', body))
    body = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], name, used), body)
    width, height = (72 * each for each in drawing.get_size_inches())
    seen = escape(" ".join(words))
    said = (
        f'<title id="{name}-title">{escape(title)}</title>\n<desc id="{name}-words">{seen}</desc>'
    )
    return (
        f'<svg class="figure" role="img" aria-labelledby="{name}-title {name}-words" '
        f'viewBox="0 0 {width:g} {height:g}">\n{said}{body.strip()}\n'
    )


def alone(element: str) -> str:
    """The same as a file of its own, with its own light and dark."""
    style = (
        f"<style>svg {{ color: {INK}; background: {PAPER}; {variables(LIGHT)} "
        'font-family: system-ui, "Helvetica Neue", Arial, sans-serif; '
        "stroke-linejoin: round; stroke-linecap: butt }\n"
        f"@media (prefers-color-scheme: dark) {{ svg {{ color: {INK_IN_THE_DARK}; "
        f"background: {PAPER_IN_THE_DARK}; {variables(DARK)} }} }}</style>"
    )
    opened = element.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    head, bracket, rest = opened.partition(">\n")
    return f"{head}{bracket}{style}\n{rest}"


def _tag(tag: str, name: str, used: set[str]) -> str:
    """A tag with its own ids and colours to be chosen later; texts between tags are left alone."""
    tag = re.sub(r' id="([^"]*)"', lambda found: _id(found[1], name, used), tag)
    tag = re.sub(r'xlink:href="#', f'href="#{name}-', tag)
    tag = tag.replace("url(#", f"url(#{name}-")
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag).replace(INK, "currentColor")
    for number, colour in enumerate(LIGHT):
        tag = tag.replace(colour, f"var(--c{number})")
    return tag


def _id(found: str, name: str, used: set[str]) -> str:
    """The one that was given; what nothing refers to needs no name."""
    return f' id="{name}-{found}"' if found in used else ""
