"""Fine-tuning and evaluation against padding everything to 128, and what the harness itself costs.

    DISTIL_DATA=folder python -m benchmarks.fine_tune --model FOLDER --tasks cola sst2

The other way is that of transformers' own run_glue.py: every example padded to 128 tokens, random
batches, the stock Trainer, the same hyper-parameters, examples and threads. Both fine-tune and
judge the same model on the same real sentences, in turns, and print seconds and dev scores.

Then, of our run: the seconds of forward, backward and optimizer step (clipping included), and so
what is left for everything else; and what a run of one example costs, which is paid for each run.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import Trainer, TrainingArguments

from angels_share.tokenizing import load_tokenizer
from benchmarks import machine
from eval_harness.data.splits import TaskData, load_task
from eval_harness.runs.models import identify
from eval_harness.runs.run import Run
from eval_harness.runs.settings import settings_of
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.metrics import measure
from eval_harness.training import runner
from eval_harness.training.classification import answers_of
from eval_harness.training.model_loading import load_pristine

LENGTH = 128


def padded(data: TaskData, tokenizer) -> dict[str, list[dict]]:
    """Every split as run_glue.py would have it: each example 128 tokens wide."""
    found = {}
    for part in (data.train, *data.evaluation):
        texts = [list(column) for column in part.texts]
        encoded = tokenizer(*texts, padding="max_length", max_length=LENGTH, truncation=True)
        rows = [
            dict(zip(encoded, values, strict=True))
            for values in zip(*encoded.values(), strict=True)
        ]
        for row, label in zip(rows, part.labels, strict=True):
            row["labels"] = label.item()
        found[part.name] = rows
    return found


def padded_way(run: Run, data: TaskData, examples: dict) -> tuple[float, float]:
    """Seconds and dev score of the stock Trainer on padded examples."""
    values = run.settings.task["values"]
    names = set(values) - {"max_seq_length", "train_sampling_strategy"}
    started = time.perf_counter()
    model = load_pristine(run.model, run.task, 0).copy(run.seed)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch, seed=run.seed, report_to="none", disable_tqdm=True, save_strategy="no",
            logging_strategy="no", per_device_eval_batch_size=64, dataloader_pin_memory=False,
            **{name: values[name] for name in names},
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, train_dataset=examples["train"],
            data_collator=transformers.default_data_collator,
        )  # fmt: skip
        trainer.train()
        part = data.evaluation[0]
        logits = trainer.predict(examples[part.name]).predictions
    seconds = time.perf_counter() - started
    return seconds, measure(run.task, answers_of(run.task, logits), part.labels)["score"]


def our_way(run: Run) -> tuple[float, float]:
    """Seconds and dev score of a run of the harness."""
    result, _ = runner.run_task(run, lambda _share: None)
    return result.times["total"], result.score


@contextmanager
def watching(seconds: dict[str, float]) -> Iterator[None]:
    """Adds up what forward, backward, clipping and the optimizer's step take in this process."""
    places = [
        (transformers.PreTrainedModel, "__call__"), (torch.Tensor, "backward"),
        (torch.optim.AdamW, "step"), (torch.nn.utils, "clip_grad_norm_"),
    ]  # fmt: skip
    before = [getattr(owner, name) for owner, name in places]

    inside = []  # a model's forward calls that of its body: it counts once

    def timed(work: Callable, name: str) -> Callable:
        def call(*rest, **named):
            started = time.perf_counter()
            inside.append(name)
            try:
                return work(*rest, **named)
            finally:
                inside.pop()
                if not inside:
                    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started

        return call

    try:
        for (owner, name), work in zip(places, before, strict=True):
            setattr(owner, name, timed(work, name))
        yield
    finally:
        for (owner, name), work in zip(places, before, strict=True):
            setattr(owner, name, work)


def compare(run: Run, data: TaskData, turns: int) -> None:
    examples = padded(data, load_tokenizer(run.model.source))
    times: dict[str, list[tuple[float, float]]] = {"padded to 128": [], "ours": []}
    for turn in range(turns):
        seeded = replace(run, seed=turn + 1)
        times["padded to 128"].append(padded_way(seeded, data, examples))
        times["ours"].append(our_way(seeded))
    medians = {name: statistics.median(s for s, _ in found) for name, found in times.items()}
    for name, found in times.items():
        scores = " ".join(f"{100 * score:.1f}" for _, score in found)
        print(f"{run.task.title:6} {name:14} {medians[name]:8.1f} s   dev by seed {scores}")
    print(f"{run.task.title:6} ratio {medians['padded to 128'] / medians['ours']:.2f}")


def overhead(run: Run) -> None:
    seconds: dict[str, float] = {}
    with watching(seconds):
        result, _ = runner.run_task(run, lambda _share: None)
    rest = result.times["total"] - sum(seconds.values())
    called = {"__call__": "forward", "clip_grad_norm_": "clipping"}
    parts = ", ".join(f"{called.get(name, name)} {value:.1f}" for name, value in seconds.items())
    total = result.times["total"]
    print(
        f"{run.task.title:6} a run of {total:.1f} s: {parts}; else {rest:.2f}, {rest / total:.1%}"
    )


def fixed(run: Run, content: str, limit: int | None) -> None:
    given = {"max_steps": 1, "per_device_train_batch_size": 1}
    short = replace(run, settings=settings_of(run.task, given, content=content, limit=limit))
    times = []
    for seed in range(4):
        result, _ = runner.run_task(replace(short, seed=seed), lambda _share: None)
        times.append(result.times["total"] - result.times["evaluate"])
    later = statistics.median(times[1:])
    print(
        f"{run.task.title:6} fixed cost of a run: the first {times[0]:.2f} s, later {later:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model's folder [DISTIL_DATA's tiny-bert]")
    parser.add_argument("--tasks", nargs="+", default=["cola", "sst2"])
    parser.add_argument("--limit", type=int, help="training examples")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--turns", type=int, default=3, help="0: only what the harness costs")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    arguments = parser.parse_args()
    root = os.environ.get("DISTIL_DATA")
    if not root:
        raise SystemExit("DISTIL_DATA names no folder of real data: lengths would not be real")
    model = identify(arguments.model or str(Path(root) / "models" / "tiny-bert"))
    print(machine.describe("cpu"), model.name)
    transformers.utils.logging.set_verbosity_error()
    for name in arguments.tasks:
        task, folder = task_named(name), Path(root) / "data" / "hub"
        data = load_task(task, folder, limit=arguments.limit)
        given = {"learning_rate": arguments.learning_rate, "num_train_epochs": arguments.epochs}
        settings = settings_of(task, given, content=data.content, limit=arguments.limit)
        run = Run(model, task, 1, settings, data_dir=str(folder))
        lengths = [len(" ".join(pair).split()) for pair in zip(*data.train.texts, strict=True)]
        print(f"{task.title}: {len(data.train)} examples of {np.mean(lengths):.1f} words")
        if arguments.turns:
            compare(run, data, arguments.turns)
        overhead(run)
        fixed(run, data.content, arguments.limit)


if __name__ == "__main__":
    main()
