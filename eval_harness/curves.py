"""Training curves, read from the folders that `run_pretrain_distill` writes. Imports no torch."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import explain
from eval_harness.runs import LEFT_OUT

PARTS = {
    "loss_ce": "the teacher's soft targets, L_ce",
    "loss_mlm": "masked words, L_mlm",
    "loss_clm": "the next word, L_clm",
    "loss_cos": "angle of hidden states, L_cos",
    "loss_mse": "distance of logits, L_mse",
}
"""The parts of the loss as records name them, in the order in which they are shown."""

_RECORD = "distil.json"
_STATE = "trainer_state.json"
_CHECKPOINT = "checkpoint-"
_HELD_OUT = "eval_"


@dataclass(frozen=True)
class Curve:
    """A part of a student's loss by step, before it is weighed."""

    student: str
    part: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    held_out: bool = False
    """Whether it is of text that was held out, rather than of what was trained on."""


def curves_of(folders: Sequence[Path | str]) -> list[Curve]:
    """The curves of students, or of all students in a folder such as `--ablation all` makes.

    Raises:
        UserError: there is no student, or what it says of itself can't be read.
    """
    students = dict.fromkeys(path for folder in folders for path in _students_in(Path(folder)))
    named = zip(_names(list(students)), students, strict=True)
    return [curve for name, path in named for curve in _curves(name, path)]


def _students_in(folder: Path) -> list[Path]:
    """A student's own folder, or those of the students that lie in it."""
    if _is_student(folder):
        return [folder]
    below = sorted(path for path in folder.glob("*/") if _is_student(path))
    if not below:
        what = f"holds neither {_RECORD} nor checkpoints" if folder.is_dir() else "is no folder"
        raise UserError(
            f"--students {folder}: {what}: name what run_pretrain_distill wrote, a student or a "
            "folder of students"
        )
    return below


def _is_student(folder: Path) -> bool:
    return (folder / _RECORD).is_file() or _newest_state(folder) is not None


def _newest_state(folder: Path) -> Path | None:
    """What the last checkpoint says; an earlier one knows less of the same run."""
    steps = {
        int(path.parent.name.removeprefix(_CHECKPOINT)): path
        for path in folder.glob(f"{_CHECKPOINT}*/{_STATE}")
        if path.parent.name.removeprefix(_CHECKPOINT).isdecimal()
    }
    return steps[max(steps)] if steps else None


def _names(students: Sequence[Path]) -> list[str]:
    """The folders' names, as tables bear them; two of one name with their own folder's."""
    whole = [path.resolve() for path in students]
    alike = Counter(path.name for path in whole)
    return [
        f"{path.parent.name}/{path.name}"
        if path.name in LEFT_OUT or alike[path.name] > 1
        else path.name
        for path in whole
    ]


def _curves(name: str, folder: Path) -> list[Curve]:
    state = _newest_state(folder)
    trained = _entries(state, "log_history") if state else []
    record = folder / _RECORD
    held_out = _entries(record, "validation_history") if record.is_file() else trained
    curves = [
        _curve(name, part, prefix, entries)
        for part in PARTS
        for prefix, entries in (("", trained), (_HELD_OUT, held_out))
    ]
    return [curve for curve in curves if curve.steps]


def _curve(name: str, part: str, prefix: str, entries: Iterable[Mapping[str, Any]]) -> Curve:
    found = {
        int(entry["step"]): float(entry[prefix + part])
        for entry in entries
        if "step" in entry and math.isfinite(entry.get(prefix + part, math.nan))
    }
    steps = tuple(sorted(found))
    return Curve(name, part, steps, tuple(found[step] for step in steps), bool(prefix))


def _entries(path: Path, key: str) -> list[Mapping[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))[key]
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: has no {key} that can be read: {error!r}") from error
    return [entry for entry in entries if isinstance(entry, Mapping)]
