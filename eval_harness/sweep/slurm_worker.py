"""What a job of Slurm does for a sweep: it takes runs that nobody has taken until none is left.

A job is one more machine that shares the results folder, with workers of its own: the folder's
results and leases are all that jobs know of one another. Beside them lie notes of how each run
ended, so that no job repeats what failed in another, and the waiting command hears of it.
"""

import json
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from angels_share.files import write_json
from angels_share.hardware import limit_spinning
from eval_harness.sweep.executor import Assignment, Ended, Event, Lost, Slot, Stamp
from eval_harness.sweep.leases import BEAT_SECONDS
from eval_harness.sweep.local_workers import LocalWorkers
from eval_harness.sweep.queue import Job
from eval_harness.sweep.scheduler import sweep
from eval_harness.sweep.worker import unfinished

_ENDING = ".json"
_KILLING_SECONDS = 2.0


@dataclass(frozen=True)
class Notes:
    """How runs ended, a file for each, in a folder that all jobs see."""

    folder: Path

    def write(self, ended: Ended) -> None:
        """Note how a run ended; on a full disk there is no note, and another job tries the run."""
        with suppress(OSError):
            write_json(self._path(ended.key), asdict(ended))

    def read(self, key: str) -> Ended | None:
        """Return how a run ended; None if nobody noted that."""
        try:
            record: dict[str, Any] = json.loads(self._path(key).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Ended(**record)

    def names(self) -> set[str]:
        """Return the names of all notes: a look at one folder, instead of one for each run."""
        return {path.name for path in self.folder.glob(f"*{_ENDING}")}

    @staticmethod
    def name_of(key: str) -> str:
        """Return the name of a run's note."""
        return f"{key.replace('/', '__')}{_ENDING}"

    def _path(self, key: str) -> Path:
        return self.folder / self.name_of(key)


class NotingWorkers(LocalWorkers):
    """Local workers that note how each run ended, and don't begin what has ended in another job.

    A run that another job holds, and that no other run needs, is left to that job once it has
    shown that it is alive: a job that only waits would keep its node from others.
    """

    def __init__(self, root: Path, work: str, notes: Notes, **settings: Any) -> None:
        super().__init__(root, work, **settings)
        self._notes = notes
        self._known: list[Event] = []
        self._needed: set[str] = set()
        self._before: dict[str, Stamp | None] = {}
        self._held_since: dict[str, float] = {}

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Be told the runs: those that others need are waited for."""
        self._needed = {job.needs for job in jobs if job.needs}

    def begin(self, slot: Slot, assignment: Assignment) -> None:
        """Begin a run, unless there is a note of it."""
        self._before[assignment.run.key] = assignment.before
        if (ended := self._notes.read(assignment.run.key)) is None:
            super().begin(slot, assignment)
        else:
            self._known.append(ended)

    def events(self, seconds: float) -> Sequence[Event]:
        """Return what happened, and note which runs ended."""
        if self._known:
            known, self._known = self._known, []
            return known
        happened = [self._left(event) for event in super().events(seconds)]
        for event in happened:
            if isinstance(event, Ended) and event.how not in ("held", "left"):
                self._notes.write(event)
            elif isinstance(event, Lost):
                # Slurm kills all of a job's processes, one after another: if this is the next, the
                # run hasn't failed.
                time.sleep(_KILLING_SECONDS)
                if unfinished(self._root, event.key, self._before[event.key]) is not None:
                    self._notes.write(Ended(event.key, "failed", event.reason))
        return happened

    def _left(self, event: Event) -> Event:
        """Return a run as left to its holder that has renewed its lease meanwhile."""
        if not isinstance(event, Ended) or event.how != "held" or event.key in self._needed:
            return event
        now = time.monotonic()
        waited = now - self._held_since.setdefault(event.key, now)
        return replace(event, how="left") if waited > self._lapse + BEAT_SECONDS else event


@dataclass(frozen=True)
class SlurmWorker:
    """The work of one job, which submitit calls there.

    Attributes:
        root: the results folder.
        work: "package.module:function", called as `function(run, report)`.
        jobs: all runs of the sweep.
        notes: where the sweep's jobs note how runs ended.
        threads: CPU threads of a run; None for the job's cores, divided among its GPUs.
        use_cpu: whether GPUs are left alone.
    """

    root: Path
    work: str
    jobs: tuple[Job, ...]
    notes: Notes
    threads: int | None
    use_cpu: bool

    def __call__(self) -> None:
        """Do what is left of the sweep."""
        limit_spinning()
        # Before a preemption Slurm sends this one, too; what counts is submitit's own signal, at
        # which it has the job requeued.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        devices: Sequence[str] | None = [] if self.use_cpu else None
        workers = NotingWorkers(
            self.root, self.work, self.notes, threads=self.threads, devices=devices
        )
        sweep(self.root, self.jobs, workers)

    def checkpoint(self) -> Any:
        """Return what a requeued job does: the same, since results are the memory."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
