"""Training curves, read from the folders that `run_pretrain_distill` writes. Imports no torch."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import explain
from angels_share.student_record import LINEAGE, RECORD
from eval_harness.results.store import Invalid
from eval_harness.runs.models import folder_name

PARTS = {
    "loss_ce": "the teacher's soft targets, L_ce",
    "loss_mlm": "masked words, L_mlm",
    "loss_clm": "the next word, L_clm",
    "loss_cos": "angle of hidden states, L_cos",
    "loss_mse": "distance of logits, L_mse",
}
"""The parts of the loss by their name in the records, in the order of the panels."""

_STATE = "trainer_state.json"
_CHECKPOINT = "checkpoint-"
_HELD_OUT = "eval_"
_PART = "loss_"


@dataclass(frozen=True)
class Curve:
    """A part of a student's loss by step, before weighting."""

    student: str
    part: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    held_out: bool = False
    """Whether it was measured on held-out text rather than on the training text."""


@dataclass(frozen=True)
class TrainingCurves:
    """The curves of some students, and the files that could not be read."""

    curves: Sequence[Curve] = ()
    invalid: Sequence[Invalid] = ()


def load_training_curves(folders: Sequence[Path | str]) -> TrainingCurves:
    """Load the curves of students, or of all students in a folder that `--ablation all` wrote.

    Raises:
        UserError: a folder has no student.
    """
    students = dict.fromkeys(path for folder in folders for path in _students_in(Path(folder)))
    invalid: list[Invalid] = []
    named = zip(_names(list(students)), students, strict=True)
    curves = [curve for name, path in named for curve in _curves(name, path, invalid)]
    return TrainingCurves(curves, invalid)


def _students_in(folder: Path) -> list[Path]:
    """Return the folder if it is a student's, else those of the students in it."""
    if _is_student(folder):
        return [folder]
    students = sorted(path for path in folder.glob("*/") if _is_student(path))
    if not students:
        found = f"no {RECORD} and no checkpoints in it" if folder.is_dir() else "not a folder"
        raise UserError(
            f"--students {folder}: {found}; name a student that run_pretrain_distill wrote, or a "
            "folder of such students"
        )
    return students


def _is_student(folder: Path) -> bool:
    return (folder / RECORD).is_file() or bool(_states(folder))


def _states(folder: Path) -> list[Path]:
    """Return the checkpoints' state files, the last first: it has the longest history."""
    steps = {
        int(path.parent.name.removeprefix(_CHECKPOINT)): path
        for path in folder.glob(f"{_CHECKPOINT}*/{_STATE}")
        if path.parent.name.removeprefix(_CHECKPOINT).isdecimal()
    }
    return [steps[step] for step in sorted(steps, reverse=True)]


def _names(students: Sequence[Path]) -> list[str]:
    """Return the folders' names as in the tables, with the parent's name where ambiguous."""
    paths = [path.resolve() for path in students]
    names = [folder_name(path) for path in paths]
    counts = Counter(names)
    return [
        f"{path.parent.name}/{path.name}" if counts[name] > 1 else name
        for name, path in zip(names, paths, strict=True)
    ]


def _curves(name: str, folder: Path, invalid: list[Invalid]) -> list[Curve]:
    """Return a student's curves; add files that could not be read to `invalid`."""
    read = partial(_read_first, name, folder, invalid)
    training = read(_states(folder), "log_history") or []
    record = folder / RECORD
    held_out = read([record] if record.is_file() else [], "validation_history")
    # Without a readable record, the held-out losses that training logged have to do.
    histories = {"": training, _HELD_OUT: training if held_out is None else held_out}
    curves = [
        _curve(name, part, prefix, entries)
        for part in _parts_of(histories.values())
        for prefix, entries in histories.items()
    ]
    return [curve for curve in curves if curve.steps]


_Entry = Mapping[str, float]


def title_of_part(part: str) -> str:
    """Return what a part of the loss is called on the page."""
    return PARTS.get(part, f"L_{part.removeprefix(_PART)}")


def _parts_of(histories: Iterable[Iterable[_Entry]]) -> list[str]:
    """Return the parts in the order of the panels, last those of terms that were added since."""
    found = {name.removeprefix(_HELD_OUT) for history in histories for entry in history
             for name in entry}  # fmt: skip
    others = {name for name in found if name.startswith(_PART)} - PARTS.keys()
    return [*PARTS, *sorted(others)]


def _read_first(
    name: str, folder: Path, invalid: list[Invalid], paths: Sequence[Path], key: str
) -> list[_Entry] | None:
    """Return the history in the first file that can be read; resuming, too, skips torn ones."""
    for path in paths:
        try:
            if path.is_file():  # to read a FIFO is to wait for its writer
                found = json.loads(path.read_bytes())
                if key not in found and LINEAGE in found:  # cut or exported, and not trained
                    return []
                return _entries(found[key], key)
            why = "not a file to read"
        except OSError as error:
            why = explain(error)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            why = f"its {key} can't be read: {error!r}"
        invalid.append(Invalid(f"{name}/{path.relative_to(folder).as_posix()}", why))
    return None


def _entries(history: Any, key: str) -> list[_Entry]:
    """Return the steps and the parts of the loss, which all must be numbers."""
    if type(history) is not list or any(type(entry) is not dict for entry in history):
        raise ValueError(f"{key} is not a list of records")
    return [
        {
            name: _number(name, value)
            for name, value in sorted(entry.items())
            if name == "step" or name.removeprefix(_HELD_OUT).startswith(_PART)
        }
        for entry in history
    ]


def _number(name: str, value: Any) -> float:
    if type(value) is not int and (name == "step" or type(value) is not float):
        raise ValueError(f"{name} is {value!r:.40}")
    return float(value)


def _curve(name: str, part: str, prefix: str, entries: Iterable[_Entry]) -> Curve:
    values = {
        int(entry["step"]): entry[prefix + part]
        for entry in entries
        if "step" in entry and math.isfinite(entry.get(prefix + part, math.nan))
    }
    steps = tuple(sorted(values))
    return Curve(name, part, steps, tuple(values[step] for step in steps), bool(prefix))
