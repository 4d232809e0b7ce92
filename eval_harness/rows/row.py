"""A row of a table: a model under settings, with a cell for each task. Imports no torch."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eval_harness.results.record import TaskResult
from eval_harness.runs.run import Model


@dataclass(frozen=True)
class Cell:
    """One task's results in the order of their seeds.

    Attributes:
        results: one per seed.
        scores: the score of each result; None where it is undefined.
        expected_seeds: the seeds that should be there, as far as the files tell.
    """

    results: tuple[TaskResult, ...]
    scores: tuple[float | None, ...]
    expected_seeds: frozenset[int]

    @property
    def counted_scores(self) -> list[float]:
        """The scores that are defined."""
        return [score for score in self.scores if score is not None]

    @property
    def counted_results(self) -> list[TaskResult]:
        """The results whose score is defined."""
        pairs = zip(self.results, self.scores, strict=True)
        return [result for result, score in pairs if score is not None]

    @property
    def median(self) -> float | None:
        """The middle score, or the mean of the middle two."""
        return statistics.median(self.counted_scores) if self.counted_scores else None

    @property
    def data_hash(self) -> str:
        """The hash of the data's content."""
        return str(self.results[0].settings.task.get("data"))


@dataclass(frozen=True)
class Row:
    """A model under settings, with a cell for each task.

    Attributes:
        model: the evaluated model; of several students of one training, the first.
        settings: the settings that its results share.
        cells: its cells by task; MNLI and SQuAD have two.
        variant: how it differs from the row of newer results of this model and these settings.
        label: its whole name, unique in a results folder.
        short: its name in tables and charts: the label, or of a long one its beginning and a mark.
        footnote: what the mark stands for; empty where the whole label is shown.
        flags_in_label: the flags that the label names.
        perplexities: its cells by task of text alone. Their scores are no shares of 1, and better
            the lower they are, so they stand apart: in no mean, comparison or ranking.
    """

    model: Model
    settings: Mapping[str, Any]
    cells: Mapping[str, Cell]
    variant: str = ""
    label: str = field(default="", compare=False)
    short: str = field(default="", compare=False)
    footnote: str = field(default="", compare=False)
    flags_in_label: frozenset[str] = field(default=frozenset(), compare=False)
    perplexities: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def models(self) -> list[Model]:
        """Its models: one, or several students of one training."""
        return list({result.model.key: result.model for result in self.results}.values())

    @property
    def keys(self) -> frozenset[str]:
        """Their keys."""
        return frozenset(result.model.key for result in self.results)

    @property
    def results(self) -> list[TaskResult]:
        """The results of all its cells, perplexities included."""
        cells = (*self.cells.values(), *self.perplexities.values())
        return [result for cell in cells for result in cell.results]
