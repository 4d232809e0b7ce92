"""The published numbers, of `results/reference/paper.json`; nothing here was measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load_paper() -> dict[str, Any]:
    """The published numbers: a checkout's own file, which an installed package carries too."""
    here = Path(__file__).parent
    packed = here / "paper.json"
    path = packed if packed.is_file() else here.parents[1] / "results" / "reference" / "paper.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def corrected(paper: Mapping[str, Any], table: str, name: str) -> dict[str, float]:
    """A row's numbers, a misprint replaced by what it should be."""
    slips = [slip for slip in paper["errata"] if (slip["table"], slip["row"]) == (table, name)]
    right = {slip["column"]: slip["should_be"] for slip in slips if slip["should_be"] is not None}
    return {**paper[table]["rows"][name], **right}


def footnotes(paper: Mapping[str, Any], table: str) -> list[str]:
    """The errata of a table as lines for under it."""
    return [_footnote(slip) for slip in paper["errata"] if slip["table"] == table]


def _footnote(slip: Mapping[str, Any]) -> str:
    where = " ".join(str(slip[key]) for key in ("row", "column") if slip[key])
    right = f", should be {slip['should_be']}" if slip["should_be"] is not None else ""
    return f"Erratum: {where or 'caption'}: printed {slip['printed']}{right}: {slip['evidence']}."
