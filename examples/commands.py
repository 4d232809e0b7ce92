"""Commands that others run for long, one after the other: seen, logged, told of signals. POSIX."""

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
def alone_in(folder: Path) -> Iterator[int]:
    """Keeps others out of a folder; gives the lock, for commands to hold it too.

    One of them may outlive us where we are killed, and go on writing: hence no `filelock`, whose
    locks are never inherited.

    Raises:
        UserError: somebody is in it.
    """
    path = folder / ".lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process is at work there, maybe a command that outlived who "
                f"began it: wait for its end (fuser {shlex.quote(str(path))} names it)"
            ) from None
        yield lock
    finally:
        os.close(lock)


def run(
    words: Sequence[str], log: Path, lock: int, *, folder: Path, environment: Mapping[str, str]
) -> int:
    """Runs a command: what it prints is logged, its bars and errors are seen as well.

    It has a session of its own, which a terminal's Ctrl-C doesn't reach: so each signal, whoever
    sent it, is handed on once. The command answers it, keeps what is complete, and is waited for.

    Args:
        words: the command line.
        log: the file that gets all that it says.
        lock: from `alone_in`.
        folder: where it runs.
        environment: what it runs with.

    Returns:
        Its status; 128 and the number of the signal that ended it, or that came meanwhile.
    """
    running: list[subprocess.Popen[bytes]] = []
    ours, theirs = _channel()
    with (
        log.open("wb", 0) as stream,
        _handing_on(running) as heard,
        subprocess.Popen(  # noqa: S603  (our own commands, and no shell)
            words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stream,
            stderr=theirs, pass_fds=(lock,), start_new_session=True,
        ) as process,
    ):  # fmt: skip
        running.append(process)
        for number in heard:  # while it was being started
            process.send_signal(number)
        os.close(theirs)
        try:
            _pass_on(ours, stream)
        except BaseException:  # nobody hears us any more
            process.terminate()
            raise
        finally:
            os.close(ours)
    status = process.returncode
    if heard or status < 0:
        return 128 + (heard[0] if heard else -status)
    return status


def _channel() -> tuple[int, int]:
    """Two ends: of a terminal as wide as ours, if that is one, since bars seldom move in a pipe."""
    if not sys.stderr.isatty():
        return os.pipe()
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, termios.tcgetwinsize(sys.stderr))
    return ours, theirs


def _pass_on(source: int, log: BinaryIO) -> None:
    """Shows what comes as it comes; the log gets whole lines, and of a bar its last state."""
    line = b""
    while said := _read(source):
        sys.stderr.buffer.write(said)
        sys.stderr.buffer.flush()
        *whole, line = (line + said).split(b"\n")
        for each in whole:
            log.write(_last_state(each) + b"\n")
    log.write(_last_state(line))


def _last_state(line: bytes) -> bytes:
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _read(source: int) -> bytes:
    try:
        return os.read(source, 1 << 16)
    except OSError as error:
        if error.errno != errno.EIO:  # how Linux says that a terminal's other end is closed
            raise
        return b""


@contextmanager
def _handing_on(running: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """While the `with` lasts signals go to what is running; gives those that were heard."""
    heard: list[int] = []

    def hand_on(number: int, _frame: object) -> None:
        heard.append(number)
        for process in running:
            process.send_signal(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # one that nohup keeps away stays away
            signal.signal(number, hand_on)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
