"""Execution of a plan: its missing runs, its models, then its tables."""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from angels_share.cli import BAD_INPUT, DONE, RUN_FAILED
from angels_share.errors import UserError
from angels_share.flags import Options
from angels_share.hub.push import Destination
from eval_harness.commands.executors import executor_of
from eval_harness.publish.models import Key, destinations, push_models
from eval_harness.publish.saved import lines_that_load, write_card
from eval_harness.runs.run import Run
from eval_harness.sweep.chosen import (
    Chosen,
    jobs_for_models,
    keep_all,
    mark_candidates,
    nearest_to_median,
    remove_others,
)
from eval_harness.sweep.executor import Executor
from eval_harness.sweep.missing import divide
from eval_harness.sweep.plan import Plan, fetch_models, jobs, lacks_weights
from eval_harness.sweep.preview import lines_of, parts_of, table_of, transfer_lines
from eval_harness.sweep.queue import Job, unique
from eval_harness.sweep.scheduler import Failure, Outcome, sweep
from eval_harness.tables.write import write_by_name


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
        options: how to execute them: `rerun`, and what `executor_of` reads.
        tables: names of the tables to print.
    """
    planned = unique(jobs(plan))
    _name_lost_models(plan, options, planned)
    workers = executor_of(plan.root, options)
    outcome = sweep(
        plan.root,
        planned,
        workers,
        rerun=options.rerun,
        prepare=lambda todo: _begin(plan, planned, todo, workers),
    )
    if len(outcome.skipped) == len(planned):
        _say(plan, lines_of(plan, parts_of(plan, planned, (), workers), workers))
    finished = {run.key for run in (*outcome.done, *outcome.skipped)}
    runs = [job.run for job in planned if job.key in finished]
    chosen, failed = _keep_the_best(plan, options, planned, runs)
    outcome = replace(outcome, failed=(*outcome.failed, *failed))
    written = write_by_name(plan.root, {job.run.model.key for job in planned})
    for name, text in written.items():
        if name in (*tables, "not counted"):
            print(text)  # noqa: T201
    _write_cards(plan, planned, finished)
    _say(plan, outcome.summary())
    return Carried(outcome, tuple(runs), tuple(chosen))


def _name_lost_models(plan: Plan, options: Options, planned: Iterable[Job]) -> None:
    for job in planned:
        if options.rerun == "missing" and job.again and lacks_weights(job.run):
            sys.stderr.write(
                f"{plan.experiment.program}: {job.run}: has a result, but its weights were not "
                "kept: it is fine-tuned again (--save_models all keeps those of every run)\n"
            )


def _begin(plan: Plan, planned: Sequence[Job], todo: Sequence[Job], workers: Executor) -> None:
    """Say what is about to be done, and fetch the models for it."""
    _say(plan, transfer_lines(plan))
    _say(plan, lines_of(plan, parts_of(plan, planned, todo, workers), workers))
    if plan.experiment.save_models == "best":
        mark_candidates(todo)
    fetch_models(todo)


def _say(plan: Plan, lines: Iterable[str]) -> None:
    for line in lines:
        sys.stderr.write(f"{plan.experiment.program}: {line}\n")


def show(plan: Plan, options: Options) -> int:
    """Print what a plan would do and where it would push; execute and write nothing.

    Args:
        plan: the runs.
        options: how they would be executed, and pushed.

    Returns:
        The exit status.
    """
    planned, workers = unique(jobs(plan)), executor_of(plan.root, options)
    places = destinations(plan, options, ask=False)
    never = options.rerun == "never"
    divided = divide(plan.root, planned, "missing" if never else options.rerun)
    for problem in divided.problems:
        sys.stderr.write(f"{problem}; the run would be repeated\n")
    parts = parts_of(plan, planned, divided.todo, workers)
    print("\n".join([table_of(plan, parts, workers), *transfer_lines(plan)]))  # noqa: T201
    if never:
        print("--rerun never: none of them would be executed")  # noqa: T201
    elif again := _made_again(plan, planned, divided.todo):
        print(f"fine-tuned again, since the model is to be saved: {again}")  # noqa: T201
    for (model, task), place in (places or {}).items():
        seen = "private" if place.private else "public"
        print(f"would be pushed: {model} on {task} to {place.repo_id} ({seen} if new)")  # noqa: T201
    return DONE


def _made_again(plan: Plan, planned: Sequence[Job], todo: Iterable[Job]) -> str:
    """Return the runs that have results but whose models `--save_models best` would make again."""
    if plan.experiment.save_models != "best":
        return ""
    incomplete = {job.key.rpartition("/")[0] for job in todo}
    complete = [job.run for job in planned if job.key.rpartition("/")[0] not in incomplete]
    wanted = {(model.key, task.name) for model in plan.models for task in plan.tasks}
    runs = (run for run in complete if (run.model.key, run.task.name) in wanted)
    missing = jobs_for_models(nearest_to_median(plan.root, runs), planned)
    return ", ".join(str(job.run) for job in missing if job.again)


def _keep_the_best(
    plan: Plan, options: Options, planned: Sequence[Job], runs: Iterable[Run]
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
        again = ", ".join(str(job.run) for job in missing if job.again)
        _say(plan, [f"fine-tuned again, since the model is to be saved: {again}"])
        workers = executor_of(plan.root, options)
        failed = sweep(plan.root, missing, workers, prepare=fetch_models).failed
    if plan.experiment.save_models == "best":
        remove_others(chosen, planned)
    else:
        keep_all(planned)
    return [each for each in chosen if not lacks_weights(each.run)], failed


def _write_cards(plan: Plan, planned: Iterable[Job], finished: Collection[str]) -> None:
    """Write the card of each saved model, those of teachers too; name what can't have one."""
    for job in planned:
        if job.run.save_weights_to and job.key in finished and not lacks_weights(job.run):
            try:
                write_card(job.run, plan.root)
            except UserError as error:
                _say(plan, [f"{job.run}: its saved model gets no card: {error}"])


def print_saved(carried: Carried) -> None:
    """Print which models were saved and where, and for each kind the Python that loads one."""
    if not carried.chosen:
        return
    for each in carried.chosen:
        print(f"saved: {each}\n    {each.run.save_weights_to}")  # noqa: T201
    kinds = {
        (each.run.task.kind, len(each.run.task.columns)): each for each in reversed(carried.chosen)
    }
    for each in kinds.values():
        which = "it" if len(carried.chosen) == 1 else f"one, such as {each.run}"
        print(f"\nThis loads {which}:\n\n{lines_that_load(each.run)}")  # noqa: T201


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
