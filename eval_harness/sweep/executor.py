"""The interface between the scheduler, which hands out runs, and whatever executes them.

The scheduler knows only slots, each of which takes one run at a time, and events. Whether a slot is
a local process, a task on a Ray cluster, or a run that some Slurm job will take, is up to the
executor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from eval_harness.runs.run import Run
from eval_harness.sweep.queue import Group, Job

Stamp = tuple[int, int]
"""Identifies one version of a result's file: its inode and modification time in nanoseconds."""


@dataclass(frozen=True)
class Assignment:
    """A run to execute, and the existing result that it is to replace, if any."""

    run: Run
    before: Stamp | None = None


class Slot(Protocol):
    """A unit of the executor that takes one run at a time."""

    @property
    def last(self) -> Group | None:
        """The model and task that it has loaded, if it caches them."""


@dataclass(frozen=True)
class Started:
    """A slot is ready for runs; from now on a failure is not one of the whole executor."""


@dataclass(frozen=True)
class CannotStart:
    """A slot could not be started, and why; the executor's size is one less from now on."""

    reason: str


@dataclass(frozen=True)
class Progress:
    """The share of a run that is done, from 0 to 1, by the run's key."""

    key: str
    share: float


@dataclass(frozen=True)
class Ended:
    """The outcome of an assignment.

    Attributes:
        key: the key of the run.
        how: "done": its result was saved; "found": another process had saved one meanwhile; "held":
            another process holds its lease; "left": likewise, and it is not waited for; "failed";
            "unsaved": it failed because the results folder can't be written to, so every other run
            would fail too.
        line: why it failed, or who holds the lease.
        trace: the traceback, where one was requested.
        refused: whether it failed because of bad input, such as a model that can't be loaded.
        must_restart: whether the slot ends too: after an unexpected error, of the GPU or of
            memory, the next run should start in a new process.
    """

    key: str
    how: Literal["done", "found", "held", "left", "failed", "unsaved"]
    line: str = ""
    trace: str = ""
    must_restart: bool = False
    refused: bool = False


@dataclass(frozen=True)
class Lost:
    """A slot died while executing a run, and how."""

    key: str
    reason: str


Event = Started | CannotStart | Progress | Ended | Lost


class Executor(Protocol):
    """A context manager that executes runs; after the `with` none of its slots is left.

    On an exception the current runs are stopped at once; otherwise all slots are idle by then.

    What every executor sees to: `worker.execute` holds a run's lease while the run is made and
    published, one at a time in a process, with a token of its own for each slot. The number of
    threads is set in the environment before torch is imported, since it decides the bits of a
    result. `grow` ends in `Started` or `CannotStart` for each slot; a slot is idle again by the
    time its `Ended` is returned. Signals are caught until the `with` is left; without processes a
    run can be stopped only by an exception from its `report` that is no `Exception`.
    """

    @property
    def size(self) -> int:
        """How many runs are executed at a time; one less after each `CannotStart`.

        An executor whose engine has a queue of its own may have more slots than that.
        """

    @property
    def threads(self) -> int:
        """The CPU threads of a run; 0 where the machine that takes it decides."""

    @property
    def has_gpus(self) -> bool:
        """Whether a run has a GPU, alone or with others."""

    @property
    def is_here(self) -> bool:
        """Whether this machine executes the runs: its earlier results tell how long they take."""

    def described(self, runs: int) -> str:
        """Return who executes this many runs, such as "2 workers with 1 thread each"."""

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Be told all runs before the first; called once, before the executor is entered.

        Raises:
            UserError: what the runs need is not where they would be executed; nothing has run.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def idle(self) -> Sequence[Slot]:
        """Return the slots that are ready for a run."""

    def grow(self, runs: int) -> None:
        """Start slots for up to `runs` more runs, within `size`; each reports `Started` later."""

    def begin(self, slot: Slot, assignment: Assignment) -> None:
        """Start a run in an idle slot; `Ended` or `Lost` reports its outcome."""

    def events(self, seconds: float) -> Sequence[Event]:
        """Wait up to `seconds` for events, and return those that have happened."""
