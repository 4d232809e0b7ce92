"""Folders whose files are listed with size and hash: whole as they were written, or refused.

A list is written as the last of a folder's files. Sizes are compared where that is enough, contents
before anything is read.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from angels_share.errors import RunFailed
from angels_share.files import sha256_of_file, sync, write_json

_LIST = "written.json"


class Listed(NamedTuple):
    """The size and the sha256 that a file had when it was listed."""

    size: int
    sha256: str


class Fault(NamedTuple):
    """A file that isn't as it was listed, and how."""

    name: str
    reason: str
    is_missing: bool = False


def listing(folder: Path) -> dict[str, dict[str, Any]]:
    """Flush every file of a folder to the disk; return size and hash by its relative name."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sync(path)
        name = path.relative_to(folder).as_posix()
        found[name] = {"size": path.stat().st_size, "sha256": sha256_of_file(path)}
    return found


def listed_in(record: Mapping[str, Mapping[str, Any]]) -> dict[str, Listed]:
    """Return a listing that was read back from JSON; an error of any kind where it isn't one."""
    return {
        name: Listed(int(entry["size"]), str(entry["sha256"])) for name, entry in record.items()
    }


def faults(folder: Path, listed: Mapping[str, Listed]) -> Iterator[Fault]:
    """Yield every file that is missing, changed, or leads out of the folder; read every byte."""
    for name, (size, sha256) in sorted(listed.items()):
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or path.is_symlink():
            yield Fault(name, f"{name} points outside of it")
        elif not path.is_file():
            yield Fault(name, f"{name} is missing", is_missing=True)
        elif path.stat().st_size != size:
            yield Fault(name, f"{name} has {path.stat().st_size} bytes instead of {size}")
        elif sha256_of_file(path) != sha256:
            yield Fault(name, f"the checksum of {name} is wrong")


def seal(folder: Path) -> None:
    """List what a folder holds, as the last of its files."""
    write_json(folder / _LIST, listing(folder))


def is_whole(folder: Path) -> bool:
    """Return whether all that was listed is there, judged by sizes alone."""
    try:
        listed = listed_in(json.loads((folder / _LIST).read_text(encoding="utf-8")))
        return all((folder / name).stat().st_size == each.size for name, each in listed.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def require_unchanged(folder: Path) -> None:
    """Refuse a sealed folder with a file that changed; an unsealed one is the user's own.

    Raises:
        RunFailed: names the file.
    """
    if (folder / _LIST).is_file():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        _check(folder, tuple((path.name, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=8)
def _check(folder: Path, _stamps: tuple[tuple[str, int], ...]) -> None:
    """Check once for all the runs that read one folder, while nothing in it changes."""
    listed = listed_in(json.loads((folder / _LIST).read_text(encoding="utf-8")))
    for fault in faults(folder, listed):
        raise RunFailed(
            f"{folder}: {fault.reason}: remove the folder, and the same command makes it again"
        )
