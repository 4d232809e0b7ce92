"""Claims: who is at which run, where several machines share one results folder. No torch.

A claim is a small file under `claims/`. Its owner touches it every few seconds; one that was not
touched for two minutes has lapsed, and one of a process of this machine that is dead lapses at
once. Ages are read from the file system's own clock, since the machines' clocks differ. A claim
only saves work: whatever happens to it, the first result that is published counts.
"""

import json
import os
import platform
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock

LAPSE_SECONDS = 120.0
BEAT_SECONDS = 15.0

FOLDER = "claims"
_LOCK, _CLOCK, _NEW = ".lock", ".clock", ".new"


@dataclass(frozen=True)
class Holder:
    """The process that a claim belongs to.

    Attributes:
        host: the machine's name, for people.
        machine: what its process numbers are told apart from another machine's by.
        pid: its process number there.
        started: when the process began, since numbers are used again.
        token: no other claimant's, ever.
    """

    host: str
    machine: str
    pid: int
    started: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "a process unknown"

    @classmethod
    def here(cls, token: str) -> "Holder":
        """This process."""
        pid = os.getpid()
        return cls(platform.node(), _machine(), pid, _start_of(pid) or "", token)

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine that is no more."""
        if self.machine != _machine():
            return False
        start = _start_of(self.pid)
        return start is None or start not in ("", self.started)


_UNKNOWN = Holder("", "", 0, "", "")
"""Of a claim that can't be read: it lapses by its age alone."""


class Lease:
    """A run that is ours: touched while the `with` lasts, given back at its end.

    It is touched through the open file, so that a claim which lapsed and is another's by now (this
    machine may have slept) isn't kept alive from here.
    """

    def __init__(self, handle: int, release: Callable[[], None], beat: float) -> None:
        self._handle, self._release, self._beat = handle, release, beat
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._keep_alive, daemon=True)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._heart.join()
        os.close(self._handle)
        self._release()

    def _keep_alive(self) -> None:
        while not self._over.wait(self._beat):
            try:
                os.utime(self._handle)
            except OSError:
                continue  # a claim that can't be touched lapses: that is what lapsing is for


class Leases:
    """The claims of a results folder.

    Args:
        root: the results folder.
        lapse: seconds after which a claim that nobody touched is anybody's.
    """

    def __init__(self, root: Path, lapse: float = LAPSE_SECONDS) -> None:
        self._folder, self._lapse = root / FOLDER, lapse
        self._folder.mkdir(parents=True, exist_ok=True)

    def take(self, key: str, token: str) -> Lease | Holder:
        """Claims a run for this process, or says whose it is.

        Every claim is made under one lock: of two who see the same one lapse, only one gets it.
        """
        path = self._path(key)
        with self._locked():
            holder = _read(path)
            if holder is not None and not self._has_lapsed(path, holder):
                return holder
            handle = self._write(path, key, Holder.here(token))
        beat = min(BEAT_SECONDS, self._lapse / 4)
        return Lease(handle, lambda: self.release(key, token), beat)

    def release(self, key: str, token: str) -> None:
        """Gives a run back, if it still is this claimant's."""
        path = self._path(key)
        with self._locked():
            holder = _read(path)
            if holder is not None and holder.token == token:
                path.unlink()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key.replace('/', '__')}.json"

    def _locked(self) -> FileLock:
        return FileLock(self._folder / _LOCK, poll_interval=0.01)

    def _write(self, path: Path, key: str, holder: Holder) -> int:
        """The open claim, which nobody ever sees half written."""
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
        clock = self._folder / _CLOCK
        clock.write_bytes(b"")
        return clock.stat().st_mtime - path.stat().st_mtime > self._lapse


def _read(path: Path) -> Holder | None:
    """Whose claim it is; None where there is none."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        del record["run"]
        return Holder(**record)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        return _UNKNOWN


@cache
def _machine() -> str:
    """What this machine's process numbers belong to: a boot, and a container's own numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return f"{platform.node()} {uuid.getnode():x}"


def _start_of(pid: int) -> str | None:
    """When a process began, "" where that can't be seen; None for a dead one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # somebody else's, and alive
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
