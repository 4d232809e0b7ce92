"""Tiny tasks in GLUE's and SQuAD's own formats, generated from a seed, and runs on them."""

import random
from dataclasses import replace
from pathlib import Path

import squad_made
import tiny

from eval_harness.data.splits import load_task
from eval_harness.runs.models import identify
from eval_harness.runs.run import Run
from eval_harness.runs.settings import settings_of
from eval_harness.tasks.lookup import task_named

WORDS = [
    "the", "old", "river", "barrels", "sleep", "dark", "angels", "share", "every", "year",
    "small", "student", "learns", "fast",
]  # fmt: skip
FAST = {
    "learning_rate": 3e-3, "num_train_epochs": 2, "per_device_train_batch_size": 8,
    "max_seq_length": 32,
}  # fmt: skip
FAST_ANSWERS = {**FAST, "max_seq_length": 24, "doc_stride": 4, "max_query_length": 8}
_SPLITS = {"train": "train", "validation": "dev"}


def make(root):
    """Write the tiny tasks, a BERT as teacher, and a DistilBERT of its vocabulary as student."""
    glue_folder(root / "glue")
    squad_files(root / "squad")
    squad_files(root / "squad2", unanswerable=40)
    tiny.folder(root / "bert", tiny.bert(2), tiny.wordpiece(WORDS))
    tiny.folder(root / "distilbert", tiny.distilbert(1), tiny.wordpiece(WORDS))
    return root


def _sentence(draw, longest=9):
    return " ".join(draw.choices(WORDS, k=draw.randint(2, longest)))


def glue_folder(path, *, train=48, dev=24, seed=0):
    """Write tiny CoLA, RTE and STS-B: one word decides each label, so a tiny model can learn it."""
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


def squad_files(path, *, train=48, dev=24, seed=0, unanswerable=0):
    """Write a tiny SQuAD: all answers are one word, so a tiny model can learn it.

    `unanswerable` percent of the contexts lack that word, as in SQuAD 2.0.
    """
    draw = random.Random(seed)
    path.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("dev", dev)):
        triples = [_triple(draw, unanswerable) for _ in range(count)]
        version = "v2.0" if unanswerable else "1.1"
        squad_made.write(path / f"{split}.json", squad_made.document(triples, version))
    return path


def _triple(draw, unanswerable):
    words = draw.choices([word for word in WORDS if word != "angels"], k=draw.randint(4, 30))
    if draw.randrange(100) < unanswerable:
        return " ".join(words), "who sleep every year", []
    words[draw.randrange(len(words))] = "angels"
    return " ".join(words), "who sleep every year", ["angels"]


def _shared_words(first, second):
    return len(set(first.split()) & set(second.split()))


def _write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_on_questions(folder, model, task="squad", *, seed=1, given=None, method=None, **rest):
    """Return a run of the model in a folder on the tiny questions."""
    files = {split: str(Path(folder) / f"{name}.json") for split, name in _SPLITS.items()}
    task = replace(task_named(task), files=files)
    data = load_task(task, None, limit=rest.get("limit"))
    settings = settings_of(
        task,
        {**FAST_ANSWERS, **(given or {})},
        content=data.content,
        limit=rest.pop("limit", None),
        method=method,
        choose=rest.pop("choose", "last"),
    )
    return Run(identify(str(model)), task, seed, settings, method, **rest)


def run_on(folder, model, task="rte", *, seed=1, given=None, method=None, **rest):
    """Return a run of the model in a folder on one of the tiny tasks."""
    task = task_named(task)
    data = load_task(task, Path(folder))
    settings = settings_of(
        task,
        {**FAST, **(given or {})},
        content=data.content,
        limit=None,
        method=method,
        choose=rest.pop("choose", "last"),
    )
    return Run(identify(str(model)), task, seed, settings, method, data_dir=str(folder), **rest)
