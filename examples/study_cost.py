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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from angels_share.ablations import ABLATIONS
from angels_share.cli import DONE, Command, run_command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options, parse
from angels_share.names import locate
from angels_share.student_record import is_complete
from angels_share.tokenizing import check_tokenization, load_tokenizer
from angels_share.untrusted import require_safetensors
from distil_trainer.cli import PRETRAIN, with_preset
from distil_trainer.data.batches import BatchPlan
from distil_trainer.data.corpus import Corpus, CorpusOptions, prepare_corpus
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


class Learning(NamedTuple):
    """What one student goes through."""

    steps: int
    tokens: int
    of: str


def pretraining(options: Options, tokenizer: Any, out: Path) -> Learning:
    """One student's updates and tokens, counted as its Trainer counts them."""
    steps = int(options.training.get("max_steps", -1))
    if options.stream_corpus:
        if steps <= 0:
            raise UserError("--stream_corpus has no end: say how many steps with --max_steps")
        return Learning(steps, 0, "a stream, whose tokens nobody knows")
    corpus = _prepared(options, tokenizer, out)
    tokens, sequences = (int(corpus.report["train"][name]) for name in ("tokens", "sequences"))
    in_epoch = _steps_in_epoch(options, corpus)
    if steps <= 0:
        epochs = options.training.get("num_train_epochs", DEFAULTS["num_train_epochs"])
        steps = math.ceil(float(epochs) * in_epoch)
    of = f"{steps / in_epoch:.3g} times {sequences:,} sequences of {tokens:,} tokens"
    return Learning(steps, round(tokens * steps / in_epoch), of)


def _prepared(options: Options, tokenizer: Any, out: Path) -> Corpus:
    """The corpus as the students will ask for it, so that it isn't prepared twice."""
    names = [*options.teacher, *([options.student] if options.student else [])]
    configs = [load_config(name) for name in names]
    readable = min(family_of(config).shape(config).max_length for config in configs)
    return prepare_corpus(
        options.corpus,
        tokenizer,
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
    """Checks both commands, and says planned they will do."""
    out = Path(options.out)
    distil, glue = _pretrain_options(options), _glue_options(options)
    tokenizer = _checked_tokenizer(distil)
    planned = _planned(glue, tokenizer)
    learning = pretraining(distil, tokenizer, out)
    finished = sum(is_complete(folder) for folder in _students(out))
    _say(f"{STUDENTS} students, {', '.join(ABLATIONS)}; {finished} are finished")
    _say(f"each learns from {learning.of}: {learning.steps:,} steps")
    _say(f"together {STUDENTS * learning.steps:,} steps, {STUDENTS * learning.tokens:,} tokens")
    _say(f"GLUE: {_runs(planned, glue.rerun)}")
    _say("the bars tell the time left as measured; interrupted, the same command goes on")
    return DONE


def _students(out: Path) -> list[Path]:
    return [out / name for name in ABLATIONS]


def _checked_tokenizer(distil: Options) -> Any:
    """The students' tokenizer, once it is clear that their teachers can be loaded."""
    if distil.teacher == ["none"]:
        raise UserError("--teacher none: a study wants a teacher to leave something out of")
    for name in distil.teacher:
        located = locate(name)
        if located.kind == "folder":
            require_safetensors(Path(located.source), "AutoModel")
    return load_tokenizer(distil.tokenizer or distil.teacher[0])


def _planned(glue: Options, tokenizer: Any) -> Plan:
    """What GLUE will be asked for. A student that isn't there yet has no digest, and no result."""
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


def _runs(planned: Plan, rerun: str) -> str:
    """Every run by the key that its result has, a teacher's too; what is there costs nothing."""
    wanted = unique(jobs(planned))
    todo = [job for job in wanted if _is_to_do(planned, job, rerun)]
    extra = sum(job.run.model not in planned.models for job in wanted)
    examples = sum(_examples(planned, job) for job in todo)
    return (
        f"{STUDENTS} students x {len(planned.tasks)} tasks x {len(planned.seeds)} seeds"
        f"{f' and {extra} of their teacher' if extra else ''}: {len(wanted):,} runs, "
        f"{len(todo):,} of them to do, with {examples:,} examples to learn from"
    )


def _is_to_do(planned: Plan, job: Job, rerun: str) -> bool:
    if rerun != "missing":
        return rerun == "always"
    return job.again or unfinished(planned.root, job.key) is not None


def _examples(planned: Plan, job: Job) -> int:
    """What a run learns from, each as often as it is met; the last batch of an epoch is smaller."""
    train, values = planned.extents[job.run.task.name].train, job.run.settings.task["values"]
    steps = int(values.get("max_steps", -1))
    if steps <= 0:
        return round(train * float(values["num_train_epochs"]))
    at_once = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"]
    epochs, rest = divmod(steps, math.ceil(train / at_once))
    return int(epochs * train + min(rest * at_once, train))


def _pretrain_options(options: Options) -> Options:
    words = [
        "--teacher", *options.teacher, "--corpus", *options.corpus, "--output_dir", options.out,
        "--ablation", "all", "--resume_from_checkpoint",
    ]  # fmt: skip
    return with_preset(_parsed(PRETRAIN, words, "distil", options.distil))


def _glue_options(options: Options) -> Options:
    out = Path(options.out)
    data = [] if options.data == "hub" else ["--data_dir", options.data]
    words = ["--model", *map(str, _students(out)), *data, "--results_dir", str(out / "results")]
    return _parsed(run_glue.COMMAND, words, "glue", options.glue)


def _parsed(command: Command, words: Sequence[str], name: str, further: str) -> Options:
    """A command's options with the further flags; planned the study says itself isn't theirs."""
    try:
        more = shlex.split(further)
    except ValueError as error:
        raise UserError(f"--{name} {further}: {error}: close it, or leave it out") from error
    ours = parse(command.flags, words, takes_training_flags=True)
    both = parse(command.flags, [*words, *more], takes_training_flags=True)
    for flag in sorted(ours.given):
        if both.values[flag] != ours.values[flag]:
            raise UserError(f"--{name} {further}: the study itself says --{flag}: leave it out")
    return both


def _say(line: str) -> None:
    print(f"study: {line}", flush=True)


STUDY_COST = Command(
    name="study",
    summary="counts what `make study` will cost, and checks all that it will be given",
    flags=(
        Flag("teacher", "whom the students learn from", many=True, required=True),
        Flag("corpus", "text: files, folders, globs, or a Hub data set", many=True, required=True),
        Flag("data", "GLUE's folder, or hub", required=True),
        Flag("out", "where students and results go", required=True),
        Flag("distil", "more flags of run_pretrain_distill.py, quoted as one", default=""),
        Flag("glue", "more flags of run_glue.py, likewise", default=""),
    ),
    run=count,
    examples=(
        "python examples/study_cost.py --teacher bert --corpus wiki.txt --data glue_data --out s",
    ),
)

if __name__ == "__main__":
    sys.exit(run_command(STUDY_COST))
