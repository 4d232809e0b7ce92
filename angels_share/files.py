"""Atomic file writes, content hashes and readable explanations of OS errors."""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from angels_share.errors import UserError

_HINTS = {
    errno.EACCES: "no permission to write there: choose another folder or change its owner",
    errno.EPERM: "no permission to write there: choose another folder or change its owner",
    errno.EROFS: "that file system is read-only: choose a folder on another one",
    errno.ENOTDIR: "a part of that path is a file, not a folder: choose another path",
    errno.EEXIST: "that path is a file, not a folder: choose another path",
    errno.EISDIR: "that path is a folder, not a file: choose another path",
    errno.ENOSPC: "the disk is full: free some space and start again; complete files are kept",
    errno.EDQUOT: "the disk quota is used up: free some space and start again",
}


def write_atomically(path: Path | str, content: str | bytes) -> Path:
    """Write a whole file or none: to a temporary file beside it, flushed to disk, then renamed."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_json(path: Path | str, value: Any) -> Path:
    """Write indented JSON; refuse NaN and Infinity, which are not JSON."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return write_atomically(path, text + "\n")


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` at the end, or is removed on an error."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(target)
        sync(target.parent)  # or a power cut could undo the rename
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of_file(path: Path | str) -> str:
    """Return the SHA-256 of a file, which is read in pieces."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_of(value: Any, length: int = 8) -> str:
    """Return a short hash of JSON-like data; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def require_writable_folder(path: Path | str, flag: str) -> Path:
    """Make a folder and write a probe file, so that an error comes before hours of work."""
    folder = Path(path).expanduser()
    probe = folder / f".writable-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError(f"{flag} {folder}: {explain(error)}") from error
    return folder


def explain(error: OSError) -> str:
    """Return what an OS error means and what to do about it, in half a line."""
    return _HINTS.get(error.errno or 0) or error.strerror or type(error).__name__


def is_path_error(error: OSError) -> bool:
    """Return whether an OS error is due to a path that the user gave (status 2), not to the run."""
    return error.errno in _HINTS and error.errno not in (errno.ENOSPC, errno.EDQUOT)
