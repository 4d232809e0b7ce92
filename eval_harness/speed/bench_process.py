"""A bench in a child process, one per model. Imports no torch.

So each model has its own threads and its own memory, whose peak can be measured, and models can be
timed in turn: the others sleep meanwhile.
"""

import os
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self

from angels_share.cli import without_secrets
from angels_share.errors import RunFailed, UserError
from angels_share.imports import resolve
from eval_harness.child_process import ChildProcess
from eval_harness.speed.request import Request


class Bench(Protocol):
    """The interface of a bench, here or in a child process; see `eval_harness.speed.bench`."""

    def facts(self) -> dict[str, Any]:
        """Return the sizes of the model and the provenance of its times."""

    def warm(self, threads: int) -> None:
        """Run a batch of every shape, so that first-time work is in no time."""

    def timed(self, threads: int, batch_size: int) -> list[float]:
        """Make one pass over all pairs and return the seconds of each batch."""

    def waited(self) -> float | None:
        """Return the mean share of a pass that threads waited for a core; None if unknown."""


class BenchProcess:
    """A bench in a child process that ends with the `with`.

    Its methods raise RunFailed if the process has died, and the bench's own errors.

    Args:
        request: the model and its inputs.
        bench: "package.module:class", which the child calls with the request.
    """

    def __init__(self, request: Request, bench: str) -> None:
        self._name = request.name
        self._child = ChildProcess(_serve, request, bench, daemon=True)
        self._child.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.terminate()
        self._child.end()
        self._child.close()

    def facts(self) -> dict[str, Any]:
        """Return the sizes of the model and the provenance of its times."""
        facts: dict[str, Any] = self._call("facts")
        return facts

    def warm(self, threads: int) -> None:
        """Run a batch of every shape, so that first-time work is in no time."""
        self._call("warm", threads)

    def timed(self, threads: int, batch_size: int) -> list[float]:
        """Make one pass over all pairs and return the seconds of each batch."""
        seconds: list[float] = self._call("timed", threads, batch_size)
        return seconds

    def waited(self) -> float | None:
        """Return the mean share of a pass that threads waited for a core; None if unknown."""
        share: float | None = self._call("waited")
        return share

    def _call(self, name: str, *arguments: int) -> Any:
        try:
            self._child.connection.send((name, arguments))
            answer, error = self._child.connection.recv()
        except (EOFError, OSError) as broken_pipe:
            self._child.wait()
            raise RunFailed(
                f"{self._name}: its process {self._child.describe_exit()}"
            ) from broken_pipe
        if error is not None:
            raise error
        return answer


def _serve(connection: Connection, request: Request, bench: str) -> None:
    """Make the bench and answer calls until the parent closes the pipe or dies.

    If the bench can't be made, every call is answered with that error.
    """
    instance, problem = None, None
    try:
        instance = resolve(bench)(request)
    except Exception as error:  # noqa: BLE001  (sent to the parent, which raises it)
        problem = _sendable(request.name, error)
    with suppress(EOFError, BrokenPipeError):
        while True:
            name, arguments = connection.recv()
            answer = None
            try:
                answer = problem is None and getattr(instance, name)(*arguments)
            except Exception as error:  # noqa: BLE001  (likewise)
                problem = _sendable(request.name, error)
            connection.send((answer, problem))


def _sendable(name: str, error: Exception) -> UserError | RunFailed:
    """Return an error as one that can be pickled and raised by the parent."""
    if isinstance(error, UserError):
        return UserError(str(error))
    if os.environ.get("ANGELS_SHARE_TRACEBACK"):
        os.write(2, without_secrets("".join(traceback.format_exception(error))).encode())
    return RunFailed(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
