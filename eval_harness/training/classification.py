"""Evaluation and loss of classification and regression tasks."""

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
from eval_harness.runs.settings import EVAL_BATCH
from eval_harness.tasks.metrics import compute_metrics
from eval_harness.tasks.registry import Task
from eval_harness.training.evaluation import Batch, Evaluation, HeadOutputs, outputs_of

_MIN_SPREAD = 0.01
"""A regression is degenerate if its predictions' standard deviation, over the labels', is lower."""


def evaluate(
    run: Run,
    model: PreTrainedModel,
    data: TaskData[Split],
    rows: Mapping[str, TokenRows],
    pad_id: int,
) -> Evaluation:
    """Predict the evaluation and test splits, and score those that have labels.

    Args:
        run: the run, with the task and the settings of evaluation.
        model: the fine-tuned model.
        data: the task's data.
        rows: the token ids of every split, by its name.
        pad_id: the token id that batches are padded with.

    Raises:
        RunFailed: a prediction is not finite.
    """
    splits = [*data.evaluation, *data.test]
    bf16 = run.settings.task["values"]["bf16"]
    batch_size = run.neutral.get("per_device_eval_batch_size", EVAL_BATCH)
    logits = [
        logits_of(model, rows[split.name], pad_id, batch_size=batch_size, bf16=bf16)
        for split in splits
    ]
    if not all(np.isfinite(of_split).all() for of_split in logits):
        raise RunFailed(f"{run}: the model's predictions are not finite")
    scores, marks = {}, []
    for split, of_split in zip(splits, logits, strict=True):
        if split.labels is None:
            continue
        answers = answers_of(run.task, of_split)
        scores[split.name] = _nan_as_none(compute_metrics(run.task, answers, split.labels))
        if _is_degenerate(run.task, answers, split.labels):
            what = "nearly one number" if run.task.is_regression else "one answer"
            marks.append(f"degenerate: {what} for all of {split.name}")
    return Evaluation(_predictions(splits, logits), scores, tuple(marks))


def outputs(task: Task) -> HeadOutputs:
    """Return the outputs of a task's head: its classes, or one number."""
    problem = "regression" if task.is_regression else "single_label_classification"
    return HeadOutputs(task.labels or ("score",), problem)


def loss(output: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """Return the summed cross-entropy, or the summed squared error if the labels are numbers.

    Args:
        output: what the model returned.
        batch: the inputs, with their labels.
        smoothing: the share of a label that is spread evenly over all classes.
    """
    logits, labels = output.logits.float(), batch["labels"]
    if labels.is_floating_point():
        return functional.mse_loss(logits.squeeze(-1), labels, reduction="sum")
    return functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)


def logits_of(
    model: PreTrainedModel,
    rows: TokenRows,
    pad_id: int,
    *,
    batch_size: int = EVAL_BATCH,
    bf16: bool = False,
) -> NDArray[np.float32]:
    """Return a model's logits for every example, in the data's order.

    Args:
        model: the model, which is set to evaluation mode.
        rows: the examples' token ids.
        pad_id: the token id that batches are padded with.
        batch_size: examples per batch.
        bf16: whether to run the model in bfloat16 autocast.
    """
    logits: NDArray[np.float32] = np.empty((len(rows), model.config.num_labels), np.float32)
    for indices, output in outputs_of(model, rows, pad_id, batch_size=batch_size, bf16=bf16):
        logits[indices] = output.logits.float().cpu().numpy()
    return logits


def answers_of(task: Task, logits: NDArray[np.float32]) -> NDArray[Any]:
    """Return the predicted class ids, or numbers for a regression."""
    return logits[:, 0].astype(np.float64) if task.is_regression else logits.argmax(axis=1)


def _is_degenerate(task: Task, answers: NDArray[Any], labels: NDArray[Any]) -> bool:
    """Return whether all predictions are (nearly) the same, as after a collapsed fine-tuning."""
    if task.is_regression:
        return bool(answers.std() < _MIN_SPREAD * labels.std())
    return len(np.unique(answers)) == 1


def _nan_as_none(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Replace NaN, such as a correlation with constant predictions, by None."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _predictions(
    splits: Sequence[Split], logits: Sequence[NDArray[np.float32]]
) -> ClassPredictions:
    """Concatenate the predictions of all splits; a test split's labels are NaN."""
    labels = [
        np.full(len(split), np.nan) if split.labels is None else split.labels for split in splits
    ]
    return ClassPredictions(
        split=[split.name for split in splits for _ in split.ids],
        ids=[str(number) for split in splits for number in split.ids],
        labels=np.concatenate(labels),
        logits=np.concatenate(logits),
    )
