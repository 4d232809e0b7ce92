"""Evaluation of a model during and after training, for all kinds of tasks."""

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


def count_examples(batch: Batch) -> int:
    """Return the number of examples in a batch."""
    return len(batch["input_ids"])


class HeadOutputs(NamedTuple):
    """The outputs of a head as its config has them: their names, and the problem type."""

    names: tuple[str, ...]
    problem_type: str | None


@dataclass(frozen=True)
class Evaluation:
    """A run's predictions, every metric of them by split, and caveats for the reader."""

    predictions: Predictions
    scores: Mapping[str, Mapping[str, float | None]]
    marks: tuple[str, ...]


class Evaluator:
    """The evaluation of one run: once at the end, or after every epoch to choose the best.

    Args:
        model: the model in training.
        evaluate: evaluates the model in its current state.
        split: the split whose score decides which epoch is best.
        keeps_weights: whether the model must have the best epoch's weights in the end.
        higher_is_better: the direction of the score.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        evaluate: Callable[[], Evaluation],
        split: str,
        *,
        keeps_weights: bool,
        higher_is_better: bool = True,
    ) -> None:
        self._model, self._evaluate, self._split = model, evaluate, split
        self._keeps_weights = keeps_weights
        self._sign = 1 if higher_is_better else -1
        self._epochs: list[Evaluation] = []
        self._best_weights: dict[str, Tensor] | None = None

    def evaluate_epoch(self) -> None:
        """Evaluate the model after an epoch, without effect on the training that follows."""
        training = self._model.training
        self._epochs.append(self._evaluate())
        self._model.train(training)
        if self._keeps_weights and self._best() == len(self._epochs) - 1:
            state = self._model.state_dict()
            self._best_weights = {name: value.cpu().clone() for name, value in state.items()}

    def result(self) -> Evaluation:
        """Return the final evaluation, or that of the best epoch, whose weights are restored."""
        if not self._epochs:
            return self._evaluate()
        if self._best_weights is not None:
            self._model.load_state_dict(self._best_weights)
        best = self._best()
        evaluation = self._epochs[best]
        mark = f"epoch {best + 1} of {len(self._epochs)}, the best on dev"
        return Evaluation(evaluation.predictions, evaluation.scores, (*evaluation.marks, mark))

    def _best(self) -> int:
        """Return the first epoch with the best score, counted from 0."""
        scores = [epoch.scores[self._split]["score"] for epoch in self._epochs]
        comparable = [-math.inf if score is None else self._sign * score for score in scores]
        return comparable.index(max(comparable))


@torch.inference_mode()
def outputs_of(
    model: PreTrainedModel, rows: TokenRows, pad_id: int, *, batch_size: int, bf16: bool
) -> Iterator[tuple[NDArray[np.int64], Any]]:
    """Yield a model's outputs batch by batch, with the indices of their examples.

    Draws no random numbers, so an evaluation between epochs does not change the training.

    Args:
        model: the model, which is set to evaluation mode.
        rows: the examples' token ids.
        pad_id: the token id that batches are padded with.
        batch_size: examples per batch.
        bf16: whether to run the model in bfloat16 autocast.
    """
    model.eval()
    collate, names, device = Collator(pad_id), inputs_of(model), model.device
    for indices in by_length(rows, batch_size):
        batch = collate([rows[int(index)] for index in indices])
        inputs = {name: value.to(device) for name, value in chosen(batch, names).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = model(**inputs)
        yield indices, output
