"""The processes of a sweep, as seen from the one that hands out the work. Imports no torch.

Each has its own end of a pipe and its share of the cores; each has one GPU where there are GPUs.
"""

import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from angels_share.hardware import cores, visible_gpus
from eval_harness.sweep.interrupts import Interrupts
from eval_harness.sweep.leases import Claims
from eval_harness.sweep.queue import Group, Job
from eval_harness.sweep.worker import Ended, Order, Place, Ready, Share, serve

_PATIENCE_SECONDS = 10.0
"""How long a process that has nothing left to do may take to end before it is killed."""


@dataclass(eq=False)
class Worker:
    """One process, and what it is at.

    Attributes:
        process: the process.
        connection: our end of its pipe.
        token: what its claims are known by.
        device: the GPU that it sees, where there are any.
        is_ready: whether it has said that it can work.
        problem: why it can't, if it said so.
        leaves_by: when it must have ended, since it said that it does.
        job: what it is doing.
        share: how much of that is done.
        last: the model and task that it has loaded.
    """

    process: SpawnProcess
    connection: Connection
    token: str
    device: str | None
    is_ready: bool = False
    problem: str = ""
    leaves_by: float | None = None
    job: Job | None = None
    share: float = 0.0
    last: Group | None = field(default=None)

    @property
    def is_idle(self) -> bool:
        """Whether it can be handed a run."""
        return self.is_ready and self.leaves_by is None and self.job is None

    def begin(self, job: Job, order: Order) -> None:
        """Hands it a run. A process that just died is noticed by its silence later."""
        self.job, self.last, self.share = job, job.group, 0.0
        with suppress(BrokenPipeError):
            self.connection.send(order)

    def said(self) -> Iterator[Ready | Share | Ended]:
        """What it has said since it was last asked."""
        while self.leaves_by is None:
            try:
                if not self.connection.poll():
                    return
                message = self.connection.recv()
            except (EOFError, OSError):  # it died, perhaps in the middle of a word
                self.hang_up()
                return
            yield message

    def hang_up(self) -> None:
        """It has said its last word."""
        self.connection.close()
        self.leaves_by = time.monotonic() + _PATIENCE_SECONDS

    def is_dead(self) -> bool:
        """Whether it has ended; one that should have and hangs, in a driver say, is killed."""
        is_alive = self.process.is_alive()
        if is_alive and self.leaves_by is not None and time.monotonic() > self.leaves_by:
            self.process.kill()
        return not is_alive

    def how_it_died(self) -> str:
        """What is known of the end of a dead one."""
        code = self.process.exitcode
        assert code is not None, "asked of the living"
        if code >= 0:
            return f"ended with status {code}"
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code}{hint}"


class Crew:
    """Workers: started, told apart, and never left behind.

    Args:
        place: what each must know; the token is its own.
        size: how many there may be.
        threads: of each; a fair share of the cores by default. It doesn't depend on how many runs
            are left, since another number of threads gives other bits.
        devices: GPUs to share out; those that can be seen by default, none where it is empty.
        interrupts: what must not come between a worker's start and its being known, or its end.
    """

    def __init__(
        self,
        place: Place,
        size: int | None,
        threads: int | None,
        devices: Sequence[str] | None,
        interrupts: Interrupts,
    ) -> None:
        self._place, self._interrupts = place, interrupts
        self._devices = list(visible_gpus() if devices is None else devices)
        self._hides_gpus = devices is not None and not devices
        self.size = size or max(len(self._devices), 1)
        self._threads = threads or max(1, cores() // self.size)
        self.workers: list[Worker] = []

    def start(self) -> None:
        """One more worker."""
        ours, theirs = get_context("spawn").Pipe()
        token = secrets.token_hex(8)
        place = replace(self._place, token=token)
        process = get_context("spawn").Process(target=serve, args=(theirs, place))
        worker = Worker(process, ours, token, self._least_used_device())
        resource_tracker.ensure_running()  # its own start, at the first worker's, unblocks Ctrl-C
        environment = _environment(self._environment(worker.device))
        with self._interrupts.held(), environment, _deaf_to_interrupts():
            process.start()
            self.workers.append(worker)
        theirs.close()

    def dismiss(self, worker: Worker) -> None:
        """Forgets a worker that is dead, and gives back what it had claimed."""
        with self._interrupts.held():
            self.workers.remove(worker)
            worker.connection.close()
            worker.process.close()
            if worker.job is not None:
                with suppress(OSError):  # on a full disk, say: a dead one's claim lapses anyway
                    Claims(self._place.root).release(worker.job.key, worker.token)

    def stop(self, *, at_once: bool) -> None:
        """Ends all of them: at once, whatever they are at, or idle ones by themselves."""
        with self._interrupts.held():
            for worker in self.workers:
                if at_once or not worker.is_ready:
                    worker.process.terminate()
                worker.connection.close()  # which is what an idle one waits for
            end = time.monotonic() + _PATIENCE_SECONDS
            for worker in self.workers:
                _end(worker.process, max(end - time.monotonic(), 0.0))
            for worker in list(self.workers):
                self.dismiss(worker)

    def _least_used_device(self) -> str | None:
        used = [worker.device for worker in self.workers]
        return min(self._devices, key=used.count, default=None)

    def _environment(self, device: str | None) -> dict[str, str]:
        threads = str(self._threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        # Of huggingface_hub and transformers, and of datasets: there is one bar, the sweep's.
        bars = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
        seen = "" if self._hides_gpus else device
        return {
            **dict.fromkeys(names, threads),
            **dict.fromkeys(bars, "1"),
            "TOKENIZERS_PARALLELISM": "true" if self._threads > 1 else "false",
            **({} if seen is None else {"CUDA_VISIBLE_DEVICES": seen}),
        }


def _end(process: SpawnProcess, patience: float) -> None:
    process.join(patience)
    if process.is_alive():
        process.kill()
        process.join()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """The environment that a process is started with; a thread pool reads it when it is made."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process that is started here never hears Ctrl-C, which a terminal sends to all of them.

    It is for the parent to end the workers. A blocked signal stays blocked in a child, and waits
    for us here.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
