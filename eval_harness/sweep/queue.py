"""Which run comes next: like ones together, what others wait for first. Imports no torch."""

from collections import deque
from collections.abc import Iterable, Set
from dataclasses import dataclass

from eval_harness.runs.run import Run

Group = tuple[str, str]
"""A model and a task: what a worker has loaded and tokenized."""


def group_of(run: Run) -> Group:
    """Return what a run shares with those that differ from it by their seed or settings."""
    return run.model.key, run.task.name


@dataclass(frozen=True)
class Job:
    """A run that is wanted.

    Attributes:
        run: what to do.
        needs: the key of another run that must be done before, a teacher's.
        cost: how long it will take beside the others, in any unit; moves the bar.
        again: whether it is done although it has a result, which doesn't hold all that is wanted.
    """

    run: Run
    needs: str | None = None
    cost: float = 1.0
    again: bool = False

    @property
    def key(self) -> str:
        """The run's."""
        return self.run.key

    @property
    def group(self) -> Group:
        """What it shares with the runs that differ from it by their seed or settings."""
        return group_of(self.run)


def unique(jobs: Iterable[Job]) -> list[Job]:
    """Every run once; of two that differ by that alone, the one that keeps its weights."""
    chosen: dict[str, Job] = {}
    for job in jobs:
        known = chosen.get(job.key)
        if known is None or known.run.keep_weights is None:
            chosen[job.key] = job
    return list(chosen.values())


class Queue:
    """The jobs that nobody has begun.

    Args:
        jobs: what is to be done.
        there: keys of runs that need not be waited for; any other must be done first.
    """

    def __init__(self, jobs: Iterable[Job], there: Set[str] = frozenset()) -> None:
        self._ready: dict[Group, deque[Job]] = {}
        self._blocked: dict[str, list[Job]] = {}
        for job in jobs:
            if job.needs is None or job.needs in there:
                self._add(job)
            else:
                self._blocked.setdefault(job.needs, []).append(job)

    def __len__(self) -> int:
        """How many could be begun now."""
        return sum(map(len, self._ready.values()))

    def take(self, last: Group | None, busy: Set[Group]) -> Job | None:
        """The next job for a worker, or None where nothing can be begun.

        Args:
            last: what the worker has loaded: it stays there while there is something to do.
            busy: what the other workers are at; a model and task that none of them has comes
                first, the dearest of those, so that the end isn't one worker at one long queue.
        """
        if not self._ready:
            return None
        group = last if last in self._ready else self._best(busy)
        assert group is not None
        jobs = self._ready[group]
        job = next((job for job in jobs if job.key in self._blocked), jobs[0])
        jobs.remove(job)
        if not jobs:
            del self._ready[group]
        return job

    def done(self, key: str) -> None:
        """What waited for this run may begin."""
        for job in self._blocked.pop(key, ()):
            self._add(job)

    def failed(self, key: str) -> list[Job]:
        """What can't be done without this run; it is in the queue no more."""
        return self._blocked.pop(key, [])

    def rest(self) -> list[Job]:
        """All that nobody has begun; none of it is in the queue any more."""
        waiting = [*self._ready.values(), *self._blocked.values()]
        self._ready, self._blocked = {}, {}
        return [job for jobs in waiting for job in jobs]

    def _add(self, job: Job) -> None:
        self._ready.setdefault(job.group, deque()).append(job)

    def _best(self, busy: Set[Group]) -> Group:
        def merit(group: Group) -> tuple[bool, bool, float]:
            jobs = self._ready[group]
            is_needed = any(job.key in self._blocked for job in jobs)
            return is_needed, group not in busy, sum(job.cost for job in jobs)

        return max(self._ready, key=merit)
