"""The seam between what hands out runs and what executes them.

A scheduler knows slots, each of which takes one run at a time, and events. Whether a slot is a
process of this machine or a task of a cluster is the executor's business alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from eval_harness.runs.run import Run
from eval_harness.sweep.queue import Group

Stamp = tuple[int, int]
"""What tells a result's file from the one that takes its place."""


@dataclass(frozen=True)
class Assignment:
    """A run to execute; a result that was there before, if any, is to be replaced."""

    run: Run
    before: Stamp | None = None


class Slot(Protocol):
    """A place that takes one run at a time."""

    @property
    def last(self) -> Group | None:
        """The model and task that it has loaded, where it keeps them."""


@dataclass(frozen=True)
class Started:
    """A slot can take runs: whatever fails from now on, it is not the executor as such."""


@dataclass(frozen=True)
class CannotStart:
    """A slot can't be started, and why; the executor has one slot less for good."""

    reason: str


@dataclass(frozen=True)
class Progress:
    """The share of a run, by its key, that is done: from 0 to 1."""

    key: str
    share: float


@dataclass(frozen=True)
class Ended:
    """The outcome of an assignment.

    Attributes:
        key: the run's.
        how: "done": its result was made; "found": somebody else had made it meanwhile; "held":
            somebody else is at it; "unsaved": it failed, and every other run would, since the
            results folder takes nothing any more.
        line: why it failed, or who holds it.
        trace: the traceback, where it was asked for.
        spoilt: whether the worker ends too: after an error that nobody foresaw, a GPU's for
            example, or out of memory, the next run is better off in a new process.
    """

    key: str
    how: Literal["done", "found", "held", "failed", "unsaved"]
    line: str = ""
    trace: str = ""
    spoilt: bool = False


@dataclass(frozen=True)
class Lost:
    """A slot is gone with the run that it was executing, and how."""

    key: str
    reason: str


Event = Started | CannotStart | Progress | Ended | Lost


class Executor(Protocol):
    """What executes runs while a `with` lasts; after it nothing of it is left running.

    On an exception what it is executing is stopped at once, otherwise idle slots end by themselves.
    """

    @property
    def size(self) -> int:
        """How many slots there may be; fewer after each `CannotStart`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def idle(self) -> Sequence[Slot]:
        """Return the slots that can take a run now."""

    def grow(self, runs: int) -> None:
        """Start slots for so many more runs, as far as `size` allows; `Started` tells of them."""

    def begin(self, slot: Slot, assignment: Assignment) -> None:
        """Execute a run in an idle slot; `Ended` or `Lost` tells what became of it."""

    def events(self, seconds: float) -> Sequence[Event]:
        """Return what has happened, as soon as something has; wait so many seconds at most."""
