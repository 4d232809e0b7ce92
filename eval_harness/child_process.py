"""A child process with a pipe: shielded from Ctrl-C, and always ended by its parent.

Used for the sweep's local workers and for the benches of `speed`.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import current_process, get_context, resource_tracker
from types import ModuleType
from typing import Any

from angels_share.errors import UserError

PATIENCE_SECONDS = 10.0
"""How long a process with nothing left to do may take to exit before it is killed."""


class ChildProcess:
    """A spawned process that calls `target(connection, *arguments)`.

    Args:
        target: a module-level function; its first argument is the child's end of the pipe.
        arguments: its other arguments, which are pickled.
        daemon: whether multiprocessing terminates the process when this one exits.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any, daemon: bool = False) -> None:
        context = get_context("spawn")
        self.connection, self._child_connection = context.Pipe()
        self._process = context.Process(
            target=target, args=(self._child_connection, *arguments), daemon=daemon
        )

    def start(self) -> None:
        """Start the process with the current environment.

        Raises:
            UserError: this process is one that may start none.
        """
        if current_process().daemon:
            raise UserError(
                "runs are done in processes of their own, which one of a multiprocessing.Pool may "
                "not start: call it from the main process"
            )
        # The first child would start the tracker, and that start unblocks SIGINT again.
        resource_tracker.ensure_running()
        with _interrupts_blocked(), _main_module_hidden():
            self._process.start()
        self._child_connection.close()

    @property
    def sentinel(self) -> int:
        """What `multiprocessing.connection.wait` takes to wait for the end of the process."""
        return self._process.sentinel

    def terminate(self) -> None:
        """Ask the process to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def wait(self) -> None:
        """Wait until the process has ended."""
        self._process.join()

    def is_alive(self) -> bool:
        """Return whether the process is still running."""
        return self._process.is_alive()

    def describe_exit(self) -> str:
        """Return how the process ended, for example "was killed by signal 9 (out of memory?)"."""
        code = self._process.exitcode
        assert code is not None, "the process has not ended"
        if code >= 0:
            return f"ended with status {code}"
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code}{hint}"

    def end(self, patience: float = PATIENCE_SECONDS) -> None:
        """Wait for the process to exit; kill it if that takes more than `patience` seconds."""
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def close(self) -> None:
        """Release the pipe and the process object; the process must have ended."""
        self.connection.close()
        self._process.close()


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block, for libraries and for processes started there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Hide the program's own script from a process started in the block.

    A spawned process runs the script of its parent once more, up to `if __name__ == "__main__":`.
    What it is to call here is in our own modules, so it needs nothing of the script, which then
    needs no such line.
    """
    with _hiding:  # two threads would restore each other's empty module
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


_hiding = threading.Lock()
_NOTICES = {signal.SIGUSR1, signal.SIGUSR2}
"""The signals of which one, as submitit asks for it, is Slurm's notice."""


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT, so that a process started meanwhile never receives Ctrl-C.

    A terminal sends Ctrl-C to the whole process group, and Slurm its notice that a job will end to
    all processes of that, but only the parent may end its children. A child inherits the blocked
    signals; here a pending one is delivered at the end of the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *_NOTICES})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
