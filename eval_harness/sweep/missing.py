"""Which jobs of a sweep lack a result that counts. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from eval_harness.results.store import path_of
from eval_harness.results.verify import why_not_counted
from eval_harness.runs.run import Run
from eval_harness.sweep.queue import Job
from eval_harness.sweep.worker import unfinished

Rerun = Literal["missing", "always", "never"]
"""Which runs are executed: those without a valid result, all, or none."""


@dataclass(frozen=True)
class Divided:
    """Jobs by what becomes of them.

    Attributes:
        todo: the jobs to execute.
        skipped: the runs that have a result.
        problems: results that don't count, and why: their runs are repeated.
    """

    todo: tuple[Job, ...]
    skipped: tuple[Run, ...] = ()
    problems: tuple[str, ...] = ()


def divide(root: Path, jobs: Sequence[Job], rerun: Literal["missing", "always"]) -> Divided:
    """Return which jobs are executed and which are skipped.

    Args:
        root: the results folder.
        jobs: the requested jobs.
        rerun: "missing" executes runs without a valid result, "always" all.
    """
    if rerun == "always":
        return Divided(tuple(replace(job, again=True) for job in jobs))
    todo, skipped, problems = [], [], []
    disputed = why_not_counted(root, {job.key for job in jobs})
    for job in jobs:
        problem = unfinished(root, job.key)
        again = job.again
        if problem is None and (why := disputed.get(job.key)):
            problem, again = f"{path_of(root, job.key)}: {why}", True
        if problem is None and not again:
            skipped.append(job.run)
            continue
        todo.append(replace(job, again=again))
        if problem:
            problems.append(problem)
    return Divided(tuple(todo), tuple(skipped), tuple(problems))
