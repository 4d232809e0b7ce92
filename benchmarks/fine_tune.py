"""Fine-tuning and evaluation against the stock Trainer, and the harness' own overhead.

    DISTIL_DATA=folder python -m benchmarks.fine_tune --model FOLDER --tasks cola sst2

The baselines work as transformers' own run_glue.py does: random batches, the stock Trainer, the
same hyper-parameters, examples and threads; batches as wide as their longest text
(`--pad_to_max_length False`), or all 128 tokens wide (its default). All fine-tune and evaluate the
same model on the same real sentences, in turns; seconds and dev scores are printed.

Then, for our run: the seconds of forward, backward and optimizer step (clipping included), and the
remainder, which is the harness' overhead; and the fixed cost of a run, from runs of one example.
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
from eval_harness.tasks.metrics import compute_metrics
from eval_harness.training import runner
from eval_harness.training.classification import answers_of
from eval_harness.training.model_loading import load_for_task

LENGTH = 128


def tokenized(data: TaskData, tokenizer, *, padding: str | bool) -> dict[str, list[dict]]:
    """Tokenize every split as run_glue.py does."""
    splits = {}
    for part in (data.train, *data.evaluation):
        texts = [list(column) for column in part.texts]
        encoded = tokenizer(*texts, padding=padding, max_length=LENGTH, truncation=True)
        rows = [
            dict(zip(encoded, values, strict=True))
            for values in zip(*encoded.values(), strict=True)
        ]
        for row, label in zip(rows, part.labels, strict=True):
            row["labels"] = label.item()
        splits[part.name] = rows
    return splits


def run_stock(run: Run, data: TaskData, examples: dict, tokenizer) -> tuple[float, float]:
    """Run the stock Trainer; return seconds and dev score."""
    values = run.settings.task["values"]
    names = set(values) - {"max_seq_length", "train_sampling_strategy"}
    started = time.perf_counter()
    model = load_for_task(run.model, run.task, tokenizer).copy(run.seed)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            seed=run.seed,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            per_device_eval_batch_size=64,
            dataloader_pin_memory=False,
            **{name: values[name] for name in names},
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=examples["train"],
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
        )
        trainer.train()
        part = data.evaluation[0]
        logits = trainer.predict(examples[part.name]).predictions
    seconds = time.perf_counter() - started
    return seconds, compute_metrics(run.task, answers_of(run.task, logits), part.labels)["score"]


def run_ours(run: Run) -> tuple[float, float]:
    """Run the harness; return seconds and dev score."""
    result, _ = runner.run_task(run, lambda _share: None)
    return result.times["total"], result.score


@contextmanager
def timing(seconds: dict[str, float]) -> Iterator[None]:
    """Add up the time of forward, backward, clipping and optimizer step while the `with` lasts."""
    places = [
        (transformers.PreTrainedModel, "__call__"),
        (torch.Tensor, "backward"),
        (torch.optim.AdamW, "step"),
        (torch.nn.utils, "clip_grad_norm_"),
    ]
    originals = [getattr(owner, name) for owner, name in places]

    # Only the outermost call counts: a model's forward calls that of its body.
    inside = []

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
        for (owner, name), work in zip(places, originals, strict=True):
            setattr(owner, name, timed(work, name))
        yield
    finally:
        for (owner, name), work in zip(places, originals, strict=True):
            setattr(owner, name, work)


def compare(run: Run, data: TaskData, turns: int) -> None:
    tokenizer = load_tokenizer(run.model.source)
    stock = {
        "padded to 128": tokenized(data, tokenizer, padding="max_length"),
        "longest of a batch": tokenized(data, tokenizer, padding=False),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in (*stock, "ours")}
    for turn in range(turns):
        seeded = replace(run, seed=turn + 1)
        for name, examples in stock.items():
            times[name].append(run_stock(seeded, data, examples, tokenizer))
        times["ours"].append(run_ours(seeded))
    medians = {name: statistics.median(s for s, _ in runs) for name, runs in times.items()}
    for name, runs in times.items():
        scores = " ".join(f"{100 * score:.1f}" for _, score in runs)
        spread = f"{min(s for s, _ in runs):.1f} to {max(s for s, _ in runs):.1f}"
        print(
            f"{run.task.title:6} {name:18} {medians[name]:8.1f} s ({spread}), "
            f"{medians[name] / medians['ours']:.2f} of ours   dev by seed {scores}"
        )


def overhead(run: Run) -> None:
    seconds: dict[str, float] = {}
    with timing(seconds):
        result, _ = runner.run_task(run, lambda _share: None)
    rest = result.times["total"] - sum(seconds.values())
    labels = {"__call__": "forward", "clip_grad_norm_": "clipping"}
    parts = ", ".join(f"{labels.get(name, name)} {value:.1f}" for name, value in seconds.items())
    total = result.times["total"]
    share = f"{rest:.2f}, {rest / total:.1%}"
    print(f"{run.task.title:6} a run of {total:.1f} s: {parts}; remainder {share}")


def fixed_cost(run: Run, content: str, limit: int | None) -> None:
    given = {"max_steps": 1, "per_device_train_batch_size": 1}
    short = replace(run, settings=settings_of(run.task, given, content=content, limit=limit))
    times = []
    for seed in range(4):
        result, _ = runner.run_task(replace(short, seed=seed), lambda _share: None)
        times.append(result.times["total"] - result.times["evaluate"])
    first, later = times[0], statistics.median(times[1:])
    print(f"{run.task.title:6} fixed cost of a run: first {first:.2f} s, later {later:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="model folder [tiny-bert of DISTIL_DATA]")
    parser.add_argument("--tasks", nargs="+", default=["cola", "sst2"], help="[cola sst2]")
    parser.add_argument("--limit", type=int, help="training examples [all]")
    parser.add_argument("--epochs", type=float, default=1.0, help="[1]")
    parser.add_argument("--turns", type=int, default=3, help="of both; 0 skips the comparison [3]")
    parser.add_argument("--learning_rate", type=float, default=1e-4, help="[1e-4]")
    arguments = parser.parse_args()
    root = os.environ.get("DISTIL_DATA")
    if not root:
        raise SystemExit("set DISTIL_DATA to a folder of real data: made-up text has other lengths")
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
        fixed_cost(run, data.content, arguments.limit)


if __name__ == "__main__":
    main()
