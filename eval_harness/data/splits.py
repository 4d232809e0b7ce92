"""All of a task that a run reads, whatever its kind and wherever it is read from. No torch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from angels_share.imports import resolve
from eval_harness.tasks.registry import Task

Part = TypeVar("Part")
"""A split, as its kind of task holds it."""


@dataclass(frozen=True)
class TaskData(Generic[Part]):
    """All of a task that a run reads.

    `content` is a hash of what the training and evaluation splits say (texts and labels in order),
    so the same rows are the same data, whatever format they were read from.
    """

    task: Task
    train: Part
    evaluation: tuple[Part, ...]
    test: tuple[Part, ...]
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
            `find_source`); the Hub where it is None. What the task names files of is read from them.
        limit: at most so many examples of the training and of each evaluation split, evenly
            spaced: IMDb is sorted by label.
        revision: the commit of the Hub's data set; the newest one where it is None.
        test: whether the test splits are read too, always whole.

    Raises:
        UserError: the data isn't there, or isn't clean: `path:line: reason`.
    """
    read: Callable[..., TaskData[Any]] = resolve(task.kind.read)
    return read(task, data_dir, limit=limit, revision=revision, test=test)


def overlap_of(train: Iterable[Any], evaluated: Sequence[Any]) -> int:
    """Return how many evaluation examples stand in the training split too."""
    known = set(train)
    return sum(texts in known for texts in evaluated)
