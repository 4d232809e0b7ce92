"""The processes of a sweep, as seen from the one that hands out the work. Imports no torch.

Each has its own end of a pipe and its share of the cores; each has one GPU where there are GPUs.
"""

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from angels_share.errors import RunFailed
from eval_harness.claims import Claims
from eval_harness.jobs import Group, Job
from eval_harness.worker import Order, Place, serve

_PATIENCE_SECONDS = 10.0


@dataclass(eq=False)
class Worker:
    """One process, and what it is at.

    Attributes:
        process: the process.
        connection: our end of its pipe.
        token: what its claims are known by.
        device: the GPU that it sees, where there are any.
        is_ready: whether it has said that it can work.
        is_spoilt: whether it has said that it ends.
        job: what it is doing.
        share: how much of that is done.
        last: the model and task that it has loaded.
    """

    process: SpawnProcess
    connection: Connection
    token: str
    device: str | None
    is_ready: bool = False
    is_spoilt: bool = False
    job: Job | None = None
    share: float = 0.0
    last: Group | None = field(default=None)

    @property
    def is_idle(self) -> bool:
        """Whether it can be handed a run."""
        return self.is_ready and not self.is_spoilt and self.job is None

    def begin(self, job: Job, order: Order) -> None:
        """Hands it a run. A process that just died is noticed by its silence later."""
        self.job, self.last, self.share = job, job.group, 0.0
        with suppress(BrokenPipeError):
            self.connection.send(order)

    def how_it_died(self) -> str:
        """What is known of its end."""
        self.process.join(_PATIENCE_SECONDS)
        code = self.process.exitcode
        if code is None or code >= 0:
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
        devices: GPUs to share out; those that can be seen by default.
    """

    def __init__(
        self, place: Place, size: int | None, threads: int | None, devices: Sequence[str] | None
    ) -> None:
        self._place = place
        self._devices = list(visible_gpus() if devices is None else devices)
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
        with _environment(self._environment(worker.device)), _deaf_to_interrupts():
            process.start()
            self.workers.append(worker)
        theirs.close()

    def dismiss(self, worker: Worker) -> None:
        """Forgets a worker that is dead, or will be as soon as it is done."""
        self.workers.remove(worker)
        worker.connection.close()
        _end(worker.process)
        if worker.job is not None:
            Claims(self._place.root).release(worker.job.key, worker.token)

    def stop(self, *, at_once: bool) -> None:
        """Ends all of them: at once, whatever they are at, or the idle ones when they like."""
        for worker in self.workers:
            if at_once or not worker.is_ready:
                worker.process.terminate()
            worker.connection.close()
        for worker in list(self.workers):
            self.dismiss(worker)

    def _least_used_device(self) -> str | None:
        used = [worker.device for worker in self.workers]
        return min(self._devices, key=used.count, default=None)

    def _environment(self, device: str | None) -> dict[str, str]:
        threads = str(self._threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        return {
            **dict.fromkeys(names, threads),
            "TOKENIZERS_PARALLELISM": "true" if self._threads > 1 else "false",
            **({} if device is None else {"CUDA_VISIBLE_DEVICES": device}),
        }


def _end(process: SpawnProcess) -> None:
    process.join(_PATIENCE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name, without asking torch, which is seconds to import."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return [] if names[0] in ("", "-1") else names
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607  (wherever this machine has it)
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except FileNotFoundError:
        return []
    except subprocess.TimeoutExpired as error:
        raise RunFailed("nvidia-smi -L doesn't answer: set CUDA_VISIBLE_DEVICES") from error
    lines = listed.stdout.splitlines() if listed.returncode == 0 else []
    return [str(number) for number, _ in enumerate(x for x in lines if x.startswith("GPU "))]


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
