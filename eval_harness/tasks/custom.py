"""Custom tasks, defined in YAML files or from Python. Imports no torch.

    name: stars                       # its name in results and tables
    columns: [review]                 # one text or two
    labels: [bad, good]               # in the order of their ids; for a regression `scale: [0, 5]`
    primary: [f1, accuracy]           # their mean is the score
    files:                            # relative to this file: .parquet, .csv, .tsv, .json, .jsonl
      train: train.csv
      validation: dev.csv

Metrics of classes are `accuracy`, `matthews`, `f1` (of the second of two), `f1_macro` (the mean of
all classes' F1) and `f1_micro` (accuracy, here); of a regression, `pearson` and `spearman`.
`hub: someone/stars`, with an optional `config`, may replace `files`. Further keys are `title`,
`also`, `label_column`, `version` and `evaluation` (the splits that are evaluated, `[validation]`
by default); a split called `test` that isn't evaluated needs no labels.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from angels_share.config import read_config, shown, typed
from angels_share.errors import UserError
from angels_share.names import REPO_ID, nearest
from angels_share.text_files import TABLE_ENDINGS
from eval_harness.tasks.registry import CUSTOM, MISMATCHED, TASKS, Metric, Task

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_COLUMNS_OF_TABLE1 = ("model", "n", "score", "retained")
_REGRESSION_METRICS = ("pearson", "spearman")
_CLASS_METRICS = tuple(name for name in get_args(Metric) if name not in _REGRESSION_METRICS)


@dataclass(frozen=True)
class _Key:
    """A key of the file, and the types that its value may have."""

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
    """Read a task from a YAML file; paths in it are relative to it.

    Raises:
        UserError: names the file and the key that is unknown, missing, duplicated or wrong.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{file}: no such file; a custom task is a YAML file")
    return _task(_Row(str(file), file.parent, read_config(file, _KEYS)))


def make_task(given: Mapping[str, Any], folder: Path | str = ".") -> Task:
    """Make a task of the keys that a YAML file would have.

    Args:
        given: the keys and their values.
        folder: the folder that paths of files are relative to.

    Raises:
        UserError: names the key that is unknown, missing or wrong.
    """
    where = f"task {given.get('name', '')}".rstrip()
    known = {name: value for name, value in given.items() if value is not None}
    for name, value in known.items():
        if name not in _KEYS:
            raise UserError(f"{where}: unknown key {shown(name)}{nearest(name, _KEYS)}")
        known[name] = typed(value, _KEYS[name], f"{where}: {name}")
    return _task(_Row(where, Path(folder).expanduser(), known))


def _task(row: "_Row") -> Task:
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
        table=CUSTOM,
        version=row.version(),
    )


@dataclass(frozen=True)
class _Row:
    """The keys of a task, each read with its own checks; `where` stands before each error."""

    where: str
    folder: Path
    given: Mapping[str, Any]

    def refuse(self, key: str, reason: str) -> UserError:
        return UserError(f"{self.where}: {key}: {reason}")

    def need(self, key: str, expected: str) -> Any:
        if key not in self.given:
            raise self.refuse(key, f"is missing (expected {expected})")
        return self.given[key]

    def name(self) -> str:
        name = str(self.need("name", "the task's name"))
        if not _NAME.fullmatch(name):
            raise self.refuse("name", f"{name!r}: use lowercase letters, digits, - _ .")
        if name in ("all", MISMATCHED, *_COLUMNS_OF_TABLE1, *(task.name for task in TASKS)):
            raise self.refuse("name", f"{name!r} is there already; choose another")
        return name

    def texts(self, key: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        values = self.need(key, "a list") if default is None else self.given.get(key, default)
        for value in values:
            if not isinstance(value, str) or not value:
                raise self.refuse(key, f"{value!r} is not text; write it in quotes")
            if values.count(value) > 1:
                raise self.refuse(key, f"{value!r} is listed twice")
        if not values and default != []:
            raise self.refuse(key, "the list is empty")
        return tuple(values)

    def evaluation(self) -> tuple[str, ...]:
        splits = self.texts("evaluation", ["validation"])
        if "train" in splits:
            raise self.refuse("evaluation", "'train' is the training split")
        return splits

    def columns(self) -> tuple[str, ...]:
        columns = self.texts("columns")
        if len(columns) > 2:
            raise self.refuse("columns", f"{len(columns)} texts; a model reads one or two")
        if self.label_column() in columns:
            raise self.refuse("columns", f"{self.label_column()!r} is the label column")
        return columns

    def label_column(self) -> str:
        return str(self.given.get("label_column", "label"))

    def labels(self) -> tuple[str, ...]:
        if ("labels" in self.given) == ("scale" in self.given):
            raise self.refuse("labels", "give either labels (classes) or scale (numbers)")
        labels = self.texts("labels") if "labels" in self.given else ()
        if len(labels) == 1:
            raise self.refuse("labels", "a single label leaves nothing to classify")
        for number, label in enumerate(labels):
            if label.isdecimal() and label != str(number):
                raise self.refuse(
                    "labels", f"{label!r} has id {number}: a numeric label must be its own id"
                )
        return labels

    def scale(self) -> tuple[float, float] | None:
        ends = self.given.get("scale")
        if ends is None:
            return None
        numbers = [end for end in ends if type(end) in (int, float) and isfinite(end)]
        if len(ends) != 2 or len(numbers) != 2 or not ends[0] < ends[1]:
            raise self.refuse("scale", f"{ends}: expected [lowest, highest]")
        return float(ends[0]), float(ends[1])

    def measures(self, key: str) -> tuple[Metric, ...]:
        names = self.texts(key, [] if key == "also" else None)
        known = _REGRESSION_METRICS if "scale" in self.given else _CLASS_METRICS
        for name in names:
            if name not in known:
                choices = f"choose from {', '.join(known)}{nearest(name, known)}"
                raise self.refuse(key, f"{name!r} is not a metric for this task; {choices}")
            if name == "f1" and len(self.labels()) != 2:
                raise self.refuse(
                    key,
                    "f1 needs two labels: it is the F1 of the second; for more labels "
                    "use f1_macro or f1_micro",
                )
        return names  # type: ignore[return-value]

    def version(self) -> int:
        version = int(self.given.get("version", 1))
        if version < 1:
            raise self.refuse("version", f"{version}: must be 1 or more")
        return version

    def hub(self) -> str | None:
        if ("hub" in self.given) == ("files" in self.given):
            raise self.refuse("files", "give either files or hub")
        name: str | None = self.given.get("hub")
        if name is not None and not REPO_ID.match(name):
            raise self.refuse("hub", f"{name!r} is not a Hub id")
        if "config" in self.given and name is None:
            raise self.refuse("config", "needs hub")
        return name

    def files(self, evaluation: Sequence[str]) -> dict[str, str]:
        """Return absolute paths: workers may run in another folder."""
        files = self.given.get("files", {})
        known = ("train", *evaluation, "test")
        for split, name in files.items():
            if split not in known:
                raise self.refuse("files", f"unknown split {split!r}{nearest(str(split), known)}")
            if not isinstance(name, str) or Path(name).suffix not in TABLE_ENDINGS:
                raise self.refuse(
                    "files", f"{split}: {name!r}: must end in one of {', '.join(TABLE_ENDINGS)}"
                )
        for split in known[:-1] if files else ():
            if split not in files:
                raise self.refuse("files", f"{split} is missing")
        return {split: str((self.folder / name).resolve()) for split, name in files.items()}
