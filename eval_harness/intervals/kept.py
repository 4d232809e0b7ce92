"""Resampled scores that are kept in files: differences are told from them, without the examples.

    intervals/<hash of what they were made of>.json

Examples may hold what must not be published, such as a data set's labels. What a bootstrap made of
them doesn't: of each model a score for each resample, the same draws for all.
"""

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from angels_share.errors import RunFailed
from angels_share.files import hash_of, write_json
from eval_harness.intervals.differences import Numbers

INTERVALS = "intervals"
_VERSION = 1


@dataclass(frozen=True)
class Kept:
    """A measure of one model, or of several on the same examples.

    Attributes:
        points: the score of each of them.
        resampled: [models, resamples], rounded to float32.
        examples: a hash of the examples: others can't be compared.
        count: their number.
        counted: a hash of what the score is divided by, where a tokenizer decides that.
    """

    points: Numbers
    resampled: Numbers
    examples: str
    count: int
    counted: str = ""


def read_kept(root: Path, made_of: Mapping[str, Any]) -> dict[str, Kept] | None:
    """Return what was kept of exactly these inputs, by measure; None for any other or torn file."""
    try:
        record = json.loads(_path(root, made_of).read_text(encoding="utf-8"))
        if record["made_of"] != _versioned(made_of):
            return None
        return {name: _from_record(each) for name, each in record["kept"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def require_kept(root: Path, made_of: Mapping[str, Any]) -> None:
    """Refuse to go on where what was made of some inputs is in no file, so that they must stay.

    Raises:
        RunFailed: it is in no file.
    """
    if read_kept(root, made_of) is None:
        raise RunFailed(f"{root / INTERVALS}: what is to be kept can't be written there")


def keep(root: Path, made_of: Mapping[str, Any], found: Mapping[str, Kept]) -> dict[str, Kept]:
    """Write what was made of some inputs, and return it as it will be read."""
    record = {name: _to_record(each) for name, each in found.items()}
    with suppress(OSError):  # where nothing can be kept, it is made again the next time
        write_json(_path(root, made_of), {"made_of": _versioned(made_of), "kept": record})
    return {name: _from_record(each) for name, each in record.items()}


def _versioned(made_of: Mapping[str, Any]) -> dict[str, Any]:
    return {"version": _VERSION, **made_of}


def _path(root: Path, made_of: Mapping[str, Any]) -> Path:
    return root / INTERVALS / f"{hash_of(_versioned(made_of), 16)}.json"


def _to_record(kept: Kept) -> dict[str, Any]:
    data = kept.resampled.astype("<f4").tobytes()
    return {
        "points": [float(point) if np.isfinite(point) else None for point in kept.points],
        "resampled": base64.b64encode(data).decode("ascii"),
        "examples": kept.examples,
        "count": kept.count,
        "counted": kept.counted,
    }


def _from_record(record: Mapping[str, Any]) -> Kept:
    points = np.array([np.nan if point is None else point for point in record["points"]], float)
    data = base64.b64decode(record["resampled"], validate=True)
    resampled = np.frombuffer(data, "<f4").reshape(len(points), -1).astype(np.float64)
    return Kept(
        points, resampled, str(record["examples"]), int(record["count"]), str(record["counted"])
    )
