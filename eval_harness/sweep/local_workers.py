"""The executor for one machine: worker processes, each with a share of the cores or one GPU."""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from angels_share.files import explain
from angels_share.hardware import cores, visible_gpus
from eval_harness.child_process import PATIENCE_SECONDS, ChildProcess, environment
from eval_harness.sweep.executor import (
    Assignment,
    CannotStart,
    Ended,
    Event,
    Lost,
    Progress,
    Slot,
    Started,
)
from eval_harness.sweep.interrupts import Interrupts
from eval_harness.sweep.leases import LAPSE_SECONDS, Leases
from eval_harness.sweep.queue import Group, Job, group_of
from eval_harness.sweep.worker import Ready, WorkerSetup, serve, variables


class LocalWorkers:
    """Worker processes on this machine; none of them outlives the `with`.

    Args:
        root: the results folder.
        work: "package.module:function", which a worker calls as `function(run, report)`.
        workers: maximum number of workers; by default one per GPU, or one without GPUs.
        threads: CPU threads per worker; by default cores / workers. It does not depend on how many
            runs are left, since the number of threads changes the bits of a result.
        devices: GPUs to assign to workers; by default all visible ones. Empty: no GPU.
        lapse: seconds after which another machine's lease lapses if it was not touched.
    """

    def __init__(
        self,
        root: Path,
        work: str,
        *,
        workers: int | None = None,
        threads: int | None = None,
        devices: Sequence[str] | None = None,
        lapse: float = LAPSE_SECONDS,
    ) -> None:
        self._root, self._work, self._lapse = root, work, lapse
        self._devices = list(visible_gpus() if devices is None else devices)
        self._hides_gpus = devices is not None and not devices
        self.size = workers or max(len(self._devices), 1)
        self.threads = threads or max(1, cores() // self.size)
        self._workers: list[_Worker] = []
        self._failed_starts: list[CannotStart] = []
        self._interrupts = Interrupts()

    @property
    def is_here(self) -> bool:
        """True: these are processes of this machine."""
        return True

    @property
    def has_gpus(self) -> bool:
        """Whether each worker has a GPU, alone or with others."""
        return bool(self._devices)

    def described(self, runs: int) -> str:
        """Return who executes this many runs, such as "2 workers with 1 thread each"."""
        workers = min(self.size, runs)
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        if self._devices:
            used = min(workers, len(self._devices))
            threads = f"{threads} on {used} GPU{'s' if used > 1 else ''}"
        return (
            f"1 worker with {threads}" if workers == 1 else f"{workers} workers with {threads} each"
        )

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Look for nothing: the plan has read here what the runs need."""

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop(at_once=error is not None)
        finally:
            self._interrupts.__exit__(kind, error, trace)

    def idle(self) -> Sequence[Slot]:
        """Return the workers that are ready for a run."""
        return [worker for worker in self._workers if worker.is_idle]

    def grow(self, runs: int) -> None:
        """Start workers for up to `runs` more runs, counting those that are already starting."""
        starting = sum(not worker.is_ready for worker in self._workers)
        for _ in range(min(runs - starting, self.size - len(self._workers))):
            try:
                self.start()
            except OSError as error:
                self._cannot_start(f"a worker can't be started: {explain(error)}")

    def begin(self, slot: Slot, assignment: Assignment) -> None:
        """Send a run to an idle worker; if it has just died, `events` will report it lost."""
        assert isinstance(slot, _Worker)
        slot.key, slot.last = assignment.run.key, group_of(assignment.run)
        with suppress(BrokenPipeError):
            slot.child.connection.send(assignment)

    def events(self, seconds: float) -> Sequence[Event]:
        """Wait up to `seconds` for events; return the workers' messages and which of them died."""
        sources: list[Any] = []
        for worker in self._workers:
            sources.append(worker.child.sentinel)
            if worker.leaves_by is None:
                sources.append(worker.child.connection)
        if not self._failed_starts:
            wait(sources, seconds)
        events: list[Event] = []
        for worker in list(self._workers):
            # Checked before reading, so that no message sent before its death is missed.
            is_dead = worker.is_dead()
            events += worker.received()
            if is_dead:
                events += self._remove_dead(worker)
        failed, self._failed_starts = self._failed_starts, []
        return [*events, *failed]

    def start(self) -> None:
        """Start one more worker."""
        setup = WorkerSetup(self._root, self._work, secrets.token_hex(8), self._lapse)
        used = [worker.device for worker in self._workers]
        device = min(self._devices, key=used.count, default=None)
        worker = _Worker(ChildProcess(serve, setup), setup.token, device)
        # A signal between the two lines would leave a process behind that nobody knows of.
        with self._interrupts.held(), environment(self._environment(device)):
            worker.child.start()
            self._workers.append(worker)

    def stop(self, *, at_once: bool) -> None:
        """Stop all workers: immediately, or by letting the idle ones exit by themselves."""
        with self._interrupts.held():
            for worker in self._workers:
                if at_once or not worker.is_ready:
                    worker.child.terminate()
                worker.child.connection.close()  # an idle worker exits at this
            deadline = time.monotonic() + PATIENCE_SECONDS
            for worker in self._workers:
                worker.child.end(max(deadline - time.monotonic(), 0.0))
            for worker in list(self._workers):
                self._forget(worker)

    def _remove_dead(self, worker: "_Worker") -> Iterator[Event]:
        """Remove a dead worker; report the run that it lost, or that it could not start."""
        how, key = worker.child.describe_exit(), worker.key
        self._forget(worker)
        if not worker.is_ready:
            self._cannot_start(worker.problem or f"a worker ended before it was ready: it {how}")
        if key is not None:
            yield Lost(key, f"its worker {how}")

    def _cannot_start(self, reason: str) -> None:
        self.size -= 1
        self._failed_starts.append(CannotStart(reason))

    def _forget(self, worker: "_Worker") -> None:
        """Forget a dead worker and release its lease."""
        with self._interrupts.held():
            self._workers.remove(worker)
            worker.child.close()
            if worker.key is not None:
                with suppress(OSError):  # on a full disk, say; a dead holder's lease lapses anyway
                    Leases(self._root).release(worker.key, worker.token)

    def _environment(self, device: str | None) -> dict[str, str]:
        """Return the environment variables for a worker's threads, GPU and progress bars."""
        visible = "" if self._hides_gpus else device
        gpu = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        return {**variables(self.threads), **gpu}


class _Worker:
    """A worker process, as seen by its parent.

    Attributes:
        child: the process and the parent's end of its pipe.
        token: identifies its leases.
        device: the GPU that it uses, if any.
        is_ready: whether it has reported that it can work.
        problem: why it can't work, if it reported that.
        leaves_by: the time by which it must have exited, once it has sent its last message.
        key: the key of the run that it is executing.
        last: the model and task that it has loaded.
    """

    def __init__(self, child: ChildProcess, token: str, device: str | None) -> None:
        self.child, self.token, self.device = child, token, device
        self.is_ready = False
        self.problem = ""
        self.leaves_by: float | None = None
        self.key: str | None = None
        self.last: Group | None = None

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.leaves_by is None and self.key is None

    def received(self) -> Iterator[Event]:
        """Yield the events of the messages that have arrived."""
        while self.leaves_by is None:
            try:
                if not self.child.connection.poll():
                    return
                message: Ready | Progress | Ended = self.child.connection.recv()
            except (EOFError, OSError):  # it died, perhaps in the middle of a message
                self._close_pipe()
                return
            match message:
                case Ready(problem) if problem:
                    self.problem = problem
                    self._close_pipe()
                case Ready():
                    self.is_ready = True
                    yield Started()
                case Ended():
                    self.key = None
                    if message.must_restart:
                        self._close_pipe()
                    yield message
                case _:
                    yield message

    def is_dead(self) -> bool:
        """Return whether it has ended; kill it if it should have, but hangs (in a driver, say)."""
        is_alive = self.child.is_alive()
        if is_alive and self.leaves_by is not None and time.monotonic() > self.leaves_by:
            self.child.kill()
        return not is_alive

    def _close_pipe(self) -> None:
        """Close the pipe: its last message has arrived."""
        self.child.connection.close()
        self.leaves_by = time.monotonic() + PATIENCE_SECONDS
