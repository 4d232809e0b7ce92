"""Run a long command as a child: its output shown and logged, signals forwarded. POSIX only."""

import errno
import fcntl
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from angels_share.errors import UserError

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@contextmanager
def lock_folder(folder: Path) -> Iterator[int]:
    """Lock a folder, and yield the lock's file descriptor, for child processes to inherit.

    A child may outlive this process after a `kill -9` and go on writing, so it must hold the lock
    too. `filelock` won't do: its locks are not inherited.

    Raises:
        UserError: another process holds the lock.
    """
    path = folder / ".lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder} is in use by another process, maybe a command that outlived its parent: "
                f"wait until it ends (`fuser {shlex.quote(str(path))}` shows its id)"
            ) from None
        yield lock
    finally:
        os.close(lock)


def run(
    words: Sequence[str], log: Path, lock: int, *, folder: Path, environment: Mapping[str, str]
) -> int:
    """Run a command; stdout goes to the log, stderr to the log and to this process's stderr.

    The command gets its own session, which a terminal's Ctrl-C doesn't reach, so each signal is
    forwarded exactly once, whoever sent it. Then the command is waited for: it may be saving.

    Args:
        words: the command line.
        log: the log file, overwritten.
        lock: the file descriptor from `lock_folder`.
        folder: the working directory.
        environment: the environment variables.

    Returns:
        The exit status, or 128 + the number of the signal that ended it or was received meanwhile.
    """
    children: list[subprocess.Popen[bytes]] = []
    read_end, write_end = _open_channel()
    with (
        log.open("wb", 0) as stream,
        _forwarding_signals(children) as received,
        subprocess.Popen(  # noqa: S603  (our own commands, and no shell)
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=write_end,
            pass_fds=(lock,),
            start_new_session=True,
        ) as process,
    ):
        children.append(process)
        for number in received:  # those that came while it was being started
            process.send_signal(number)
        os.close(write_end)  # else the end of the output would never be seen
        try:
            _copy_output(read_end, stream)
        except BaseException:  # stderr is closed, say: nobody watches the command any more
            process.terminate()
            raise
        finally:
            os.close(read_end)
    status = process.returncode
    if received:
        return 128 + received[0]
    return 128 - status if status < 0 else status


def _open_channel() -> tuple[int, int]:
    """Return the read and write end of the command's stderr.

    If our stderr is a terminal, so is the command's, and as wide: progress bars move rarely in a
    pipe.
    """
    if not sys.stderr.isatty():
        return os.pipe()
    read_end, write_end = pty.openpty()
    termios.tcsetwinsize(write_end, termios.tcgetwinsize(sys.stderr))
    return read_end, write_end


def _copy_output(source: int, log: BinaryIO) -> None:
    """Copy output to stderr at once and to the log by lines, of a progress bar its last state."""
    line = b""
    while chunk := _read(source):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        *complete, line = (line + chunk).split(b"\n")
        for text in complete:
            log.write(_last_state(text) + b"\n")
    log.write(_last_state(line))


def _last_state(line: bytes) -> bytes:
    """Return what a terminal would show of a line with carriage returns."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _read(source: int) -> bytes:
    try:
        return os.read(source, 1 << 16)
    except OSError as error:
        if error.errno != errno.EIO:  # Linux reports a terminal's closed write end so
            raise
        return b""


@contextmanager
def _forwarding_signals(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Forward signals to the children while the `with` lasts; yield the list of those received."""
    received: list[int] = []

    def forward(number: int, _frame: object) -> None:
        received.append(number)
        for process in children:
            process.send_signal(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # what `nohup` ignores stays ignored
            signal.signal(number, forward)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
