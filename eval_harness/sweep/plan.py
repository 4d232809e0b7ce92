"""What a command asks for: models by tasks by seeds, and the teachers before those who learn.

Imports no torch: what has a result already is answered in seconds.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import require_writable_folder
from angels_share.flags import Options
from angels_share.sealed_folder import is_whole
from angels_share.tokenizing import check_tokenization, load_tokenizer
from eval_harness.data.splits import TaskData, load_task
from eval_harness.results.store import InvalidResult, load, path_of
from eval_harness.runs.models import identify, is_fine_tuned_for
from eval_harness.runs.run import Method, Model, Run
from eval_harness.runs.settings import check_overrides, neutral, settings_of
from eval_harness.sweep.queue import Job, unique
from eval_harness.sweep.scheduler import Outcome, sweep
from eval_harness.tables.write import write_by_name
from eval_harness.tasks.registry import Task

_DISTIL = "distil_trainer.harness:make_trainer"
_WORK = "eval_harness.training.runner:run_task"
_OUTPUTS = "teacher-outputs"
_OF_ANSWERS = ("n_best_size", "max_answer_length", "null_score_diff_threshold")
_OF_DISTILLATION = (
    "alpha_ce", "alpha_task", "alpha_squad", "temperature", "kd_over_all_positions",
    "no_teacher_cache",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What a door makes of its own flags.

    Attributes:
        program: the door's name, for what it says.
        tasks: what is fine-tuned on.
        given: flags of TrainingArguments, and the tasks' own settings.
        distil: how much of a teacher, and how softly; looked at where there is a teacher.
        student_given: what is given besides where a teacher is distilled.
        data_dir: where the data is; the Hub where it is None.
        data_revision: of the data sets on the Hub.
        predict_test: whether test splits are predicted too.
    """

    program: str
    tasks: tuple[Task, ...]
    given: Mapping[str, Any]
    distil: Mapping[str, Any]
    student_given: Mapping[str, Any] = field(default_factory=dict)
    data_dir: str | None = None
    data_revision: str | None = None
    predict_test: bool = False

    def load(self, task: Task, limit: int | None) -> TaskData[Any]:
        """A task's data."""
        return load_task(
            task,
            Path(self.data_dir) if self.data_dir else None,
            limit=limit,
            revision=self.data_revision,
            test=self.predict_test,
        )


@dataclass(frozen=True)
class Plan:
    """What a command asks for, looked up and checked."""

    root: Path
    models: tuple[Model, ...]
    teacher: Model | None
    seeds: tuple[int, ...]
    data: Mapping[str, "Extent"]
    wanted: Wanted
    options: Options

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What is fine-tuned on."""
        return self.wanted.tasks


@dataclass(frozen=True)
class Extent:
    """What must be known of a task's data before it is fine-tuned on."""

    content: str
    train: int
    evaluated: int

    @classmethod
    def of(cls, data: TaskData[Any]) -> "Extent":
        """The data themselves needn't be kept."""
        return cls(data.content, len(data.train), sum(len(part) for part in data.evaluation))


def plan(options: Options, wanted: Wanted) -> Plan:
    """Looks up all that a command names, so that a mistake shows before any work.

    Raises:
        UserError: an unknown name, data that can't be read, a flag that isn't for here.
    """
    root = require_writable_folder(options.results_dir, "--results_dir").resolve()
    _refuse_launcher(wanted.program)
    check_overrides(wanted.given, {name for task in wanted.tasks for name in task.fine_tuning})
    _check_weights(options)
    models = tuple(identify(name) for name in dict.fromkeys(options.model))
    teacher = identify(options.teacher) if options.teacher else None
    if teacher is not None:
        _check_teacher(teacher, models)
    data = {task.name: Extent.of(wanted.load(task, options.limit)) for task in wanted.tasks}
    return Plan(root, models, teacher, _seeds(options), data, wanted, options)


def _check_weights(options: Options) -> None:
    given = [
        name for name in _OF_DISTILLATION
        if name in options.given and options.values[name] is not False
    ]  # fmt: skip
    if given and not options.teacher:
        raise UserError(f"--{given[0]} is of distillation, which wants a --teacher")
    if options.teacher and options.alpha_ce == 0:
        raise UserError("--alpha_ce 0: nothing would come from the --teacher; leave both out")


def _refuse_launcher(program: str) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"a run is one process: start {program}.py without torchrun; --workers shares runs out "
            "among cores or GPUs"
        )


def _seeds(options: Options) -> tuple[int, ...]:
    if options.seeds and "num_seeds" in options.given:
        raise UserError("--seeds and --num_seeds both say which seeds: give one of them")
    return tuple(dict.fromkeys(options.seeds or range(1, options.num_seeds + 1)))


def _check_teacher(teacher: Model, models: Iterable[Model]) -> None:
    """Refuses soft targets over ids that mean other words, before hours of fine-tuning."""
    theirs = load_tokenizer(teacher.source, teacher.revision)
    for model in models:
        ours = load_tokenizer(model.source, model.revision)
        try:
            check_tokenization(ours, theirs)
        except UserError as error:
            raise UserError(f"{model.name} and its teacher {teacher.name}: {error}") from error


def jobs(what: Plan) -> Iterator[Job]:
    """Every run that a command asks for, a teacher's before those that learn from it."""
    for task in what.tasks:
        teacher = _teacher_job(what, task) if what.teacher else None
        if teacher is not None and teacher.run is not None:
            yield teacher.run
        for model in what.models:
            for seed in what.seeds:
                yield _job(what, _run(what, model, task, seed, teacher), teacher)


@dataclass(frozen=True)
class _Teacher:
    """A teacher fine-tuned on a task: the job that makes it, if it isn't there, and its folder."""

    run: Job | None
    key: str
    folder: str


def _teacher_job(what: Plan, task: Task) -> _Teacher:
    """Fine-tunes a teacher with the first seed and keeps its weights, unless it is fine-tuned."""
    assert what.teacher is not None
    if is_fine_tuned_for(what.teacher, task):
        return _Teacher(None, what.teacher.key, _folder_of(what.teacher))
    if what.teacher in what.models:
        run = _run(what, what.teacher, task, what.seeds[0], None)
    else:  # nobody asked for more of it, nor for other answers
        learned = {k: v for k, v in what.wanted.given.items() if k not in _OF_ANSWERS}
        alone = replace(what, wanted=replace(what.wanted, given=learned), seeds=what.seeds[:1])
        run = _run(alone, what.teacher, task, what.seeds[0], None)
    folder = what.root / "models" / run.key
    job = _job(what, replace(run, keep_weights=str(folder)), None)
    return _Teacher(job, run.key, str(folder))


def _folder_of(model: Model) -> str:
    """Where just this revision is, so that no worker asks the Hub for a newer one."""
    if model.revision is None:
        return model.source
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.txt"]
    return str(snapshot_download(model.source, revision=model.revision, allow_patterns=patterns))


def _run(what: Plan, model: Model, task: Task, seed: int, teacher: _Teacher | None) -> Run:
    method = _method(what, teacher) if teacher else None
    wanted, options = what.wanted, what.options
    settings = settings_of(
        task,
        {**wanted.given, **(wanted.student_given if teacher else {})},
        content=what.data[task.name].content,
        limit=options.limit,
        choose=options.choose,
        method=method,
        inputs={"teacher": teacher.key} if teacher else None,
    )
    return Run(
        model,
        task,
        seed,
        settings,
        method,
        neutral=neutral(wanted.given),
        data_dir=wanted.data_dir,
        data_revision=wanted.data_revision,
        seeds=what.seeds,
        predict_test=wanted.predict_test,
    )


def _method(what: Plan, teacher: _Teacher) -> Method:
    assert what.teacher is not None
    folders = {"teacher": teacher.folder}
    if not what.options.no_teacher_cache:
        folders["outputs"] = str(what.root / _OUTPUTS)
    options = {"teacher_model": what.teacher.key, **what.wanted.distil}
    return Method("distil", _DISTIL, options, folders)


def _job(what: Plan, run: Run, teacher: _Teacher | None) -> Job:
    needs = teacher.key if teacher is not None and teacher.run is not None else None
    return Job(run, needs, _cost(what, run), again=lacks_something(what, run))


def lacks_something(what: Plan, run: Run) -> bool:
    """Whether a run was done before its weights, or answers to the test splits, were asked for."""
    path = path_of(what.root, run.key)
    if not path.is_file():
        return False
    if run.keep_weights is not None and not is_whole(Path(run.keep_weights)):
        return True
    try:
        return run.predict_test and not set(run.task.test) <= set(load(path).data["examples"])
    except InvalidResult:
        return False  # the sweep names it and does it again anyway


def submission_folder(what: Plan, run: Run, settings: str) -> Path:
    """Where a run's answers lie for those who score them elsewhere."""
    return what.root / "submissions" / run.model.key / settings / f"seed-{run.seed}"


def _cost(what: Plan, run: Run) -> float:
    """About how long a run takes: examples that are learned from, and a third of those judged."""
    extent = what.data[run.task.name]
    epochs = run.settings.task["values"]["num_train_epochs"]
    return extent.train * float(epochs) + extent.evaluated / 3


def carry_out(what: Plan, shown: Iterable[str]) -> tuple[Outcome, list[Run]]:
    """Does the runs that are missing, writes the tables, prints those that are shown.

    Returns:
        What became of the runs, and those that have a result now.
    """
    options = what.options
    wanted = unique(jobs(what))
    outcome = sweep(
        what.root,
        wanted,
        work=_WORK,
        workers=options.workers,
        threads=options.threads,
        rerun=options.rerun,
        devices=[] if options.training.get("use_cpu") else None,
    )
    written = write_by_name(what.root, {job.run.model.key for job in wanted})
    for name in (*shown, "not counted"):
        if name in written:
            print(written[name])  # noqa: T201
    for line in outcome.summary():
        sys.stderr.write(f"{what.wanted.program}: {line}\n")
    there = {run.key for run in (*outcome.done, *outcome.skipped)}
    return outcome, [job.run for job in wanted if job.key in there]
