"""A task of one's own: a row that is written as YAML. Imports no torch.

    name: stars                       # its name among the results
    columns: [review]                 # one text or two
    labels: [bad, good]               # in the order of their ids; or `scale: [0, 5]` for numbers
    primary: [f1, accuracy]           # their mean is the score
    files:                            # beside this file: .parquet, .csv, .tsv, .json, .jsonl
      train: train.csv
      validation: dev.csv

Instead of `files` there may be `hub: someone/stars`, with its `config`. `title`, `also`,
`label_column`, `evaluation` (the splits that are evaluated, `[validation]` by default) and
`version` may be there too; a split called `test` that isn't evaluated needs no labels.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from angels_share.config import read_config
from angels_share.errors import UserError
from angels_share.names import REPO_ID, nearest
from angels_share.text_files import TABLE_ENDINGS
from eval_harness.tasks.registry import TASKS, Measure, Task

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_COLUMNS_OF_TABLE1 = ("model", "n", "score", "retained")
_OF_NUMBERS = ("pearson", "spearman")
_OF_CLASSES = tuple(measure for measure in get_args(Measure) if measure not in _OF_NUMBERS)


@dataclass(frozen=True)
class _Key:
    """A key of the file and the types that its value may have."""

    name: str
    accepts: tuple[type, ...] = (str,)
    optional: bool = False


_KEYS = {
    key.name: key
    for key in (
        _Key("name"),
        _Key("title"),
        _Key("columns", (list,)),
        _Key("labels", (list,)),
        _Key("scale", (list,)),
        _Key("primary", (list,)),
        _Key("also", (list,)),
        _Key("version", (int,)),
        _Key("label_column"),
        _Key("evaluation", (list,)),
        _Key("files", (dict,)),
        _Key("hub"),
        _Key("config"),
    )
}


def read_task(path: Path | str) -> Task:
    """The row in a YAML file; paths in it are relative to it.

    Raises:
        UserError: names the file and the key that is unknown, missing, twice there, or wrong.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{file}: there is no such file; a task of one's own is a YAML file")
    row = _Row(file, read_config(file, _KEYS))
    title = row.given.get("title", row.name())
    evaluation = row.evaluation()
    files = row.files(evaluation)
    return Task(
        name=row.name(),
        title=title,
        columns=row.columns(),
        labels=row.labels(),
        primary=row.measures("primary"),
        also=row.measures("also"),
        scale=row.scale(),
        evaluation=evaluation,
        test=() if "test" in evaluation or (files and "test" not in files) else ("test",),
        hub=row.hub(),
        config=row.given.get("config"),
        files=files,
        label_column=row.label_column(),
        version=row.version(),
    )


@dataclass(frozen=True)
class _Row:
    """A file's keys, each read with its own checks."""

    file: Path
    given: Mapping[str, Any]

    def refuse(self, key: str, reason: str) -> UserError:
        return UserError(f"{self.file}: {key}: {reason}")

    def need(self, key: str, what: str) -> Any:
        if key not in self.given:
            raise self.refuse(key, f"is missing: {what}")
        return self.given[key]

    def name(self) -> str:
        name = str(self.need("name", "what the task is called"))
        if not _NAME.fullmatch(name):
            raise self.refuse("name", f"{name!r}: small letters, digits, - _ . are wanted")
        if name in ("all", "mnli-mm", *_COLUMNS_OF_TABLE1, *(task.name for task in TASKS)):
            raise self.refuse("name", f"{name!r} is there already; choose another")
        return name

    def texts(self, key: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        values = self.need(key, "a list") if default is None else self.given.get(key, default)
        for value in values:
            if not isinstance(value, str) or not value:
                raise self.refuse(key, f"{value!r} is no text; write it in quotes")
            if values.count(value) > 1:
                raise self.refuse(key, f"{value!r} stands there twice")
        if not values and default != []:
            raise self.refuse(key, "the list is empty")
        return tuple(values)

    def evaluation(self) -> tuple[str, ...]:
        splits = self.texts("evaluation", ["validation"])
        if "train" in splits:
            raise self.refuse("evaluation", "'train' is what is learned from")
        return splits

    def columns(self) -> tuple[str, ...]:
        columns = self.texts("columns")
        if len(columns) > 2:
            raise self.refuse("columns", f"{len(columns)} texts; a model reads one or two")
        if self.label_column() in columns:
            raise self.refuse("columns", f"{self.label_column()!r} holds the labels")
        return columns

    def label_column(self) -> str:
        return str(self.given.get("label_column", "label"))

    def labels(self) -> tuple[str, ...]:
        if ("labels" in self.given) == ("scale" in self.given):
            raise self.refuse("labels", "either labels (classes) or scale (numbers) is wanted")
        labels = self.texts("labels") if "labels" in self.given else ()
        if len(labels) == 1:
            raise self.refuse("labels", "one label alone leaves nothing to tell apart")
        for number, label in enumerate(labels):
            if label.isdecimal() and label != str(number):
                raise self.refuse("labels", f"{label!r} stands at {number}: a name or its own id?")
        return labels

    def scale(self) -> tuple[float, float] | None:
        ends = self.given.get("scale")
        if ends is None:
            return None
        numbers = [end for end in ends if type(end) in (int, float) and isfinite(end)]
        if len(ends) != 2 or len(numbers) != 2 or not ends[0] < ends[1]:
            raise self.refuse("scale", f"{ends}: the lowest and the highest number are wanted")
        return float(ends[0]), float(ends[1])

    def measures(self, key: str) -> tuple[Measure, ...]:
        names = self.texts(key, [] if key == "also" else None)
        known = _OF_NUMBERS if "scale" in self.given else _OF_CLASSES
        for name in names:
            if name not in known:
                fitting = f"these fit: {', '.join(known)}{nearest(name, known)}"
                raise self.refuse(key, f"{name!r} is no measure of this task; {fitting}")
            if name == "f1" and len(self.labels()) != 2:
                raise self.refuse(key, "f1 is of the second of two labels")
        return names  # type: ignore[return-value]

    def version(self) -> int:
        version = int(self.given.get("version", 1))
        if version < 1:
            raise self.refuse("version", f"{version}: must be 1 or more")
        return version

    def hub(self) -> str | None:
        if ("hub" in self.given) == ("files" in self.given):
            raise self.refuse("files", "either files or hub is wanted")
        name: str | None = self.given.get("hub")
        if name is not None and not REPO_ID.match(name):
            raise self.refuse("hub", f"{name!r} is no name on the Hub")
        if "config" in self.given and name is None:
            raise self.refuse("config", "goes with hub")
        return name

    def files(self, evaluation: Sequence[str]) -> dict[str, str]:
        """Whole paths, so that a worker finds them wherever it runs."""
        files = self.given.get("files", {})
        known = ("train", *evaluation, "test")
        for split, name in files.items():
            if split not in known:
                raise self.refuse("files", f"unknown split {split!r}{nearest(str(split), known)}")
            if not isinstance(name, str) or Path(name).suffix not in TABLE_ENDINGS:
                raise self.refuse(
                    "files", f"{split}: {name!r}: one of {', '.join(TABLE_ENDINGS)} is wanted"
                )
        for split in known[:-1] if files else ():
            if split not in files:
                raise self.refuse("files", f"{split} is missing")
        return {split: str((self.file.parent / name).resolve()) for split, name in files.items()}
