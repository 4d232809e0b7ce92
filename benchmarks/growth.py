"""How cost grows: with vocabulary, length, corpus, results and planned runs.

    python -m benchmarks.growth
    python -m benchmarks.growth --only vocabulary corpus

Each cost is measured at four sizes, each twice the one before, in turns, and the exponent is the
slope of its logarithm over that of the size: 1 is linear, 2 would be quadratic. Medians over the
turns; the range is of the slopes of single turns. What doesn't grow (starting, imports) makes an
exponent smaller, so it is left out, or measured at the least size and subtracted where it says so.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import transformers

from benchmarks import corpus_prep, machine, tables_speed
from benchmarks.setting import Recipe, Size, make_batch, make_pair
from benchmarks.variants import ours
from distil_trainer.objectives.vocab_head import Decoder, HeadWeights, head_losses
from eval_harness.sweep.plan import Experiment, jobs, plan
from eval_harness.tasks.lookup import task_named


class Cost(NamedTuple):
    """What is measured: work at a size, and in which words it is told."""

    of: str
    sizes: Sequence[int]
    seconds_at: Callable[[int], float]
    about: str


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=sorted(COSTS), help="[all]")
    parser.add_argument("--turns", type=int, default=3, help="measurements of each size [3]")
    arguments = parser.parse_args()
    print(machine.describe("cpu"))
    print("| cost of | sizes | seconds | exponent |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only or COSTS:
            cost = COSTS[name](Path(folder))
            measured = measure(cost, arguments.turns)
            print(line(cost, measured), flush=True)


def measure(cost: Cost, turns: int) -> np.ndarray:
    """Return seconds [turns, sizes], after a turn that warms up and isn't counted."""
    found = [[cost.seconds_at(size) for size in cost.sizes] for _ in range(turns + 1)]
    return np.array(found[1:])


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the slope of log seconds over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def line(cost: Cost, measured: np.ndarray) -> str:
    """Return a row of the table."""
    medians = np.median(measured, axis=0)
    each = [exponent(cost.sizes, turn) for turn in measured]
    return (
        f"| {cost.of} ({cost.about}) | {', '.join(f'{size:,}' for size in cost.sizes)} "
        f"| {', '.join(f'{value:.3g}' for value in medians)} "
        f"| {exponent(cost.sizes, medians):.2f} ({min(each):.2f} to {max(each):.2f}) |"
    )


def vocabulary(_folder: Path) -> Cost:
    """Measure the head of teacher and student, forward and backward."""
    rows, width = 1024, 128

    def seconds(words: int) -> float:
        draw = torch.Generator().manual_seed(0)
        hidden = torch.randn(rows, width, generator=draw, requires_grad=True)
        weight = torch.randn(words, width, generator=draw, requires_grad=True)
        teacher = torch.randn(rows, width, generator=draw), Decoder(weight.detach() * 0.5, None)
        labels = torch.randint(words, (rows // 6,), generator=draw)
        weights = HeadWeights(ce=5 / rows, hard=2 / len(labels))

        def work() -> None:
            head_losses(
                hidden, Decoder(weight, None), [teacher], labels, weights=weights, temperature=2.0
            ).objective.backward()

        return machine.seconds(work, "cpu")

    return Cost(
        "the vocabulary", (15_000, 30_000, 60_000, 120_000), seconds, f"head of {rows:,} tokens"
    )


def length(_folder: Path) -> Cost:
    """Measure a whole distillation step of as many tokens, in ever longer sequences."""

    def seconds(tokens: int) -> float:
        size = Size(width=128, heads=2, depth=4, sequences=1, length=tokens, vocabulary=8_000)
        _, loss = ours.make_objective(make_pair(size, "sdpa", "cpu"), Recipe(), restrict=True)
        batch = make_batch(size, np.array([tokens]), [0])
        return machine.seconds(lambda: loss(batch).backward(), "cpu")

    return Cost("the length", (64, 128, 256, 512), seconds, "step of one sequence, soft at masks")


def corpus(folder: Path) -> Cost:
    """Measure the preparation of a corpus, in thousands of bytes of text."""
    text = folder / "text"
    text.mkdir()
    sizes = (1_000, 2_000, 4_000, 8_000)
    for size in sizes:
        corpus_prep.write_text(text / f"{size}.txt", None, size / 1_000)
    name = corpus_prep.train_tokenizer(text / f"{sizes[-1]}.txt", text / "tokenizer")
    tokenizer = corpus_prep.load(name)

    def seconds(size: int) -> float:
        return corpus_prep.seconds(corpus_prep.prepare, text / f"{size}.txt", tokenizer)

    return Cost("the corpus", sizes, seconds, "preparation, in kB of text")


def results(folder: Path) -> Cost:
    """Measure the CPU time of the tables."""

    def seconds(count: int) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            tables_speed.write_results(Path(name), count)
            return tables_speed.tables(Path(name))[0]

    return beyond(seconds, 45, "results", "CPU of `tables`, less {:.2f} s at 45 results")


def planned_runs(folder: Path) -> Cost:
    """Measure the plan of a sweep: one model and task with ever more seeds."""
    model = make_model(folder / "model")
    (folder / "RTE").mkdir()
    rows = "".join(f"{row}\ta lake\ta river\tentailment\n" for row in range(20))
    for split in ("train", "dev"):
        (folder / "RTE" / f"{split}.tsv").write_text(f"index\tsentence1\tsentence2\tlabel\n{rows}")

    def seconds(count: int) -> float:
        experiment = Experiment(
            program="run_glue",
            models=(model,),
            tasks=(task_named("rte"),),
            seeds=tuple(range(count)),
            data_dir=str(folder),
            results_dir=str(folder / "planned"),
        )
        start = time.perf_counter()
        assert len(list(jobs(plan(experiment)))) == count
        return time.perf_counter() - start

    return beyond(seconds, 1, "planned runs", "`plan` and its jobs, less {:.2f} s at 1 run")


def beyond(seconds_at: Callable[[int], float], least: int, of: str, about: str) -> Cost:
    """Return the cost of more than the least there can be, whose seconds are named instead."""
    base = seconds_at(least)
    sizes = (1_000, 2_000, 4_000, 8_000)
    return Cost(of, sizes, lambda count: seconds_at(count) - base, about.format(base))


def make_model(folder: Path) -> str:
    """Save a model and a tokenizer as small as can be, and return their folder."""
    config = transformers.BertConfig(
        vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    transformers.BertModel(config).save_pretrained(folder)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lake")
    vocabulary = {word: number for number, word in enumerate(words)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return str(folder)


COSTS: Mapping[str, Callable[[Path], Cost]] = {
    "vocabulary": vocabulary,
    "length": length,
    "corpus": corpus,
    "results": results,
    "planned-runs": planned_runs,
}

if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    main()
