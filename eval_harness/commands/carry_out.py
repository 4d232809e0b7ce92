"""From a plan to its results and tables."""

import sys
from collections.abc import Iterable
from pathlib import Path

from angels_share.flags import Options
from eval_harness.runs.run import Run
from eval_harness.sweep.local_workers import LocalWorkers
from eval_harness.sweep.plan import Plan, jobs
from eval_harness.sweep.queue import unique
from eval_harness.sweep.scheduler import Outcome, sweep
from eval_harness.tables.write import write_by_name

_WORK = "eval_harness.training.runner:run_task"


def carry_out(plan: Plan, options: Options, shown: Iterable[str]) -> tuple[Outcome, list[Run]]:
    """Make the runs that are missing, write the tables, print those that are shown.

    Args:
        plan: what is wanted.
        options: how it is executed: `workers`, `threads`, `rerun` and `use_cpu`.
        shown: names of the tables to print.

    Returns:
        What became of the runs, and those that have a result now.
    """
    wanted = unique(jobs(plan))
    executor = LocalWorkers(
        plan.root,
        _WORK,
        workers=options.workers,
        threads=options.threads,
        devices=[] if options.training.get("use_cpu") else None,
    )
    outcome = sweep(plan.root, wanted, executor, rerun=options.rerun)
    written = write_by_name(plan.root, {job.run.model.key for job in wanted})
    for name in (*shown, "not counted"):
        if name in written:
            print(written[name])  # noqa: T201
    for line in outcome.summary():
        sys.stderr.write(f"{plan.experiment.program}: {line}\n")
    there = {run.key for run in (*outcome.done, *outcome.skipped)}
    return outcome, [job.run for job in wanted if job.key in there]


def submission_folder(root: Path, run: Run, settings: str) -> Path:
    """Return where a run's answers lie for those who score them elsewhere."""
    return root / "submissions" / run.model.key / settings / f"seed-{run.seed}"
