"""A sweep's worker: a process that is handed one run after the other until nobody asks any more.

What makes the runs is named, not imported: this module imports no torch, so the threads that torch
may use are known before it is. Models and tokenized data stay in that module's own caches.
"""

import errno
import importlib
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from angels_share.cli import without_secrets
from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, is_refusal
from eval_harness.results.record import AnyPredictions, TaskResult
from eval_harness.results.store import InvalidResult, NewerResult, load, path_of, publish
from eval_harness.runs.run import Run
from eval_harness.sweep.leases import Claims, Holder

Work = Callable[[Run, Callable[[float], None]], tuple[TaskResult, AnyPredictions]]
Stamp = tuple[int, int]
"""What tells a result's file from the one that takes its place."""

_REPORT_SECONDS = 0.2
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Place:
    """What a worker must know once.

    Attributes:
        root: the results folder.
        work: "package.module:function", called as `function(run, report)`.
        token: what its claims are known by.
        lapse: seconds after which a claim lapses.
    """

    root: Path
    work: str
    token: str
    lapse: float


@dataclass(frozen=True)
class Order:
    """A run to do; a result that was there before, if any, is to be replaced."""

    run: Run
    before: Stamp | None = None


@dataclass(frozen=True)
class Ready:
    """The worker has started; or it can't, and why."""

    problem: str = ""


@dataclass(frozen=True)
class Share:
    """How much of the run is done, from 0 to 1."""

    share: float


@dataclass(frozen=True)
class Ended:
    """What became of an order.

    Attributes:
        how: "done": its result was made; "found": it was there, made by somebody else meanwhile;
            "held": somebody else is at it; "unsaved": it failed, and every other run would, since
            the results folder takes nothing any more.
        line: why it failed, or who holds it.
        trace: the traceback, where it was asked for.
        spoilt: the worker ends too: after an error that nobody foresaw, a GPU's for example, or out
            of memory, the next run is better off in a new process.
    """

    how: Literal["done", "found", "held", "failed", "unsaved"]
    line: str = ""
    trace: str = ""
    spoilt: bool = False


def stamp(root: Path, key: str) -> Stamp | None:
    """Tells the result that is there from the next one; None where there is none."""
    try:
        status = path_of(root, key).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def unfinished(root: Path, key: str, before: Stamp | None = None) -> str | None:
    """Why a run has to be done, in a line for people, "" where it is just new; None if it hasn't.

    Args:
        root: the results folder.
        key: the run's.
        before: a result that doesn't count, since it is to be replaced.
    """
    there = stamp(root, key)
    if there in (None, before):
        return ""
    try:
        load(path_of(root, key))
    except NewerResult:
        raise
    except InvalidResult as error:
        return str(error)
    return None


def serve(connection: Connection, place: Place) -> None:
    """Does what it is told until the other end is closed, or gone; the last run is finished."""
    parent = _Parent(connection)
    try:
        work = _resolved(place.work)
        claims = Claims(place.root, place.lapse)
    except (UserError, OSError) as error:
        parent.send(Ready(_line(error)))
        return
    parent.send(Ready())
    while (order := parent.receive()) is not None:
        ended = _attempt(order, place, claims, work, parent.report)
        parent.send(ended)
        if ended.spoilt:
            return


class _Parent:
    """The other end: where it is dead, there is nobody to tell and the run goes on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reported = 0.0

    def send(self, message: Ready | Share | Ended) -> None:
        with suppress(BrokenPipeError):  # the next `receive` says so
            self._connection.send(message)

    def receive(self) -> Order | None:
        try:
            order: Order = self._connection.recv()
        except (EOFError, ConnectionResetError):
            return None
        return order

    def report(self, share: float) -> None:
        """Passes on how far a run is, a few times a second at most."""
        now = time.monotonic()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self.send(Share(min(max(share, 0.0), 1.0)))


def _resolved(name: str) -> Work:
    module, _, function = name.partition(":")
    try:
        work: Work = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever an import may raise
        raise UserError(f"{name}: a worker can't import it: {_line(error)}") from error
    return work


def _attempt(
    order: Order, place: Place, claims: Claims, work: Work, report: Callable[[float], None]
) -> Ended:
    try:
        with _writing_to(place.root):
            claim = claims.take(order.run.key, place.token)
        if isinstance(claim, Holder):
            return Ended("held", str(claim))
        with claim:
            # Asked after the claim is ours: who had it publishes before giving it back.
            if unfinished(place.root, order.run.key, order.before) is None:
                return Ended("found")
            _run(order, place.root, work, report)
    except _NoRoom as error:
        return Ended("unsaved", _line(error))
    except Exception as error:  # noqa: BLE001  (one run's failure: told, and the others go on)
        asked = os.environ.get("ANGELS_SHARE_TRACEBACK")
        trace = "".join(traceback.format_exception(error)) if asked else ""
        spoilt = not isinstance(error, (UserError, RunFailed))
        return Ended("failed", _line(error), without_secrets(trace), spoilt)
    return Ended("done")


def _run(order: Order, root: Path, work: Work, report: Callable[[float], None]) -> None:
    result, predictions = work(order.run, report)
    assert result.key == order.run.key, f"{result.key} came of {order.run.key}"
    # Only the result that was to be replaced is: another's, made meanwhile, was the first.
    replace = order.before is not None and order.before == stamp(root, order.run.key)
    with _writing_to(root):
        publish(root, result, predictions, replace=replace)


class _NoRoom(RunFailed):
    """The results folder takes nothing: on a full disk, or one that can only be read."""


@contextmanager
def _writing_to(root: Path) -> Iterator[None]:
    """Names the results folder where a disk's no names nothing."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _NoRoom(f"{root}: {explain(error)}") from error
        error.filename = error.filename or str(root)
        raise


def _line(error: Exception) -> str:
    """An error as one line without secrets; with its place where nobody foresaw it."""
    if isinstance(error, (UserError, RunFailed)):
        return _clean(str(error))
    said = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        said = ": ".join(filter(None, (str(error.filename or ""), explain(error))))
        if is_refusal(error) or error.errno in _NO_ROOM:
            return _clean(said)
    what = ": ".join(filter(None, (type(error).__name__, said)))
    frames: Any = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return _clean(f"{what} (at {place})")


def _clean(text: str) -> str:
    return " ".join(without_secrets(text).split())
