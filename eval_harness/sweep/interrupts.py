"""Ctrl-C and SIGTERM where other processes must be ended before this one. Imports no torch."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from angels_share.cli import TERMINATED


class Interrupts:
    """While the `with` lasts the first Ctrl-C or SIGTERM is raised; what follows it is ignored.

    So whoever cleans up isn't interrupted in it. A blocked signal wouldn't do: another thread, a
    bar's for example, hears it, and Python brings it here all the same. Only the main thread
    handles signals; in another one this does nothing.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._heard: int | None = None
        self._is_held = self._is_raised = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # one that nohup keeps away stays away
                    self._before[number] = before
                    signal.signal(number, self._hear)
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
        """Nothing is raised within, what came meanwhile at the end."""
        before, self._is_held = self._is_held, True
        try:
            yield
        finally:
            self._is_held = before
            self._raise()

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self._heard = self._heard or number
        self._raise()

    def _raise(self) -> None:
        if self._heard is None or self._is_held or self._is_raised:
            return
        self._is_raised = True
        if self._heard == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(TERMINATED)
