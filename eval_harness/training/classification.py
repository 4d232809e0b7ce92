"""Classification and regression: what a model predicts, and what that is worth."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from angels_share.errors import RunFailed
from eval_harness.data.splits import TaskData
from eval_harness.data.texts import Split
from eval_harness.data.token_rows import TokenRows
from eval_harness.results.predictions import ClassPredictions
from eval_harness.runs.run import Run
from eval_harness.tasks.metrics import measure
from eval_harness.tasks.registry import Task
from eval_harness.training.evaluation import BATCH, Batch, Evaluation, HeadOutputs, outputs_of

_SPREAD = 0.01
"""Of the labels' own: a regression that spreads its answers less has learned next to nothing."""


def evaluate(
    run: Run,
    model: PreTrainedModel,
    data: TaskData[Split],
    rows: Mapping[str, TokenRows],
    pad_id: int,
) -> Evaluation:
    """Predicts every split that isn't trained on, and measures those that have labels."""
    parts = [*data.evaluation, *data.test]
    bf16 = run.settings.task["values"]["bf16"]
    size = run.neutral.get("per_device_eval_batch_size", BATCH)
    logits = [
        logits_of(model, rows[part.name], pad_id, batch_size=size, bf16=bf16) for part in parts
    ]
    if not all(np.isfinite(values).all() for values in logits):
        raise RunFailed(f"{run}: the model's predictions are not finite")
    scores, marks = {}, []
    for part, values in zip(parts, logits, strict=True):
        if part.labels is None:
            continue
        answers = answers_of(run.task, values)
        scores[part.name] = _defined(measure(run.task, answers, part.labels))
        if _is_degenerate(run.task, answers, part.labels):
            marks.append(f"degenerate: one answer for all of {part.name}")
    return Evaluation(_joined(parts, logits), scores, tuple(marks))


def outputs(task: Task) -> HeadOutputs:
    """Return what a head for a task says: its classes, or one number."""
    problem = "regression" if task.is_regression else "single_label_classification"
    return HeadOutputs(task.labels or ("score",), problem)


def loss(output: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """Return the sum of cross-entropies, or of squared errors where the labels are numbers."""
    logits, labels = output.logits.float(), batch["labels"]
    if labels.is_floating_point():
        return functional.mse_loss(logits.squeeze(-1), labels, reduction="sum")
    return functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)


def logits_of(
    model: PreTrainedModel,
    rows: TokenRows,
    pad_id: int,
    *,
    batch_size: int = BATCH,
    bf16: bool = False,
) -> NDArray[np.float32]:
    """A model's logits for every example, in the data's order."""
    found: NDArray[np.float32] = np.empty((len(rows), model.config.num_labels), np.float32)
    for indices, output in outputs_of(model, rows, pad_id, batch_size=batch_size, bf16=bf16):
        found[indices] = output.logits.float().cpu().numpy()
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


def _joined(parts: Sequence[Split], logits: Sequence[NDArray[np.float32]]) -> ClassPredictions:
    """All splits below one another; a test split's labels are NaN."""
    labels = [np.full(len(part), np.nan) if part.labels is None else part.labels for part in parts]
    return ClassPredictions(
        split=[part.name for part in parts for _ in part.ids],
        ids=[str(number) for part in parts for number in part.ids],
        labels=np.concatenate(labels),
        logits=np.concatenate(logits),
    )
