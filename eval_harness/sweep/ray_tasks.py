"""The executor for a Ray cluster: each run is a Ray task, with its cores or its GPU.

A slot is a thread that carries a run through `worker.execute`, as a local worker does; only the
work itself is done by a task, wherever Ray puts it. So leases are taken here. A node that sees the
results folder publishes there what it made; otherwise it comes home and is published here. Ray
repeats a task whose worker or node dies.
"""

import os
import queue
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, replace_folder, sync
from angels_share.hardware import cores, visible_gpus
from angels_share.imports import require_extra
from angels_share.model_files import CARD
from eval_harness.child_process import PATIENCE_SECONDS
from eval_harness.runs.run import Run
from eval_harness.sweep.executor import Assignment, Ended, Event, Progress, Slot, Started
from eval_harness.sweep.inputs import is_made_here, lacking, representatives, versions
from eval_harness.sweep.interrupts import Interrupts
from eval_harness.sweep.leases import Leases
from eval_harness.sweep.queue import Group, Job, group_of
from eval_harness.sweep.ray_cluster import LOCAL, Cluster, Node, is_connected
from eval_harness.sweep.ray_node import Files, Site, clear, packed, unpack
from eval_harness.sweep.worker import execute, save, unfinished

_CHECK_SECONDS = 600.0
_SEEN_SECONDS, _LOOK_SECONDS = 120.0, 0.2


class RayTasks:
    """Runs as tasks of a Ray cluster; those that are running are cancelled on an exception.

    Args:
        root: the results folder.
        work: "package.module:function", called on a node as `function(run, report)`.
        address: of a cluster; None for `RAY_ADDRESS`, or without it for one on this machine alone,
            which ends with the sweep.
        workers: maximum number of runs at a time; by default as many as the cluster has room for.
        threads: CPU threads and cores of a run; by default what the smallest node has for each of
            its GPUs, or without GPUs all of its cores.
        use_cpu: whether GPUs are left alone.

    Raises:
        UserError: Ray is not installed, or the address can't be used.
    """

    def __init__(
        self,
        root: Path,
        work: str,
        *,
        address: str | None = None,
        workers: int | None = None,
        threads: int | None = None,
        use_cpu: bool = False,
    ) -> None:
        require_extra("ray", "ray", "--executor ray")
        self._address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        if self._address.startswith("ray://"):
            raise UserError(
                f"--ray_address {self._address}: start the command on a machine of the cluster, "
                "for example by `ray job submit`, instead of through Ray's client"
            )
        if is_connected():  # by whoever calls us from Python
            if address is not None:
                raise UserError(
                    f"--ray_address {address}: this process is connected to a cluster already: "
                    "drop the flag, or call ray.shutdown() first"
                )
            self._address = "auto"
        self._root, self._work, self._use_cpu = root, work, use_cpu
        self._workers, self._wanted_threads = workers, threads
        self._site = Site(root, secrets.token_hex(8))
        self._cluster: Cluster | None = None
        self._slots: list[_RaySlot] = []
        self._events: queue.SimpleQueue[Event | _RaySlot] = queue.SimpleQueue()
        self._refs: dict[str, Any] = {}
        self._teachers: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._is_stopping = threading.Event()
        self._interrupts = Interrupts()

    @property
    def is_here(self) -> bool:
        """Whether the cluster is this machine."""
        return self._address == LOCAL

    @property
    def size(self) -> int:
        """How many runs the cluster has room for at a time, or fewer if so told."""
        room = sum(self._fits(node) for node in self._nodes())
        return min(room, self._workers or room)

    @cached_property
    def threads(self) -> int:
        """The CPU threads of each run, and its cores; fixed, since bits depend on them."""
        if self._wanted_threads:
            return self._wanted_threads
        shares = [
            node.cores // max(node.gpus, 1)
            for node in self._nodes()
            if node.cores and (node.gpus or not self.has_gpus)
        ]
        return max(1, min(shares, default=1))

    @cached_property
    def has_gpus(self) -> bool:
        """Whether each run has a GPU: it has, if any node has one."""
        return not self._use_cpu and any(node.gpus for node in self._nodes())

    def described(self, runs: int) -> str:
        """Return who executes this many runs."""
        nodes = sum(self._fits(node) > 0 for node in self._nodes())
        where = "this machine" if self.is_here else f"the cluster at {self._address}"
        each = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        each += " and a GPU" if self.has_gpus else ""
        return (
            f"Ray on {where}: {min(self.size, runs)} at a time on {nodes} "
            f"node{'s' if nodes > 1 else ''}, with {each} each"
        )

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Refuse a cluster without room for a run, or with a node that lacks what the runs need.

        Raises:
            UserError: names the node, and what it lacks.
        """
        try:
            self._check(jobs)
        except BaseException:
            if self._cluster is not None:
                self._cluster.leave()
            raise

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        try:
            self._connected()
            self._site.marker.touch()
        except BaseException:
            if self._cluster is not None:
                self._cluster.leave()
            self._interrupts.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._interrupts.held():
                self._stop()
        finally:
            self._interrupts.__exit__(kind, error, trace)

    def idle(self) -> Sequence[Slot]:
        """Return the slots without a run."""
        return [slot for slot in self._slots if slot.key is None]

    def grow(self, runs: int) -> None:
        """Have slots for twice as many runs as fit, so that an autoscaler sees what waits."""
        most = self._workers or 2 * max(self.size, 1)
        for _ in range(min(runs, most - len(self._slots))):
            self._slots.append(_RaySlot(f"{self._site.token}-{len(self._slots)}"))
            self._events.put(Started())

    def begin(self, slot: Slot, assignment: Assignment) -> None:
        """Carry a run through in a thread of its own."""
        assert isinstance(slot, _RaySlot)
        slot.key = assignment.run.key
        # Ray begins runs in the order in which they come: like ones after one another find what
        # they need in a worker's memory.
        for each in self._slots:
            each.last = group_of(assignment.run)
        slot.thread = threading.Thread(target=self._carry, args=(slot, assignment), daemon=True)
        slot.thread.start()

    def events(self, seconds: float) -> Sequence[Event]:
        """Wait up to `seconds` for outcomes; return them, and the progress of the others."""
        happened: list[Event] = []
        with suppress(queue.Empty):
            happened.append(self._heard(self._events.get(timeout=seconds)))
            while True:
                happened.append(self._heard(self._events.get_nowait()))
        running = {slot.key for slot in self._slots}
        shares = self._connected().progress()
        return [*(Progress(key, shares[key]) for key in shares if key in running), *happened]

    def _check(self, jobs: Sequence[Job]) -> None:
        if not self.size:
            gpu = " and a GPU" if self.has_gpus else ""
            raise UserError(
                f"--executor ray: no node of the cluster at {self._address} has {self.threads} "
                f"core{'s' if self.threads > 1 else ''}{gpu} for a run: start a node that has, or "
                "give fewer --threads"
            )
        runs = representatives((job.run for job in jobs), self._root)
        found = self._connected().on_each_node(
            lacking, versions(), runs, self._root, seconds=_CHECK_SECONDS
        )
        if faults := [f"node {name}: {fault}" for name, fault in found if fault]:
            more = f" (and {len(faults) - 1} more nodes)" if len(faults) > 1 else ""
            raise UserError(
                f"--executor ray: {faults[0]}{more}; every node needs the code, the libraries, the "
                "models and the data that this machine has, at the same places"
            )

    def _heard(self, event: "Event | _RaySlot") -> Event:
        if not isinstance(event, _RaySlot):
            return event
        assert event.ended is not None
        event.key = None
        return event.ended

    def _carry(self, slot: "_RaySlot", assignment: Assignment) -> None:
        """Execute a run as every worker does, but for the work, which a task does."""
        slot.ended = execute(assignment, Leases(self._root), slot.token, self._by_task)
        self._events.put(slot)

    def _by_task(self, assignment: Assignment) -> None:
        """Have a task do the work; save what it brings home, or wait for what its node saved."""
        cluster, run = self._connected(), assignment.run
        ref = cluster.submit(
            assignment,
            self._work,
            self._site,
            self._teacher_for(run),
            threads=self.threads,
            has_gpu=self.has_gpus,
        )
        with self._lock:
            self._refs[run.key] = ref
        try:
            brought = cluster.outcome(ref)
        finally:
            with self._lock:
                del self._refs[run.key]
        if brought is None:
            self._wait_for_result(assignment)
        else:
            self._write(run, brought.files)
            save(self._root, assignment, brought.result, brought.predictions)

    def _wait_for_result(self, assignment: Assignment) -> None:
        """Wait until a result that a node has saved is seen here: networks' file systems lag."""
        deadline = time.monotonic() + _SEEN_SECONDS
        while True:
            try:
                fault = unfinished(self._root, assignment.run.key, assignment.before)
            except OSError as error:
                fault = explain(error)
            if fault is None:
                return
            if self._is_stopping.wait(_LOOK_SECONDS):
                raise RunFailed(f"interrupted before its result was seen in {self._root}")
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"a node saved the result in {self._root}, but on this machine it is not there"
                    f"{f' ({fault})' if fault else ''}: is it the same folder on both?"
                )

    def _teacher_for(self, run: Run) -> Any:
        """Return a reference to the files of the run's teacher, if the sweep made it; else None."""
        folder = run.method.folders.get("teacher") if run.method else None
        if folder is None or not is_made_here(folder, self._root):
            return None
        with self._lock:
            if folder not in self._teachers:
                self._teachers[folder] = self._connected().put(packed(Path(folder)))
            return self._teachers[folder]

    def _write(self, run: Run, files: Files) -> None:
        """Write what a run brought home: its model whole or not at all, and trackers' files."""
        if not files:
            return
        if run.save_weights_to is None:
            unpack(files, self._root)
            return
        target = Path(run.save_weights_to)
        inside = f"{target.relative_to(self._root).as_posix()}/"
        unpack({name: files[name] for name in files if not name.startswith(inside)}, self._root)
        new = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            unpack({n.removeprefix(inside): files[n] for n in files if n.startswith(inside)}, new)
            if (card := target / CARD).is_file():  # people write into it
                shutil.copyfile(card, new / CARD)
            for path in new.rglob("*"):
                sync(path)
            replace_folder(new, target, target.with_name(f".{target.name}.replaced.tmp"))
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _stop(self) -> None:
        """Cancel what is running, let the threads release their leases, and leave the cluster."""
        cluster = self._connected()
        self._is_stopping.set()
        with self._lock:
            refs = list(self._refs.values())
        for ref in refs:
            cluster.cancel(ref)
        deadline = time.monotonic() + PATIENCE_SECONDS
        for slot in self._slots:
            if slot.thread is not None:
                slot.thread.join(max(deadline - time.monotonic(), 0.0))
        self._site.marker.unlink(missing_ok=True)
        if not self.is_here:
            with suppress(RunFailed):  # a node that has just died has nothing to be cleared
                cluster.on_each_node(clear, self._site, seconds=PATIENCE_SECONDS)
        cluster.leave()
        self._cluster = None
        self._slots = []
        self._is_stopping.clear()

    def _connected(self) -> Cluster:
        if self._cluster is None:
            self._cluster = Cluster(self._address)
        return self._cluster

    def _nodes(self) -> list[Node]:
        if self._cluster is None and self.is_here:
            return [Node("here", "here", cores(), len(visible_gpus()))]  # as it will be started
        return self._connected().nodes()

    def _fits(self, node: Node) -> int:
        room = node.cores // self.threads
        return min(room, node.gpus) if self.has_gpus else room


class _RaySlot:
    """A slot: a thread that waits for the run that it was given.

    Attributes:
        token: identifies its leases.
        key: the key of its run.
        last: the model and task of the run that was begun last, in whichever slot.
        thread: carries the run.
        ended: the outcome of the last run.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.key: str | None = None
        self.last: Group | None = None
        self.thread: threading.Thread | None = None
        self.ended: Ended | None = None
