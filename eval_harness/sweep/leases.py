"""Leases: which process works on which run, where machines share a results folder. No torch.

A lease is a small file. Its holder touches it every few seconds; it lapses if it was not touched
for two minutes, or at once if its holder was a process of this machine that has died. Ages are
measured with the file system's clock, since the machines' clocks differ. Leases only save work:
even if one is lost, the first result that is published counts.
"""

import json
import os
import platform
import threading
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from angels_share.files import locked, require_locks

LAPSE_SECONDS = 120.0
BEAT_SECONDS = 15.0

# Still the name used by earlier versions, which may share the results folder with this one.
FOLDER = "claims"
_LOCK, _CLOCK, _NEW = ".lock", ".clock", ".new"


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease.

    Attributes:
        host: the machine's name, for messages.
        machine: identifies the set of process ids that `pid` belongs to.
        pid: the process id.
        started: when the process started, since process ids are reused.
        token: identifies the holder uniquely, also among those of one process.
    """

    host: str
    machine: str
    pid: int
    started: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "an unknown process"

    @classmethod
    def here(cls, token: str) -> "Holder":
        """Return a holder for this process."""
        pid = os.getpid()
        return cls(platform.node(), _machine(), pid, _start_of(pid) or "", token)

    @property
    def is_dead(self) -> bool:
        """True if it was a process of this machine that has ended."""
        if self.machine != _machine():
            return False
        start = _start_of(self.pid)
        return start is None or start not in ("", self.started)


_UNKNOWN = Holder("", "", 0, "", "")
"""The holder of a lease that can't be read, which lapses by age alone."""


class Lease:
    """A lease held by this process: renewed during the `with`, released at its end."""

    def __init__(self, handle: int, release: Callable[[], None], beat: float) -> None:
        self._handle, self._release, self._beat = handle, release, beat
        self._ended = threading.Event()
        self._heartbeat = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        self._heartbeat.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._heartbeat.join()
        os.close(self._handle)
        self._release()

    def _renew(self) -> None:
        while not self._ended.wait(self._beat):
            try:
                # By handle rather than path: if this machine slept and the lease lapsed, the path
                # may be another holder's file, which must not be kept alive from here.
                os.utime(self._handle)
            except OSError:
                continue  # a lease that can't be renewed lapses, as it should


class Leases:
    """The leases of a results folder.

    Args:
        root: the results folder.
        lapse: seconds after which a lease that was not touched may be taken over.

    Raises:
        UserError: the file system has no locks.
    """

    def __init__(self, root: Path, lapse: float = LAPSE_SECONDS) -> None:
        self.root = root
        self._folder, self._lapse = root / FOLDER, lapse
        self._folder.mkdir(parents=True, exist_ok=True)
        require_locks(self._folder)

    def take(self, key: str, token: str) -> Lease | Holder:
        """Take the lease of a run, or return its current holder.

        All leases are taken under one lock: of two processes that see one lapse, only one gets it.
        """
        path = self._path(key)
        with self._locked():
            holder = _read(path)
            if holder is not None and not self._has_lapsed(path, holder):
                return holder
            handle = self._write(path, key, Holder.here(token))
        beat = min(BEAT_SECONDS, self._lapse / 4)
        return Lease(handle, lambda: self.release(key, token), beat)

    def is_taken(self, key: str) -> bool:
        """Return whether there is a lease of a run, though it may have lapsed."""
        return self._path(key).exists()

    def release(self, key: str, token: str) -> None:
        """Release the lease of a run if it still belongs to this token."""
        path = self._path(key)
        with self._locked():
            holder = _read(path)
            if holder is not None and holder.token == token:
                path.unlink()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key.replace('/', '__')}.json"

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self._folder / _LOCK, poll_seconds=0.01)

    def _write(self, path: Path, key: str, holder: Holder) -> int:
        """Write a lease, never visible half-written, and return its open file."""
        new = self._folder / _NEW
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.write(handle, json.dumps({"run": key, **asdict(holder)}, indent=1).encode())
            new.replace(path)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _has_lapsed(self, path: Path, holder: Holder) -> bool:
        if holder.is_dead:
            return True
        clock = self._folder / _CLOCK  # just written, so its time is now by the file system's clock
        clock.write_bytes(b"")
        return clock.stat().st_mtime - path.stat().st_mtime > self._lapse


def _read(path: Path) -> Holder | None:
    """Return the holder of a lease; None if there is no lease."""
    if path.exists() and not path.is_file():  # to read a FIFO is to wait for its writer
        return _UNKNOWN
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        del record["run"]
        holder = Holder(**record)
        texts = (holder.host, holder.machine, holder.started, holder.token)
        is_known = isinstance(holder.pid, int) and holder.pid is not True and 0 < holder.pid < 2**31
        return holder if is_known and all(isinstance(each, str) for each in texts) else _UNKNOWN
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return _UNKNOWN


@cache
def _machine() -> str:
    """Return what process ids are unique within: a boot of the machine and a pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return f"{platform.node()} {uuid.getnode():x}"


def _start_of(pid: int) -> str | None:
    """Return the start time of a process, "" where it can't be read; None for a dead process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's process, and alive
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # After the name, which may contain spaces: the state (Z and X are dead), and 19 fields later
    # the start time in clock ticks since boot.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
