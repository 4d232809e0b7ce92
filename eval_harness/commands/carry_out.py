"""Execution of a plan: its missing runs, then its tables."""

import sys
from collections.abc import Iterable
from pathlib import Path

from angels_share.cli import BAD_INPUT, DONE, RUN_FAILED
from angels_share.flags import Options
from eval_harness.runs.run import Run
from eval_harness.sweep.local_workers import LocalWorkers
from eval_harness.sweep.plan import Plan, jobs, lacks_weights
from eval_harness.sweep.queue import unique
from eval_harness.sweep.scheduler import Outcome, sweep
from eval_harness.tables.write import write_by_name

_WORK = "eval_harness.training.runner:run_task"


def carry_out(plan: Plan, options: Options, tables: Iterable[str]) -> tuple[Outcome, list[Run]]:
    """Do the runs that have no result, write all tables and print some.

    Args:
        plan: the runs.
        options: how to execute them: `workers`, `threads`, `rerun` and `use_cpu`.
        tables: names of the tables to print.

    Returns:
        The sweep's outcome, and the runs that now have a result.
    """
    planned = unique(jobs(plan))
    for job in planned:
        if options.rerun == "missing" and job.again and lacks_weights(job.run):
            sys.stderr.write(
                f"{plan.experiment.program}: {job.run}: has a result, but its weights were not "
                "kept: it is fine-tuned again (--keep_weights saves those of every run)\n"
            )
    executor = LocalWorkers(
        plan.root,
        _WORK,
        workers=options.workers,
        threads=options.threads,
        devices=[] if options.training.get("use_cpu") else None,
    )
    outcome = sweep(plan.root, planned, executor, rerun=options.rerun)
    written = write_by_name(plan.root, {job.run.model.key for job in planned})
    for name in (*tables, "not counted"):
        if name in written:
            print(written[name])  # noqa: T201
    for line in outcome.summary():
        sys.stderr.write(f"{plan.experiment.program}: {line}\n")
    finished = {run.key for run in (*outcome.done, *outcome.skipped)}
    return outcome, [job.run for job in planned if job.key in finished]


def status_of(outcome: Outcome) -> int:
    """Return a command's exit status: that of bad input where all failures are due to it."""
    if outcome.all_refused:
        return BAD_INPUT
    return RUN_FAILED if outcome.failed else DONE


def submission_folder(root: Path, run: Run, settings: str) -> Path:
    """Return the folder of the files in which a run's predictions are scored elsewhere.

    Args:
        root: the results folder.
        run: whose predictions they are, with its seed.
        settings: the digest of its settings.
    """
    return root / "submissions" / run.model.key / settings / f"seed-{run.seed}"
