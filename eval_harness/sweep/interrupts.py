"""Handling of Ctrl-C and SIGTERM in a process that must first end others. Imports no torch."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from angels_share.cli import TERMINATED


class Interrupts:
    """A context manager that raises the first Ctrl-C or SIGTERM and ignores all later ones.

    So cleaning up is not interrupted. Blocking the signals would not suffice: another thread, for
    example the progress bar's, would receive them, and Python runs handlers in the main thread
    anyway. Outside the main thread, which alone can handle signals, this does nothing.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._received: int | None = None
        self._is_held = self._is_raised = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # nohup's ignored signals stay ignored
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay a signal received within the block until its end."""
        before, self._is_held = self._is_held, True
        try:
            yield
        finally:
            self._is_held = before
            self._raise()

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received = self._received or number
        self._raise()

    def _raise(self) -> None:
        if self._received is None or self._is_held or self._is_raised:
            return
        self._is_raised = True
        if self._received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(TERMINATED)
