"""A child process with a pipe to it: started so that Ctrl-C is ours to act on, ended for certain.

The sweep's local workers and `speed`'s benches are such processes.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from typing import Any

PATIENCE_SECONDS = 10.0
"""How long a process with nothing left to do may take to end before it is killed."""


class ChildProcess:
    """A spawned process that calls `target(connection, *arguments)`.

    Args:
        target: a module's function; it gets the other end of our connection first.
        arguments: what else it gets; all of it is pickled.
        daemon: whether the process is killed when this one exits, however that happens.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any, daemon: bool = False) -> None:
        context = get_context("spawn")
        self.connection, self._theirs = context.Pipe()
        self.process = context.Process(
            target=target, args=(self._theirs, *arguments), daemon=daemon
        )

    def start(self) -> None:
        """Start the process; it inherits the environment as it is now."""
        resource_tracker.ensure_running()  # its own start, at the first child's, unblocks Ctrl-C
        with _deaf_to_interrupts():
            self.process.start()
        self._theirs.close()

    def is_alive(self) -> bool:
        """Return whether the process has not ended."""
        return self.process.is_alive()

    def how_it_ended(self) -> str:
        """Return what is known of the end of a process that has ended, as half a sentence."""
        code = self.process.exitcode
        assert code is not None, "the process has not ended"
        if code >= 0:
            return f"ended with status {code}"
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code}{hint}"

    def end(self, patience: float = PATIENCE_SECONDS) -> None:
        """Wait for the end, and kill the process where that takes too long."""
        self.process.join(patience)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def close(self) -> None:
        """Release what is left of a process that has ended."""
        self.connection.close()
        self.process.close()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Keep a process that is started here from ever hearing Ctrl-C, which a terminal sends to all.

    It is for the parent to end its children. A blocked signal stays blocked in a child, and waits
    for us here.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
