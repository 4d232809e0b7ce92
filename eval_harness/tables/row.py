"""A row of a table: a model under settings, with a cell for each task. Imports no torch."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eval_harness.results.record import TaskResult
from eval_harness.runs.run import Model


@dataclass(frozen=True)
class Cell:
    """What the seeds of one task gave, in the order of the seeds; None: it is not defined there.

    `asked` are the seeds that there should be, as far as files tell.
    """

    results: tuple[TaskResult, ...]
    scores: tuple[float | None, ...]
    asked: frozenset[int]

    @property
    def counted(self) -> list[float]:
        """The scores that there are."""
        return [score for score in self.scores if score is not None]

    @property
    def median(self) -> float | None:
        """The middle one, or the mean of the middle two."""
        return statistics.median(self.counted) if self.counted else None

    @property
    def data(self) -> str:
        """The hash of the data's content."""
        return str(self.results[0].settings.task.get("data"))


@dataclass(frozen=True)
class Row:
    """A model under settings: a cell for each task.

    `part` says what sets it apart from a newer row of the same model and settings; `told` are the
    flags that its label names.
    """

    model: Model
    settings: Mapping[str, Any]
    cells: Mapping[str, Cell]
    part: str = ""
    label: str = field(default="", compare=False)
    told: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def results(self) -> list[TaskResult]:
        """All that it is made of."""
        return [result for cell in self.cells.values() for result in cell.results]
