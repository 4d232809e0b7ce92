"""What `make study` will cost, counted before it begins: `python examples/study_cost.py --help`.

The study is Table 4: five students of one teacher, each pre-trained on the corpus, then judged on
GLUE. Whatever is wrong with names, flags or data is said here, before hours of work. The corpus is
prepared in passing: its tokens are the cost, and the students need it anyway. No seconds are
guessed: they depend on the machine and on what else runs there, and the bars of both commands tell
the time left as soon as they have measured some.
"""

import math
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from angels_share.cli import DONE, Door, open_door
from angels_share.errors import UserError
from angels_share.flags import Flag, Options, parse
from angels_share.names import locate
from angels_share.tokenizing import load_tokenizer
from distil_trainer.batches import BatchPlan
from distil_trainer.cli import PRETRAIN_DOOR, with_preset
from distil_trainer.corpus import Corpus, CorpusOptions, prepare_corpus
from distil_trainer.families import family_of
from distil_trainer.loading import load_config
from distil_trainer.recipe import ABLATIONS, DEFAULTS
from eval_harness.cli import GLUE_DOOR
from eval_harness.glue import plan
from eval_harness.plans import Plan
from eval_harness.settings import FINE_TUNING
from eval_harness.store import find

STUDENTS = len(ABLATIONS)


class Learning(NamedTuple):
    """What one student goes through."""

    steps: int
    tokens: int
    of: str


def pretraining(options: Options, out: Path) -> Learning:
    """One student's updates and tokens, counted as its Trainer counts them."""
    steps = int(options.training.get("max_steps", -1))
    if options.stream_corpus:
        return Learning(steps, 0, "a stream, whose tokens nobody knows")
    corpus = _prepared(options, out)
    tokens, sequences = (int(corpus.report["train"][name]) for name in ("tokens", "sequences"))
    in_epoch = _steps_in_epoch(options, corpus)
    if steps <= 0:
        epochs = options.training.get("num_train_epochs", DEFAULTS["num_train_epochs"])
        steps = math.ceil(float(epochs) * in_epoch)
    of = f"{steps / in_epoch:.3g} times {sequences:,} sequences of {tokens:,} tokens"
    return Learning(steps, round(tokens * steps / in_epoch), of)


def _prepared(options: Options, out: Path) -> Corpus:
    """The corpus as the students will ask for it, so that it isn't prepared twice."""
    names = [*options.teacher, *([options.student] if options.student else [])]
    configs = [load_config(name) for name in names]
    readable = min(family_of(config).shape(config).max_length for config in configs)
    return prepare_corpus(
        options.corpus,
        load_tokenizer(options.tokenizer or options.teacher[0]),
        cache_dir=options.corpus_dir or out / "corpus",
        options=CorpusOptions(
            text_column=options.text_column,
            max_length=min(options.max_seq_length, readable),
            min_tokens=options.min_tokens,
            max_unknown=options.max_unknown,
            validation_fraction=options.validation_fraction,
        ),
    )


def _steps_in_epoch(options: Options, corpus: Corpus) -> int:
    by_tokens = options.tokens_per_batch
    size = int(options.training.get("per_device_train_batch_size", 8))
    batches = BatchPlan(
        corpus.train.lengths,
        batch_size=None if by_tokens else size,
        tokens_per_batch=by_tokens,
    )
    return math.ceil(len(batches) / int(options.training.get("gradient_accumulation_steps", 1)))


def count(options: Options) -> int:
    """Checks both commands, and says what they will do."""
    out = Path(options.out)
    distil, glue = _pretrain_options(options), _glue_options(options)
    if distil.teacher == ["none"]:
        raise UserError("--teacher none: a study wants a teacher to leave something out of")
    for name in distil.teacher:
        locate(name)
    # The students aren't there yet: with their teacher in their place all else is checked now.
    what = plan(replace(glue, values={**glue.values, "model": distil.teacher[:1]}))
    learning = pretraining(distil, out)
    _say(f"{STUDENTS} students, {', '.join(ABLATIONS)}; {_finished(out)} are finished")
    _say(f"each learns from {learning.of}: {learning.steps:,} steps")
    _say(f"together {STUDENTS * learning.steps:,} steps, {STUDENTS * learning.tokens:,} tokens")
    there = len(find(out / "results").results)
    _say(f"GLUE: {_runs(what, glue)}; {there:,} have a result")
    _say("the bars tell the time left as measured; interrupted, the same command goes on")
    return DONE


def _finished(out: Path) -> int:
    """A run that was interrupted has written a record, and no weights yet."""
    wanted = ("distil.json", "model.safetensors")
    return sum(all((out / name / file).is_file() for file in wanted) for name in ABLATIONS)


def _runs(what: Plan, glue: Options) -> str:
    runs = STUDENTS * len(what.tasks) * len(what.seeds)
    epochs = float(glue.training.get("num_train_epochs", FINE_TUNING["num_train_epochs"]))
    of_a_seed = sum(what.data[task.name].train * epochs for task in what.tasks)
    return (
        f"{STUDENTS} students x {len(what.tasks)} tasks x {len(what.seeds)} seeds: {runs:,} runs, "
        f"{round(of_a_seed * STUDENTS * len(what.seeds)):,} examples learned from"
    )


def _pretrain_options(options: Options) -> Options:
    words = [
        "--teacher", *options.teacher, "--corpus", *options.corpus, "--output_dir", options.out,
        "--ablation", "all", *shlex.split(options.distil),
    ]  # fmt: skip
    return with_preset(parse(PRETRAIN_DOOR.flags, words, takes_training_flags=True))


def _glue_options(options: Options) -> Options:
    data = [] if options.data == "hub" else ["--data_dir", options.data]
    words = [
        "--model", *options.teacher, *data, "--results_dir", str(Path(options.out) / "results"),
        *shlex.split(options.glue),
    ]  # fmt: skip
    return parse(GLUE_DOOR.flags, words, takes_training_flags=True)


def _say(line: str) -> None:
    print(f"study: {line}", flush=True)


COST_DOOR = Door(
    name="study",
    summary="counts what `make study` will cost, and checks all that it will be given",
    flags=(
        Flag("teacher", "whom the students learn from", many=True, required=True),
        Flag("corpus", "text: files, folders, globs, or a Hub data set", many=True, required=True),
        Flag("data", "GLUE's folder, or hub", required=True),
        Flag("out", "where students and results go", required=True),
        Flag("distil", "more flags of run_pretrain_distill.py, in one word", default=""),
        Flag("glue", "more flags of run_glue.py, in one word", default=""),
    ),
    run=count,
    examples=(
        "python examples/study_cost.py --teacher bert --corpus wiki.txt --data glue_data --out s",
    ),
)

if __name__ == "__main__":
    sys.exit(open_door(COST_DOOR))
