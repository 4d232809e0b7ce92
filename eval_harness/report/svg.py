"""matplotlib figures as PNG, and as SVG that follows a page's light or dark mode.

matplotlib writes fixed colours; in the SVG they become `currentColor` and `var(--c0)` ..., so that
the page sets them. Equal figures give equal bytes.
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
"""Inches, of 72 points each: narrow enough that the texts are readable on a phone's screen."""

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
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and shown in any font
    "svg.hashsalt": "angels-share",
    "text.parse_math": False,  # a $ in a model's name starts no formula
}


@contextmanager
def chart_style() -> Iterator[None]:
    """Apply the report's style, whatever the user's own matplotlib settings are."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # A PNG shows a box for a character that the font lacks; the page has the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(height: float) -> Figure:
    """Return an empty figure of the standard width; the height is in inches."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def to_png(figure: Figure) -> bytes:
    """Return the figure as PNG on white, for programs that can't show SVG."""
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def to_svg(figure: Figure, name: str, title: str, words: Sequence[str]) -> str:
    """Return an `<svg>` element for a page, with a text description and ids of its own.

    Args:
        figure: the figure to write.
        name: prefix of the ids, unique in the page.
        title: what it is, in a few words.
        words: what it shows, with numbers, for readers who cannot see it.
    """
    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=no_metadata)
    whole = re.sub(r"<style.*?</style>", "", stream.getvalue(), flags=re.DOTALL)
    body = whole[whole.index(">", whole.index("<svg")) + 1 :]
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', body))
    # Tags only: text between them, such as a model's name, may look like an id or a colour.
    body = re.sub(r"<[^>]*>", lambda tag: _adapt_tag(tag[0], name, used), body)
    width, height = (72 * inches for inches in figure.get_size_inches())
    description = (
        f'<title id="{name}-title">{escape(title)}</title>\n'
        f'<desc id="{name}-words">{escape(" ".join(words))}</desc>'
    )
    return (
        f'<svg class="chart" role="img" aria-labelledby="{name}-title {name}-words" '
        f'viewBox="0 0 {width:g} {height:g}">\n{description}{body.strip()}\n'
    )


def standalone(element: str) -> str:
    """Return an `<svg>` element as a file that has its own light and dark mode."""
    style = (
        f"<style>svg {{ color: {INK}; background: {PAPER}; {variables(LIGHT)} "
        'font-family: system-ui, "Helvetica Neue", Arial, sans-serif; '
        "stroke-linejoin: round; stroke-linecap: butt }\n"
        f"@media (prefers-color-scheme: dark) {{ svg {{ color: {INK_IN_THE_DARK}; "
        f"background: {PAPER_IN_THE_DARK}; {variables(DARK)} }} }}</style>"
    )
    with_namespace = element.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    opening, end, rest = with_namespace.partition(">\n")
    return f"{opening}{end}{style}\n{rest}"


def _adapt_tag(tag: str, name: str, used: set[str]) -> str:
    """Return a tag with prefixed ids, without those nothing refers to, and with CSS colours."""

    def prefixed(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    tag = re.sub(r' id="([^"]*)"', prefixed, tag)
    tag = re.sub(r'xlink:href="#', f'href="#{name}-', tag)
    tag = tag.replace("url(#", f"url(#{name}-")
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag).replace(INK, "currentColor")
    for number, colour in enumerate(LIGHT):
        tag = tag.replace(colour, f"var(--c{number})")
    return tag
