"""Checksummed folders: each file is listed with its size and hash; a modified one is refused.

The list is written last: a folder whose writer was interrupted has none. `is_whole` compares sizes
only; `require_unchanged` compares contents, before anything in a folder is used.
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
    """The size and SHA-256 that a file had when it was listed."""

    size: int
    sha256: str


class Fault(NamedTuple):
    """A file that differs from its entry in the list, and how."""

    name: str
    reason: str
    is_missing: bool = False


def listing(folder: Path) -> dict[str, dict[str, Any]]:
    """Flush every file of a folder to disk; return their sizes and hashes by relative name."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sync(path)
        name = path.relative_to(folder).as_posix()
        found[name] = {"size": path.stat().st_size, "sha256": sha256_of_file(path)}
    return found


def listed_in(record: Mapping[str, Mapping[str, Any]]) -> dict[str, Listed]:
    """Parse a listing that was read from JSON.

    Raises:
        ValueError, LookupError, TypeError or AttributeError: it isn't a listing.
    """
    return {
        name: Listed(int(entry["size"]), str(entry["sha256"])) for name, entry in record.items()
    }


def faults(folder: Path, listed: Mapping[str, Listed]) -> Iterator[Fault]:
    """Yield every file that is missing, modified or outside the folder; read all contents."""
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
    """Write the list of a folder's files into it; what is added later, such as a card, is free."""
    write_json(folder / _LIST, listing(folder))


def is_whole(folder: Path) -> bool:
    """Return whether every listed file is there with its listed size."""
    try:
        listed = listed_in(json.loads((folder / _LIST).read_text(encoding="utf-8")))
        return all((folder / name).stat().st_size == file.size for name, file in listed.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def require_unchanged(folder: Path) -> None:
    """Refuse a sealed folder that was modified; accept one without a list, the user's own.

    Raises:
        RunFailed: names the file that is missing or was modified.
    """
    if (folder / _LIST).is_file():
        _check(folder, tuple(_stamps(folder)))


class _Stamp(NamedTuple):
    """What changes with a file's content, also where its modification time was set back."""

    name: str
    size: int
    modified: int
    changed: int


def _stamps(folder: Path) -> Iterator[_Stamp]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            name = path.relative_to(folder).as_posix()
            yield _Stamp(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=8)
def _check(folder: Path, _stamps: tuple[_Stamp, ...]) -> None:
    """Check a folder's contents, once for all runs that use it while its stamps stay the same."""
    try:
        listed = listed_in(json.loads((folder / _LIST).read_text(encoding="utf-8")))
        reason = next((fault.reason for fault in faults(folder, listed)), None)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        reason = f"its {_LIST} is damaged"
    if reason is not None:
        raise RunFailed(
            f"{folder}: {reason}: remove the folder and rerun the command to rebuild it"
        )
