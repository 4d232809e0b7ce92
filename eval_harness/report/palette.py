"""The colours of the report's charts, in light and dark mode, and the files they go into."""

from collections.abc import Sequence

CHART_ENDINGS = (".svg", ".png")

INK, PAPER = "#1f2328", "#ffffff"
INK_IN_THE_DARK, PAPER_IN_THE_DARK = "#e4e7eb", "#16191d"

LIGHT = ("#0067a6", "#c14a00", "#00795a", "#a63d7d", "#8a6100", "#5b56c4", "#57606a")
DARK = ("#63b3ed", "#ff9557", "#45c9a0", "#ee9acb", "#dfb44a", "#a9a5ff", "#a8b1bb")
"""The same seven hues, lighter. The first seven models differ in marker as well as in colour."""


def variables(colours: Sequence[str]) -> str:
    """Return the colours as CSS variables: `--c0: #0067a6; ...`."""
    return " ".join(f"--c{number}: {colour};" for number, colour in enumerate(colours))
