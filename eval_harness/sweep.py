"""Sweeps: which runs are missing, who does them, and what became of them. Imports no torch.

Nothing is remembered but results: whatever was killed, the next sweep does what has no valid one.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal, NoReturn

import tqdm

from angels_share.cli import TERMINATED
from angels_share.errors import RunFailed
from eval_harness.claims import LAPSE_SECONDS
from eval_harness.crew import Crew, Worker
from eval_harness.jobs import Job, Queue, unique
from eval_harness.runs import Run
from eval_harness.worker import Ended, Order, Place, Ready, Share, stamp, unfinished

__all__ = ["Failure", "Job", "Outcome", "sweep"]

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
        failed: have none.
    """

    done: tuple[Run, ...] = ()
    skipped: tuple[Run, ...] = ()
    failed: tuple[Failure, ...] = ()


def sweep(
    root: Path,
    jobs: Sequence[Job],
    *,
    work: str,
    workers: int | None = None,
    rerun: Literal["missing", "always", "never"] = "missing",
    devices: Sequence[str] | None = None,
    threads: int | None = None,
    lapse: float = LAPSE_SECONDS,
) -> Outcome:
    """Does the runs that are wanted and saves their results; one that fails stops no other.

    Failures are told at the end, on standard error.

    Args:
        root: the results folder, which other machines may be working on too.
        jobs: what is wanted; what a job needs stands among them, or has a result.
        work: "package.module:function", which a worker calls as `function(run, report)`.
        workers: processes; one per GPU where there are GPUs, else one, by default.
        rerun: "missing" does what has no valid result, "always" all, "never" nothing.
        devices: what CUDA_VISIBLE_DEVICES may name; all GPUs by default.
        threads: of each worker; its share of the cores by default.
        lapse: seconds after which another machine's claim counts no more if nobody touched it.

    Raises:
        KeyboardInterrupt: the workers are stopped; what was complete is there. SystemExit (143)
            on SIGTERM likewise.
        RunFailed: no worker can start.
    """
    wanted = unique(jobs)
    todo, skipped = _divided(root, wanted, rerun)
    if not todo:
        return Outcome(skipped=tuple(skipped))
    crew = Crew(Place(root, work, "", lapse), workers, threads, devices)
    foreman = _Foreman(root, todo, crew)
    with _stopped_by_sigterm():
        foreman.work()
    return Outcome(tuple(foreman.done), tuple(skipped), tuple(foreman.failures))


def _divided(root: Path, wanted: Sequence[Job], rerun: str) -> tuple[list[Job], list[Run]]:
    """What is to be done, and what is there; a file that doesn't count is named."""
    if rerun == "always":
        return [replace(job, again=True) for job in wanted], []
    todo, skipped = [], []
    for job in wanted:
        problem = unfinished(root, job.key)
        if problem is None and not (job.again and rerun == "missing"):
            skipped.append(job.run)
        elif rerun == "missing":
            todo.append(job)
            if problem:
                _say(f"{problem}; runs again")
    return todo, skipped


class _Foreman:
    """Hands out runs, hears what becomes of them, and keeps the books."""

    def __init__(self, root: Path, todo: Sequence[Job], crew: Crew) -> None:
        self.done: list[Run] = []
        self.failures: list[Failure] = []
        self._root, self._crew, self._todo = root, crew, todo
        self._before = {job.key: stamp(root, job.key) if job.again else None for job in todo}
        needed = {job.needs for job in todo if job.needs} - {job.key for job in todo}
        there = {key for key in needed if unfinished(root, key) is None}
        self._queue, self._hopeless = Queue(todo, there), needed - there
        self._held: dict[str, tuple[Job, float]] = {}
        self._holders: dict[str, str] = {}
        self._passed = 0.0
        self._bar = _bar(sum(job.cost for job in todo))

    def work(self) -> None:
        """Until every run has ended, one way or another."""
        is_through = False
        try:
            for key in self._hopeless:
                self._lose(key, f"it needs {key}, which has no result")
            while self._hand_out():
                self._listen()
                self._show()
            is_through = True
        finally:
            self._crew.stop(at_once=not is_through)
            self._bar.close()
            for failure in self.failures:
                _say(f"failed: {failure}")
        assert len(self.done) + len(self.failures) == len(self._todo), "runs that need each other"

    # Handing out

    def _hand_out(self) -> bool:
        """Gives the idle something to do; False where nothing is left to do or to wait for."""
        crew = self._crew
        for worker in crew.workers:
            if worker.is_idle and (job := self._next_for(worker)):
                worker.begin(job, Order(job.run, self._before[job.key]))
        waiting = len(self._queue) or len(self._due())
        starting = sum(not worker.is_ready for worker in crew.workers)
        for _ in range(min(waiting - starting, crew.size - len(crew.workers))):
            crew.start()
        return bool(len(self._queue) or self._held or self._at_work())

    def _next_for(self, worker: Worker) -> Job | None:
        busy = {other.job.group for other in self._at_work() if other.job}
        job = self._queue.take(worker.last, busy)
        if job is None and (due := self._due()):
            job, _ = self._held.pop(due[0])
        return job

    def _due(self) -> list[str]:
        """Runs that others are at, when they are looked at again."""
        now = time.monotonic()
        return [key for key, (_, when) in self._held.items() if when <= now]

    def _at_work(self) -> list[Worker]:
        return [worker for worker in self._crew.workers if worker.job is not None]

    # Listening

    def _listen(self) -> None:
        """Waits until a worker says something or dies, a second at most."""
        sources: dict[Any, Worker] = {}
        for worker in self._crew.workers:
            sources[worker.connection] = sources[worker.process.sentinel] = worker
        heard = wait(list(sources), min(_TICK_SECONDS, _POLL_SECONDS))
        for worker in dict.fromkeys(sources[each] for each in heard):
            self._hear(worker)

    def _hear(self, worker: Worker) -> None:
        is_alive = (
            worker.process.is_alive()
        )  # asked first: what it said before it died still counts
        try:
            while worker.connection.poll():
                self._note(worker, worker.connection.recv())
        except (EOFError, ConnectionResetError):
            is_alive = False
        if not is_alive:
            self._bury(worker)

    def _note(self, worker: Worker, message: Ready | Share | Ended) -> None:
        match message:
            case Ready(problem) if problem:
                raise RunFailed(problem)
            case Ready():
                worker.is_ready = True
            case Share(share):
                worker.share = share
            case Ended():
                self._ended(worker, message)

    def _ended(self, worker: Worker, ended: Ended) -> None:
        job, worker.job, worker.is_spoilt = worker.job, None, ended.spoilt
        assert job is not None, "a worker ended what it never began"
        if ended.trace:
            _say(ended.trace)
        if ended.how == "done":
            self._succeeded(job)
        elif ended.how == "failed":
            self._failed(job, ended.line)
        else:
            self._put_off(job, ended.line)

    def _bury(self, worker: Worker) -> None:
        reason, job = worker.how_it_died(), worker.job
        self._crew.dismiss(worker)
        if not worker.is_ready:
            raise RunFailed(f"a worker ended before it could begin: {reason}")
        if job is None:
            return
        if unfinished(self._root, job.key, self._before[job.key]) is None:
            self._succeeded(job)  # it was killed between saving the result and saying so
        else:
            self._failed(job, f"its worker {reason}")

    # The books

    def _succeeded(self, job: Job) -> None:
        self.done.append(job.run)
        self._passed += job.cost
        self._queue.done(job.key)

    def _failed(self, job: Job, reason: str) -> None:
        self.failures.append(Failure(job.run, reason))
        self._passed += job.cost
        self._lose(job.key, f"it needs {job.run}, which failed")

    def _lose(self, key: str, reason: str) -> None:
        """Fails what can't be done without a run."""
        for job in self._queue.failed(key):
            self._failed(job, f"not done: {reason}")

    def _put_off(self, job: Job, holder: str) -> None:
        self._held[job.key] = (job, time.monotonic() + _POLL_SECONDS)
        if self._holders.get(job.key) != holder:
            self._holders[job.key] = holder
            _say(f"{job.run}: {holder} is at it; looked at again later")

    def _show(self) -> None:
        under_way = sum(worker.share * worker.job.cost for worker in self._at_work() if worker.job)
        ended = len(self.done) + len(self.failures)
        failed = f", {len(self.failures)} failed" if self.failures else ""
        self._bar.set_postfix_str(f"{ended}/{len(self._todo)} runs{failed}", refresh=False)
        self._bar.update(self._passed + under_way - self._bar.n)


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


class _Terminated(BaseException):
    """SIGTERM, on its way to the status that says so."""


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the workers too; a second one ends this process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before: Any = signal.getsignal(signal.SIGTERM)

    def stop(_number: int, _frame: Any) -> NoReturn:
        signal.signal(signal.SIGTERM, before)
        raise _Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Terminated:
        _say("terminated; what was complete is still there")
        raise SystemExit(TERMINATED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
