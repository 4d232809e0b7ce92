"""Predictions as GLUE's server and SQuAD's own scripts take them. Imports no torch.

The server wants one zip with a file for each of the nine tasks, MNLI's two, and `AX.tsv` (MNLI
labels for its diagnostic set), which is not made here.
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
"""Infinite odds in JSON, which has no such number; more than a difference of logits can be."""


def write_submission(folder: Path, task: Task, split: Split, logits: NDArray[Any]) -> Path:
    """Writes a test split's predictions in the server's exact format.

    Args:
        folder: the file is put there under the server's name for it.
        task: one of GLUE's.
        split: the test split, in the order of its file.
        logits: [examples, classes], or one column of numbers for a regression.

    Raises:
        UserError: the server takes no such task.
        RunFailed: a logit isn't finite.
    """
    if task.glue is None or split.name not in task.test:
        raise UserError(f"GLUE's server takes no {split.name} split of {task.title}")
    if logits.shape != (len(split), len(task.labels) or 1):
        raise ValueError(f"logits of shape {logits.shape} for {len(split)} of {task.title}")
    if not np.isfinite(logits).all():
        row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise RunFailed(f"{task.title}: {split.name} row {row}: the prediction is not finite")
    lines = [f"{index}\t{answer}\n" for index, answer in enumerate(_answers(task, logits))]
    path = folder / f"{task.glue.folder}{_ENDINGS[split.name]}.tsv"
    return write_atomically(path, "index\tprediction\n" + "".join(lines))


def write_answers(folder: Path, task_name: str, predictions: AnsweredQuestions) -> list[Path]:
    """Writes answers as SQuAD's own evaluation reads them.

    Args:
        folder: the files are put there: `squad.json`, of SQuAD 2.0 also `squad_v2-null-odds.json`,
            what its script takes as `--na-prob-file`. Odds that are infinite, where no token could
            be an answer, stand there as 1e300.
        task_name: one of SQuAD's.
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
    """Labels by name where GLUE's own files have them so, else numbers."""
    if task.scale is not None:
        # Added to a zero, so that none of them reads -0.000.
        return [f"{number + 0.0:.3f}" for number in np.clip(logits[:, 0], *task.scale)]
    answers = logits.argmax(axis=1)
    names = task.glue is not None and task.glue.named
    return [task.labels[answer] if names else str(answer) for answer in answers]
