"""Execution of a plan: its missing runs, its models, then its tables."""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from angels_share.cli import BAD_INPUT, DONE, RUN_FAILED
from angels_share.flags import Options
from angels_share.hub.push import Destination
from eval_harness.publish.models import Key, push_models
from eval_harness.runs.run import Run
from eval_harness.sweep.chosen import Chosen, jobs_for_models, nearest_to_median, remove_others
from eval_harness.sweep.local_workers import LocalWorkers
from eval_harness.sweep.plan import Plan, fetch_models, jobs, lacks_weights
from eval_harness.sweep.queue import Job, unique
from eval_harness.sweep.scheduler import Failure, Outcome, Rerun, sweep
from eval_harness.tables.write import write_by_name

_WORK = "eval_harness.training.runner:run_task"


@dataclass(frozen=True)
class Carried:
    """What became of a plan.

    Attributes:
        outcome: the sweep's outcome.
        runs: the runs that now have a result.
        chosen: the runs nearest the median, whose models were saved.
    """

    outcome: Outcome
    runs: tuple[Run, ...]
    chosen: tuple[Chosen, ...] = ()


def carry_out(plan: Plan, options: Options, tables: Collection[str]) -> Carried:
    """Do the runs that have no result, keep the models, write all tables and print some.

    Args:
        plan: the runs.
        options: how to execute them: `workers`, `threads`, `rerun` and `use_cpu`.
        tables: names of the tables to print.
    """
    planned = unique(jobs(plan))
    _name_lost_models(plan, options, planned)
    outcome = _sweep(plan, planned, options, options.rerun)
    finished = {run.key for run in (*outcome.done, *outcome.skipped)}
    runs = [job.run for job in planned if job.key in finished]
    chosen, failed = _keep_the_best(plan, options, planned, outcome, runs)
    outcome = replace(outcome, failed=(*outcome.failed, *failed))
    written = write_by_name(plan.root, {job.run.model.key for job in planned})
    for name, text in written.items():
        if name in (*tables, "not counted"):
            print(text)  # noqa: T201
    for each in chosen:
        print(f"saved: {each}: {each.run.save_weights_to}")  # noqa: T201
    for line in outcome.summary():
        sys.stderr.write(f"{plan.experiment.program}: {line}\n")
    return Carried(outcome, tuple(runs), tuple(chosen))


def _name_lost_models(plan: Plan, options: Options, planned: Iterable[Job]) -> None:
    for job in planned:
        if options.rerun == "missing" and job.again and lacks_weights(job.run):
            sys.stderr.write(
                f"{plan.experiment.program}: {job.run}: has a result, but its weights were not "
                "kept: it is fine-tuned again (--save_models all keeps those of every run)\n"
            )


def _sweep(plan: Plan, planned: Sequence[Job], options: Options, rerun: Rerun) -> Outcome:
    executor = LocalWorkers(
        plan.root,
        _WORK,
        workers=options.workers,
        threads=options.threads,
        devices=[] if options.training.get("use_cpu") else None,
    )
    return sweep(plan.root, planned, executor, rerun=rerun, prepare=fetch_models)


def _keep_the_best(
    plan: Plan, options: Options, planned: Sequence[Job], outcome: Outcome, runs: Iterable[Run]
) -> tuple[list[Chosen], tuple[Failure, ...]]:
    """Save the model of the seed nearest the median; with `best` remove the others made here."""
    if plan.experiment.save_models == "none":
        return [], ()
    wanted = {(model.key, task.name) for model in plan.models for task in plan.tasks}
    chosen = nearest_to_median(
        plan.root, (run for run in runs if (run.model.key, run.task.name) in wanted)
    )
    failed: tuple[Failure, ...] = ()
    if options.rerun != "never" and (missing := jobs_for_models(chosen, planned)):
        failed = _sweep(plan, missing, options, "missing").failed
    if plan.experiment.save_models == "best":
        remove_others(outcome.done, chosen, planned)
    return [each for each in chosen if not lacks_weights(each.run)], failed


def status_of(carried: Carried, failed_pushes: Sequence[str] = ()) -> int:
    """Return a command's exit status: that of bad input where all failures are due to it.

    Args:
        carried: what became of the runs.
        failed_pushes: what could not be pushed.
    """
    if carried.outcome.all_refused:
        return BAD_INPUT
    return RUN_FAILED if carried.outcome.failed or failed_pushes else DONE


def push_chosen(
    plan: Plan, carried: Carried, places: Mapping[Key, Destination] | None
) -> list[str]:
    """Push the models of the seeds nearest the median; report and return what failed.

    Args:
        plan: the plan.
        carried: what became of it.
        places: where each model goes; None where nothing is pushed.
    """
    if places is None:
        return []
    failures = push_models(plan, carried.chosen, places)
    for line in failures:
        sys.stderr.write(f"{plan.experiment.program}: {line}\n")
    return failures


def submission_folder(root: Path, run: Run, settings: str) -> Path:
    """Return the folder of the files in which a run's predictions are scored elsewhere.

    Args:
        root: the results folder.
        run: whose predictions they are, with its seed.
        settings: the digest of its settings.
    """
    return root / "submissions" / run.model.key / settings / f"seed-{run.seed}"
