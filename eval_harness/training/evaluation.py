"""What a model predicts on a task's evaluation splits, and when it is asked."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from angels_share.inputs import chosen, inputs_of
from eval_harness.data.token_rows import TokenRows
from eval_harness.results.predictions import Predictions
from eval_harness.training.encoding import Collator, by_length

Batch = Mapping[str, Tensor]

BATCH = 64
"""Examples that are evaluated at once."""


class HeadOutputs(NamedTuple):
    """What a head says, and what its config calls that: names, and transformers' problem type."""

    names: tuple[str, ...]
    problem_type: str | None


@dataclass(frozen=True)
class Evaluation:
    """A run's predictions, and every measure of them by split."""

    predictions: Predictions
    scores: Mapping[str, Mapping[str, float | None]]
    marks: tuple[str, ...]


class Evaluator:
    """Looks at dev when it is told to: once at the end, or after every epoch and keeps the best.

    Args:
        model: what is evaluated.
        evaluate: evaluates the model as it is now.
        first: the split whose score tells a better epoch from a worse one.
        keeps_weights: whether the best epoch's weights will be wanted.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        evaluate: Callable[[], Evaluation],
        first: str,
        *,
        keeps_weights: bool,
    ) -> None:
        self._model, self._evaluate, self._first = model, evaluate, first
        self._keeps_weights = keeps_weights
        self._looks: list[Evaluation] = []
        self._weights: list[dict[str, Tensor]] = []

    def look(self) -> None:
        """Judges the model as it is now; dropout and the random numbers stay as they were."""
        training = self._model.training
        self._looks.append(self._evaluate())
        self._model.train(training)
        if self._keeps_weights and self._best() == len(self._looks) - 1:
            state = self._model.state_dict()
            self._weights = [{name: value.cpu().clone() for name, value in state.items()}]

    def result(self) -> Evaluation:
        """The last epoch's verdict, or the best one's, marked: the model then is that epoch's."""
        if not self._looks:
            return self._evaluate()
        best = self._best()
        for weights in self._weights:
            self._model.load_state_dict(weights)
        chosen = self._looks[best]
        mark = f"epoch {best + 1} of {len(self._looks)}, the best on dev"
        return Evaluation(chosen.predictions, chosen.scores, (*chosen.marks, mark))

    def _best(self) -> int:
        """The first of the looks with the best score."""
        found = [look.scores[self._first]["score"] for look in self._looks]
        scores = [-math.inf if score is None else score for score in found]
        return scores.index(max(scores))


@torch.inference_mode()
def outputs_of(
    model: PreTrainedModel, rows: TokenRows, pad_id: int, *, batch_size: int, bf16: bool
) -> Iterator[tuple[NDArray[np.int64], Any]]:
    """A model's outputs, batch by batch, and whose they are; draws no random number."""
    model.eval()
    collate, names, device = Collator(pad_id), inputs_of(model), model.device
    for indices in by_length(rows, batch_size):
        batch = collate([rows[int(index)] for index in indices])
        inputs = {name: value.to(device) for name, value in chosen(batch, names).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = model(**inputs)
        yield indices, output
