"""Questions: what a model answers, and what that is worth."""

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
from eval_harness.squad.answers import Answers, answers_of
from eval_harness.squad.metrics import scores_of, summary
from eval_harness.squad.windows import Windows
from eval_harness.tasks.registry import Task
from eval_harness.training.evaluation import BATCH, Batch, Evaluation, HeadOutputs, outputs_of

Logits = NDArray[np.float32]


def evaluate(
    run: Run,
    model: PreTrainedModel,
    data: TaskData[Questions],
    rows: Mapping[str, Windows],
    pad_id: int,
) -> Evaluation:
    """Answers the questions of the evaluated split, and measures the answers."""
    (asked,) = data.evaluation
    version2 = run.task.allows_no_answer
    answers = _answers(run, model, asked, rows[asked.name], pad_id)
    each = scores_of(answers.texts, asked.answers, version2=version2)
    measures = summary(each, asked.answers, version2=version2)
    one_for_all = len(set(answers.texts)) == 1
    return Evaluation(
        AnsweredQuestions(
            split=[asked.name] * len(asked),
            ids=asked.ids,
            texts=answers.texts,
            exact=each.exact,
            f1=each.f1,
            null_odds=answers.null_odds,
        ),
        {asked.name: {**measures, "score": measures["f1"]}},
        (f"degenerate: one answer for all of {asked.name}",) if one_for_all else (),
    )


def _answers(
    run: Run, model: PreTrainedModel, questions: Questions, windows: Windows, pad_id: int
) -> Answers:
    values = run.settings.task["values"]
    size = run.neutral.get("per_device_eval_batch_size", BATCH)
    starts, ends = logits_of(model, windows, pad_id, batch_size=size, bf16=values["bf16"])
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
    """Return a head's two outputs under the names that every such model's config has."""
    return HeadOutputs(("LABEL_0", "LABEL_1"), None)


def loss(output: Any, batch: Batch, _smoothing: float = 0.0) -> Tensor:
    """The sum over windows of the mean of two cross-entropies, of an answer's start and its end.

    Padding can hold no answer; left in, the loss would depend on what a batch is padded to.
    """
    padding = batch["attention_mask"] == 0
    ends = (
        (output.start_logits, batch["start_positions"]),
        (output.end_logits, batch["end_positions"]),
    )
    sums = [
        functional.cross_entropy(
            logits.float().masked_fill(padding, float("-inf")), positions, reduction="sum"
        )
        for logits, positions in ends
    ]
    return torch.stack(sums).sum() / 2


def logits_of(
    model: PreTrainedModel,
    windows: Windows,
    pad_id: int,
    *,
    batch_size: int = BATCH,
    bf16: bool = False,
) -> tuple[Logits, Logits]:
    """A model's logits of start and end, one for each token of the windows."""
    starts, ends = np.empty((2, len(windows.ids)), dtype=np.float32)
    lengths = windows.lengths
    for indices, output in outputs_of(model, windows, pad_id, batch_size=batch_size, bf16=bf16):
        columns = np.arange(output.start_logits.shape[1])
        attended = columns < lengths[indices][:, None]
        places = (windows.starts[indices][:, None] + columns)[attended]
        starts[places] = output.start_logits.float().cpu().numpy()[attended]
        ends[places] = output.end_logits.float().cpu().numpy()[attended]
    return starts, ends
