"""Custom tasks, defined in YAML files or from Python. Imports no torch.

    name: stars                       # its name in results and tables
    columns: [review]                 # one text or two
    labels: [bad, good]               # in the order of their ids; for a regression `scale: [0, 5]`
    primary: [f1, accuracy]           # their mean is the score
    files:                            # relative to this file: .parquet, .csv, .tsv, .json, .jsonl
      train: train.csv
      validation: dev.csv

Of tagged words, such as named entities, where each word has a tag:

    name: places
    kind: tokens
    columns: [tokens, ner_tags]       # lists of words and of tags in .parquet, .json, .jsonl
    labels: [O, B-LOC, I-LOC]         # every tag, in the order of their ids
    files:                            # or of one word a line: .conll, .txt; columns: [1, 4] there,
      train: train.conll              # if it isn't the first for words and the last for tags
      validation: dev.conll

Its metrics are `entity_f1`, `entity_precision` and `entity_recall` as conlleval counts, and
`strict_f1`, `strict_precision`, `strict_recall` by IOB2's rules; the score is `entity_f1` unless
`primary` says otherwise. `encoding: latin-1` is for files of words that are not UTF-8.

Of text alone, whose perplexity is judged:

    name: letters
    kind: perplexity
    columns: [text]                   # may be left out; a row, or line of a .txt, is a document
    headings: false                   # true where it is a line, and ` = Title = ` begins one
    files:                            # also .txt; without `train`, models are judged as they are
      train: train.jsonl              # (--eval_only)
      validation: dev.jsonl

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
from angels_share.readers.text_files import TABLE_ENDINGS
from eval_harness.tasks.entities import ENTITY_METRICS, OUTSIDE
from eval_harness.tasks.kinds import PERPLEXITY, TEXTS, TOKENS, Kind
from eval_harness.tasks.registry import (
    CUSTOM,
    LANGUAGE_MODELLING,
    PERPLEXITY_TABLE,
    TASKS,
    ColumnFiles,
    LabelMetric,
    Metric,
    PerplexityMetric,
    Task,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_REGRESSION_METRICS = ("pearson", "spearman")
_CLASS_METRICS = tuple(name for name in get_args(LabelMetric) if name not in _REGRESSION_METRICS)
_KINDS = {kind.name: kind for kind in (TEXTS, TOKENS, PERPLEXITY)}
_WORDS_AND_TAGS = ("tokens", "ner_tags")
_COLUMN_FILES = (".conll", ".txt")
_LISTS = (".parquet", ".json", ".jsonl")
_ENCODINGS = ("utf-8", "latin-1")
_TAKEN = {
    *("model", "n", "score", "retained", "all"),
    *(task.name for task in TASKS),
    *(task.second.cell for task in TASKS if task.second),
}


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
        _Key("kind"),
        _Key("encoding"),
        _Key("headings", (bool,)),
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
        kind=row.kind(),
        columns=row.columns(),
        labels=row.labels(),
        primary=row.primary(),
        also=row.also(),
        scale=row.scale(),
        evaluation=evaluation,
        test=() if "test" in evaluation or (files and "test" not in files) else ("test",),
        hub=row.hub(),
        config=row.given.get("config"),
        files=files,
        column_files=row.column_files(),
        label_column=row.label_column(),
        has_headings=row.has_headings(),
        fine_tuning=LANGUAGE_MODELLING if row.is_text() else {},
        table=PERPLEXITY_TABLE if row.is_text() else CUSTOM,
        higher_is_better=not row.is_text(),
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
        if name in _TAKEN:
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

    def kind(self) -> Kind:
        name = self.given.get("kind", TEXTS.name)
        if name not in _KINDS:
            choices = f"choose from {', '.join(_KINDS)}{nearest(name, _KINDS)}"
            raise self.refuse("kind", f"{name!r} is no kind of custom task; {choices}")
        return _KINDS[name]

    def are_tagged(self) -> bool:
        return self.kind() == TOKENS

    def is_text(self) -> bool:
        """Return whether it is of text alone; refuse what such a task has not."""
        if self.kind() != PERPLEXITY:
            return False
        for key in ("labels", "scale", "primary", "also", "label_column", "encoding"):
            if key in self.given:
                raise self.refuse(key, "is for tasks with labels; a perplexity has none")
        return True

    def has_headings(self) -> bool:
        if "headings" in self.given and not self.is_text():
            raise self.refuse("headings", f"is for kind: {PERPLEXITY.name}")
        return bool(self.given.get("headings", False))

    def columns(self) -> tuple[str, ...]:
        if self.are_tagged():
            return self.words_and_tags()[:1]
        if self.is_text():
            columns = self.texts("columns", ["text"])
            if len(columns) != 1:
                raise self.refuse("columns", f"{list(columns)}: expected one, of text")
            return columns
        columns = self.texts("columns")
        if len(columns) > 2:
            raise self.refuse("columns", f"{len(columns)} texts; a model reads one or two")
        if self.label_column() in columns:
            raise self.refuse("columns", f"{self.label_column()!r} is the label column")
        return columns

    def words_and_tags(self) -> tuple[str, str]:
        """Return the names of the columns of words and of tags; those of column files have none."""
        if self.is_of_column_files():
            return _WORDS_AND_TAGS
        columns = self.texts("columns", _WORDS_AND_TAGS)
        if len(columns) != 2:
            raise self.refuse("columns", f"{list(columns)}: expected two, of words and of tags")
        return columns[0], columns[1]

    def is_of_column_files(self) -> bool:
        files = self.given.get("files", {}).values()
        return any(Path(str(name)).suffix in _COLUMN_FILES for name in files)

    def column_files(self) -> ColumnFiles | None:
        """Return where word and tag stand in files of one word a line, if there are such."""
        encoding = self.given.get("encoding")
        if not self.are_tagged() or not self.is_of_column_files():
            if encoding is not None:
                raise self.refuse("encoding", "is for files of one word a line, .conll or .txt")
            return None
        if encoding not in (None, *_ENCODINGS):
            raise self.refuse("encoding", f"{encoding!r}: choose from {', '.join(_ENCODINGS)}")
        places = self.given.get("columns", [1, -1])
        if places == list(_WORDS_AND_TAGS):
            places = [1, -1]
        numbers = [place for place in places if type(place) is int and place != 0]
        if len(numbers) != 2 or len(places) != 2:
            raise self.refuse(
                "columns",
                f"{places}: files of one word a line have no names of columns: expected two "
                "numbers, of the words' and the tags', counted from 1 (-1 is the last)",
            )
        word, tag = (place - 1 if place > 0 else place for place in numbers)
        if word == tag:
            raise self.refuse("columns", f"{places}: words and tags in one column")
        return ColumnFiles(word=word, tag=tag, encoding=encoding or "utf-8")

    def label_column(self) -> str:
        if self.are_tagged():
            if "label_column" in self.given:
                raise self.refuse("label_column", "the second of columns is that of the tags")
            return self.words_and_tags()[1]
        return "" if self.is_text() else str(self.given.get("label_column", "label"))

    def tags(self) -> tuple[str, ...]:
        """Return the tags of tagged words: O, and B- and I- of each type."""
        tags = self.texts("labels")
        if OUTSIDE not in tags or len(tags) < 2:
            raise self.refuse("labels", f"{list(tags)}: expected O and the tags of entities")
        for tag in tags:
            prefix, dash, kind = tag.partition("-")
            if tag != OUTSIDE and (prefix not in ("B", "I") or not dash or not kind):
                raise self.refuse("labels", f"{tag!r}: expected O, or B- or I- and a type")
            for other in ("B", "I"):
                if kind and f"{other}-{kind}" not in tags:
                    raise self.refuse("labels", f"{other}-{kind} is missing beside {tag}")
        return tags

    def labels(self) -> tuple[str, ...]:
        if self.are_tagged():
            if "scale" in self.given:
                raise self.refuse("scale", "is for regressions; tagged words have labels")
            return self.tags()
        if self.is_text():
            return ()
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

    def primary(self) -> tuple[Metric, ...]:
        if self.are_tagged() and "primary" not in self.given:
            return ("entity_f1",)
        if self.is_text():
            return get_args(PerplexityMetric)[:1]
        return self.measures("primary")

    def also(self) -> tuple[Metric, ...]:
        """Return the metrics that don't count; of entities and texts all are reported anyway."""
        if self.is_text():
            return get_args(PerplexityMetric)[1:]
        named = self.measures("also")
        if not self.are_tagged():
            return named
        return tuple(name for name in ENTITY_METRICS if name not in self.primary())

    def measures(self, key: str) -> tuple[Metric, ...]:
        names = self.texts(key, [] if key == "also" else None)
        known: Sequence[str] = _REGRESSION_METRICS if "scale" in self.given else _CLASS_METRICS
        known = ENTITY_METRICS if self.are_tagged() else known
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
        endings: tuple[str, ...] = (*_LISTS, *_COLUMN_FILES) if self.are_tagged() else TABLE_ENDINGS
        endings = (*endings, ".txt") if self.is_text() else endings
        for split, name in files.items():
            if split not in known:
                raise self.refuse("files", f"unknown split {split!r}{nearest(str(split), known)}")
            if not isinstance(name, str) or Path(name).suffix not in endings:
                raise self.refuse(
                    "files", f"{split}: {name!r}: must end in one of {', '.join(endings)}"
                )
        needed = known[1:-1] if self.is_text() else known[:-1]
        for split in needed if files else ():
            if split not in files:
                raise self.refuse("files", f"{split} is missing")
        return {split: str((self.folder / name).resolve()) for split, name in files.items()}
