"""The order of runs: those that others need first, similar ones together. Imports no torch."""

from collections import deque
from collections.abc import Iterable, Set
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

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


_Rank = tuple[bool, float, int]


class _Ready:
    """The jobs of one group that could be started now; adding and taking don't walk over them."""

    def __init__(self, number: int) -> None:
        self.needed: deque[Job] = deque()
        """Those that others wait for: they come first."""
        self.others: deque[Job] = deque()
        self._cost = 0.0
        self._number = number

    def __len__(self) -> int:
        return len(self.needed) + len(self.others)

    def add(self, job: Job, *, is_needed: bool) -> None:
        (self.needed if is_needed else self.others).append(job)
        self._cost += job.cost

    def take(self) -> Job:
        job = (self.needed or self.others).popleft()
        self._cost -= job.cost
        return job

    @property
    def rank(self) -> _Rank:
        """Groups that others need rank first, then the most expensive, then the oldest."""
        return not self.needed, -self._cost, self._number


class Queue:
    """The jobs that have not been started.

    Args:
        jobs: the jobs.
        finished: keys of runs that jobs may need and that have a result already.
    """

    def __init__(self, jobs: Iterable[Job], finished: Set[str] = frozenset()) -> None:
        self._ready: dict[Group, _Ready] = {}
        self._ranked: list[tuple[_Rank, Group]] = []
        """A heap of the groups, with old entries of those whose rank has changed."""
        self._numbers = count()
        self._blocked: dict[str, list[Job]] = {}
        self._length = 0
        startable = []
        for job in jobs:
            if job.needs is None or job.needs in finished:
                startable.append(job)
            else:
                self._blocked.setdefault(job.needs, []).append(job)
        for job in startable:  # only now is it known which of them others wait for
            self._add(job)

    def __len__(self) -> int:
        """Return the number of jobs that could be started now."""
        return self._length

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
        ready = self._ready[group]
        job = ready.take()
        self._length -= 1
        if ready:
            heappush(self._ranked, (ready.rank, group))
        else:
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
        remaining = [
            *(jobs for ready in self._ready.values() for jobs in (ready.needed, ready.others)),
            *self._blocked.values(),
        ]
        self._ready, self._ranked, self._blocked, self._length = {}, [], {}, 0
        return [job for jobs in remaining for job in jobs]

    def _add(self, job: Job) -> None:
        if job.group not in self._ready:
            self._ready[job.group] = _Ready(next(self._numbers))
        ready = self._ready[job.group]
        ready.add(job, is_needed=job.key in self._blocked)
        heappush(self._ranked, (ready.rank, job.group))
        self._length += 1

    def _best(self, busy: Set[Group]) -> Group:
        """Return the group of the best rank, but of those alike needed one that is not busy."""
        best: tuple[_Rank, Group] | None = None
        passed = []
        while self._ranked:
            rank, group = self._ranked[0]
            if group not in self._ready or self._ready[group].rank != rank:
                heappop(self._ranked)
                continue
            if best is not None and rank[0] != best[0][0]:
                break  # a busy group that others need still comes before any that nobody does
            if group not in busy:
                best = rank, group
                break
            best = best or (rank, group)
            passed.append(heappop(self._ranked))
        for entry in passed:
            heappush(self._ranked, entry)
        assert best is not None
        return best[1]
