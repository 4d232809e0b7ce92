"""Divide a file of questions for `evidence.py`: some to train on, the others to evaluate.

A question is kept for evaluation by a hash of its context, so that no context stands on both sides.
The English questions of TyDi QA have neither titles nor ids of their own, and those that evaluate
have no answers: whoever wants a score must keep some of the ones to train on.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from angels_share.cli import DONE, Command, run_command
from angels_share.files import write_atomically
from angels_share.flags import Flag, Options
from eval_harness.data.squad_files import read_squad

KEPT_OF = 8
"""One context in so many is kept for evaluation."""


def is_kept(context: str) -> bool:
    """Return whether a context's questions are kept for evaluation, by a hash of the context."""
    return int(hashlib.sha256(context.encode()).hexdigest(), 16) % KEPT_OF == 0


def divide(options: Options) -> int:
    """Write train.json and dev.json in SQuAD's format, with the questions' numbers as ids."""
    source = Path(options.questions).expanduser()
    read_squad(source, for_training=True)  # refuses what isn't clean, with its place
    sides: dict[str, list[dict[str, Any]]] = {"train": [], "dev": []}
    number = 0
    for article in json.loads(source.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question["id"] = f"{number:05}"
                number += 1
            side = "dev" if is_kept(paragraph["context"]) else "train"
            sides[side].append({"title": article["title"], "paragraphs": [paragraph]})
    folder = Path(options.folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    for side, articles in sides.items():
        write_atomically(folder / f"{side}.json", json.dumps({"version": "1.1", "data": articles}))
    kept = sum(len(article["paragraphs"][0]["qas"]) for article in sides["dev"])
    print(f"{kept} of {number} questions kept for evaluation")
    return DONE


COMMAND = Command(
    name="evidence_questions",
    summary="divides a file of questions into some to train on and others to evaluate",
    flags=(
        Flag("folder", "folder for the files", required=True, metavar="DIR", first=True),
        Flag("questions", "a file of questions in SQuAD's format", required=True, metavar="FILE"),
    ),
    run=divide,
    examples=("python examples/evidence_questions.py tydiqa --questions tydiqa-en-train.json",),
)


if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
