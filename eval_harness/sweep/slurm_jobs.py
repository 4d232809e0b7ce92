"""The executor for Slurm: an array of jobs that take runs until none is left, and a look at them.

Once submitted, the jobs need nobody: this one only waits for the notes that they write. It may be
interrupted; the same command finds the jobs that are still queued or at work, and waits for them
again. submitit writes the batch file, and has jobs requeued that are preempted or run out of time.
"""

import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from angels_share.errors import UserError
from angels_share.files import write_json
from angels_share.imports import require_extra
from angels_share.provenance import ROOT
from eval_harness.child_process import environment
from eval_harness.sweep.executor import Assignment, Ended, Event, Lost, Progress, Slot, Started
from eval_harness.sweep.interrupts import Interrupts
from eval_harness.sweep.leases import Leases
from eval_harness.sweep.progress import write_line
from eval_harness.sweep.queue import Group, Job
from eval_harness.sweep.slurm_worker import Notes, SlurmWorker

FOLDER = "slurm"
"""The folder of the jobs' files and logs, in the results folder."""
_ARRAY = "array.json"
_UNKNOWN = "UNKNOWN"
_LOOK_SECONDS = 3.0
"""Seconds between two looks at the notes."""
_LATE_SECONDS = 60.0
"""How long a note may take to be seen here after its job has ended: file servers cache."""
_REQUEUED_SECONDS = 600.0
"""How long a preempted job may take to be requeued: where Slurm cancels it, it never is."""
_KNOWN_LATE_SECONDS = 600.0
"""How long a new job may be unknown to Slurm's accounting."""


class SlurmJobs:
    """An array of Slurm jobs, each with workers of its own.

    Args:
        root: the results folder, which all nodes see at the same place.
        work: "package.module:function", called in a job's worker as `function(run, report)`.
        parameters: of the jobs, by submitit's names; `time` is in minutes.
        workers: the number of jobs.
        threads: CPU threads of a run; by default a job's cores, divided among its GPUs.
        use_cpu: whether GPUs are left alone.
        cluster: submitit's: "slurm", or "local" for processes of this machine.

    Raises:
        UserError: submitit is not installed, or this machine can't submit jobs.
    """

    def __init__(
        self,
        root: Path,
        work: str,
        *,
        parameters: Mapping[str, Any],
        workers: int | None = None,
        threads: int | None = None,
        use_cpu: bool = False,
        cluster: str = "slurm",
    ) -> None:
        require_extra("submitit", "slurm", "--executor slurm")
        for command in ("sbatch", "srun", "sacct", "scancel") if cluster == "slurm" else ():
            if shutil.which(command) is None:
                raise UserError(
                    f"--executor slurm: no {command} on the PATH: start the command on a machine "
                    "that submits jobs"
                )
        self._root, self._work, self._cluster = root, work, cluster
        self.parameters, self._use_cpu = parameters, use_cpu
        self.size, self._threads = workers or 1, threads
        self._jobs: tuple[Job, ...] = ()
        self._arrays: list[_Array] = []
        self._heard_by: dict[str, list[_Array]] = {}
        self._slots: list[_SlurmSlot] = []
        self._looked = self._over_since = 0.0
        self._tally = ""
        self._interrupts = Interrupts()

    @property
    def is_here(self) -> bool:
        """False: which machine takes a job, and how fast that is, is not known."""
        return False

    @property
    def threads(self) -> int:
        """The CPU threads of a run; 0 where the job's cores decide."""
        return self._threads or 0

    @property
    def has_gpus(self) -> bool:
        """Whether the jobs ask for GPUs."""
        asked = self.parameters.get("gpus_per_node") or "gpu" in self.parameters.get("gres", "")
        return bool(asked) and not self._use_cpu

    def described(self, runs: int) -> str:
        """Return who executes this many runs."""
        jobs = min(self.size, runs)
        count = "1 job" if jobs == 1 else f"{jobs} jobs"
        return f"Slurm: {count} of {self.parameters['time']} minutes, which take what is left"

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Keep the list of runs: the jobs get all of it."""
        self._jobs = tuple(jobs)

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        try:
            with self._interrupts.held():
                self._find_or_submit()
        except BaseException:
            self._interrupts.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._interrupts.held():
            if error is None:
                for array in self._arrays:
                    array.cancel_the_rest()
            else:
                ids = " ".join(array.id for array in self._arrays if not array.is_over())
                if ids:
                    error.add_note(f"the Slurm jobs go on (to end them: scancel {ids})")
        self._interrupts.__exit__(kind, error, trace)

    def idle(self) -> Sequence[Slot]:
        """Return the slots without a run."""
        return [slot for slot in self._slots if slot.key is None]

    def grow(self, runs: int) -> None:
        """Have a slot for each run: which of them is executed next is up to the jobs."""
        free = len(self.idle())
        self._slots += [_SlurmSlot() for _ in range(runs - free)]

    def begin(self, slot: Slot, assignment: Assignment) -> None:
        """Wait for a run from now on."""
        assert isinstance(slot, _SlurmSlot)
        slot.key = assignment.run.key

    def events(self, seconds: float) -> Sequence[Event]:
        """Wait up to `seconds`; return which runs ended, and which are taken."""
        if (left := self._looked + _LOOK_SECONDS - time.monotonic()) > 0:
            time.sleep(min(seconds, left))
            if left > seconds:
                return []
        self._looked = time.monotonic()
        is_over = self._is_over()  # before the notes: what a job notes last must not be missed
        events: list[Event] = [Started()]
        names = {array: array.notes.names() for array in self._arrays}
        leases = Leases(self._root)
        for slot in self._slots:
            if slot.key is None:
                continue
            if (ended := self._noted(slot.key, names)) is not None:
                events.append(ended)
            elif is_over:
                # Its result may be there all the same, by another command: whoever hears asks.
                events.append(Lost(slot.key, self._without_result()))
            elif leases.is_taken(slot.key):
                events.append(Progress(slot.key, 0.0))
                continue
            else:
                continue
            slot.key = None
        return events

    def _noted(self, key: str, names: "Mapping[_Array, set[str]]") -> Ended | None:
        for array in self._heard_by[key]:
            if Notes.name_of(key) in names[array]:
                return array.notes.read(key)
        return None

    def _is_over(self) -> bool:
        """Return whether all jobs have ended, so long ago that their notes must be here."""
        for array in self._arrays:
            array.look()
        tally = ", ".join(str(array) for array in self._arrays)
        if tally != self._tally:
            self._tally = tally
            write_line(tally)
        if not all(array.is_over() for array in self._arrays):
            self._over_since = 0.0
            return False
        self._over_since = self._over_since or time.monotonic()
        return time.monotonic() - self._over_since >= _LATE_SECONDS

    def _without_result(self) -> str:
        states = ", ".join(sorted({state for array in self._arrays for state in array.states}))
        return f"the Slurm jobs ended without it ({states}): see {self._arrays[-1].logs}"

    def _find_or_submit(self) -> None:
        """Find arrays that are at work on these runs already; submit one if that isn't all."""
        self._heard_by = {job.key: [] for job in self._jobs}
        for array in _arrays_in(self._root, self._cluster):
            # What is to be made again isn't what an earlier array makes; nor what it failed at.
            keys = [job.key for job in self._jobs if not job.again and array.will_do(job.key)]
            if keys and array.is_alive():
                self._arrays.append(array)
                for key in keys:
                    self._heard_by[key].append(array)
        if not all(self._heard_by.values()):
            new = self._submit()
            self._arrays.append(new)
            for arrays in self._heard_by.values():
                arrays.append(new)
        for array in self._arrays:
            write_line(f"Slurm job {array.id}: logs in {array.logs}")

    def _submit(self) -> "_Array":
        import submitit

        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        folder = self._root / FOLDER / f"{stamp}-{secrets.token_hex(2)}"
        worker = SlurmWorker(
            self._root, self._work, self._jobs, _notes_in(folder), self._threads, self._use_cpu
        )
        own = {f"slurm_{name}": value for name, value in self.parameters.items()}
        minutes = own.pop("slurm_time")
        # A job finds the packages where this process has them, whatever its folder.
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        try:
            executor = submitit.AutoExecutor(folder, cluster=self._cluster)
            executor.update_parameters(name="angels-share", timeout_min=minutes, **own)
            with environment({"PYTHONPATH": paths}), executor.batch():
                jobs = [executor.submit(worker) for _ in range(min(self.size, len(self._jobs)))]
        except (submitit.core.utils.FailedJobError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"--executor slurm: the jobs were refused: {reason}") from error
        keys = [job.key for job in self._jobs]
        write_json(folder / _ARRAY, {"jobs": [job.job_id for job in jobs], "runs": keys})
        return _Array(folder, jobs, keys)


class _SlurmSlot:
    """A run that is waited for, or room for one."""

    def __init__(self) -> None:
        self.key: str | None = None
        self.last: Group | None = None


class _Array:
    """Jobs that were submitted together.

    Args:
        folder: the folder of their files.
        jobs: the jobs, as submitit has them.
        keys: the runs that they were given.
    """

    def __init__(self, folder: Path, jobs: Sequence[Any], keys: Iterable[str]) -> None:
        self._jobs, self._keys = jobs, frozenset(keys)
        self.notes = _notes_in(folder)
        self.id = jobs[0].job_id.partition("_")[0]
        self.logs = folder / f"{self.id}_*_log.err"
        self._submitted = folder.stat().st_mtime
        self._over: set[str] = set()
        self._preempted: dict[str, float] = {}
        self.states: Counter[str] = Counter()

    def __str__(self) -> str:
        states = ", ".join(f"{count} {name}" for name, count in sorted(self.states.items()))
        return f"Slurm job {self.id}: {states}"

    def look(self) -> None:
        """Ask which jobs have ended; submitit asks Slurm itself at growing intervals."""
        for job in self._jobs:
            if job.job_id not in self._over and (job.done() or self._stays_preempted(job)):
                self._over.add(job.job_id)
        self.states = Counter(_state_of(job) for job in self._jobs)

    def _stays_preempted(self, job: Any) -> bool:
        """Return whether a job was preempted and, for minutes now, not requeued."""
        if _state_of(job) != "PREEMPTED":
            self._preempted.pop(job.job_id, None)
            return False
        since = self._preempted.setdefault(job.job_id, time.monotonic())
        return time.monotonic() - since > _REQUEUED_SECONDS

    def is_over(self) -> bool:
        """Return whether all jobs had ended at the last look."""
        return len(self._over) == len(self._jobs)

    def is_alive(self) -> bool:
        """Return whether a job is queued or at work; of an old one Slurm must know that."""
        self.look()
        is_new = time.time() - self._submitted < _KNOWN_LATE_SECONDS
        return any(
            job.job_id not in self._over and (is_new or _state_of(job) != _UNKNOWN)
            for job in self._jobs
        )

    def will_do(self, key: str) -> bool:
        """Return whether its jobs were given a run, and haven't ended it yet."""
        return key in self._keys and self.notes.read(key) is None

    def cancel_the_rest(self) -> None:
        """Cancel the jobs that are still queued though all of their runs have ended."""
        if {Notes.name_of(key) for key in self._keys} <= self.notes.names():
            for job in self._jobs:
                if _state_of(job) == "PENDING":
                    job.cancel(check=False)


def _notes_in(folder: Path) -> Notes:
    return Notes(folder / "notes")


def _state_of(job: Any) -> str:
    return "COMPLETED" if job.paths.result_pickle.exists() else str(job.state)


def _arrays_in(root: Path, cluster: str) -> Iterator[_Array]:
    """Yield the arrays that were submitted for a results folder."""
    from submitit import LocalJob, SlurmJob

    kind = SlurmJob if cluster == "slurm" else LocalJob
    for path in sorted((root / FOLDER).glob(f"*/{_ARRAY}")):
        record = json.loads(path.read_text(encoding="utf-8"))
        jobs = [kind(path.parent, job_id) for job_id in record["jobs"]]
        yield _Array(path.parent, jobs, record["runs"])
