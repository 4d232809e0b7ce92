"""Sweeps: which runs are missing, who does them, and what became of them. Imports no torch.

Nothing is remembered but results: whatever was killed, the next sweep does what has no valid one.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tqdm

from angels_share.errors import RunFailed
from eval_harness.runs.run import Run
from eval_harness.sweep.executor import (
    Assignment,
    CannotStart,
    Ended,
    Event,
    Executor,
    Lost,
    Progress,
    Slot,
    Started,
)
from eval_harness.sweep.queue import Job, Queue, unique
from eval_harness.sweep.worker import stamp, unfinished

_POLL_SECONDS = 3.0
"""How often a run that somebody else is at is looked at again, when nothing else is left."""
_TICK_SECONDS = 1.0
"""How often the bar's clock moves while nobody says anything."""
_LOG_SECONDS = 60.0
"""How often the bar is written where nobody watches it: into a file."""


@dataclass(frozen=True)
class Failure:
    """A run without a result, and why in one line."""

    run: Run
    reason: str

    def __str__(self) -> str:
        return f"{self.run}: {self.reason}"


@dataclass(frozen=True)
class Outcome:
    """What became of the runs.

    Attributes:
        done: have a result since this sweep began, made here or elsewhere.
        skipped: had one before.
        failed: were to be done and weren't.
        missing: have none, and `rerun="never"` was asked for.
    """

    done: tuple[Run, ...] = ()
    skipped: tuple[Run, ...] = ()
    failed: tuple[Failure, ...] = ()
    missing: tuple[Run, ...] = ()

    def summary(self) -> list[str]:
        """Lines for people: every failure, then how many; none where nothing failed."""
        if not self.failed:
            return []
        total = len(self.done) + len(self.skipped) + len(self.failed) + len(self.missing)
        count = f"{len(self.failed)} of {_runs(total)} failed; the same command does them again"
        return [*(f"failed: {failure}" for failure in self.failed), count]


def sweep(
    root: Path,
    jobs: Sequence[Job],
    executor: Executor,
    *,
    rerun: Literal["missing", "always", "never"] = "missing",
) -> Outcome:
    """Make the runs that are wanted and save their results; one that fails stops no other.

    Failures stand in what is returned, for whoever asked to tell; where the sweep ends by an
    exception those until then are written to standard error.

    Args:
        root: the results folder, which other machines may be working on too.
        jobs: what is wanted; what a job needs stands among them, or has a result.
        executor: executes the runs; nothing of it is started where there are none.
        rerun: "missing" makes what has no valid result, "always" all, "never" nothing.

    Raises:
        KeyboardInterrupt: the executor was stopped; what was complete is there. SystemExit (143)
            on SIGTERM likewise.
        RunFailed: the executor can start nothing; once it could, what is left fails instead.
    """
    wanted = unique(jobs)
    if rerun == "never":
        return _looked_up(root, wanted)
    todo, skipped = _divided(root, wanted, rerun)
    if not todo:
        return Outcome(skipped=tuple(skipped))
    scheduler = _Scheduler(root, todo, executor)
    scheduler.run()
    return Outcome(tuple(scheduler.done), tuple(skipped), tuple(scheduler.failures))


def _looked_up(root: Path, wanted: Sequence[Job]) -> Outcome:
    """What there is already, and how much there isn't."""
    there: list[Run] = []
    missing: list[Run] = []
    for job in wanted:
        (there if unfinished(root, job.key) is None else missing).append(job.run)
    if missing:
        _say(f"no result for {len(missing)} of {_runs(len(wanted))}; --rerun missing does them")
    return Outcome(skipped=tuple(there), missing=tuple(missing))


def _divided(root: Path, wanted: Sequence[Job], rerun: str) -> tuple[list[Job], list[Run]]:
    """What is to be done, and what is there; a file that doesn't count is named."""
    if rerun == "always":
        return [replace(job, again=True) for job in wanted], []
    todo, skipped = [], []
    for job in wanted:
        problem = unfinished(root, job.key)
        if problem is None and not job.again:
            skipped.append(job.run)
            continue
        todo.append(job)
        if problem:
            _say(f"{problem}; runs again")
    return todo, skipped


class _Scheduler:
    """Hands out runs, hears what becomes of them, and keeps the books."""

    def __init__(self, root: Path, todo: Sequence[Job], executor: Executor) -> None:
        self.done: list[Run] = []
        self.failures: list[Failure] = []
        self._root, self._executor, self._todo = root, executor, todo
        self._before = {job.key: stamp(root, job.key) if job.again else None for job in todo}
        needed = {job.needs for job in todo if job.needs} - {job.key for job in todo}
        there = {key for key in needed if unfinished(root, key) is None}
        self._queue, self._hopeless = Queue(todo, there), needed - there
        self._under_way: dict[str, Job] = {}
        self._shares: dict[str, float] = {}
        self._held: dict[str, tuple[Job, float]] = {}
        self._holders: dict[str, str] = {}
        self._could_start = False
        self._over = ""
        self._passed = 0.0
        self._total = sum(job.cost for job in todo)
        self._bar = _bar(self._total)

    def run(self) -> None:
        """Hand out runs until every one has ended, one way or another."""
        is_through = False
        try:
            with self._executor:
                for key in self._hopeless:
                    self._lose(key, f"it needs {key}, which has no result")
                while self._hand_out():
                    for event in self._executor.events(min(_TICK_SECONDS, _POLL_SECONDS)):
                        self._note(event)
                    self._show()
            is_through = True
        finally:
            self._bar.close()
            for failure in () if is_through else self.failures:
                _say(f"failed: {failure}")
        assert len(self.done) + len(self.failures) == len(self._todo), "runs that need each other"

    def _hand_out(self) -> bool:
        """Give idle slots something to do; False where nothing is left to do or to wait for."""
        for slot in self._executor.idle():
            if job := self._next_for(slot):
                self._under_way[job.key] = job
                self._executor.begin(slot, Assignment(job.run, self._before[job.key]))
        self._executor.grow(len(self._queue) or len(self._due()))
        return bool(len(self._queue) or self._held or self._under_way)

    def _next_for(self, slot: Slot) -> Job | None:
        busy = {job.group for job in self._under_way.values()}
        job = self._queue.take(slot.last, busy)
        if job is None and (due := self._due()):
            job, _ = self._held.pop(due[0])
        return job

    def _due(self) -> list[str]:
        """Return the runs that others are at and that should be looked at again now."""
        now = time.monotonic()
        return [key for key, (_, when) in self._held.items() if when <= now]

    def _note(self, event: Event) -> None:
        match event:
            case Started():
                self._could_start = True
            case CannotStart(reason):
                self._cannot_start(reason)
            case Progress(key, share):
                self._shares[key] = share
            case Ended():
                self._ended(event)
            case Lost(key, reason):
                job = self._taken_back(key)
                if unfinished(self._root, key, self._before[key]) is None:
                    self._succeeded(job)  # lost between saving the result and saying so
                else:
                    self._failed(job, reason)

    def _taken_back(self, key: str) -> Job:
        self._shares.pop(key, None)
        return self._under_way.pop(key)

    def _ended(self, ended: Ended) -> None:
        job = self._taken_back(ended.key)
        if ended.trace:
            _say(ended.trace)
        if ended.how in ("done", "found"):
            self._succeeded(job, here=ended.how == "done")
        elif ended.how == "held":
            self._put_off(job, ended.line)
        else:
            self._failed(job, ended.line)
        if ended.how == "unsaved":
            self._give_up(ended.line)

    def _cannot_start(self, reason: str) -> None:
        """Go on with fewer slots; where there never was one, nothing would come of it."""
        if not self._could_start:
            raise RunFailed(reason)
        if self._executor.size:
            _say(f"{reason}; the sweep goes on with one worker less")
        else:
            self._give_up(f"no worker is left, and {reason}")

    def _give_up(self, reason: str) -> None:
        """Begin nothing any more; what is under way may end."""
        if not self._over:
            _say(f"{reason}; nothing more is begun")
        self._over = f"not begun: {reason}"
        held, self._held = [job for job, _ in self._held.values()], {}
        for job in [*self._queue.rest(), *held]:
            self._failed(job, self._over)

    # The books

    def _succeeded(self, job: Job, *, here: bool = True) -> None:
        self.done.append(job.run)
        if here:
            self._passed += job.cost
        else:
            self._total -= job.cost
        self._queue.done(job.key)

    def _failed(self, job: Job, reason: str) -> None:
        self.failures.append(Failure(job.run, reason))
        self._total -= job.cost
        self._lose(job.key, f"it needs {job.run}, which failed")

    def _lose(self, key: str, reason: str) -> None:
        """Fails what can't be done without a run."""
        for job in self._queue.failed(key):
            self._failed(job, f"not done: {reason}")

    def _put_off(self, job: Job, holder: str) -> None:
        if self._over:
            self._failed(job, self._over)
            return
        self._held[job.key] = (job, time.monotonic() + _POLL_SECONDS)
        if self._holders.get(job.key) != holder:
            self._holders[job.key] = holder
            _say(f"{job.run}: {holder} is at it; looked at again later")

    def _show(self) -> None:
        under_way = sum(share * self._under_way[key].cost for key, share in self._shares.items())
        ended = len(self.done) + len(self.failures)
        failed = f", {len(self.failures)} failed" if self.failures else ""
        self._bar.set_postfix_str(f"{ended}/{len(self._todo)} runs{failed}", refresh=False)
        # What took no time counts nowhere: it would be progress, and time left a lie.
        self._bar.total = max(self._total, 0.0)
        self._bar.update(min(self._passed + under_way, self._bar.total) - self._bar.n)


def _bar(total: float) -> Any:
    return tqdm.tqdm(
        total=total,
        desc="runs",
        file=sys.stderr,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
        smoothing=0,  # runs differ: the mean of all tells more than the last one
        miniters=0,
        mininterval=_TICK_SECONDS / 2 if sys.stderr.isatty() else _LOG_SECONDS,
    )


def _say(text: str) -> None:
    """A line on standard error, above the bar where there is one."""
    tqdm.tqdm.write(text, file=sys.stderr)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
