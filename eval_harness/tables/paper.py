"""The published numbers, from `results/reference/paper.json`; nothing here was measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from eval_harness.tasks.registry import TASKS

_COLUMNS = {
    **{task.name: task.title for task in TASKS},
    "squad_em": "SQuAD EM",
    "squad_f1": "SQuAD F1",
}
"""Titles of the columns, as the tables have them, by their keys in the file."""


def load_paper() -> dict[str, Any]:
    """Load the published numbers: from the checkout, or the copy in an installed package.

    Raises:
        UserError: they are missing, as where a checkout's whole results folder was removed.
    """
    here = Path(__file__).parent
    packaged = here / "paper.json"
    in_checkout = here.parents[1] / "results" / "reference" / "paper.json"
    path = packaged if packaged.is_file() else in_checkout
    if not path.is_file():
        raise UserError(
            f"{path}: the paper's numbers are missing: `git checkout -- results` restores them "
            "(results of your own lie beside them, in results/runs)"
        )
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def corrected(paper: Mapping[str, Any], table: str, name: str) -> dict[str, float]:
    """Return a published row with its misprints corrected.

    Args:
        paper: the published numbers.
        table: key of the table.
        name: name of the row.
    """
    errata = [each for each in paper["errata"] if (each["table"], each["row"]) == (table, name)]
    right = {each["column"]: each["should_be"] for each in errata if each["should_be"] is not None}
    return {**paper[table]["rows"][name], **right}


def footnotes(paper: Mapping[str, Any], table: str) -> list[str]:
    """Return a table's errata, each as a note."""
    return [_footnote(erratum) for erratum in paper["errata"] if erratum["table"] == table]


def _footnote(erratum: Mapping[str, Any]) -> str:
    column = _COLUMNS.get(erratum["column"], erratum["column"])
    where = ", ".join(filter(None, (erratum["row"], column)))
    right = f", should be {erratum['should_be']}" if erratum["should_be"] is not None else ""
    return (
        f"Erratum: {where or 'caption'}: printed {erratum['printed']}{right}: "
        f"{erratum['evidence']}."
    )
