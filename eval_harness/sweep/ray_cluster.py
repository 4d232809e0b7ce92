"""A connection to a Ray cluster: all that is said to Ray stands here.

Ray is an extra, and imported only when a sweep is to be executed there.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain
from angels_share.hardware import cores, visible_gpus
from eval_harness.child_process import environment
from eval_harness.sweep.executor import Assignment
from eval_harness.sweep.ray_node import Board, Brought, Site, attempt
from eval_harness.sweep.worker import one_line, variables

LOCAL = "local"
"""The address of a cluster on this machine alone, which the sweep starts and ends."""
_LOOPBACK = "127.0.0.1"
_LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# Nothing is sent to Ray's makers; nothing listens but on the loopback, as where Ray has no clusters
# of several machines; and workers aren't niced, which local workers aren't either.
OF_OUR_OWN = {"RAY_USAGE_STATS_ENABLED": "0", _LOOPBACK_ONLY: "0", "RAY_worker_niceness": "0"}
_ANSWER_SECONDS = 10.0
# RFC 9113: each side begins with its settings, of which there need be none. A frame begins with
# three bytes of length and one of its kind.
_HTTP2_SETTINGS, _HTTP2_FRAME = b"\x04", 9
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _HTTP2_SETTINGS + bytes(5)

RETRIES = 3
"""How often Ray repeats a run whose worker or node died; a failure of the run itself counts."""


def is_connected() -> bool:
    """Return whether whoever calls us from Python has connected this process to a cluster."""
    ray: Any = sys.modules.get("ray")  # not imported for that
    return ray is not None and Cluster.current is None and bool(ray.is_initialized())


@dataclass(frozen=True)
class Node:
    """A living node of a cluster: its id in Ray, its name for people, and what it has."""

    id: str
    name: str
    cores: int
    gpus: int


class Cluster:
    """A connection to a Ray cluster.

    Args:
        address: the cluster's, or `local` for one that is started here and ends with this.

    Raises:
        UserError: no cluster answers at the address, or it is of another version.
    """

    current: ClassVar["Cluster | None"] = None
    """The connection that was made here, and not left yet: there can only be one."""

    def __init__(self, address: str) -> None:
        if Cluster.current is not None:  # of a sweep that was refused before it began
            Cluster.current.leave()
        with _own_signals(), environment(OF_OUR_OWN if address == LOCAL else {}):
            import ray  # reads these once

            self._ray: Any = ray
            self._is_ours = not is_connected()  # else a notebook's, say, which stays
            if self._is_ours:
                self._connect(address)
                Cluster.current = self
        here = ray.get_runtime_context().get_node_id()
        self._board = (
            ray.remote(Board).options(num_cpus=0, scheduling_strategy=self._on(here)).remote()
        )

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        return [
            Node(
                node["NodeID"],
                node["NodeManagerHostname"],
                int(node["Resources"].get("CPU", 0)),
                int(node["Resources"].get("GPU", 0)),
            )
            for node in self._ray.nodes()
            if node["Alive"]
        ]

    def on_each_node(
        self, function: Callable[..., Any], *arguments: Any, seconds: float
    ) -> list[tuple[str, Any]]:
        """Call a function on each node; return what it returned, by the nodes' names.

        Raises:
            RunFailed: a node died or gave no answer.
        """
        nodes = self.nodes()
        task = self._ray.remote(function)
        # Not busy with it: it is to be answered also where all cores are taken.
        refs = [
            task.options(
                num_cpus=0,
                scheduling_strategy=self._on(node.id),
                runtime_env=_environment(1, hides_gpus=True),
            ).remote(*arguments)
            for node in nodes
        ]
        _, silent = self._ray.wait(refs, num_returns=len(refs), timeout=seconds)
        if silent:
            name = nodes[refs.index(silent[0])].name
            raise RunFailed(f"node {name} of the Ray cluster gave no answer in {seconds:.0f} s")
        return [(node.name, self.outcome(ref)) for node, ref in zip(nodes, refs, strict=True)]

    def submit(
        self,
        assignment: Assignment,
        work: str,
        site: Site,
        teacher: Any,
        *,
        threads: int,
        has_gpu: bool,
    ) -> Any:
        """Submit a run as a task, and return the reference to what it will bring."""
        task = self._ray.remote(_attempt).options(
            name=str(assignment.run),
            num_cpus=threads,
            num_gpus=int(has_gpu),
            max_retries=RETRIES,
            runtime_env=_environment(threads, hides_gpus=not has_gpu),
        )
        # In a list, it isn't sent along: a node fetches it if it needs it.
        return task.remote(assignment, work, site, [teacher], self._board)

    def outcome(self, ref: Any) -> Any:
        """Wait for a task; return its value, or raise what it raised.

        Raises:
            RunFailed: its worker or its node died more often than Ray repeats it.
        """
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except errors.RayTaskError as error:
            if isinstance(error.cause, UserError | RunFailed):
                raise error.cause from error
            raise RunFailed(one_line(error.cause)) from error
        except errors.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise RunFailed(
                f"its worker or node died, also when Ray had repeated it {RETRIES} times: {reason}"
            ) from error

    def put(self, value: Any) -> Any:
        """Keep a value in the cluster, and return a reference to it."""
        return self._ray.put(value)

    def cancel(self, ref: Any) -> None:
        """End a task at once, with its worker."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.cancel(ref, force=True)

    def progress(self) -> dict[str, float]:
        """Return the share of each run that has said something since the last time."""
        try:
            shares: dict[str, float] = self._ray.get(self._board.take.remote(), timeout=5.0)
        except self._ray.exceptions.RayError:  # busy, or gone: it is for the eye alone
            return {}
        return shares

    def leave(self) -> None:
        """Disconnect, and end the cluster if it was started here."""
        if self._is_ours:
            Cluster.current = None
            with _own_signals():
                self._ray.shutdown()

    def _connect(self, address: str) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address != LOCAL:
            _require_answer(address)
            try:
                self._ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())[:300]
                raise UserError(
                    f"the Ray cluster at {address}: {reason}; if its nodes were started with a "
                    "token (~/.ray/auth_token), set RAY_AUTH_MODE=token"
                ) from error
            return
        size = {"num_cpus": cores(), "num_gpus": len(visible_gpus())}
        begun = self._ray.init(address=LOCAL, include_dashboard=False, **size, **quiet)
        if begun.address_info["node_ip_address"] != _LOOPBACK:
            self._ray.shutdown()
            raise RunFailed(
                "Ray was imported before the sweep, so its cluster would listen to the network: "
                f"set {_LOOPBACK_ONLY}=0 before that, or connect it yourself by ray.init()"
            )

    def _on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)


def _require_answer(address: str) -> None:
    """Refuse a host and port without a cluster, for which Ray would wait for minutes or for ever.

    A cluster's head speaks HTTP/2; its dashboard, whose port is often given instead, does not.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # such as `auto`, of which Ray knows at once
    place = host.strip("[]"), int(port)
    refused = f"--ray_address or RAY_ADDRESS {address}: no Ray cluster answers there: "
    try:
        with socket.create_connection(place, timeout=_ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true"):
                return
            connection.sendall(_HTTP2_GREETING)
            answer = connection.makefile("rb").read(_HTTP2_FRAME)
    except OSError as error:
        raise UserError(f"{refused}{explain(error)}") from error
    if answer[3:4] != _HTTP2_SETTINGS:
        raise UserError(
            f"{refused}something else listens: give the head's own port (6379 by default), "
            "not the dashboard's"
        )


def _environment(threads: int, *, hides_gpus: bool) -> dict[str, Any]:
    """Return the environment of a task's process: it is set before Python starts there."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if hides_gpus else {}
    return {"env_vars": {**variables(threads), **hidden}}


def _attempt(
    assignment: Assignment, work: str, site: Site, teacher: list[Any], board: Any
) -> Brought | None:
    """Do what `attempt` does, on a node, with what that needs of Ray."""
    import ray

    (reference,) = teacher
    fetch = None if reference is None else lambda: ray.get(reference)
    return attempt(assignment, work, site, fetch, board.note.remote)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces by one that exits with another status."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
