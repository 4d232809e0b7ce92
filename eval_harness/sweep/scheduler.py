"""The scheduler: executes the runs of a sweep that have no valid result. Imports no torch.

The only state is the results folder: after a crash or a kill, the next sweep executes what is
missing. How runs are executed is the executor's business.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from angels_share.errors import RunFailed
from eval_harness.results.store import refuse_linked_folders
from eval_harness.results.verify import why_not_counted
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
from eval_harness.sweep.missing import Rerun, divide
from eval_harness.sweep.progress import view, write_line
from eval_harness.sweep.queue import Job, Queue, unique
from eval_harness.sweep.worker import stamp, unfinished

_POLL_SECONDS = 3.0
"""Seconds until a run held by another process is tried again, when nothing else is left."""
_TICK_SECONDS = 1.0
"""Seconds between updates of the progress bar's clock while there are no events."""


@dataclass(frozen=True)
class Failure:
    """A failed run, why in one line, and whether that was bad input."""

    run: Run
    reason: str
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.run}: {self.reason}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a sweep.

    Attributes:
        done: runs that got a result during the sweep, here or on another machine.
        skipped: runs that had a result before.
        failed: runs that failed or could not be started.
        missing: runs without a result under `rerun="never"`.
    """

    done: tuple[Run, ...] = ()
    skipped: tuple[Run, ...] = ()
    failed: tuple[Failure, ...] = ()
    missing: tuple[Run, ...] = ()

    @property
    def all_refused(self) -> bool:
        """Whether runs failed, and each because of bad input: repeating them would not help."""
        return bool(self.failed) and all(failure.refused for failure in self.failed)

    def summary(self) -> list[str]:
        """Return a line for every failure and one with their number; none if nothing failed."""
        if not self.failed:
            return []
        total = len(self.done) + len(self.skipped) + len(self.failed) + len(self.missing)
        count = f"{len(self.failed)} of {_runs(total)} failed; rerun the command to retry them"
        return [*(f"failed: {failure}" for failure in self.failed), count]


def sweep(
    root: Path,
    jobs: Sequence[Job],
    executor: Executor,
    *,
    rerun: Rerun = "missing",
    prepare: Callable[[Sequence[Job]], None] | None = None,
) -> Outcome:
    """Execute runs and save their results; a failing run does not stop the others.

    Failures are returned for the caller to report; if the sweep ends with an exception, those so
    far are written to standard error.

    Args:
        root: the results folder, which other machines may use at the same time.
        jobs: the requested runs; a run that one of them needs is among them or has a result.
        executor: executes the runs; not entered if there are none to execute.
        rerun: "missing" executes runs without a valid result, "always" all, "never" none.
        prepare: called with the jobs to execute, before the first of them, if there are any.

    Returns:
        What became of each run.

    Raises:
        KeyboardInterrupt: on Ctrl-C; the executor was stopped, and complete results are saved.
            Likewise SystemExit (143) on SIGTERM.
        RunFailed: the executor can't start a first slot. If a later one fails to start, the sweep
            goes on with fewer, and without any the remaining runs fail.
    """
    requested = unique(jobs)
    refuse_linked_folders(root, (job.key for job in requested))
    if rerun == "never":
        return _look_up(root, requested)
    divided = divide(root, requested, rerun)
    for problem in divided.problems:
        write_line(f"{problem}; the run is repeated")
    if not divided.todo:
        return Outcome(skipped=divided.skipped)
    scheduler = _Scheduler(root, divided.todo, executor)
    with _counting(scheduler, len(divided.skipped), rerun):
        if prepare is not None:
            prepare(divided.todo)
        executor.prepare(divided.todo)
        scheduler.run()
    return Outcome(tuple(scheduler.done), divided.skipped, tuple(scheduler.failures))


@contextmanager
def _counting(scheduler: "_Scheduler", skipped: int, rerun: Rerun) -> Iterator[None]:
    """Have the line about an interruption say how much is done, and what the next one would do."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        done, total = scheduler.count_done(), scheduler.size
        if rerun == "always":
            end.add_note(f"{done} of {_runs(total)} repeated; --rerun always would begin again")
        else:
            have = "has a result" if total + skipped == 1 else "have results"
            end.add_note(
                f"{done + skipped} of {_runs(total + skipped)} {have}; the same command goes on "
                "from there"
            )
        raise


def _look_up(root: Path, jobs: Sequence[Job]) -> Outcome:
    """Return which jobs have a result, and report how many have none."""
    skipped: list[Run] = []
    missing: list[Run] = []
    disputed = why_not_counted(root, {job.key for job in jobs})
    for job in jobs:
        counts = unfinished(root, job.key) is None and job.key not in disputed
        (skipped if counts else missing).append(job.run)
    if missing:
        count = f"{len(missing)} of {_runs(len(jobs))}"
        write_line(f"no result for {count}; pass --rerun missing to execute them")
    return Outcome(skipped=tuple(skipped), missing=tuple(missing))


class _Scheduler:
    """One sweep in progress: its queue, the running jobs and the outcomes so far."""

    def __init__(self, root: Path, todo: Sequence[Job], executor: Executor) -> None:
        self.done: list[Run] = []
        self.failures: list[Failure] = []
        self._root, self._executor, self._todo = root, executor, todo
        self._before = {job.key: stamp(root, job.key) if job.again else None for job in todo}
        needed = {job.needs for job in todo if job.needs} - {job.key for job in todo}
        finished = {key for key in needed if unfinished(root, key) is None}
        self._queue, self._unavailable = Queue(todo, finished), needed - finished
        self._running: dict[str, Job] = {}
        self._progress: dict[str, float] = {}
        self._held: dict[str, tuple[Job, float]] = {}
        """Jobs whose lease another process holds, and when to try them again."""
        self._holders: dict[str, str] = {}
        self._has_started = False
        self._stop_reason = ""
        self._done_cost = 0.0
        self._total_cost = sum(job.cost for job in todo)

    @property
    def size(self) -> int:
        """The number of runs to execute."""
        return len(self._todo)

    def count_done(self) -> int:
        """Count the runs that have their result, also those that ended without being heard."""
        unheard = [
            key for key in self._running if unfinished(self._root, key, self._before[key]) is None
        ]
        return len(self.done) + len(unheard)

    def run(self) -> None:
        """Hand out runs until all have ended, successfully or not."""
        is_complete, self._view = False, view()
        try:
            with self._executor:
                for key in self._unavailable:
                    self._fail_dependents(key, f"it needs {key}, which has no result")
                while self._hand_out():
                    for event in self._executor.events(min(_TICK_SECONDS, _POLL_SECONDS)):
                        self._handle(event)
                    self._show()
            is_complete = True
        finally:
            self._view.close(is_complete=is_complete)
            if not is_complete:  # nobody gets an outcome that tells them
                for failure in self.failures:
                    write_line(f"failed: {failure}")
        assert len(self.done) + len(self.failures) == len(self._todo), "runs that need each other"

    def _hand_out(self) -> bool:
        """Start runs in idle slots; return False if nothing is left to start or to wait for."""
        for slot in self._executor.idle():
            if job := self._next_for(slot):
                self._running[job.key] = job
                self._executor.begin(slot, Assignment(job.run, self._before[job.key]))
        self._executor.grow(len(self._queue) or len(self._due()))
        return bool(len(self._queue) or self._held or self._running)

    def _next_for(self, slot: Slot) -> Job | None:
        busy = {job.group for job in self._running.values()}
        job = self._queue.take(slot.last, busy)
        if job is None and (due := self._due()):
            job, _ = self._held.pop(due[0])
        return job

    def _due(self) -> list[str]:
        """Return the runs held by other processes that should be tried again now."""
        now = time.monotonic()
        return [key for key, (_, when) in self._held.items() if when <= now]

    def _handle(self, event: Event) -> None:
        match event:
            case Started():
                self._has_started = True
            case CannotStart(reason):
                self._cannot_start(reason)
            case Progress(key, share):
                self._progress[key] = share
            case Ended():
                self._ended(event)
            case Lost(key, reason):
                job = self._remove_running(key)
                if unfinished(self._root, key, self._before[key]) is None:
                    self._succeeded(job)  # lost after saving the result, before reporting it
                else:
                    self._failed(job, reason)

    def _remove_running(self, key: str) -> Job:
        self._progress.pop(key, None)
        return self._running.pop(key)

    def _ended(self, ended: Ended) -> None:
        job = self._remove_running(ended.key)
        if ended.trace:
            write_line(ended.trace)
        if ended.how in ("done", "found", "left"):
            self._succeeded(job, here=ended.how == "done")
        elif ended.how == "held":
            self._put_off(job, ended.line)
        else:
            self._failed(job, ended.line, refused=ended.refused)
        if ended.how == "unsaved":
            self._stop_starting(ended.line)

    def _cannot_start(self, reason: str) -> None:
        """Go on with fewer slots; raise if no slot ever started, since then none will."""
        if not self._has_started:
            raise RunFailed(reason)
        if self._executor.size:
            write_line(f"{reason}; the sweep goes on with one worker less")
        else:
            self._stop_starting(f"no worker is left: {reason}")

    def _stop_starting(self, reason: str) -> None:
        """Fail all runs that have not started; those that are running may finish."""
        if not self._stop_reason:
            write_line(f"{reason}; no more runs are started")
        self._stop_reason = f"not started: {reason}"
        held, self._held = [job for job, _ in self._held.values()], {}
        for job in [*self._queue.rest(), *held]:
            self._failed(job, self._stop_reason)

    # Outcomes

    def _succeeded(self, job: Job, *, here: bool = True) -> None:
        self.done.append(job.run)
        if here:
            self._done_cost += job.cost
        else:
            self._total_cost -= job.cost
        self._queue.done(job.key)

    def _failed(self, job: Job, reason: str, *, refused: bool = False) -> None:
        self.failures.append(Failure(job.run, reason, refused))
        self._total_cost -= job.cost
        self._fail_dependents(job.key, f"it needs {job.run}, which failed", refused=refused)

    def _fail_dependents(self, key: str, reason: str, *, refused: bool = False) -> None:
        """Fail the jobs that need a run which has no result."""
        for job in self._queue.failed(key):
            self._failed(job, f"not started: {reason}", refused=refused)

    def _put_off(self, job: Job, holder: str) -> None:
        """Try a job again later, since another process holds its lease."""
        if self._stop_reason:
            self._failed(job, self._stop_reason)
            return
        self._held[job.key] = (job, time.monotonic() + _POLL_SECONDS)
        if self._holders.get(job.key) != holder:
            self._holders[job.key] = holder
            write_line(f"{job.run}: {holder} is working on it; checked again later")

    def _show(self) -> None:
        running = sum(share * self._running[key].cost for key, share in self._progress.items())
        ended = len(self.done) + len(self.failures)
        failed = f", {len(self.failures)} failed" if self.failures else ""
        # Failures and results found elsewhere took no time here. They leave the total rather than
        # count as progress, or the remaining time would be underestimated.
        total = max(self._total_cost, 0.0)
        self._view.show(
            min(self._done_cost + running, total),
            total,
            f"{ended}/{_runs(len(self._todo))}{failed}",
            # Not those that wait in the queue of a cluster.
            [str(job.run) for key, job in self._running.items() if key in self._progress],
        )


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
