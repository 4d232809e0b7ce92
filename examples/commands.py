"""Run long commands as children, two at a time: logged, signals forwarded. POSIX only."""

import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tqdm

from angels_share.errors import UserError

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_POLL_SECONDS = 0.2
_PERCENT = re.compile(rb"(\d+)%\|")
_TAIL = 4096
"""Bytes at the end of a log in which its progress bar is looked for."""


@dataclass(frozen=True)
class Job:
    """A command, and when it may run.

    Attributes:
        name: the name of its log.
        words: the command line.
        needs: the jobs that must be finished before.
        slots: how many of the two slots it takes: one that has two processes, or is timed, both.
        seconds: about how long it takes, for the bar; only the ratios count.
        bars: how many progress bars it shows, one after the other.
        share: returns how much of it is done, for a command whose bars don't tell.
    """

    name: str
    words: Sequence[str]
    needs: Sequence[str] = ()
    slots: int = 1
    seconds: float = 1.0
    bars: int = 1
    share: Callable[[], float] | None = None


SLOTS = 2


@contextmanager
def lock_folder(folder: Path) -> Iterator[int]:
    """Lock a folder, and yield the lock's file descriptor, for child processes to inherit.

    A child may outlive this process after a `kill -9` and go on writing, so it must hold the lock
    too. `filelock` won't do: its locks are not inherited.

    Raises:
        UserError: another process holds the lock.
    """
    path = folder / ".lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder} is in use by another process, maybe a command that outlived its parent: "
                f"wait until it ends (`fuser {shlex.quote(str(path))}` shows its id)"
            ) from None
        yield lock
    finally:
        os.close(lock)


def bar_of(title: str) -> Any:
    """Return the bar over the whole; without a terminal it moves every ten seconds."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    return tqdm.tqdm(
        total=100,
        desc=title,
        bar_format=form,
        smoothing=0,
        file=sys.stderr,
        mininterval=0.5 if sys.stderr.isatty() else 10,
        dynamic_ncols=True,
        leave=False,
    )


@dataclass
class _Running:
    """A child at work."""

    job: Job
    process: "subprocess.Popen[bytes]"
    log: Path
    started: float = field(default_factory=time.monotonic)
    finished_bars: int = 0
    percent: int = 0
    signals: list[int] = field(default_factory=list)

    def send(self, number: int) -> None:
        """Send a signal to the command, and note that it got one."""
        self.signals.append(number)
        self.process.send_signal(number)

    def share(self) -> float:
        """Return how much of the job is done, as far as can be told."""
        # A command first imports its libraries, for some seconds in which nothing moves.
        begun = min(0.1, (time.monotonic() - self.started) / self.job.seconds)
        done = self._share_of_bars() if self.job.share is None else self.job.share()
        return min(0.99, max(begun, done))

    def _share_of_bars(self) -> float:
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
                found = _PERCENT.findall(stream.read())
        except OSError:
            found = []
        percent = min(100, int(found[-1])) if found else 0
        # A new bar begins below the last one's end.
        self.finished_bars += percent < self.percent
        self.percent = percent
        return (self.finished_bars + percent / 100) / self.job.bars


class Runner:
    """Runs jobs, two at a time, in the order of the list as far as their needs allow.

    A command gets its own session, which a terminal's Ctrl-C doesn't reach, so each signal is
    forwarded exactly once, whoever sent it. Then the command is waited for: it may be saving.

    Args:
        jobs: the jobs, in the order in which they are preferred.
        logs: the folder of their logs.
        lock: the file descriptor from `lock_folder`.
        folder: the working directory.
        environment: the environment variables.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        logs: Path,
        lock: int,
        *,
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._waiting = list(jobs)
        self._logs, self._lock = logs, lock
        self._folder, self._environment = folder, environment
        self._running: list[_Running] = []
        self._received: list[int] = []
        self._total = _simulated([(job, job.seconds) for job in jobs], ())
        self._left = self._total

    def run(
        self, finished: Callable[[Job, float], None], watched: Callable[[float, str], None]
    ) -> tuple[Job, int] | None:
        """Run all jobs; stop at the first that fails, and at a signal.

        Args:
            finished: called with each job that is done, and its seconds.
            watched: called several times a second with the share that is done, and what is running.

        Returns:
            The job that stopped it and its status; None if all are done. The status is 128 + the
            number of the signal that ended it or was received meanwhile.
        """
        with self._forwarding_signals() as received:
            try:
                while self._waiting or self._running:
                    if received:
                        return self._stop(128 + received[0])
                    self._start()
                    if (failed := self._collect(finished)) is not None:
                        job, status = failed
                        if not received:  # else the other one got that signal, and may be saving
                            self._terminate()
                        self._wait()
                        return job, 128 + received[0] if received else status
                    watched(self._share_done(), ", ".join(each.job.name for each in self._running))
                    time.sleep(_POLL_SECONDS)
            except BaseException:  # nobody watches the commands any more
                self._terminate()
                raise
        return None

    def _start(self) -> None:
        free = SLOTS - sum(each.job.slots for each in self._running)
        unfinished = {job.name for job in self._waiting} | {each.job.name for each in self._running}
        for job in list(self._waiting):
            if job.slots <= free and not unfinished & set(job.needs):
                self._waiting.remove(job)
                self._running.append(child := self._child(job))
                free -= job.slots
                if self._received:  # a signal came while the command was being started
                    if not child.signals:
                        child.send(self._received[0])
                    return

    def _child(self, job: Job) -> _Running:
        log = self._logs / f"{job.name}.txt"
        with log.open("wb") as stream:
            process = subprocess.Popen(  # noqa: S603  (our own commands, and no shell)
                job.words,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                pass_fds=(self._lock,),
                start_new_session=True,
            )
        return _Running(job, process, log)

    def _collect(self, finished: Callable[[Job, float], None]) -> tuple[Job, int] | None:
        """Report the jobs that have ended; return one that failed."""
        for each in list(self._running):
            if (status := each.process.poll()) is None:
                continue
            self._running.remove(each)
            _tidy(each.log)
            if status != 0:
                return each.job, 128 - status if status < 0 else status
            finished(each.job, time.monotonic() - each.started)
        return None

    def _share_done(self) -> float:
        """Return the share of the whole time that has passed; it never goes back."""
        running = [(each.job, each.job.seconds * (1 - each.share())) for each in self._running]
        waiting = [(job, job.seconds) for job in self._waiting]
        self._left = min(self._left, _simulated(waiting, running))
        return 1 - self._left / self._total if self._total else 1.0

    def _stop(self, status: int) -> tuple[Job, int] | None:
        """Wait for the commands, which got the signal, too."""
        if not self._running:
            return (self._waiting[0], status) if self._waiting else None
        job = self._running[0].job
        self._wait()
        return job, status

    def _wait(self) -> None:
        for each in self._running:
            each.process.wait()
            _tidy(each.log)

    def _terminate(self) -> None:
        for each in self._running:
            with suppress(ProcessLookupError):
                each.process.terminate()

    @contextmanager
    def _forwarding_signals(self) -> Iterator[list[int]]:
        """Forward signals to the children while the `with` lasts; yield those received."""
        received = self._received

        def forward(number: int, _frame: object) -> None:
            received.append(number)
            for each in self._running:
                each.send(number)

        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler != signal.SIG_IGN:  # what `nohup` ignores stays ignored
                signal.signal(number, forward)
        try:
            yield received
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _simulated(waiting: Sequence[tuple[Job, float]], running: Sequence[tuple[Job, float]]) -> float:
    """Return how long jobs will take, each with its seconds left, started as `Runner` does."""
    waiting, active = list(waiting), list(running)
    elapsed = 0.0
    while waiting or active:
        free = SLOTS - sum(job.slots for job, _ in active)
        unfinished = {job.name for job, _ in (*waiting, *active)}
        for job, seconds in list(waiting):
            if job.slots <= free and not unfinished & set(job.needs):
                waiting.remove((job, seconds))
                active.append((job, seconds))
                free -= job.slots
        if not active:
            raise ValueError(f"jobs that need one another: {[job.name for job, _ in waiting]}")
        step = min(seconds for _, seconds in active)
        elapsed += step
        active = [(job, seconds - step) for job, seconds in active if seconds > step]
    return elapsed


def _tidy(log: Path) -> None:
    """Leave of each progress bar in a log what a terminal would show: its last state."""
    lines = log.read_bytes().split(b"\n")
    log.write_bytes(b"\n".join(line.rstrip(b"\r").rpartition(b"\r")[2] for line in lines))
