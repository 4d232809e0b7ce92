"""What a node of a Ray cluster does for a sweep: look for its inputs, and execute runs.

Ray calls these functions on the nodes, by name. They import no Ray, and torch only within a run,
when Ray has set the threads and the GPU.
"""

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from angels_share.errors import RunFailed, UserError
from angels_share.files import locked, require_locks
from angels_share.hardware import limit_spinning
from angels_share.imports import resolve
from eval_harness.results.predictions import Predictions
from eval_harness.results.record import TaskResult
from eval_harness.runs.run import Run
from eval_harness.sweep.executor import Assignment
from eval_harness.sweep.inputs import is_made_here
from eval_harness.sweep.worker import one_line, save, unfinished

Files = Mapping[str, bytes]
"""The files of a folder by their relative names."""

_REPORT_SECONDS = 2.0


@dataclass(frozen=True)
class Site:
    """Where a sweep keeps what it makes.

    Attributes:
        root: the results folder, by its path on the machine with the command.
        token: names the sweep.
    """

    root: Path
    token: str

    @property
    def marker(self) -> Path:
        """The file that is in the results folder while the sweep is at work."""
        return self.root / f".sweep-{self.token}"

    def is_shared(self) -> bool:
        """Return whether this machine sees the results folder, and can write and lock there."""
        try:
            if not self.marker.exists():
                return False
            require_locks(self.root)
        except (OSError, UserError):
            return False
        return True

    @property
    def scratch(self) -> Path:
        """A node's own folder for this sweep; only nodes that don't see the results have it."""
        return Path(tempfile.gettempdir()) / f"angels-share-{self.token}"


@dataclass(frozen=True)
class Brought:
    """What comes home of a run, to be published there.

    Attributes:
        result: the result.
        predictions: its predictions.
        files: what else the run wrote, by names relative to the results folder; empty where the
            node has written it there.
    """

    result: TaskResult
    predictions: Predictions
    files: Files


def attempt(
    assignment: Assignment,
    work: str,
    site: Site,
    fetch_teacher: Callable[[], Files] | None,
    note: Callable[[str, float], None],
) -> Brought | None:
    """Execute one run, whose lease the machine with the command holds.

    Args:
        assignment: the run, with the folders of the machine with the command, and the result that
            it is to replace, if any.
        work: "package.module:function", called as `function(run, report)`.
        site: where the sweep keeps what it makes.
        fetch_teacher: returns the files of a teacher that the sweep made, for a node that doesn't
            see them.
        note: tells the machine with the command which share of the run is done.

    Returns:
        What is to be published; None if that was done here, in the results folder.

    Raises:
        UserError: bad input, in one line. Likewise RunFailed for all that fails otherwise.
    """
    limit_spinning()
    run = assignment.run
    reports = _Reports(run.key, note)
    reports(0.0)
    try:
        if site.is_shared():
            if assignment.before is None and unfinished(site.root, run.key) is None:
                return None  # saved by a worker that died before it said so
            result, predictions = resolve(work)(run, reports)
            is_saved = False
            # What was made is never lost with it: at home it is tried again, and said why not.
            with suppress(OSError, UserError, RunFailed):
                is_saved = save(site.root, assignment, result, predictions)
            return None if is_saved else Brought(result, predictions, {})
        with _away_from_home(run, site, fetch_teacher) as (moved, folder):
            result, predictions = resolve(work)(moved, reports)
            return Brought(result, predictions, packed(folder))
    except Exception as error:
        # In one line, which can be pickled, whatever the error was; Ray keeps the traceback.
        kind = UserError if isinstance(error, UserError) else RunFailed
        raise kind(one_line(error)) from error


def packed(folder: Path) -> Files:
    """Return all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unpack(files: Files, folder: Path) -> None:
    """Write files into a folder.

    Raises:
        RunFailed: a name points out of it.
    """
    for name, data in files.items():
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            raise RunFailed(f"{name}: points out of the folder that it is to be written to")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def clear(site: Site) -> None:
    """Remove a node's own folder of this sweep."""
    shutil.rmtree(site.scratch, ignore_errors=True)


class Board:
    """What runs have said of their progress: an actor beside the machine with the command."""

    def __init__(self) -> None:
        self._shares: dict[str, float] = {}

    def note(self, key: str, share: float) -> None:
        """Take note of the share of a run that is done."""
        self._shares[key] = share

    def take(self) -> dict[str, float]:
        """Return what was noted since the last time."""
        taken, self._shares = self._shares, {}
        return taken


class _Reports:
    """Passes on a run's progress, every two seconds at most."""

    def __init__(self, key: str, note: Callable[[str, float], None]) -> None:
        self._key, self._note, self._last = key, note, float("-inf")

    def __call__(self, share: float) -> None:
        if (now := time.monotonic()) - self._last >= _REPORT_SECONDS:
            self._last = now
            self._note(self._key, min(max(share, 0.0), 1.0))


@contextmanager
def _away_from_home(
    run: Run, site: Site, fetch_teacher: Callable[[], Files] | None
) -> Iterator[tuple[Run, Path]]:
    """Yield the run with folders of this node, and the one of these that is to be brought home."""
    site.scratch.mkdir(parents=True, exist_ok=True)
    folders: dict[str, Any] = {}
    if run.method is not None:
        folders = {**run.method.folders}
        if "outputs" in folders:
            folders["outputs"] = str(site.scratch / "teacher-outputs")
        if is_made_here(folders.get("teacher", ""), site.root) and fetch_teacher is not None:
            place = site.scratch / Path(folders["teacher"]).relative_to(site.root)
            folders["teacher"] = str(_unpacked_once(place, fetch_teacher))
    name = tempfile.mkdtemp(prefix="run-", dir=site.scratch)
    try:
        weights = run.save_weights_to and str(
            Path(name) / Path(run.save_weights_to).relative_to(site.root)
        )
        method = run.method and replace(run.method, folders=folders)
        yield replace(run, method=method, save_weights_to=weights, results_dir=name), Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)


def _unpacked_once(folder: Path, fetch: Callable[[], Files]) -> Path:
    """Return a folder with fetched files, which all runs of a node share."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            new = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
            unpack(fetch(), new)
            new.rename(folder)
    return folder
