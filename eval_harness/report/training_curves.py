"""Training curves, read from the folders that `run_pretrain_distill` writes. Imports no torch."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from angels_share.ablations import ABLATIONS
from angels_share.errors import UserError
from angels_share.files import explain
from angels_share.student_record import RECORD
from eval_harness.results.store import Invalid

PARTS = {
    "loss_ce": "the teacher's soft targets, L_ce",
    "loss_mlm": "masked words, L_mlm",
    "loss_clm": "the next word, L_clm",
    "loss_cos": "angle of hidden states, L_cos",
    "loss_mse": "distance of logits, L_mse",
}
"""The parts of the loss as records name them, in the order in which they are shown."""

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


@dataclass(frozen=True)
class Training:
    """How students were made, and the files that should say so but can't be used."""

    curves: Sequence[Curve] = ()
    odd: Sequence[Invalid] = ()


def training_of(folders: Sequence[Path | str]) -> Training:
    """The curves of students, or of all students in a folder such as `--ablation all` makes.

    Raises:
        UserError: there is no student.
    """
    students = dict.fromkeys(path for folder in folders for path in _students_in(Path(folder)))
    odd: list[Invalid] = []
    named = zip(_names(list(students)), students, strict=True)
    curves = [curve for name, path in named for curve in _curves(name, path, odd)]
    return Training(curves, odd)


def _students_in(folder: Path) -> list[Path]:
    """A student's own folder, or those of the students that lie in it."""
    if _is_student(folder):
        return [folder]
    below = sorted(path for path in folder.glob("*/") if _is_student(path))
    if not below:
        what = f"holds neither {RECORD} nor checkpoints" if folder.is_dir() else "is no folder"
        raise UserError(
            f"--students {folder}: {what}: name what run_pretrain_distill wrote, a student or a "
            "folder of students"
        )
    return below


def _is_student(folder: Path) -> bool:
    return (folder / RECORD).is_file() or bool(_states(folder))


def _states(folder: Path) -> list[Path]:
    """What each checkpoint says, the last one first: it knows most of the run."""
    steps = {
        int(path.parent.name.removeprefix(_CHECKPOINT)): path
        for path in folder.glob(f"{_CHECKPOINT}*/{_STATE}")
        if path.parent.name.removeprefix(_CHECKPOINT).isdecimal()
    }
    return [steps[step] for step in sorted(steps, reverse=True)]


def _names(students: Sequence[Path]) -> list[str]:
    """The folders' names, as tables bear them; two of one name with their own folder's."""
    whole = [path.resolve() for path in students]
    alike = Counter(path.name for path in whole)
    return [
        f"{path.parent.name}/{path.name}"
        if path.name in ABLATIONS or alike[path.name] > 1
        else path.name
        for path in whole
    ]


def _curves(name: str, folder: Path, odd: list[Invalid]) -> list[Curve]:
    """A student's; what is passed over on the way is added to `odd`."""
    first = partial(_first, name, folder, odd)
    trained = first(_states(folder), "log_history") or []
    record = folder / RECORD
    held_out = first([record] if record.is_file() else [], "validation_history")
    sources = {"": trained, _HELD_OUT: trained if held_out is None else held_out}
    curves = [
        _curve(name, part, prefix, entries) for part in PARTS for prefix, entries in sources.items()
    ]
    return [curve for curve in curves if curve.steps]


_Entry = Mapping[str, float]


def _first(
    name: str, folder: Path, odd: list[Invalid], paths: Sequence[Path], key: str
) -> list[_Entry] | None:
    """What the first of these files says that can be used, as resuming takes an older one too."""
    for path in paths:
        try:
            return _entries(json.loads(path.read_bytes())[key], key)
        except OSError as error:
            why = explain(error)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            why = f"has no {key} that can be read: {error!r}"
        odd.append(Invalid(f"{name}/{path.relative_to(folder).as_posix()}", why))
    return None


def _entries(found: Any, key: str) -> list[_Entry]:
    """The steps and the parts of the loss, which all have to be numbers."""
    if type(found) is not list or any(type(entry) is not dict for entry in found):
        raise ValueError(f"{key} is no list of records")
    wanted = {"step", *PARTS, *(_HELD_OUT + part for part in PARTS)}
    return [
        {name: _number(name, entry[name]) for name in sorted(entry.keys() & wanted)}
        for entry in found
    ]


def _number(name: str, value: Any) -> float:
    if type(value) is not int and (name == "step" or type(value) is not float):
        raise ValueError(f"{name} is {value!r:.40}")
    return float(value)


def _curve(name: str, part: str, prefix: str, entries: Iterable[_Entry]) -> Curve:
    found = {
        int(entry["step"]): entry[prefix + part]
        for entry in entries
        if "step" in entry and math.isfinite(entry.get(prefix + part, math.nan))
    }
    steps = tuple(sorted(found))
    return Curve(name, part, steps, tuple(found[step] for step in steps), bool(prefix))
