"""The data of a task, whatever its kind and wherever they are read from. No torch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from angels_share.imports import resolve
from eval_harness.runs.run import Run
from eval_harness.tasks.registry import Task

Part = TypeVar("Part")
"""The class of a split, which depends on the kind of task."""


@dataclass(frozen=True)
class TaskData(Generic[Part]):
    """The data of a task, as a run reads them.

    Attributes:
        task: the task.
        train: the training split; None where a run has no training, so that it isn't read.
        evaluation: the splits that are evaluated.
        test: the splits without labels, if they were asked for.
        source: `hub:<id>/<config>`, the task's folder in the data folder, or the names of files.
        revision: the commit of the data set on the Hub.
        content: a hash of the training and evaluation splits' texts and labels, in order: the same
            rows have the same hash, whatever format they were read from.
        limit: the maximum number of examples per training and evaluation split.
        overlap: the number of evaluation examples whose texts are in the training split, too.
        name: the name of the data, if they stand in for the real ones.
    """

    task: Task
    train: Part | None
    evaluation: tuple[Part, ...]
    test: tuple[Part, ...]
    source: str
    revision: str | None
    content: str
    limit: int | None
    overlap: int
    name: str | None = None

    @property
    def splits(self) -> tuple[Part, ...]:
        """All splits that were read, the training split first."""
        return (*(() if self.train is None else (self.train,)), *self.evaluation, *self.test)


def load_task(
    task: Task,
    data_dir: Path | None,
    *,
    limit: int | None = None,
    revision: str | None = None,
    test: bool = False,
    train: bool = True,
) -> TaskData[Any]:
    """Read the data of a task, strictly.

    Args:
        task: what to read; splits that it names files for are read from these.
        data_dir: a folder of GLUE's own TSVs, or of parquet, csv or json with the Hub's columns
            (see `find_source`); None for the Hub.
        limit: the maximum number of examples of the training and of each evaluation split, evenly
            spaced: IMDb is sorted by label.
        revision: the commit of the Hub's data set; None for the newest.
        test: whether to read the test splits, too, always whole.
        train: whether to read the training split.

    Raises:
        UserError: the data is missing, or isn't clean: `path:line: reason`.
    """
    read: Callable[..., TaskData[Any]] = resolve(task.kind.read)
    chosen = {"test": test and bool(task.test), "train": train}
    return read(task, data_dir, limit=limit, revision=revision, **chosen)


def load_for_run(run: Run) -> TaskData[Any]:
    """Read the data of a run, as it lies on this machine: the caller compares their content."""
    return load_task(
        run.task,
        Path(run.data_dir) if run.data_dir else None,
        limit=run.settings.row["limit"],
        revision=run.data_revision,
        test=run.predict_test,
        train=not run.is_evaluation_alone,
    )


def evenly(count: int, limit: int | None) -> list[int]:
    """Return at most `limit` of the numbers below `count`, evenly spaced; all without a limit."""
    if limit is None or limit >= count:
        return [*range(count)]
    return [number * count // limit for number in range(limit)]


def overlap_of(train: Iterable[Any], evaluated: Sequence[Any]) -> int:
    """Return the number of evaluation examples that are in the training split, too."""
    known = set(train)
    return sum(texts in known for texts in evaluated)
