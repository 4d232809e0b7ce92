"""The order of runs: those that others need first, similar ones together. Imports no torch."""

from collections import deque
from collections.abc import Iterable, Set
from dataclasses import dataclass

from eval_harness.runs.run import Run

Group = tuple[str, str]
"""A model's key and a task's name: what a worker has loaded and tokenized."""


def group_of(run: Run) -> Group:
    """Return the model and task of a run."""
    return run.model.key, run.task.name


@dataclass(frozen=True)
class Job:
    """A requested run.

    Attributes:
        run: the run.
        needs: the key of a run that must be done first, such as a teacher's.
        cost: its estimated duration relative to other jobs, in any unit; moves the progress bar.
        again: whether to execute it although it has a result, for example one without the weights.
    """

    run: Run
    needs: str | None = None
    cost: float = 1.0
    again: bool = False

    @property
    def key(self) -> str:
        """The key of the run."""
        return self.run.key

    @property
    def group(self) -> Group:
        """The model and task of the run."""
        return group_of(self.run)


def unique(jobs: Iterable[Job]) -> list[Job]:
    """Return each run once, in the form that saves its weights if there is one."""
    chosen: dict[str, Job] = {}
    for job in jobs:
        known = chosen.get(job.key)
        if known is None or known.run.save_weights_to is None:
            chosen[job.key] = job
    return list(chosen.values())


class Queue:
    """The jobs that have not been started.

    Args:
        jobs: the jobs.
        finished: keys of runs that jobs may need and that have a result already.
    """

    def __init__(self, jobs: Iterable[Job], finished: Set[str] = frozenset()) -> None:
        self._ready: dict[Group, deque[Job]] = {}
        self._blocked: dict[str, list[Job]] = {}
        for job in jobs:
            if job.needs is None or job.needs in finished:
                self._add(job)
            else:
                self._blocked.setdefault(job.needs, []).append(job)

    def __len__(self) -> int:
        """Return the number of jobs that could be started now."""
        return sum(map(len, self._ready.values()))

    def take(self, last: Group | None, busy: Set[Group]) -> Job | None:
        """Remove and return the next job for a worker, or None if no job can be started.

        Args:
            last: the model and task that the worker has loaded; it gets more of the same if any.
            busy: the groups of the running jobs. Otherwise groups that others need come first, then
                those that no worker is busy with, then the most expensive, so that the sweep does
                not end with one worker on one long group.
        """
        if not self._ready:
            return None
        group = last if last in self._ready else self._best(busy)
        assert group is not None
        jobs = self._ready[group]
        # Within the group, too, a job that others wait for comes first.
        job = next((job for job in jobs if job.key in self._blocked), jobs[0])
        jobs.remove(job)
        if not jobs:
            del self._ready[group]
        return job

    def done(self, key: str) -> None:
        """Unblock the jobs that needed this run."""
        for job in self._blocked.pop(key, ()):
            self._add(job)

    def failed(self, key: str) -> list[Job]:
        """Remove and return the jobs that needed this run."""
        return self._blocked.pop(key, [])

    def rest(self) -> list[Job]:
        """Remove and return all jobs."""
        remaining = [*self._ready.values(), *self._blocked.values()]
        self._ready, self._blocked = {}, {}
        return [job for jobs in remaining for job in jobs]

    def _add(self, job: Job) -> None:
        self._ready.setdefault(job.group, deque()).append(job)

    def _best(self, busy: Set[Group]) -> Group:
        def priority(group: Group) -> tuple[bool, bool, float]:
            jobs = self._ready[group]
            is_needed = any(job.key in self._blocked for job in jobs)
            return is_needed, group not in busy, sum(job.cost for job in jobs)

        return max(self._ready, key=priority)
