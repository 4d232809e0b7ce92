"""The record in a student's folder, which both packages read. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import sha256_of_file, write_json
from angels_share.model_files import WEIGHTS

RECORD = "distil.json"
LINEAGE = "lineage"
"""The record's list of steps after pre-training, in their order: what was made from what."""
FINE_TUNED, PRUNED, EXPORTED = "fine-tune", "prune", "export"
"""What a step did."""


def is_complete(folder: Path) -> bool:
    """Return whether a student's training is finished; an interrupted one has a record, too."""
    try:
        return bool(json.loads((folder / RECORD).read_text())["status"] == "complete")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_record(folder: Path) -> dict[str, Any]:
    """Return a folder's record; {} where it has none.

    Raises:
        UserError: there is one, but it can't be read.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not _are_steps(record.get(LINEAGE, [])):
            raise ValueError("not an object with a list of steps")  # noqa: TRY301
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't be read as a record: {error}") from error
    return record


def _are_steps(found: object) -> bool:
    names = ("what", "file")
    return isinstance(found, list) and all(
        isinstance(step, dict) and all(isinstance(step.get(name), str) for name in names)
        for step in found
    )


def add_step(folder: Path, step: Mapping[str, Any]) -> None:
    """Add a step to a folder's lineage: `what` was done, the `file` that it made, and more."""
    write_steps(folder, [*read_record(folder).get(LINEAGE, []), step])


def steps_of_weights(folder: Path) -> list[dict[str, Any]]:
    """Return the steps by which a folder's weights were made, without those of other files.

    There are none where the last of them made other weights than those that are there now.
    """
    steps = [step for step in read_record(folder).get(LINEAGE, []) if step["file"] == WEIGHTS]
    weights = folder / WEIGHTS
    if not steps or not weights.is_file() or steps[-1].get("sha256") != sha256_of_file(weights):
        return []
    return steps


def steps_of_files(folder: Path) -> list[dict[str, Any]]:
    """Return the steps that made a folder's other files, of those that are there and unchanged."""
    return [
        step
        for step in read_record(folder).get(LINEAGE, [])
        if step["file"] != WEIGHTS
        and (path := folder / step["file"]).is_file()
        and step.get("sha256") == sha256_of_file(path)
    ]


def write_steps(folder: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    """Replace a folder's lineage; the rest of its record stays."""
    write_json(folder / RECORD, {**read_record(folder), LINEAGE: [dict(step) for step in steps]})
