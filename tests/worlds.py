"""Tiny tasks in GLUE's own file format, made from a seed, and what it takes to run on them."""

import random
from pathlib import Path

import tiny

from eval_harness.data import load_task
from eval_harness.models import identify
from eval_harness.runs import Run
from eval_harness.settings import settings_of
from eval_harness.tasks import task_named

WORDS = [
    "the", "old", "river", "barrels", "sleep", "dark", "angels", "share", "every", "year",
    "small", "student", "learns", "fast",
]  # fmt: skip
FAST = {
    "learning_rate": 3e-3, "num_train_epochs": 2, "per_device_train_batch_size": 8,
    "max_seq_length": 32,
}  # fmt: skip


def make(root):
    """The tiny tasks, a BERT and a DistilBERT of one vocabulary: teacher and student."""
    glue_folder(root / "glue")
    tiny.folder(root / "bert", tiny.bert(2), tiny.wordpiece(WORDS))
    tiny.folder(root / "distilbert", tiny.distilbert(1), tiny.wordpiece(WORDS))
    return root


def _sentence(draw, longest=9):
    return " ".join(draw.choices(WORDS, k=draw.randint(2, longest)))


def glue_folder(path, *, train=48, dev=24, seed=0):
    """CoLA, RTE and STS-B in miniature: a word decides, so that a tiny model can learn it."""
    draw = random.Random(seed)
    for split, count in (("train", train), ("dev", dev)):
        pairs = [(_sentence(draw), _sentence(draw, 4)) for _ in range(count)]
        _write(path / "CoLA" / f"{split}.tsv", [
            f"gj04\t{int('angels' in first)}\t\t{first}" for first, _ in pairs
        ])  # fmt: skip
        _write(path / "RTE" / f"{split}.tsv", [
            "index\tsentence1\tsentence2\tlabel",
            *(f"{n}\t{a}\t{b}\t{'' if 'old' in b else 'not_'}entailment"
              for n, (a, b) in enumerate(pairs)),
        ])  # fmt: skip
        _write(path / "STS-B" / f"{split}.tsv", [
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
            *(f"{n}\tg\tf\t2012\t{n}\tnone\tnone\t{a}\t{b}\t{_shared_words(a, b):.3f}"
              for n, (a, b) in enumerate(pairs)),
        ])  # fmt: skip
    return path


def _shared_words(first, second):
    return len(set(first.split()) & set(second.split()))


def _write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_on(folder, model, task="rte", *, seed=1, given=None, method=None, **rest):
    """A run of a model's folder on one of the tiny tasks."""
    row = task_named(task)
    data = load_task(row, Path(folder))
    settings = settings_of(
        row, {**FAST, **(given or {})}, content=data.content, limit=None, method=method,
        choose=rest.pop("choose", "last"),
    )  # fmt: skip
    return Run(identify(str(model)), row, seed, settings, method, data_dir=str(folder), **rest)
