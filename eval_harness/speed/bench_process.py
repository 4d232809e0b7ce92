"""A bench in a process of its own, which it does not share with another model's. No torch here.

So each model has its own threads and its own memory, whose peak can be told, and models can take
turns: one that isn't asked sleeps.
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
    """What can be asked of a model that is to be timed; see `speed_bench`."""

    def facts(self) -> dict[str, Any]:
        """Sizes of the model, and where it is timed."""

    def warm(self, threads: int) -> None:
        """What happens but once is done now."""

    def timed(self, threads: int, batch_size: int) -> list[float]:
        """One pass over all pairs: seconds of each batch."""

    def waited(self) -> float | None:
        """The share of these passes that its threads waited for a core; None: nobody knows."""


class BenchProcess:
    """A bench in a process that ends with the block.

    Args:
        request: which model, and what it reads.
        bench: "package.module:class", which is made of the request over there.
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
        self._child.process.terminate()
        self._child.end()
        self._child.close()

    def facts(self) -> dict[str, Any]:
        """Return the sizes of the model, and where it is timed."""
        facts: dict[str, Any] = self._ask("facts")
        return facts

    def warm(self, threads: int) -> None:
        """Do now whatever happens but once."""
        self._ask("warm", threads)

    def timed(self, threads: int, batch_size: int) -> list[float]:
        """Return the seconds of each batch of one pass over all pairs."""
        seconds: list[float] = self._ask("timed", threads, batch_size)
        return seconds

    def waited(self) -> float | None:
        """Return the share of the passes that threads waited for a core; None: nobody knows."""
        share: float | None = self._ask("waited")
        return share

    def _ask(self, name: str, *arguments: int) -> Any:
        try:
            self._child.connection.send((name, arguments))
            answer, error = self._child.connection.recv()
        except (EOFError, OSError) as gone:
            self._child.process.join()
            raise RunFailed(f"{self._name}: its process {self._child.how_it_ended()}") from gone
        if error is not None:
            raise error
        return answer


def _serve(connection: Connection, request: Request, bench: str) -> None:
    """Answer until the other end is closed, or gone."""
    made, problem = None, None
    try:
        made = resolve(bench)(request)
    except Exception as error:  # noqa: BLE001  (told to the parent, who raises it)
        problem = _sendable(request.name, error)
    with suppress(EOFError, BrokenPipeError):
        while True:
            name, arguments = connection.recv()
            answer = None
            try:
                answer = problem is None and getattr(made, name)(*arguments)
            except Exception as error:  # noqa: BLE001  (likewise)
                problem = _sendable(request.name, error)
            connection.send((answer, problem))


def _sendable(name: str, error: Exception) -> UserError | RunFailed:
    """Turn an error into one that the other end can raise as its own."""
    if isinstance(error, UserError):
        return UserError(str(error))
    if os.environ.get("ANGELS_SHARE_TRACEBACK"):
        os.write(2, without_secrets("".join(traceback.format_exception(error))).encode())
    return RunFailed(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
