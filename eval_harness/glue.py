"""What `run_glue.py` does: models, tasks and seeds in; results, tables and submissions out.

Imports no torch: what has a result already is answered in seconds.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from angels_share.cli import DONE, RUN_FAILED
from angels_share.errors import UserError
from angels_share.files import require_writable_folder
from angels_share.flags import Options
from angels_share.tokenizing import check_vocabularies, load_tokenizer
from eval_harness.data import TaskData, load_task
from eval_harness.jobs import Job, unique
from eval_harness.models import identify, is_fine_tuned_for
from eval_harness.runs import Method, Model, Run
from eval_harness.settings import check_overrides, neutral, settings_of
from eval_harness.store import InvalidResult, load, path_of, read_predictions
from eval_harness.submission import write_submission
from eval_harness.sweep import sweep
from eval_harness.tables import write_by_name
from eval_harness.tasks import GLUE, Task, tasks_named

DISTIL = "distil_trainer.harness:make_trainer"


@dataclass(frozen=True)
class Plan:
    """What a command asks for, looked up and checked."""

    root: Path
    models: tuple[Model, ...]
    teacher: Model | None
    tasks: tuple[Task, ...]
    seeds: tuple[int, ...]
    given: Mapping[str, Any]
    data: Mapping[str, "Extent"]
    options: Options


@dataclass(frozen=True)
class Extent:
    """What must be known of a task's data before it is fine-tuned on."""

    content: str
    train: int
    evaluated: int

    @classmethod
    def of(cls, data: TaskData) -> "Extent":
        """The data themselves needn't be kept."""
        return cls(data.content, len(data.train), sum(len(part) for part in data.evaluation))


def plan(options: Options) -> Plan:
    """Looks up all that a command names, so that a mistake shows before any work.

    Raises:
        UserError: an unknown name, data that can't be read, a flag that isn't for here.
    """
    given = dict(options.training)
    if options.max_seq_length is not None:
        given["max_seq_length"] = options.max_seq_length
    root = require_writable_folder(options.results_dir, "--results_dir").resolve()
    check_overrides(given)
    _check_weights(options)
    _refuse_launcher()
    tasks = tasks_named(options.tasks)
    models = tuple(identify(name) for name in dict.fromkeys(options.model))
    teacher = identify(options.teacher) if options.teacher else None
    if teacher is not None:
        _check_teacher(teacher, models)
    data = {task.name: Extent.of(_load(task, options)) for task in tasks}
    return Plan(root, models, teacher, tasks, _seeds(options), given, data, options)


def _check_weights(options: Options) -> None:
    names = ("alpha_ce", "alpha_task", "temperature")
    if given := [name for name in names if name in options.given and not options.teacher]:
        raise UserError(f"--{given[0]} is of distillation, which wants a --teacher")
    if options.teacher and options.alpha_ce == 0:
        raise UserError("--alpha_ce 0: nothing would come from the --teacher; leave both out")


def _refuse_launcher() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "a run is one process: start run_glue.py without torchrun; --workers shares runs out "
            "among cores or GPUs"
        )


def _seeds(options: Options) -> tuple[int, ...]:
    if options.seeds and "num_seeds" in options.given:
        raise UserError("--seeds and --num_seeds both say which seeds: give one of them")
    return tuple(dict.fromkeys(options.seeds or range(1, options.num_seeds + 1)))


def _check_teacher(teacher: Model, models: Iterable[Model]) -> None:
    """Refuses soft targets over ids that mean other words, before hours of fine-tuning."""
    theirs = load_tokenizer(teacher.source, teacher.revision).get_vocab()
    for model in models:
        ours = load_tokenizer(model.source, model.revision).get_vocab()
        try:
            check_vocabularies(ours, theirs)
        except UserError as error:
            raise UserError(f"{model.name} and its teacher {teacher.name}: {error}") from error


def _load(task: Task, options: Options) -> TaskData:
    folder = Path(options.data_dir).expanduser() if options.data_dir else None
    return load_task(
        task,
        folder,
        limit=options.limit,
        revision=options.data_revision,
        test=options.predict_test,
    )


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
    run = _run(what, what.teacher, task, what.seeds[0], None)
    if what.teacher not in what.models:
        run = replace(run, seeds=what.seeds[:1])  # nobody asked for more of it
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
    options = what.options
    settings = settings_of(
        task,
        what.given,
        content=what.data[task.name].content,
        limit=options.limit,
        choose=options.choose,
        method=method,
        inputs={"teacher": teacher.key} if teacher else None,
    )
    folder = str(Path(options.data_dir).expanduser().resolve()) if options.data_dir else None
    return Run(
        model,
        task,
        seed,
        settings,
        method,
        neutral=neutral(what.given),
        data_dir=folder,
        data_revision=options.data_revision,
        seeds=what.seeds,
        predict_test=options.predict_test,
    )


def _method(what: Plan, teacher: _Teacher) -> Method:
    assert what.teacher is not None
    options = what.options
    weights = {
        "alpha_ce": options.alpha_ce,
        "alpha_task": options.alpha_task,
        "temperature": options.temperature,
    }
    return Method(
        "distil",
        DISTIL,
        {"teacher_model": what.teacher.key, **weights},
        {"teacher": teacher.folder},
    )


def _job(what: Plan, run: Run, teacher: _Teacher | None) -> Job:
    needs = teacher.key if teacher is not None and teacher.run is not None else None
    return Job(run, needs, _cost(what, run), again=_lacks_something(what, run))


def _lacks_something(what: Plan, run: Run) -> bool:
    """Whether a run was done before its weights, or answers to the test splits, were asked for."""
    path = path_of(what.root, run.key)
    if not path.is_file():
        return False
    if run.keep_weights is not None and not Path(run.keep_weights).is_dir():
        return True
    try:
        return run.predict_test and not set(run.task.test) <= set(load(path).data["examples"])
    except InvalidResult:
        return False  # the sweep names it and does it again anyway


def _cost(what: Plan, run: Run) -> float:
    """About how long a run takes: examples that are learned from, and a third of those judged."""
    extent = what.data[run.task.name]
    epochs = run.settings.task["values"]["num_train_epochs"]
    return extent.train * float(epochs) + extent.evaluated / 3


def judge(options: Options) -> int:
    """Does the runs that are missing, writes the tables, prints what was asked about."""
    what = plan(options)
    wanted = unique(jobs(what))
    outcome = sweep(
        what.root,
        wanted,
        work="eval_harness.runner:run_task",
        workers=options.workers,
        threads=options.threads,
        rerun=options.rerun,
        devices=[] if options.training.get("use_cpu") else None,
    )
    written = write_by_name(what.root, {job.run.model.key for job in wanted})
    for name in _asked_about(what.tasks):
        if name in written:
            print(written[name])  # noqa: T201
    if options.predict_test:
        for task in what.tasks:
            _write_submissions(what, task, [job.run for job in wanted if job.run.task == task])
    for line in outcome.summary():
        sys.stderr.write(f"run_glue: {line}\n")
    return RUN_FAILED if outcome.failed else DONE


def _asked_about(tasks: Iterable[Task]) -> list[str]:
    """The tables that show these tasks: IMDb's column is in Table 2."""
    names = {task.name for task in tasks}
    shown = {"table1": names - {"imdb"}, "table2": names & {"imdb"}}
    return [*(table for table, those in shown.items() if those), "not counted"]


def _write_submissions(what: Plan, task: Task, runs: Iterable[Run]) -> None:
    """Files for GLUE's server, one folder for each model, setting and seed."""
    if task.name not in GLUE:
        return
    tests = _load(task, what.options).test
    for run in runs:
        path = path_of(what.root, run.key)
        if not path.is_file() or _lacks_something(what, run):
            continue  # a run that failed, or wasn't done again: the sweep has said so
        predictions = read_predictions(what.root, load(path))
        settings = run.settings.row_hash
        folder = what.root / "submissions" / run.model.key / settings / f"seed-{run.seed}"
        for part in tests:
            chosen = [name == part.name for name in predictions.split]
            print(write_submission(folder, task, part, predictions.logits[chosen]))  # noqa: T201
