"""Count what `make study` will cost before it begins: `python examples/study_cost.py --help`.

The study is Table 4: five students of one teacher, each pre-trained on the corpus, then evaluated
on GLUE. Errors in names, flags or data are reported here, before hours of work. The corpus is
prepared along the way: its tokens are the cost, and the students need it anyway. No time is
estimated, since that depends on the machine and its load; the progress bars of both commands show
the time left once they have measured some of it.
"""

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from angels_share.ablations import ABLATIONS
from angels_share.cli import DONE, Command, run_command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options
from angels_share.hub.locate import locate
from angels_share.student_record import is_complete
from angels_share.tokenizing import check_tokenization, load_tokenizer
from angels_share.untrusted import require_safetensors
from distil_trainer.cli import PRETRAIN, with_preset
from distil_trainer.data.batches import BatchPlan
from distil_trainer.data.corpus import Corpus, prepare_corpus
from distil_trainer.data.sequence_maker import CorpusOptions
from distil_trainer.models.families import family_of
from distil_trainer.models.loading import load_config
from distil_trainer.recipe import DEFAULTS
from eval_harness.commands import glue as run_glue
from eval_harness.runs.models import identify
from eval_harness.runs.run import Model
from eval_harness.sweep.plan import Plan, jobs, plan
from eval_harness.sweep.queue import Job, unique
from eval_harness.sweep.worker import unfinished

STUDENTS = len(ABLATIONS)


class Pretraining(NamedTuple):
    """The cost of one student's pre-training, and a description of the data it sees."""

    steps: int
    tokens: int
    data: str


def count_pretraining(options: Options, tokenizer: Any, out: Path) -> Pretraining:
    """Return one student's steps and tokens, counted as its Trainer counts them.

    Args:
        options: the options of run_pretrain_distill.py.
        tokenizer: the students' tokenizer.
        out: the study's folder, where the corpus is prepared unless the options name another.

    Raises:
        UserError: the corpus is streamed and the number of steps isn't given.
    """
    steps = int(options.training.get("max_steps", -1))
    if options.stream_corpus:
        if steps <= 0:
            raise UserError("--stream_corpus never ends: give the number of steps with --max_steps")
        return Pretraining(steps, 0, "a stream, whose tokens can't be counted")
    corpus = _prepare(options, tokenizer, out)
    tokens, sequences = (int(corpus.report["train"][name]) for name in ("tokens", "sequences"))
    epoch_steps = _steps_per_epoch(options, corpus)
    if steps <= 0:
        epochs = options.training.get("num_train_epochs", DEFAULTS["num_train_epochs"])
        steps = math.ceil(float(epochs) * epoch_steps)
    data = f"{steps / epoch_steps:.3g} times {sequences:,} sequences of {tokens:,} tokens"
    return Pretraining(steps, round(tokens * steps / epoch_steps), data)


def _prepare(options: Options, tokenizer: Any, out: Path) -> Corpus:
    """Prepare the corpus with the students' settings, so that it isn't prepared twice."""
    names = [*options.teacher, *([options.student] if options.student else [])]
    configs = [load_config(name) for name in names]
    positions = min(family_of(config).shape(config).max_length for config in configs)
    return prepare_corpus(
        options.corpus,
        tokenizer,
        cache_dir=options.corpus_dir or out / "corpus",
        options=CorpusOptions(
            text_column=options.text_column,
            max_length=min(options.max_seq_length, positions),
            min_tokens=options.min_tokens,
            max_unknown=options.max_unknown,
            validation_fraction=options.validation_fraction,
        ),
        causal=family_of(configs[0]).causal,
    )


def _steps_per_epoch(options: Options, corpus: Corpus) -> int:
    tokens = options.tokens_per_batch
    size = int(options.training.get("per_device_train_batch_size", 8))
    batches = BatchPlan(
        corpus.train.lengths, batch_size=None if tokens else size, tokens_per_batch=tokens
    )
    return math.ceil(len(batches) / int(options.training.get("gradient_accumulation_steps", 1)))


def print_cost(options: Options) -> int:
    """Check the options of both commands, and print what they will do."""
    out = Path(options.out)
    distil, glue = _pretrain_options(options), _glue_options(options)
    tokenizer = _load_tokenizer(distil)
    planned = _plan(glue, tokenizer)
    student = count_pretraining(distil, tokenizer, out)
    finished = sum(is_complete(folder) for folder in _students(out))
    lines = (
        f"{STUDENTS} students, {', '.join(ABLATIONS)}; {finished} are finished",
        f"each is trained on {student.data}: {student.steps:,} steps",
        f"together {STUDENTS * student.steps:,} steps, {STUDENTS * student.tokens:,} tokens",
        f"GLUE: {_count_runs(planned, glue.rerun)}",
        "progress bars will show the time left; after an interruption run the same command again",
    )
    for line in lines:
        print(f"study: {line}", flush=True)
    return DONE


def _students(out: Path) -> list[Path]:
    return [out / name for name in ABLATIONS]


def _load_tokenizer(distil: Options) -> Any:
    """Check that the teachers can be loaded, and return the students' tokenizer."""
    if distil.teacher == ["none"]:
        raise UserError("--teacher none: a study needs a teacher to distil from")
    for name in distil.teacher:
        located = locate(name)
        if located.kind == "folder":
            require_safetensors(Path(located.source), "AutoModel")
    return load_tokenizer(distil.tokenizer or distil.teacher[0])


def _plan(glue: Options, tokenizer: Any) -> Plan:
    """Plan GLUE's runs; a student that isn't trained yet has an empty digest, hence no results."""
    planned = plan(replace(run_glue.experiment(glue), models=()))
    if planned.teacher is not None:
        check_tokenization(
            tokenizer, load_tokenizer(planned.teacher.source, planned.teacher.revision)
        )
    return replace(planned, models=tuple(_student(Path(name)) for name in glue.model))


def _student(folder: Path) -> Model:
    if is_complete(folder):
        return identify(str(folder))
    return Model(folder.name, folder.name, digest="", source=str(folder))


def _count_runs(planned: Plan, rerun: str) -> str:
    """Describe GLUE's runs, a teacher's included; those that have a result cost nothing."""
    runs = unique(jobs(planned))
    todo = [job for job in runs if _is_to_do(planned, job, rerun)]
    of_teacher = sum(job.run.model not in planned.models for job in runs)
    examples = sum(_count_examples(planned, job) for job in todo)
    return (
        f"{STUDENTS} students x {len(planned.tasks)} tasks x {len(planned.seeds)} seeds"
        f"{f' and {of_teacher} of their teacher' if of_teacher else ''}: {len(runs):,} runs, "
        f"{len(todo):,} of them to do, with {examples:,} training examples"
    )


def _is_to_do(planned: Plan, job: Job, rerun: str) -> bool:
    if rerun != "missing":
        return rerun == "always"
    return job.again or unfinished(planned.root, job.key) is not None


def _count_examples(planned: Plan, job: Job) -> int:
    """Return the number of examples that a run trains on, over all its epochs."""
    train, values = planned.extents[job.run.task.name].train, job.run.settings.task["values"]
    steps = int(values.get("max_steps", -1))
    if steps <= 0:
        return round(train * float(values["num_train_epochs"]))
    # The last batch of an epoch may be smaller, so whole epochs are counted by their examples.
    batch = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"]
    epochs, rest = divmod(steps, math.ceil(train / batch))
    return int(epochs * train + min(rest * batch, train))


def _pretrain_options(options: Options) -> Options:
    words = ["--teacher", *options.teacher, "--corpus", *options.corpus]
    words += ["--output_dir", options.out, "--ablation", "all", "--resume_from_checkpoint"]
    return with_preset(_parse(PRETRAIN, words, "distil", options.distil))


def _glue_options(options: Options) -> Options:
    out = Path(options.out)
    data = [] if options.data == "hub" else ["--data_dir", options.data]
    words = ["--model", *map(str, _students(out)), *data, "--results_dir", str(out / "results")]
    return _parse(run_glue.COMMAND, words, "glue", options.glue)


def _parse(command: Command, words: Sequence[str], name: str, further: str) -> Options:
    """Parse the study's flags of a command and the user's, which must not change the study's.

    Args:
        command: the command that the words belong to.
        words: the flags that the study sets.
        name: the study's flag that holds the user's flags.
        further: the user's flags, quoted as one word.

    Raises:
        UserError: the user's flags have an open quote, or set a flag of the study's.
    """
    try:
        more = shlex.split(further)
    except ValueError as error:
        raise UserError(f"--{name} {further}: {error}: close it or leave it out") from error
    ours = command.parse(words)
    both = command.parse([*words, *more])
    for flag in sorted(ours.given):
        if both.values[flag] != ours.values[flag]:
            raise UserError(f"--{name} {further}: the study sets --{flag} itself: leave it out")
    return both


COMMAND = Command(
    name="study",
    summary="counts what `make study` will cost, and checks its arguments",
    flags=(
        Flag("teacher", "model folder or Hub id to distil from", many=True, required=True),
        Flag("corpus", "text files, folders, globs, or a Hub data set", many=True, required=True),
        Flag("data", "GLUE's folder, or `hub`", required=True),
        Flag("out", "output folder for students and results", required=True),
        Flag("distil", "further flags of run_pretrain_distill.py, quoted as one", default=""),
        Flag("glue", "further flags of run_glue.py, likewise", default=""),
    ),
    run=print_cost,
    examples=(
        "python examples/study_cost.py --teacher bert --corpus wiki.txt --data glue_data --out s",
    ),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
