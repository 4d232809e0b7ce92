"""Predictions in the formats of GLUE's server and SQuAD's official scripts. Imports no torch.

The server expects one zip with a file for each of the nine tasks (two for MNLI) and `AX.tsv` (MNLI
labels for its diagnostic set), which is not written here.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angels_share.errors import RunFailed, UserError
from angels_share.files import write_atomically
from eval_harness.data.squad_files import write_predictions
from eval_harness.data.texts import Split
from eval_harness.results.predictions import AnsweredQuestions
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import Task

_ENDINGS = {"test": "", "test_matched": "-m", "test_mismatched": "-mm"}
_CERTAIN = 1e300
"""Stands for infinite odds, which JSON cannot express; larger than any difference of logits."""


def write_submission(folder: Path, task: Task, split: Split, logits: NDArray[Any]) -> Path:
    """Write a test split's predictions in the server's exact format.

    Args:
        folder: the folder to write to; the file gets the name that the server expects.
        task: a GLUE task.
        split: the test split, in the order of its file.
        logits: [examples, classes], or one column of numbers for a regression.

    Raises:
        UserError: the server does not accept this split.
        RunFailed: a logit is not finite.
    """
    if task.glue is None or split.name not in task.test:
        raise UserError(f"GLUE's server does not accept the {split.name} split of {task.title}")
    if logits.shape != (len(split), len(task.labels) or 1):
        raise ValueError(f"logits of shape {logits.shape} for {len(split)} of {task.title}")
    if not np.isfinite(logits).all():
        row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise RunFailed(f"{task.title}: {split.name} row {row}: the prediction is not finite")
    lines = [f"{index}\t{answer}\n" for index, answer in enumerate(_answers(task, logits))]
    path = folder / f"{task.glue.folder}{_ENDINGS[split.name]}.tsv"
    return write_atomically(path, "index\tprediction\n" + "".join(lines))


def write_answers(folder: Path, task_name: str, predictions: AnsweredQuestions) -> list[Path]:
    """Write answers in the format of SQuAD's official evaluation scripts.

    Args:
        folder: the folder to write to: `squad.json`, or `squad_v2.json` and
            `squad_v2-null-odds.json` (for the script's `--na-prob-file`), where odds that are
            infinite, since no token could be an answer, are written as 1e300.
        task_name: a SQuAD task.
        predictions: the answers to all questions.
    """
    answers = folder / f"{task_name}.json"
    written = [write_predictions(answers, predictions.ids, predictions.texts)]
    if task_named(task_name).allows_no_answer:
        odds = np.minimum(predictions.null_odds, _CERTAIN).tolist()
        text = json.dumps(dict(zip(predictions.ids, odds, strict=True)), indent=1, allow_nan=False)
        written.append(write_atomically(folder / f"{task_name}-null-odds.json", text + "\n"))
    return written


def _answers(task: Task, logits: NDArray[Any]) -> list[str]:
    """Return label names where GLUE's own files have names, else numbers."""
    if task.scale is not None:
        # -0.0 + 0.0 is 0.0, so nothing is written as -0.000.
        return [f"{number + 0.0:.3f}" for number in np.clip(logits[:, 0], *task.scale)]
    classes = logits.argmax(axis=1)
    names = task.glue is not None and task.glue.named
    return [task.labels[index] if names else str(index) for index in classes]
