"""Experiments expanded into jobs: models × tasks × seeds, teachers before their students.

Imports no torch, so a command whose runs all have results takes seconds.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from angels_share.errors import UserError
from angels_share.files import hash_of, require_writable_folder
from angels_share.hub.fetch import at_commit, download, files_of_model
from angels_share.imports import resolve
from angels_share.sealed_folder import is_whole
from angels_share.tokenizing import check_tokenization, load_tokenizer
from eval_harness.data.sources import NoDataError, wanted_files
from eval_harness.data.splits import TaskData, load_task
from eval_harness.data.transfer import TransferFacts, find_transfer_files, read_transfer_set
from eval_harness.results.store import InvalidResult, load, path_of
from eval_harness.runs.models import folder_of, identify, is_fine_tuned_for, max_tokens_of
from eval_harness.runs.run import Method, Model, Run, TransferFile
from eval_harness.runs.settings import (
    check_overrides,
    check_untrained,
    neutral,
    of_task,
    settings_of,
)
from eval_harness.sweep.queue import Job
from eval_harness.tasks.registry import Task

_DISTIL = "distil_trainer.harness:make_trainer"
_OUTPUTS = "teacher-outputs"
MODELS = "models"
"""The folder of saved models, in the results folder."""


@dataclass(frozen=True)
class Experiment:
    """The experiment that a command requests, in names and settings.

    Attributes:
        program: the command's name, for messages.
        models: names, folders or Hub ids of the models to fine-tune.
        tasks: the tasks to fine-tune on.
        seeds: seeds of the head's weights, the data order and dropout.
        results_dir: the results folder.
        given: the given TrainingArguments flags and task settings.
        teacher: the model to distil from while fine-tuning, if any.
        distillation: the options of distillation, such as its weight; unused without a teacher.
        student_given: settings added to `given` for runs with a teacher.
        transfer_set: files or Hub ids of texts without labels, which students learn the teacher's
            answers to; never limited.
        caches_teacher_outputs: whether teacher outputs are computed once rather than at every step.
        data_dir: the folder with the data; None for the Hub.
        data_revision: the commit, tag or branch of the data sets on the Hub.
        limit: the maximum number of training and evaluation examples.
        choose: the epoch whose score counts, "last" or "best".
        predict_test: whether to predict test splits as well.
        save_models: which fine-tuned models to save beside the teachers': none, that of the seed
            nearest the median of its model and task, or all.
        eval_only: whether models are evaluated as they are, without any fine-tuning.
    """

    program: str
    models: tuple[str, ...]
    tasks: tuple[Task, ...]
    seeds: tuple[int, ...]
    results_dir: str
    given: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    distillation: Mapping[str, Any] = field(default_factory=dict)
    student_given: Mapping[str, Any] = field(default_factory=dict)
    transfer_set: tuple[str, ...] = ()
    caches_teacher_outputs: bool = True
    data_dir: str | None = None
    data_revision: str | None = None
    limit: int | None = None
    choose: str = "last"
    predict_test: bool = False
    save_models: Literal["none", "best", "all"] = "none"
    eval_only: bool = False

    def splits_of(self, task: Task) -> tuple[str, ...]:
        """Return the splits of a task that are read."""
        judged = (*task.evaluation, *(task.test if self.predict_test else ()))
        return judged if self.eval_only else ("train", *judged)

    def given_for(self, task: Task) -> dict[str, Any]:
        """Return the given settings that are a task's, or any task's."""
        return of_task(task, self.given, self.tasks)

    def load(self, task: Task) -> TaskData[Any]:
        """Read a task's data."""
        return load_task(
            task,
            Path(self.data_dir) if self.data_dir else None,
            limit=self.limit,
            revision=self.data_revision,
            test=self.predict_test,
            train=not self.eval_only,
        )


@dataclass(frozen=True)
class Extent:
    """The content hash of a task's data, its numbers of examples, and its commit on the Hub.

    `transfer` is what the transfer set adds for students, if there is one.
    """

    content: str
    train: int
    evaluated: int
    revision: str | None = None
    transfer: TransferFacts | None = None

    @classmethod
    def of(cls, data: TaskData[Any], transfer: Sequence[TransferFile] = ()) -> "Extent":
        """Return the extent of a task's data, without a reference to the data."""
        evaluated = sum(len(part) for part in data.evaluation)
        facts = read_transfer_set(data.task, transfer, data).facts if transfer else None
        learned = 0 if data.train is None else len(data.train)
        return cls(data.content, learned, evaluated, data.revision, facts)

    def train_of(self, run: Run) -> int:
        """Return how many examples a run is trained on, those of its transfer set included."""
        return self.train + (self.transfer.texts if self.transfer and run.transfer_set else 0)


@dataclass(frozen=True)
class Plan:
    """An experiment whose names were resolved and whose data was read and checked."""

    root: Path
    models: tuple[Model, ...]
    teacher: Model | None
    extents: Mapping[str, Extent]
    experiment: Experiment

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks to fine-tune on."""
        return self.experiment.tasks

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds for every model and task."""
        return self.experiment.seeds


def plan(experiment: Experiment, *, dry_run: bool = False) -> Plan:
    """Resolve all names of an experiment and read its data, so that mistakes show before any work.

    Args:
        experiment: the experiment.
        dry_run: whether nothing will be executed, so that no results folder is made.

    Raises:
        UserError: an unknown name, unreadable data, or a flag that can't be used here.
    """
    root = Path(experiment.results_dir).expanduser()
    if not dry_run:
        require_writable_folder(root, "--results_dir")
    _refuse_launcher(experiment.program)
    task_settings = {name for task in experiment.tasks for name in task.fine_tuning}
    check_overrides(experiment.given, task_settings)
    if experiment.eval_only:
        check_untrained(experiment.given, experiment.tasks)
    models = tuple(identify(name) for name in dict.fromkeys(experiment.models))
    teacher = identify(experiment.teacher) if experiment.teacher else None
    _check_files(experiment, models, teacher)
    if teacher is not None:
        _check_teacher(teacher, models)
    _check_length(experiment, filter(None, (*models, teacher)))
    for task in experiment.tasks:
        _check_models(experiment, task, models)
    extents = _read_all(experiment)
    return Plan(root.resolve(), models, teacher, extents, experiment)


def _check_files(experiment: Experiment, models: Iterable[Model], teacher: Model | None) -> None:
    """Refuse what can't be done with an ONNX file: training, and arithmetic of another type."""
    if teacher is not None and teacher.is_onnx:
        raise UserError(
            f"--teacher {teacher.name}: an ONNX file can't be fine-tuned: give its model's folder"
        )
    for model in models:
        if model.is_onnx and not experiment.eval_only:
            raise UserError(f"{model.name}: an ONNX file can't be fine-tuned: add --eval_only")
        if model.is_onnx and experiment.given.get("bf16"):
            raise UserError(f"--bf16: {model.name} computes as it was exported: drop the flag")


def _check_length(experiment: Experiment, models: Iterable[Model]) -> None:
    """Refuse a given length that a model can't read, before anything is fine-tuned."""
    if "max_seq_length" not in experiment.given:
        return
    wanted: int = experiment.given["max_seq_length"]
    for model in models:
        limit = max_tokens_of(model)
        if limit is not None and wanted > limit:
            raise UserError(f"--max_seq_length {wanted}: {model.name} reads {limit} tokens at most")


def _check_models(experiment: Experiment, task: Task, models: Iterable[Model]) -> None:
    """Refuse models that a task isn't for, or that aren't fine-tuned where nothing is trained."""
    for model in models:
        if task.kind.of_model:
            given = experiment.given_for(task)
            resolve(task.kind.of_model)(model, {**task.fine_tuning, **given}, given)
        elif experiment.eval_only and not is_fine_tuned_for(model, task):
            what, instead = f"--eval_only: {model.name}", "leave the flag out to fine-tune it"
            if model.is_onnx:
                what, instead = model.name, "export a model that was"
            raise UserError(
                f"{what} has no head that was fine-tuned on {task.title}, with its labels: "
                f"{instead}"
            )


def _read_all(experiment: Experiment) -> dict[str, Extent]:
    """Read the data of all tasks; name all that are missing at once, and the command without them.

    Raises:
        UserError: missing or unreadable data.
    """
    transfer = find_transfer_files(experiment.transfer_set)
    if experiment.data_dir is None:  # all in one download, before any is read
        download(wanted_files(experiment.tasks, experiment.splits_of, experiment.data_revision))
    extents: dict[str, Extent] = {}
    missing: dict[str, NoDataError] = {}
    for task in experiment.tasks:
        try:
            extents[task.name] = Extent.of(experiment.load(task), transfer)
        except NoDataError as error:
            missing[task.name] = error
    if not missing:
        return extents
    if not extents or len(experiment.tasks) == 1:
        raise next(iter(missing.values()))  # says where the data were looked for
    raise UserError(
        f"--data_dir {experiment.data_dir}: no data for {', '.join(missing)}; to run the "
        f"{len(extents)} that are there: --tasks {' '.join(extents)}"
    )


def _refuse_launcher(program: str) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"each run is one process: start {program}.py without torchrun, and use --workers to "
            "distribute runs over cores or GPUs"
        )


def _check_teacher(teacher: Model, models: Iterable[Model]) -> None:
    """Refuse a teacher whose token ids stand for other tokens, before hours of fine-tuning."""
    teacher_tokenizer = load_tokenizer(teacher.home, teacher.revision)
    for model in models:
        tokenizer = load_tokenizer(model.home, model.revision)
        try:
            check_tokenization(tokenizer, teacher_tokenizer)
        except UserError as error:
            raise UserError(f"{model.name} and its teacher {teacher.name}: {error}") from error


def jobs(plan: Plan) -> Iterator[Job]:
    """Yield a job for every run of a plan, a teacher's before those of its students."""
    for task in plan.tasks:
        teacher = _teacher_job(plan, task) if plan.teacher else None
        if teacher is not None and teacher.job is not None:
            yield teacher.job
        for model in plan.models:
            for seed in plan.seeds:
                yield _job(plan, _run(plan, model, task, seed, teacher), teacher)


@dataclass(frozen=True)
class _Teacher:
    """A teacher fine-tuned on a task: the job that makes it (None if it exists), key and folder."""

    job: Job | None
    key: str
    folder: str


def _teacher_job(plan: Plan, task: Task) -> _Teacher:
    """Plan to fine-tune the teacher with the first seed and save it, unless it is fine-tuned."""
    assert plan.teacher is not None
    if is_fine_tuned_for(plan.teacher, task):
        return _Teacher(None, plan.teacher.key, str(folder_of(plan.teacher)))
    if plan.teacher in plan.models:
        run = _run(plan, plan.teacher, task, plan.seeds[0], None)
    else:
        # It is not a row of the experiment itself: one seed is enough, and settings that only
        # change its answers would needlessly make it another run.
        given = {
            k: v for k, v in plan.experiment.given.items() if k not in task.kind.answer_settings
        }
        experiment = replace(plan.experiment, given=given, seeds=plan.seeds[:1])
        teacher_plan = replace(plan, experiment=experiment)
        run = _run(teacher_plan, plan.teacher, task, plan.seeds[0], None)
    kept = replace(run, save_weights_to=_weights_of(plan, run))
    return _Teacher(_job(plan, kept, None), run.key, _weights_of(plan, run))


def _weights_of(plan: Plan, run: Run) -> str:
    return str(plan.root / MODELS / run.key)


def _run(plan: Plan, model: Model, task: Task, seed: int, teacher: _Teacher | None) -> Run:
    experiment = plan.experiment
    transfer = plan.extents[task.name].transfer if teacher else None
    method = _method(plan, teacher, transfer) if teacher else None
    inputs = {"teacher": teacher.key} if teacher else {}
    if transfer is not None:
        inputs["transfer_set"] = transfer.content
    settings = settings_of(
        task,
        {**experiment.given_for(task), **(experiment.student_given if teacher else {})},
        content=plan.extents[task.name].content,
        limit=experiment.limit,
        choose=experiment.choose,
        method=method,
        inputs=inputs,
        eval_only=experiment.eval_only,
        model=model,
    )
    return Run(
        model,
        task,
        seed,
        settings,
        method,
        neutral=neutral(experiment.given),
        data_dir=experiment.data_dir,
        data_revision=plan.extents[task.name].revision,
        seeds=plan.seeds,
        predict_test=experiment.predict_test,
        results_dir=str(plan.root),
        transfer_set=transfer.files if transfer is not None else (),
    )


def _method(plan: Plan, teacher: _Teacher, transfer: TransferFacts | None) -> Method:
    assert plan.teacher is not None
    folders = {"teacher": teacher.folder}
    if plan.experiment.caches_teacher_outputs:
        folders["outputs"] = str(plan.root / _OUTPUTS)
    options = {"teacher_model": plan.teacher.key, **plan.experiment.distillation}
    if transfer is not None:
        # Of a row, which spans tasks: what was given. What a task leaves of it is the task's own.
        options["transfer_set"] = hash_of([file.identity for file in transfer.files], 16)
    return Method("distil", _DISTIL, options, folders)


def _job(plan: Plan, run: Run, teacher: _Teacher | None) -> Job:
    needs = teacher.key if teacher is not None and teacher.job is not None else None
    keeps = plan.experiment.save_models
    saved = replace(run, save_weights_to=_weights_of(plan, run)) if keeps != "none" else run
    # Which seed is the best shows when all have results: none is made again for its model before.
    again = lacks_outputs(plan.root, saved if keeps == "all" else run)
    return Job(saved, needs, _cost(plan, run), again=again)


def fetch_models(jobs: Iterable[Job]) -> None:
    """Fetch the weights of the models that jobs fine-tune, all in one download.

    Raises:
        UserError: one of them can't be fetched.
    """
    models = dict.fromkeys(job.run.model for job in jobs)
    places = [at_commit(each.source, each.revision) for each in models if each.revision]
    download([wanted for place in places if (wanted := files_of_model(place)) is not None])


def lacks_outputs(root: Path, run: Run) -> bool:
    """Return whether a result exists that lacks the weights or test predictions now requested."""
    path = path_of(root, run.key)
    if not path.is_file():
        return False
    if lacks_weights(run):
        return True
    try:
        return run.predict_test and not set(run.task.test) <= set(load(path).data["examples"])
    except InvalidResult:
        return False  # the sweep reports it and repeats the run anyway


def lacks_weights(run: Run) -> bool:
    """Return whether the run's weights are requested and not there, or not whole."""
    return run.save_weights_to is not None and not is_whole(Path(run.save_weights_to))


def _cost(plan: Plan, run: Run) -> float:
    """Estimate a run's duration in training examples; evaluating one takes a third as long."""
    extent = plan.extents[run.task.name]
    epochs = run.settings.task["values"].get("num_train_epochs", 0)
    return extent.train_of(run) * float(epochs) + extent.evaluated / 3
