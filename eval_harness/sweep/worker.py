"""A sweep's worker: a process that is handed one run after the other until nobody asks any more.

What makes the runs is named, not imported: this module imports no torch, so the threads that torch
may use are known before it is. Models and tokenized data stay in that module's own caches.
"""

import errno
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from angels_share.cli import without_secrets
from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, is_refusal
from angels_share.imports import resolve
from eval_harness.results.predictions import Predictions
from eval_harness.results.record import TaskResult
from eval_harness.results.store import InvalidResult, NewerResult, load, path_of, publish
from eval_harness.runs.run import Run
from eval_harness.sweep.executor import Assignment, Ended, Progress, Stamp
from eval_harness.sweep.leases import Holder, Leases

Work = Callable[[Run, Callable[[float], None]], tuple[TaskResult, Predictions]]
_REPORT_SECONDS = 0.2
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker must know once.

    Attributes:
        root: the results folder.
        work: "package.module:function", called as `function(run, report)`.
        token: what its leases are known by.
        lapse: seconds after which a lease lapses.
    """

    root: Path
    work: str
    token: str
    lapse: float


@dataclass(frozen=True)
class Ready:
    """The worker has started; or it can't, and why."""

    problem: str = ""


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


def serve(connection: Connection, setup: WorkerSetup) -> None:
    """Execute assignments until the other end is closed, or gone; the last run is finished."""
    parent = _Parent(connection)
    try:
        work = resolve(setup.work)
        leases = Leases(setup.root, setup.lapse)
    except (UserError, OSError) as error:
        parent.send(Ready(_line(error)))
        return
    parent.send(Ready())
    while (assignment := parent.receive()) is not None:
        ended = execute(assignment, setup, leases, work, parent.report)
        parent.send(ended)
        if ended.spoilt:
            return


class _Parent:
    """The other end: where it is dead, there is nobody to tell and the run goes on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._key, self._reported = "", 0.0

    def send(self, message: Ready | Progress | Ended) -> None:
        with suppress(BrokenPipeError):  # the next `receive` says so
            self._connection.send(message)

    def receive(self) -> Assignment | None:
        self._key, self._reported = "", 0.0
        try:
            assignment: Assignment = self._connection.recv()
        except (EOFError, ConnectionResetError):
            return None
        self._key = assignment.run.key
        return assignment

    def report(self, share: float) -> None:
        """Pass on how far a run is, a few times a second at most."""
        now = time.monotonic()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self.send(Progress(self._key, min(max(share, 0.0), 1.0)))


def execute(
    assignment: Assignment,
    setup: WorkerSetup,
    leases: Leases,
    work: Work,
    report: Callable[[float], None],
) -> Ended:
    """Make one run and publish its result, unless somebody else has, or is at it.

    Args:
        assignment: the run, and the result that it is to replace, if any.
        setup: the results folder, and by which token this worker's leases are known.
        leases: those of that folder.
        work: makes the run.
        report: is told the share of the run that is done.

    Returns:
        The outcome; whatever goes wrong in a run is one.
    """
    run, root = assignment.run, setup.root
    try:
        with _writing_to(root):
            lease = leases.take(run.key, setup.token)
        if isinstance(lease, Holder):
            return Ended(run.key, "held", str(lease))
        with lease:
            # Looked up after the lease is ours: who had it publishes before giving it back.
            if unfinished(root, run.key, assignment.before) is None:
                return Ended(run.key, "found")
            result, predictions = work(run, report)
            assert result.key == run.key, f"{result.key} came of {run.key}"
            # Only the result that was to be replaced is: another's, made meanwhile, was first.
            before = assignment.before
            replace = before is not None and before == stamp(root, run.key)
            with _writing_to(root):
                publish(root, result, predictions, replace=replace)
    except _NoRoom as error:
        return Ended(run.key, "unsaved", _line(error))
    except Exception as error:  # noqa: BLE001  (one run's failure: told, and the others go on)
        asked = os.environ.get("ANGELS_SHARE_TRACEBACK")
        trace = "".join(traceback.format_exception(error)) if asked else ""
        spoilt = not isinstance(error, (UserError, RunFailed))
        return Ended(run.key, "failed", _line(error), without_secrets(trace), spoilt)
    return Ended(run.key, "done")


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
