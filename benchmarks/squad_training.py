"""Fine-tuning on SQuAD: windows of their own length against padded ones, and the cost of (D).

    DISTIL_DATA=folder python -m benchmarks.squad_training --limit 300

The student has every other layer of the teacher. The teacher's answer head is untrained, which
does not change any time. Each variant is trained for one epoch by the harness, in turns:

    padded      plain, every window padded to 384 tokens, random batches
    longest     plain, padded to the longest window of a batch, random batches
    plain       plain, windows as long as they are, batches of similar lengths
    uncached    (D), a forward pass of the teacher at every step
    computed    (D), the teacher's outputs computed and cached first
    reopened    (D), cached outputs, opened and checked by a new process or command
    cached      (D), cached outputs that the process has open: every later epoch and seed

Printed are the medians of the training seconds, the tokens (without padding) per second, and the
time relative to plain's.
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
from eval_harness.training import model_loading, runner

OPTIONS = {"teacher_model": "teacher", "alpha_ce": 0.5, "alpha_task": 0.5, "temperature": 2.0}
FACTORY = "distil_trainer.harness:make_trainer"


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--teacher", help="model folder [minilm-l6 of DISTIL_DATA]")
    parser.add_argument("--limit", type=int, default=300, help="questions [300]")
    parser.add_argument("--turns", type=int, default=3, help="trainings of each [3]")
    arguments = parser.parse_args()
    root = os.environ.get("DISTIL_DATA")
    if not root:
        raise SystemExit("set DISTIL_DATA to a folder of real data: made-up text has other lengths")
    teacher = arguments.teacher or str(Path(root) / "models" / "minilm-l6")
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        task = make_task(Path(root) / "data" / "squad", Path(scratch))
        teacher_folder, student = make_models(teacher, task, Path(scratch))
        runs = make_runs(student, task, teacher_folder, Path(scratch), arguments.limit)
        print(machine.describe("cpu"), Path(teacher).name)
        report(measure(runs, arguments.turns), count_tokens(student, task, arguments.limit))


def make_task(data: Path, scratch: Path) -> Task:
    """Return SQuAD with the stand-in training set and a single question to evaluate."""
    one = scratch / "one.json"
    one.write_text(
        '{"data": [{"title": "a", "paragraphs": [{"context": "a barrel", "qas": '
        '[{"id": "1", "question": "what", "answers": [{"text": "barrel", "answer_start": 2}]}]}]}]}'
    )
    files = {"train": str(data / "standin-train.json"), "validation": str(one)}
    return replace(task_named("squad"), files=files)


def make_models(teacher: str, task: Task, scratch: Path) -> tuple[Path, Model]:
    """Save the teacher with an answer head, and its student of half the depth."""
    tokenizer = load_tokenizer(teacher)
    loaded = model_loading.load_for_task(identify(teacher), task, tokenizer)
    model_loading.save_weights(scratch / "teacher", loaded.copy(1), tokenizer)
    make_student(load_model(teacher)).save_pretrained(scratch / "student")
    tokenizer.save_pretrained(scratch / "student")
    return scratch / "teacher", identify(str(scratch / "student"))


def make_runs(
    student: Model, task: Task, teacher: Path, scratch: Path, limit: int
) -> dict[str, Run]:
    """Return a run for each variant."""
    content = load_task(task, None, limit=limit).content
    folders = {"teacher": str(teacher)}
    uncached = Method("distil", FACTORY, OPTIONS, folders)
    cached = Method("distil", FACTORY, OPTIONS, {**folders, "outputs": str(scratch / "outputs")})
    padded = {"pad_to_max_length": True, "train_sampling_strategy": "random"}

    def run(method: Method | None = None, given: dict[str, Any] | None = None) -> Run:
        values = {"num_train_epochs": 1.0, **(given or {})}
        settings = settings_of(task, values, content=content, limit=limit, method=method)
        return Run(student, task, 1, settings, method)

    # In this order: the last two find the cache that the one before them wrote or opened.
    return {
        "padded": run(given=padded),
        "longest": run(given={"train_sampling_strategy": "random"}),
        "plain": run(),
        "uncached": run(uncached),
        "computed": run(cached),
        "reopened": run(cached),
        "cached": run(cached),
    }


def measure(runs: dict[str, Run], turns: int) -> dict[str, list[float]]:
    """Return the training seconds of each variant, measured in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    runner.run_task(
        runs["plain"], lambda _share: None
    )  # warm-up: what only the first run of a process pays
    for turn in range(turns):
        for name, run in runs.items():
            if name == "reopened":
                harness._last = None  # as in a new process
            result, _ = runner.run_task(with_outputs_of(run, turn), lambda _share: None)
            seconds[name].append(result.times["train"])
    return seconds


def with_outputs_of(run: Run, turn: int) -> Run:
    """Give the run, if it caches outputs, a cache of this turn."""
    if run.method is None or "outputs" not in run.method.folders:
        return run
    folders = {**run.method.folders, "outputs": f"{run.method.folders['outputs']}-{turn}"}
    return replace(run, method=replace(run.method, folders=folders))


def count_tokens(student: Model, task: Task, limit: int) -> int:
    """Return the tokens of all training windows, without padding."""
    questions = load_task(task, None, limit=limit).train
    return len(make_windows(questions, load_tokenizer(student.source)).ids)


def report(seconds: dict[str, list[float]], count: int) -> None:
    """Print a line for each variant."""
    plain = statistics.median(seconds["plain"])
    print(f"{count:,} tokens in the windows")
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times):.1f} to {max(times):.1f}"
        print(
            f"{name:8} {median:7.1f} s ({spread}), {count / median:7.0f} tokens/s, "
            f"{median / plain:5.2f} of plain"
        )


if __name__ == "__main__":
    main()
