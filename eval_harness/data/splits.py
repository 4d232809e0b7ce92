"""A task's rows, whatever they are read from: texts and labels, or questions. Imports no torch."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from angels_share.errors import UserError
from angels_share.files import hash_of
from eval_harness.data.columns import Columns
from eval_harness.data.labels import labels_of
from eval_harness.data.sources import Origin, names_of, origin_of
from eval_harness.data.squad_files import Questions, of_columns, read_squad
from eval_harness.tasks.registry import Task


@dataclass(frozen=True)
class Split:
    """A part of a task's data, in the order of its file.

    An id is what the file calls a row (`idx`, `index` or `id`), else its number from 0. The same
    rows have the same ids in GLUE's TSVs and on the Hub, but in MRPC's and QQP's training and dev
    files, whose rows the Hub numbers in another way.
    """

    name: str
    ids: Sequence[str]
    texts: tuple[Sequence[str], ...]
    """One sequence for each of the task's columns."""
    labels: NDArray[Any] | None
    """int64 class ids, or float64 numbers for a regression; None in a test split."""

    def __len__(self) -> int:
        return len(self.ids)


_Part = TypeVar("_Part", Split, Questions)


@dataclass(frozen=True)
class TaskData(Generic[_Part]):
    """All of a task that a run reads.

    `content` is a hash of what the training and evaluation splits say (texts and labels in order),
    so the same rows are the same data, whatever format they were read from.
    """

    task: Task
    train: _Part
    evaluation: tuple[_Part, ...]
    test: tuple[_Part, ...]
    source: str
    """`hub:<id>/<config>`, the task's folder below the data folder, or the names of files."""
    revision: str | None
    content: str
    limit: int | None
    overlap: int
    """Evaluation examples whose texts stand in the training split too."""
    name: str | None = None
    """What the data say that they are, where they stand in for others."""


def load_task(
    task: Task,
    data_dir: Path | None,
    *,
    limit: int | None = None,
    revision: str | None = None,
    test: bool = False,
) -> TaskData[Any]:
    """Reads a task, strictly.

    Args:
        task: what to read.
        data_dir: a folder of GLUE's own TSVs, or of parquet, csv or json in the Hub's columns (see
            `origin_of`); the Hub where it is None. What the task names files of is read from them.
        limit: at most so many examples of the training and of each evaluation split, evenly
            spaced: IMDb is sorted by label.
        revision: the commit of the Hub's data set; the newest one where it is None.
        test: whether the test splits are read too, always whole.

    Raises:
        UserError: the data isn't there, or isn't clean: `path:line: reason`.
    """
    if task.kind == "questions":
        return _questions(task, data_dir, limit, revision)
    return _texts(task, data_dir, limit, revision, test=test)


def _texts(
    task: Task, data_dir: Path | None, limit: int | None, revision: str | None, *, test: bool
) -> TaskData[Split]:
    names = ("train", *task.evaluation, *(task.test if test else ()))
    origin = origin_of(task, data_dir, names, revision)
    splits = {name: _split(task, name, origin.read(name)) for name in names}
    train, *evaluation = [_thinned(splits[name], limit) for name in ("train", *task.evaluation)]
    return TaskData(
        task=task,
        train=train,
        evaluation=tuple(evaluation),
        test=tuple(splits[name] for name in task.test) if test else (),
        source=origin.source,
        revision=origin.revision,
        content=_content([train, *evaluation]),
        limit=limit,
        overlap=_overlap(
            zip(*train.texts, strict=True),
            [texts for split in evaluation for texts in zip(*split.texts, strict=True)],
        ),
        name=origin.name,
    )


def _questions(
    task: Task, data_dir: Path | None, limit: int | None, revision: str | None
) -> TaskData[Questions]:
    """Each split from the file that the task names, else from where the task lies."""
    names = ("train", *task.evaluation)
    elsewhere = [name for name in names if name not in task.files]
    if revision is not None and not elsewhere:
        raise UserError(f"revision {revision} is the Hub's, and {task.title} is read from files")
    origin = None
    if elsewhere:
        origin = origin_of(replace(task, files={}), data_dir, elsewhere, revision)
    train, *evaluation = [_asked(task, name, origin, limit) for name in names]
    files = [Path(task.files[name]) for name in names if name in task.files]
    called = [names_of(file.parent for file in files), origin.name if origin else None]
    return TaskData(
        task=task,
        train=train,
        evaluation=tuple(evaluation),
        test=(),
        source=", ".join([*(file.name for file in files), *([origin.source] if origin else [])]),
        revision=origin.revision if origin else None,
        # Answers bear the questions' ids, so what is evaluated is told apart by them too.
        content=hash_of([train.content, [(part.content, *part.ids) for part in evaluation]], 16),
        limit=limit,
        overlap=_overlap(_pairs(train), [pair for part in evaluation for pair in _pairs(part)]),
        name=" and ".join(filter(None, dict.fromkeys(called))) or None,
    )


def _asked(task: Task, name: str, origin: Origin | None, limit: int | None) -> Questions:
    for_training = name == "train"
    if name in task.files:
        where: str = task.files[name]
        questions = read_squad(Path(where), limit=limit, for_training=for_training)
    else:
        assert origin is not None
        where = f"{origin.source}: {name}"
        questions = of_columns(origin.read(name), limit=limit, for_training=for_training)
    if not task.allows_no_answer and not all(questions.answers):
        number = next(n for n, answers in enumerate(questions.answers) if not answers)
        raise UserError(
            f"{where}: question {questions.ids[number]} has no answer, which {task.title} doesn't "
            "know: --version_2_with_negative takes SQuAD 2.0's rules"
        )
    return replace(questions, name=name)


def _pairs(questions: Questions) -> Iterator[tuple[str, str]]:
    for text, place in zip(questions.texts, questions.context_of, strict=True):
        yield questions.contexts[place], text


def _split(task: Task, name: str, files: Sequence[Columns]) -> Split:
    ids: list[str] = []
    texts: list[list[str]] = [[] for _ in task.columns]
    labels = []
    for columns in files:
        ids += columns.ids(first=len(ids))
        for sequence, column in zip(texts, task.columns, strict=True):
            sequence += columns.texts(column)
        if name not in task.test:
            labels.append(labels_of(task, columns))
    return Split(name, ids, tuple(texts), np.concatenate(labels) if labels else None)


def _thinned(split: Split, limit: int | None) -> Split:
    """At most so many examples, evenly spaced over the split."""
    if limit is None or limit >= len(split):
        return split
    chosen = [place * len(split) // limit for place in range(limit)]
    return Split(
        split.name,
        [split.ids[i] for i in chosen],
        tuple([sequence[i] for i in chosen] for sequence in split.texts),
        None if split.labels is None else split.labels[chosen],
    )


def _content(splits: Sequence[Split]) -> str:
    """16 hex digits that stand for what splits say; no text holds a NUL, so it can stand between.

    Numbers are in one byte order whatever the machine's.
    """
    digest = hashlib.sha256()
    for split in splits:
        digest.update(f"{split.name}\0{len(split)}\0{len(split.texts)}\0".encode())
        for sequence in split.texts:
            digest.update("\0".join(sequence).encode())
            digest.update(b"\0")
        assert split.labels is not None
        digest.update(split.labels.astype(split.labels.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()[:16]


def _overlap(train: Iterable[Any], evaluated: Sequence[Any]) -> int:
    known = set(train)
    return sum(texts in known for texts in evaluated)
