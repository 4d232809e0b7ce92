"""Texts, one or two an example, with their labels. Imports no torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval_harness.data.columns import Columns
from eval_harness.data.labels import labels_of
from eval_harness.data.sources import find_source
from eval_harness.data.splits import TaskData, overlap_of
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


def read(
    task: Task, data_dir: Path | None, *, limit: int | None, revision: str | None, test: bool
) -> TaskData[Split]:
    """Read a task of texts and labels; see `load_task`."""
    names = ("train", *task.evaluation, *(task.test if test else ()))
    origin = find_source(task, data_dir, names, revision)
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
        overlap=overlap_of(
            zip(*train.texts, strict=True),
            [texts for split in evaluation for texts in zip(*split.texts, strict=True)],
        ),
        name=origin.name,
    )


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
