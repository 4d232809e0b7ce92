"""Evaluation and loss of question answering tasks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from angels_share.errors import RunFailed
from eval_harness.data.splits import TaskData
from eval_harness.data.squad_files import Questions
from eval_harness.results.predictions import AnsweredQuestions
from eval_harness.runs.run import Run
from eval_harness.runs.settings import EVAL_BATCH
from eval_harness.squad.answers import Answers, answers_of
from eval_harness.squad.metrics import scores_of, summary
from eval_harness.squad.windows import Windows
from eval_harness.tasks.registry import Task
from eval_harness.training.evaluation import Batch, Evaluation, HeadOutputs, outputs_of

Logits = NDArray[np.float32]


def evaluate(
    run: Run,
    model: PreTrainedModel,
    data: TaskData[Questions],
    rows: Mapping[str, Windows],
    pad_id: int,
) -> Evaluation:
    """Answer the questions of the evaluation split and score the answers.

    Args:
        run: the run, with the task and the settings of evaluation.
        model: the fine-tuned model.
        data: the task's data.
        rows: the windows of every split, by its name.
        pad_id: the token id that batches are padded with.

    Raises:
        RunFailed: a logit is not finite.
    """
    (questions,) = data.evaluation
    version2 = run.task.allows_no_answer
    answers = _answers(run, model, questions, rows[questions.name], pad_id)
    scores = scores_of(answers.texts, questions.answers, version2=version2)
    metrics = summary(scores, questions.answers, version2=version2)
    is_degenerate = len(set(answers.texts)) == 1
    return Evaluation(
        AnsweredQuestions(
            split=[questions.name] * len(questions),
            ids=questions.ids,
            texts=answers.texts,
            exact=scores.exact,
            f1=scores.f1,
            null_odds=answers.null_odds,
        ),
        {questions.name: {**metrics, "score": metrics["f1"]}},
        (f"degenerate: one answer for all of {questions.name}",) if is_degenerate else (),
    )


def _answers(
    run: Run, model: PreTrainedModel, questions: Questions, windows: Windows, pad_id: int
) -> Answers:
    values = run.settings.task["values"]
    batch_size = run.neutral.get("per_device_eval_batch_size", EVAL_BATCH)
    starts, ends = logits_of(model, windows, pad_id, batch_size=batch_size, bf16=values["bf16"])
    if not (np.isfinite(starts).all() and np.isfinite(ends).all()):
        raise RunFailed(f"{run}: the model's predictions are not finite")
    return answers_of(
        questions,
        windows,
        starts,
        ends,
        version2=run.task.allows_no_answer,
        n_best=values["n_best_size"],
        max_answer_length=values["max_answer_length"],
        null_threshold=values.get("null_score_diff_threshold", 0.0),
    )


def outputs(_task: Task) -> HeadOutputs:
    """Return the two outputs of the head; transformers gives them no other names."""
    return HeadOutputs(("LABEL_0", "LABEL_1"), None)


def loss(output: Any, batch: Batch, _smoothing: float = 0.0) -> Tensor:
    """Return the sum over windows of the mean cross-entropy of an answer's start and end.

    Padding is masked, or the loss would depend on the width that a batch is padded to.

    Args:
        output: what the model returned.
        batch: the inputs, with the positions of the answers.
        _smoothing: not used: a position isn't a class.
    """
    padding = batch["attention_mask"] == 0
    start_and_end = (
        (output.start_logits, batch["start_positions"]),
        (output.end_logits, batch["end_positions"]),
    )
    sums = [
        functional.cross_entropy(
            logits.float().masked_fill(padding, float("-inf")), positions, reduction="sum"
        )
        for logits, positions in start_and_end
    ]
    return torch.stack(sums).sum() / 2


def logits_of(
    model: PreTrainedModel,
    windows: Windows,
    pad_id: int,
    *,
    batch_size: int = EVAL_BATCH,
    bf16: bool = False,
) -> tuple[Logits, Logits]:
    """Return a model's start and end logits, one for each token of the windows.

    Args:
        model: the model, which is set to evaluation mode.
        windows: the windows of the questions and their contexts.
        pad_id: the token id that batches are padded with.
        batch_size: windows per batch.
        bf16: whether to run the model in bfloat16 autocast.
    """
    starts, ends = np.empty((2, len(windows.ids)), dtype=np.float32)
    lengths = windows.lengths
    for indices, output in outputs_of(model, windows, pad_id, batch_size=batch_size, bf16=bf16):
        columns = np.arange(output.start_logits.shape[1])
        attended = columns < lengths[indices][:, None]
        # Where each token of the batch lies in the flat array of all windows' tokens.
        positions = (windows.starts[indices][:, None] + columns)[attended]
        starts[positions] = output.start_logits.float().cpu().numpy()[attended]
        ends[positions] = output.end_logits.float().cpu().numpy()[attended]
    return starts, ends
