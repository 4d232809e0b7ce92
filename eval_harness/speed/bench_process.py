"""A bench in a process of its own, which it does not share with another model's. No torch here.

So each model has its own threads and its own memory, whose peak can be told, and models can take
turns: one that isn't asked sleeps.
"""

import importlib
import os
import signal
import traceback
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self

from angels_share.cli import without_secrets
from angels_share.errors import RunFailed, UserError
from eval_harness.speed.request import Order


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


class Remote:
    """The same, in a process that ends with the block.

    Args:
        order: which model, and what it reads.
        bench: "package.module:class", which is made of the order over there.
    """

    def __init__(self, order: Order, bench: str) -> None:
        self._name = order.name
        self._connection, theirs = get_context("spawn").Pipe()
        arguments = (theirs, order, bench)
        self._process = get_context("spawn").Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def facts(self) -> dict[str, Any]:
        """Sizes of the model, and where it is timed."""
        facts: dict[str, Any] = self._ask("facts")
        return facts

    def warm(self, threads: int) -> None:
        """What happens but once is done now."""
        self._ask("warm", threads)

    def timed(self, threads: int, batch_size: int) -> list[float]:
        """One pass over all pairs: seconds of each batch."""
        seconds: list[float] = self._ask("timed", threads, batch_size)
        return seconds

    def waited(self) -> float | None:
        """The share of these passes that its threads waited for a core; None: nobody knows."""
        share: float | None = self._ask("waited")
        return share

    def _ask(self, name: str, *arguments: int) -> Any:
        try:
            self._connection.send((name, arguments))
            answer, error = self._connection.recv()
        except (EOFError, OSError) as gone:
            self._process.join()
            code = self._process.exitcode
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            raise RunFailed(f"{self._name}: its process ended with status {code}{hint}") from gone
        if error is not None:
            raise error
        return answer


def _serve(connection: Connection, order: Order, bench: str) -> None:
    """Answers until the other end is closed, or gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act on
    made, problem = None, None
    try:
        made = _resolved(bench)(order)
    except Exception as error:  # noqa: BLE001  (told to the parent, who raises it)
        problem = _sendable(order.name, error)
    with suppress(EOFError, BrokenPipeError):
        while True:
            name, arguments = connection.recv()
            answer = None
            try:
                answer = problem is None and getattr(made, name)(*arguments)
            except Exception as error:  # noqa: BLE001  (likewise)
                problem = _sendable(order.name, error)
            connection.send((answer, problem))


def _resolved(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _sendable(name: str, error: Exception) -> UserError | RunFailed:
    """An error that the other end can raise as its own."""
    if isinstance(error, UserError):
        return UserError(str(error))
    if os.environ.get("ANGELS_SHARE_TRACEBACK"):
        os.write(2, without_secrets("".join(traceback.format_exception(error))).encode())
    return RunFailed(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
