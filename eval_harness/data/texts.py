"""Data of tasks with one or two texts and a label per example. Imports no torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angels_share.readers.columns import Columns
from eval_harness.data.labels import labels_of
from eval_harness.data.sources import find_source
from eval_harness.data.splits import TaskData, evenly, overlap_of
from eval_harness.tasks.registry import Task


@dataclass(frozen=True)
class Split:
    """A split of a task's data, in the order of its file.

    Attributes:
        name: the Hub's name of the split.
        ids: the file's ids of its rows (`idx`, `index` or `id`), else their numbers from 0. Rows
            have the same ids in GLUE's TSVs and on the Hub, except in MRPC's and QQP's training
            and dev files, which the Hub numbers differently.
        texts: one sequence per column of the task.
        labels: int64 class ids, or float64 numbers for a regression; None in a test split.
    """

    name: str
    ids: Sequence[str]
    texts: tuple[Sequence[str], ...]
    labels: NDArray[Any] | None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The texts of each example."""
        return list(zip(*self.texts, strict=True))

    def only(self, chosen: Sequence[int]) -> "Split":
        """Return some of its examples, by their places."""
        return Split(
            self.name,
            [self.ids[i] for i in chosen],
            tuple([sequence[i] for i in chosen] for sequence in self.texts),
            None if self.labels is None else self.labels[list(chosen)],
        )


def read(
    task: Task,
    data_dir: Path | None,
    *,
    limit: int | None,
    revision: str | None,
    test: bool,
    train: bool = True,
) -> TaskData[Split]:
    """Read a task of texts and labels.

    Args:
        task: what to read.
        data_dir: the folder of the data; None for the Hub.
        limit: the maximum number of examples per training and evaluation split.
        revision: the commit of the Hub's data set; None for the newest.
        test: whether to read the test splits, too.
        train: whether to read the training split.

    Raises:
        UserError: see `load_task`.
    """
    judged = (*task.evaluation, *(task.test if test else ()))
    # Where the training split is, those that are configurations of their own are looked for, too.
    sought = ("train", *judged) if train or task.averages else judged
    origin = find_source(task, data_dir, sought, revision)
    names = sought if train else judged
    splits = {name: _read_split(task, name, origin.read(name)) for name in origin.present(names)}
    limited = {name: _limited(splits[name], limit) for name in splits if name not in task.test}
    learned = limited.pop("train", None)
    evaluation = list(limited.values())
    return TaskData(
        task=task,
        train=learned,
        evaluation=tuple(evaluation),
        test=tuple(splits[name] for name in task.test) if test else (),
        source=origin.source,
        revision=origin.revision,
        content=_content_hash([*([learned] if learned else []), *evaluation]),
        limit=limit,
        overlap=overlap_of(
            learned.rows if learned else (), [texts for split in evaluation for texts in split.rows]
        ),
        name=origin.name,
    )


def _read_split(task: Task, name: str, files: Sequence[Columns]) -> Split:
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


def read_unlabelled(task: Task, files: Sequence[Columns]) -> Split:
    """Return the texts of files as one split; 0 stands where labels would.

    Args:
        task: the task whose columns are read.
        files: the columns of each file.

    Raises:
        UserError: a cell is not text.
    """
    texts = tuple([text for each in files for text in each.texts(name)] for name in task.columns)
    count = len(texts[0])
    kind = np.float64 if task.is_regression else np.int64
    return Split("transfer", [str(number) for number in range(count)], texts, np.zeros(count, kind))


def _limited(split: Split, limit: int | None) -> Split:
    """Return at most `limit` examples, evenly spaced over the split."""
    if limit is None or limit >= len(split):
        return split
    return split.only(evenly(len(split), limit))


def _content_hash(splits: Sequence[Split]) -> str:
    """Hash texts and labels to 16 hex digits, the same on every machine.

    NUL separates the texts, since no text contains it; labels are hashed as little-endian.
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
