"""What `run_glue.py` does: models, tasks and seeds in; results, tables and submissions out."""

from collections.abc import Iterable
from pathlib import Path

from angels_share.cli import DONE, RUN_FAILED
from angels_share.errors import UserError
from angels_share.flags import Options
from eval_harness.results.store import load, path_of, read_logits
from eval_harness.results.submission import write_submission
from eval_harness.runs.run import Run
from eval_harness.sweep.plan import Plan, Wanted, carry_out, lacks_something, submission_folder
from eval_harness.sweep.plan import plan as plan_of
from eval_harness.tasks.registry import GLUE, Task, tasks_named


def plan(options: Options) -> Plan:
    """Looks up all that a command names, so that a mistake shows before any work.

    Raises:
        UserError: an unknown name, data that can't be read, a flag that isn't for here.
    """
    given = dict(options.training)
    if options.max_seq_length is not None:
        given["max_seq_length"] = options.max_seq_length
    folder = Path(options.data_dir).expanduser().resolve() if options.data_dir else None
    return plan_of(
        options,
        Wanted(
            program="run_glue",
            tasks=_tasks(options),
            given=given,
            distil={
                name: options.values[name] for name in ("alpha_ce", "alpha_task", "temperature")
            },
            data_dir=str(folder) if folder else None,
            data_revision=options.data_revision,
            predict_test=options.predict_test,
        ),
    )


def _tasks(options: Options) -> tuple[Task, ...]:
    tasks = tasks_named(options.tasks)
    for task in tasks:
        if task.kind == "questions":
            raise UserError(f"--tasks {task.name}: {task.title} is run_squad_distill.py's")
    return tasks


def judge(options: Options) -> int:
    """Does the runs that are missing, writes the tables, prints what was asked about."""
    what = plan(options)
    outcome, runs = carry_out(what, _asked_about(what.tasks))
    if what.wanted.predict_test:
        for task in what.tasks:
            _write_submissions(what, task, [run for run in runs if run.task == task])
    return RUN_FAILED if outcome.failed else DONE


def _asked_about(tasks: Iterable[Task]) -> list[str]:
    """The tables that show these tasks: IMDb's column is in Table 2."""
    names = {task.name for task in tasks}
    shown = {"table1": names - {"imdb"}, "table2": names & {"imdb"}}
    return [table for table, those in shown.items() if those]


def _write_submissions(what: Plan, task: Task, runs: Iterable[Run]) -> None:
    """Files for GLUE's server, one folder for each model, setting and seed."""
    if task.name not in GLUE:
        return
    tests = what.wanted.load(task, what.options.limit).test
    for run in runs:
        if lacks_something(what, run):
            continue  # wasn't done again: the sweep has said so
        predictions = read_logits(what.root, load(path_of(what.root, run.key)))
        folder = submission_folder(what, run, run.settings.row_hash)
        for part in tests:
            chosen = [name == part.name for name in predictions.split]
            print(write_submission(folder, task, part, predictions.logits[chosen]))  # noqa: T201
