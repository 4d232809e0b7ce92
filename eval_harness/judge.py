"""What a model predicts on a task's evaluation splits, and what that is worth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from angels_share.errors import RunFailed
from eval_harness.data import Split, TaskData
from eval_harness.encoding import Collator, Encoded, by_length
from eval_harness.fine_tuner import accepted, features_for
from eval_harness.metrics import measure
from eval_harness.results import Predictions
from eval_harness.runs import Run
from eval_harness.tasks import Task

_BATCH = 64
_SPREAD = 0.01
"""Of the labels' own: a regression that spreads its answers less has learned next to nothing."""


@dataclass(frozen=True)
class Verdict:
    """A run's predictions, and every measure of them by split."""

    predictions: Predictions
    scores: Mapping[str, Mapping[str, float | None]]
    marks: tuple[str, ...]


class Judge:
    """Looks at dev when it is told to: once at the end, or after every epoch and keeps the best."""

    def __init__(
        self,
        run: Run,
        model: PreTrainedModel,
        data: TaskData,
        encoded: Mapping[str, Encoded],
        pad_id: int,
    ) -> None:
        self._run, self._model, self._data = run, model, data
        self._encoded, self._pad_id = encoded, pad_id
        self._looks: list[Verdict] = []
        self._weights: list[dict[str, Tensor]] = []

    def look(self) -> None:
        """Judges the model as it is now; dropout and the random numbers stay as they were."""
        training = self._model.training
        self._looks.append(self._judge())
        self._model.train(training)
        if self._run.keep_weights is not None and self._best() == len(self._looks) - 1:
            state = self._model.state_dict()
            self._weights = [{name: value.cpu().clone() for name, value in state.items()}]

    def verdict(self) -> Verdict:
        """The last epoch's verdict, or the best one's, marked: the model then is that epoch's."""
        if not self._looks:
            return self._judge()
        best = self._best()
        for weights in self._weights:
            self._model.load_state_dict(weights)
        chosen = self._looks[best]
        mark = f"epoch {best + 1} of {len(self._looks)}, the best on dev"
        return Verdict(chosen.predictions, chosen.scores, (*chosen.marks, mark))

    def _best(self) -> int:
        """The first of the looks with the best score."""
        first = self._data.evaluation[0].name
        found = [look.scores[first]["score"] for look in self._looks]
        scores = [-math.inf if score is None else score for score in found]
        return scores.index(max(scores))

    def _judge(self) -> Verdict:
        parts = [*self._data.evaluation, *self._data.test]
        logits = [self._logits(self._encoded[part.name]) for part in parts]
        scores, marks = {}, []
        for part, values in zip(parts, logits, strict=True):
            if part.labels is None:
                continue
            answers = answers_of(self._run.task, values)
            scores[part.name] = _defined(measure(self._run.task, answers, part.labels))
            if _is_degenerate(self._run.task, answers, part.labels):
                marks.append(f"degenerate: one answer for all of {part.name}")
        return Verdict(_joined(parts, logits), scores, tuple(marks))

    def _logits(self, encoded: Encoded) -> NDArray[np.float32]:
        values = self._run.settings.task["values"]
        size = self._run.neutral.get("per_device_eval_batch_size", _BATCH)
        found = logits_of(self._model, encoded, self._pad_id, batch_size=size, bf16=values["bf16"])
        if not np.isfinite(found).all():
            raise RunFailed(f"{self._run}: the model's predictions are not finite")
        return found


@torch.inference_mode()
def logits_of(
    model: PreTrainedModel,
    encoded: Encoded,
    pad_id: int,
    *,
    batch_size: int = _BATCH,
    bf16: bool = False,
) -> NDArray[np.float32]:
    """A model's logits for every example, in the data's order; draws no random number."""
    model.eval()
    collate, names, device = Collator(pad_id), accepted(model), model.device
    found: NDArray[np.float32] = np.empty((len(encoded), model.config.num_labels), np.float32)
    for indices in by_length(encoded, batch_size):
        batch = collate([encoded[int(index)] for index in indices])
        inputs = {name: value.to(device) for name, value in features_for(names, batch).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(**inputs).logits
        found[indices] = logits.float().cpu().numpy()
    return found


def answers_of(task: Task, logits: NDArray[np.float32]) -> NDArray[Any]:
    """Class ids, or numbers: what the measures take."""
    return logits[:, 0].astype(np.float64) if task.is_regression else logits.argmax(axis=1)


def _is_degenerate(task: Task, answers: NDArray[Any], labels: NDArray[Any]) -> bool:
    """Whether a model says the same of everything, as a fine-tuning that collapsed does."""
    if task.is_regression:
        return bool(answers.std() < _SPREAD * labels.std())
    return len(np.unique(answers)) == 1


def _defined(measures: Mapping[str, float]) -> dict[str, float | None]:
    """None in the place of NaN: a correlation with a constant is no number."""
    return {name: value if math.isfinite(value) else None for name, value in measures.items()}


def _joined(parts: Sequence[Split], logits: Sequence[NDArray[np.float32]]) -> Predictions:
    """All splits below one another; a test split's labels are NaN."""
    labels = [np.full(len(part), np.nan) if part.labels is None else part.labels for part in parts]
    return Predictions(
        split=[part.name for part in parts for _ in part.ids],
        ids=[str(number) for part in parts for number in part.ids],
        labels=np.concatenate(labels),
        logits=np.concatenate(logits),
    )
