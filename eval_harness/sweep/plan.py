"""What a command asks for as runs: models by tasks by seeds, teachers before their students.

Imports no torch: what has a result already is answered in seconds.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import require_writable_folder
from angels_share.sealed_folder import is_whole
from angels_share.tokenizing import check_tokenization, load_tokenizer
from eval_harness.data.splits import TaskData, load_task
from eval_harness.results.store import InvalidResult, load, path_of
from eval_harness.runs.models import identify, is_fine_tuned_for
from eval_harness.runs.run import Method, Model, Run
from eval_harness.runs.settings import check_overrides, neutral, settings_of
from eval_harness.sweep.queue import Job
from eval_harness.tasks.registry import Task

_DISTIL = "distil_trainer.harness:make_trainer"
_OUTPUTS = "teacher-outputs"


@dataclass(frozen=True)
class Experiment:
    """What a command asks for, in names and settings.

    Attributes:
        program: the command's name, for what it says.
        models: names, folders or Hub ids of what is fine-tuned.
        tasks: what they are fine-tuned on.
        seeds: of head, order and dropout.
        results_dir: where results are kept and looked for.
        given: flags of TrainingArguments, and the tasks' own settings.
        teacher: the model to distil from while fine-tuning, if any.
        distillation: how much of the teacher, and how softly; of no account without one.
        student_given: what is given besides where a teacher is distilled.
        caches_teacher_outputs: whether they are computed once, rather than at every step.
        data_dir: where the data is; the Hub where it is None.
        data_revision: of the data sets on the Hub.
        limit: the most training and evaluation examples.
        choose: the epoch that counts, "last" or "best".
        predict_test: whether test splits are predicted too.
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
    caches_teacher_outputs: bool = True
    data_dir: str | None = None
    data_revision: str | None = None
    limit: int | None = None
    choose: str = "last"
    predict_test: bool = False

    def load(self, task: Task) -> TaskData[Any]:
        """Read a task's data."""
        return load_task(
            task,
            Path(self.data_dir) if self.data_dir else None,
            limit=self.limit,
            revision=self.data_revision,
            test=self.predict_test,
        )


@dataclass(frozen=True)
class Extent:
    """What must be known of a task's data before it is fine-tuned on."""

    content: str
    train: int
    evaluated: int

    @classmethod
    def of(cls, data: TaskData[Any]) -> "Extent":
        """Return the extent of data, which themselves needn't be kept."""
        return cls(data.content, len(data.train), sum(len(part) for part in data.evaluation))


@dataclass(frozen=True)
class Plan:
    """An experiment whose names were looked up and whose data were read and checked."""

    root: Path
    models: tuple[Model, ...]
    teacher: Model | None
    extents: Mapping[str, Extent]
    experiment: Experiment

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What is fine-tuned on."""
        return self.experiment.tasks

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of every model and task."""
        return self.experiment.seeds


def plan(experiment: Experiment) -> Plan:
    """Look up all that an experiment names, so that a mistake shows before any work.

    Raises:
        UserError: an unknown name, data that can't be read, a flag that isn't for here.
    """
    root = require_writable_folder(experiment.results_dir, "--results_dir").resolve()
    _refuse_launcher(experiment.program)
    own = {name for task in experiment.tasks for name in task.fine_tuning}
    check_overrides(experiment.given, own)
    models = tuple(identify(name) for name in dict.fromkeys(experiment.models))
    teacher = identify(experiment.teacher) if experiment.teacher else None
    if teacher is not None:
        _check_teacher(teacher, models)
    extents = {task.name: Extent.of(experiment.load(task)) for task in experiment.tasks}
    return Plan(root, models, teacher, extents, experiment)


def _refuse_launcher(program: str) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"a run is one process: start {program}.py without torchrun; --workers shares runs out "
            "among cores or GPUs"
        )


def _check_teacher(teacher: Model, models: Iterable[Model]) -> None:
    """Refuse soft targets over ids that mean other words, before hours of fine-tuning."""
    theirs = load_tokenizer(teacher.source, teacher.revision)
    for model in models:
        ours = load_tokenizer(model.source, model.revision)
        try:
            check_tokenization(ours, theirs)
        except UserError as error:
            raise UserError(f"{model.name} and its teacher {teacher.name}: {error}") from error


def jobs(plan: Plan) -> Iterator[Job]:
    """Yield every run that a plan asks for, a teacher's before those that learn from it."""
    for task in plan.tasks:
        teacher = _teacher_job(plan, task) if plan.teacher else None
        if teacher is not None and teacher.run is not None:
            yield teacher.run
        for model in plan.models:
            for seed in plan.seeds:
                yield _job(plan, _run(plan, model, task, seed, teacher), teacher)


@dataclass(frozen=True)
class _Teacher:
    """A teacher fine-tuned on a task: the job that makes it, if it isn't there, and its folder."""

    run: Job | None
    key: str
    folder: str


def _teacher_job(plan: Plan, task: Task) -> _Teacher:
    """Fine-tunes a teacher with the first seed and keeps its weights, unless it is fine-tuned."""
    assert plan.teacher is not None
    if is_fine_tuned_for(plan.teacher, task):
        return _Teacher(None, plan.teacher.key, _folder_of(plan.teacher))
    if plan.teacher in plan.models:
        run = _run(plan, plan.teacher, task, plan.seeds[0], None)
    else:  # nobody asked for more of it, nor for other answers
        learned = {
            k: v for k, v in plan.experiment.given.items() if k not in task.kind.answer_settings
        }
        asked = replace(plan.experiment, given=learned, seeds=plan.seeds[:1])
        alone = replace(plan, experiment=asked)
        run = _run(alone, plan.teacher, task, plan.seeds[0], None)
    folder = plan.root / "models" / run.key
    job = _job(plan, replace(run, keep_weights=str(folder)), None)
    return _Teacher(job, run.key, str(folder))


def _folder_of(model: Model) -> str:
    """Where just this revision is, so that no worker asks the Hub for a newer one."""
    if model.revision is None:
        return model.source
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.txt"]
    return str(snapshot_download(model.source, revision=model.revision, allow_patterns=patterns))


def _run(plan: Plan, model: Model, task: Task, seed: int, teacher: _Teacher | None) -> Run:
    method = _method(plan, teacher) if teacher else None
    experiment = plan.experiment
    settings = settings_of(
        task,
        {**experiment.given, **(experiment.student_given if teacher else {})},
        content=plan.extents[task.name].content,
        limit=experiment.limit,
        choose=experiment.choose,
        method=method,
        inputs={"teacher": teacher.key} if teacher else None,
    )
    return Run(
        model,
        task,
        seed,
        settings,
        method,
        neutral=neutral(experiment.given),
        data_dir=experiment.data_dir,
        data_revision=experiment.data_revision,
        seeds=plan.seeds,
        predict_test=experiment.predict_test,
    )


def _method(plan: Plan, teacher: _Teacher) -> Method:
    assert plan.teacher is not None
    folders = {"teacher": teacher.folder}
    if plan.experiment.caches_teacher_outputs:
        folders["outputs"] = str(plan.root / _OUTPUTS)
    options = {"teacher_model": plan.teacher.key, **plan.experiment.distillation}
    return Method("distil", _DISTIL, options, folders)


def _job(plan: Plan, run: Run, teacher: _Teacher | None) -> Job:
    needs = teacher.key if teacher is not None and teacher.run is not None else None
    return Job(run, needs, _cost(plan, run), again=lacks_something(plan.root, run))


def lacks_something(root: Path, run: Run) -> bool:
    """Whether a run was done before its weights, or answers to the test splits, were asked for."""
    path = path_of(root, run.key)
    if not path.is_file():
        return False
    if run.keep_weights is not None and not is_whole(Path(run.keep_weights)):
        return True
    try:
        return run.predict_test and not set(run.task.test) <= set(load(path).data["examples"])
    except InvalidResult:
        return False  # the sweep names it and does it again anyway


def _cost(plan: Plan, run: Run) -> float:
    """About how long a run takes: examples that are learned from, and a third of those judged."""
    extent = plan.extents[run.task.name]
    epochs = run.settings.task["values"]["num_train_epochs"]
    return extent.train * float(epochs) + extent.evaluated / 3
