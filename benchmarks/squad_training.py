"""Fine-tuning on SQuAD: windows as long as they are against padded ones, and what (D) costs.

    DISTIL_DATA=folder python -m benchmarks.squad_training --limit 300

The student has every other layer of the teacher; the teacher's head for answers is new, which
changes no time. One epoch of each way, in turns, by the harness' own runs:

    padded    plain, every window 384 tokens wide, batches at random
    plain     plain, windows as long as they are, batches of like lengths
    asked     (D), the teacher asked at every step
    first     (D), the teacher's outputs computed first and kept
    opened    (D), with what is kept, opened and checked by a new process or command
    later     (D), with what the process has open: every later epoch and seed

Printed are the medians of the seconds of training, the windows' own tokens (no padding) a second,
and each way's time over plain's.
"""

import argparse
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers

from angels_share.tokenizing import load_tokenizer
from benchmarks import machine
from distil_trainer import harness, make_student
from distil_trainer.models.loading import load_model
from eval_harness.data.splits import load_task
from eval_harness.runs.models import identify
from eval_harness.runs.run import Method, Model, Run
from eval_harness.runs.settings import settings_of
from eval_harness.squad.windows import make_windows
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import Task
from eval_harness.training import runner
from eval_harness.training.model_loading import load_pristine, save_weights

OPTIONS = {"teacher_model": "teacher", "alpha_ce": 0.5, "alpha_task": 0.5, "temperature": 2.0}
FACTORY = "distil_trainer.harness:make_trainer"


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--teacher", help="a model's folder [DISTIL_DATA's minilm-l6]")
    parser.add_argument("--limit", type=int, default=300, help="questions")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    root = os.environ.get("DISTIL_DATA")
    if not root:
        raise SystemExit("DISTIL_DATA names no folder of real data: lengths would not be real")
    teacher = arguments.teacher or str(Path(root) / "models" / "minilm-l6")
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        task = task_of(Path(root) / "data" / "squad", Path(scratch))
        tuned, student = models(teacher, task, Path(scratch))
        runs = ways(student, task, tuned, Path(scratch), arguments.limit)
        print(machine.describe("cpu"), Path(teacher).name)
        report(measured(runs, arguments.turns), tokens(student, task, arguments.limit))


def task_of(data: Path, scratch: Path) -> Task:
    """Training on the stand-in; a single question is judged."""
    one = scratch / "one.json"
    one.write_text(
        '{"data": [{"title": "a", "paragraphs": [{"context": "a barrel", "qas": '
        '[{"id": "1", "question": "what", "answers": [{"text": "barrel", "answer_start": 2}]}]}]}]}'
    )
    files = {"train": str(data / "standin-train.json"), "validation": str(one)}
    return replace(task_named("squad"), files=files)


def models(teacher: str, task: Task, scratch: Path) -> tuple[Path, Model]:
    """The teacher with a head for answers, and its student of half the depth."""
    tokenizer = load_tokenizer(teacher)
    pristine = load_pristine(identify(teacher), task, tokenizer)
    save_weights(scratch / "teacher", pristine.copy(1), tokenizer)
    make_student(load_model(teacher)).save_pretrained(scratch / "student")
    tokenizer.save_pretrained(scratch / "student")
    return scratch / "teacher", identify(str(scratch / "student"))


def ways(student: Model, task: Task, teacher: Path, scratch: Path, limit: int) -> dict[str, Run]:
    """A run for each way."""
    content = load_task(task, None, limit=limit).content
    folders = {"teacher": str(teacher)}
    asked = Method("distil", FACTORY, OPTIONS, folders)
    kept = Method("distil", FACTORY, OPTIONS, {**folders, "outputs": str(scratch / "outputs")})
    padded = {"pad_to_max_length": True, "train_sampling_strategy": "random"}

    def run(method: Method | None = None, given: dict[str, Any] | None = None) -> Run:
        settings = settings_of(
            task, {"num_train_epochs": 1.0, **(given or {})}, content=content, limit=limit,
            method=method,
        )  # fmt: skip
        return Run(student, task, 1, settings, method)

    return {
        "padded": run(given=padded), "plain": run(), "asked": run(asked), "first": run(kept),
        "opened": run(kept), "later": run(kept),
    }  # fmt: skip


def measured(runs: dict[str, Run], turns: int) -> dict[str, list[float]]:
    """Seconds of training by way, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    runner.run_task(runs["plain"], lambda _share: None)  # pays for the start of the process
    for turn in range(turns):
        for name, run in runs.items():
            if name == "opened":
                harness._last = None  # as a process that has just begun
            result, _ = runner.run_task(in_turn(run, turn), lambda _share: None)
            seconds[name].append(result.times["train"])
    return seconds


def in_turn(run: Run, turn: int) -> Run:
    """Where outputs are kept, they are of this turn."""
    if run.method is None or "outputs" not in run.method.folders:
        return run
    folders = {**run.method.folders, "outputs": f"{run.method.folders['outputs']}-{turn}"}
    return replace(run, method=replace(run.method, folders=folders))


def tokens(student: Model, task: Task, limit: int) -> int:
    """Of all training windows, without padding."""
    questions = load_task(task, None, limit=limit).train
    return len(make_windows(questions, load_tokenizer(student.source)).ids)


def report(seconds: dict[str, list[float]], count: int) -> None:
    """Prints a line for each way."""
    plain = statistics.median(seconds["plain"])
    print(f"{count:,} tokens in the windows")
    for name, found in seconds.items():
        middle = statistics.median(found)
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(
            f"{name:7} {middle:7.1f} s ({spread}), {count / middle:7.0f} tokens/s, "
            f"{middle / plain:5.2f} of plain"
        )


if __name__ == "__main__":
    main()
