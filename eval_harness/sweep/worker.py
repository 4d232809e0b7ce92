"""A sweep's worker: a process that executes one run after another until its parent hangs up.

The function that makes the runs is passed by name and imported in the worker: this module imports
no torch, so the number of threads is set before torch is loaded. That function's module caches
models and tokenized data between runs.
"""

import errno
import gc
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
from angels_share.files import explain, is_path_error
from angels_share.imports import resolve
from eval_harness.results.predictions import Predictions
from eval_harness.results.record import TaskResult
from eval_harness.results.store import InvalidResult, NewerResult, load, path_of, publish
from eval_harness.runs.run import Run
from eval_harness.sweep.executor import Assignment, Ended, Progress, Stamp
from eval_harness.sweep.leases import Holder, Leases

Work = Callable[[Run, Callable[[float], None]], tuple[TaskResult, Predictions]]
_REPORT_SECONDS = 0.2
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@dataclass(frozen=True)
class WorkerSetup:
    """The settings of a worker.

    Attributes:
        root: the results folder.
        work: "package.module:function", called as `function(run, report)`.
        token: identifies its leases.
        lapse: seconds after which a lease lapses.
    """

    root: Path
    work: str
    token: str
    lapse: float


@dataclass(frozen=True)
class Ready:
    """The worker has started; a non-empty problem says why it cannot work."""

    problem: str = ""


def stamp(root: Path, key: str) -> Stamp | None:
    """Return the stamp of a run's result file; None if there is none."""
    try:
        status = path_of(root, key).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def unfinished(root: Path, key: str, before: Stamp | None = None) -> str | None:
    """Return why a run must be executed; None if it has a valid result.

    Args:
        root: the results folder.
        key: the key of the run.
        before: the stamp of a result that does not count, since it is to be replaced.

    Returns:
        "" for a run without a result, the problem if its result is invalid, else None.

    Raises:
        NewerResult: the result has a newer schema, so it must not be replaced.
    """
    if stamp(root, key) in (None, before):
        return ""
    try:
        load(path_of(root, key))
    except NewerResult:
        raise
    except InvalidResult as error:
        return str(error)
    return None


def variables(threads: int) -> dict[str, str]:
    """Return the environment variables of a process that executes runs: threads, and no bars.

    They must be set before torch is imported.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    # Only the sweep shows a bar: these turn off those of huggingface_hub and transformers, and
    # those of datasets.
    bars = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
    return {
        **dict.fromkeys(names, str(threads)),
        **dict.fromkeys(bars, "1"),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
    }


def serve(connection: Connection, setup: WorkerSetup) -> None:
    """Execute assignments until the parent closes the pipe or dies; the current run is finished."""
    parent = _Parent(connection)

    def make(assignment: Assignment) -> None:
        save(setup.root, assignment, *work(assignment.run, parent.report))

    try:
        work: Work = resolve(setup.work)
        # The Trainer collects garbage after every run: without the modules' objects, which stay
        # anyway, that takes 10 ms instead of 260.
        gc.freeze()
        leases = Leases(setup.root, setup.lapse)
    except (UserError, OSError) as error:
        parent.send(Ready(one_line(error)))
        return
    parent.send(Ready())
    while (assignment := parent.receive()) is not None:
        parent.report(0.0)
        ended = execute(assignment, leases, setup.token, make)
        parent.send(ended)
        if ended.must_restart:
            return


class _Parent:
    """The pipe to the parent; if the parent died, messages are dropped and the run goes on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._key, self._reported = "", 0.0

    def send(self, message: Ready | Progress | Ended) -> None:
        with suppress(BrokenPipeError):  # the next `receive` notices it
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
        """Send a run's progress, a few times a second at most."""
        now = time.monotonic()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self.send(Progress(self._key, min(max(share, 0.0), 1.0)))


def execute(
    assignment: Assignment, leases: Leases, token: str, make: Callable[[Assignment], None]
) -> Ended:
    """Execute one run under its lease, unless another process has its result or works on it.

    A process executes one run at a time: training draws from the global random generators.

    Args:
        assignment: the run, and the result that it is to replace, if any.
        leases: the leases of the results folder.
        token: identifies this worker's leases; every slot has its own.
        make: makes the run, and saves its result by `save`.

    Returns:
        The outcome; any exception of the run is reported there, not raised.
    """
    run, root = assignment.run, leases.root
    try:
        with _writing_to(root):
            lease = leases.take(run.key, token)
        if isinstance(lease, Holder):
            return Ended(run.key, "held", str(lease))
        with lease:
            # Checked after taking the lease: the previous holder publishes before it releases.
            if unfinished(root, run.key, assignment.before) is None:
                return Ended(run.key, "found")
            make(assignment)
    except _UnwritableError as error:
        return Ended(run.key, "unsaved", one_line(error))
    except Exception as error:  # noqa: BLE001  (one run's failure: reported, and the others go on)
        wants_trace = os.environ.get("ANGELS_SHARE_TRACEBACK")
        trace = "".join(traceback.format_exception(error)) if wants_trace else ""
        must_restart = not isinstance(error, (UserError, RunFailed))
        refused = isinstance(error, UserError)
        line = one_line(error)
        return Ended(run.key, "failed", line, without_secrets(trace), must_restart, refused)
    return Ended(run.key, "done")


def save(root: Path, assignment: Assignment, result: TaskResult, predictions: Predictions) -> bool:
    """Publish the result of a run that was made under its lease; return whether it was saved.

    Only the result that is to be replaced is replaced; one that another process saved meanwhile
    counts.

    Raises:
        RunFailed: the results folder can't be written to, or a number is not finite.
        NewerResult: a result of a newer schema exists.
    """
    key, before = assignment.run.key, assignment.before
    assert result.key == key, f"{result.key} came of {key}"
    replace = before is not None and before == stamp(root, key)
    with _writing_to(root):
        return publish(root, result, predictions, replace=replace)


class _UnwritableError(RunFailed):
    """The results folder can't be written to: its disk is full or read-only, or files limited."""


@contextmanager
def _writing_to(root: Path) -> Iterator[None]:
    """Name the results folder in an OSError that names no file."""
    try:
        yield
    except OSError as error:
        if error.errno in _UNWRITABLE:
            raise _UnwritableError(f"{root}: {explain(error)}") from error
        error.filename = error.filename or str(root)
        raise


def one_line(error: Exception) -> str:
    """Return an error as one line without secrets; an unexpected one with its type and place."""
    if isinstance(error, (UserError, RunFailed)):
        return _clean(str(error))
    message = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        message = ": ".join(filter(None, (str(error.filename or ""), explain(error))))
        if is_path_error(error) or error.errno in _UNWRITABLE:
            return _clean(message)
    message = ": ".join(filter(None, (type(error).__name__, message)))
    frames: Any = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return _clean(f"{message} (at {place})")


def _clean(text: str) -> str:
    return " ".join(without_secrets(text).split())
