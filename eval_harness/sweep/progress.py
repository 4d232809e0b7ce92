"""What is seen of a sweep at work: one bar in a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Sequence
from typing import Protocol

import tqdm

_BAR_SECONDS = 0.5
"""Seconds between two states of the bar."""
_LOG_SECONDS = 60.0
"""Seconds between two lines in a log."""
_NARROWEST = 24
"""Columns that names have at least; beside them are the bar, the clock and the counts."""
_BESIDE_NAMES = 52


class View(Protocol):
    """Shows how far a sweep is."""

    def show(self, done: float, total: float, counts: str, names: Sequence[str]) -> None:
        """Show a state.

        Args:
            done: how much is done, in the unit of the total.
            total: how much there is to do; it may shrink.
            counts: how many runs have ended.
            names: the runs at work, the oldest first.
        """

    def close(self, *, is_complete: bool) -> None:
        """Show the last state for good."""


def view() -> View:
    """Return a bar if standard error is a terminal, else lines for a log."""
    return _Bar() if sys.stderr.isatty() else _Log()


class _Bar:
    """A bar on one line of a terminal, however narrow that is."""

    def __init__(self) -> None:
        self._bar = tqdm.tqdm(
            total=1.0,
            desc="runs",
            file=sys.stderr,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            smoothing=0,  # runs differ, so the mean of all predicts better than the last one
            miniters=0,
            mininterval=_BAR_SECONDS,
            dynamic_ncols=True,
        )

    def show(self, done: float, total: float, counts: str, names: Sequence[str]) -> None:
        columns = self._bar.ncols or 80
        at_work = shortened(names, max(columns - _BESIDE_NAMES, _NARROWEST))
        self._bar.set_postfix_str("; ".join(filter(None, (counts, at_work))), refresh=False)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self, *, is_complete: bool) -> None:
        if is_complete:
            counts, _, _ = (self._bar.postfix or "").partition(";")
            self._bar.set_postfix_str(counts, refresh=False)
        self._bar.close()


class _Log:
    """Whole lines, for a file or a pipe: one a minute, and one at the end."""

    def __init__(self) -> None:
        self._started = self._written = time.monotonic()
        self._counts = ""

    def show(self, done: float, total: float, counts: str, names: Sequence[str]) -> None:
        now, self._counts = time.monotonic(), counts
        if now - self._written < _LOG_SECONDS:
            return
        self._written = now
        share = min(done / total, 1.0) if total else 1.0
        elapsed = now - self._started
        left = f", about {_clock(elapsed * (1 - share) / share)} left" if share else ""
        at_work = f"; {', '.join(names)}" if names else ""
        write_line(f"{counts}, {share:.0%} in {_clock(elapsed)}{left}{at_work}")

    def close(self, *, is_complete: bool) -> None:
        if is_complete:
            write_line(f"{self._counts} in {_clock(time.monotonic() - self._started)}")


def shortened(names: Sequence[str], room: int) -> str:
    """Return as many names as there is room for, one at least, and how many more there are."""
    shown: list[str] = []
    for number, name in enumerate(names):
        rest = len(names) - number - 1
        more = f" +{rest}" if rest else ""
        if shown and len(", ".join([*shown, name])) + len(more) > room:
            break
        shown.append(name)
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" +{rest}" if rest else "")


def write_line(text: str) -> None:
    """Write a line to standard error, above the bar if there is one."""
    tqdm.tqdm.write(text, file=sys.stderr)


def _clock(seconds: float) -> str:
    return str(tqdm.tqdm.format_interval(seconds))
