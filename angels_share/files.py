"""Atomic file writes, content hashes and readable explanations of OS errors."""

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
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
    errno.EFBIG: "a file size limit is reached (see ulimit -f): raise it and start again",
}
# Of these the user's path is innocent.
_OF_THE_RUN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

_logger = logging.getLogger(__name__)


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
    except OSError as error:
        # A write that fails names no file, and the temporary one says nothing to the user.
        if error.filename in (None, str(temporary)):
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(new: Path, target: Path, aside: Path) -> None:
    """Give a complete folder its name; an older folder of that name goes only afterwards.

    No moment leaves half a folder under the name. A process that is killed between the two renames
    leaves the older folder whole, aside.

    Args:
        new: the folder to rename; the caller has flushed its files to disk.
        target: its name.
        aside: where an older folder is while it is replaced, on the same file system.
    """
    shutil.rmtree(aside, ignore_errors=True)
    has_older = target.exists()
    if has_older:  # a rename replaces no folder that has files
        target.rename(aside)
    try:
        new.replace(target)
    except BaseException:
        if has_older:
            aside.rename(target)
        raise
    sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_locks(folder: Path) -> None:
    """Refuse a folder whose file system has no locks: what is locked there would be for nothing.

    Raises:
        UserError: names the folder.
    """
    try:
        import fcntl
    except ImportError:  # Windows locks files in another way, on every file system
        return
    try:
        handle, name = tempfile.mkstemp(prefix=".lockable-", dir=folder)
    except OSError as error:
        error.filename = str(folder)
        raise
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"{folder}: that file system has no file locks (flock: {error.strerror}): choose a "
            "folder on another one, or have it mounted with locks"
        ) from error
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, poll_seconds: float = 0.05, warn_seconds: float = 20.0) -> Iterator[None]:
    """Hold the lock of a lock file; while another process holds it, say so and wait.

    Args:
        path: the lock file, which stays.
        poll_seconds: how often to try.
        warn_seconds: how long to wait without a word.

    Raises:
        UserError: the file system has no locks.
    """
    import filelock

    _require_locks_once(path.parent)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=warn_seconds, poll_interval=poll_seconds)
    except filelock.Timeout:
        _logger.warning(
            "waiting for %s, which another process holds; if none is running, on any machine, "
            "delete that file",
            path,
        )
        lock.acquire(poll_interval=poll_seconds)
    try:
        yield
    finally:
        lock.release()


@lru_cache(maxsize=64)
def _require_locks_once(folder: Path) -> None:
    require_locks(folder)


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


def place_of(error: OSError, folder: Path) -> str:
    """Return the path that an OS error is about: what stands in the way, else the folder."""
    in_the_way = error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
    return str(error.filename if in_the_way and error.filename else folder)


def reason_of_failed_write(error: Exception, folder: Path) -> str:
    """Return why a write into a folder failed, in half a line.

    torch and safetensors hide the system's reason, so the disk is asked. The half-written files
    must still be there: the disk is then still full, and the longest file at its limit.
    """
    code = error.errno if isinstance(error, OSError) else None
    if code is None and (found := re.search(r"os error (\d+)", str(error))):  # as Rust says it
        code = int(found.group(1))
    try:
        if code is None:
            _try_to_write(folder)
    except OSError as refused:
        code = refused.errno
    if code in _HINTS or isinstance(error, OSError):
        return explain(OSError(code, str(error)))
    return " ".join(str(error).split())[:200]


def _try_to_write(folder: Path) -> None:
    """Write a probe file; raise the OSError that a write into a folder raises now."""
    size = 1 << 20
    with suppress(ImportError):  # Windows has no such limit
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY:
            sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
            if max(sizes, default=0) >= limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            size = min(size, limit)
    probe = folder / f".writable-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with probe.open("wb", buffering=0) as stream:
            stream.write(bytes(size))
            os.fsync(stream.fileno())
            if stream.tell() < size:  # half a write succeeds; the next one says why
                stream.write(bytes(size))
    finally:
        probe.unlink(missing_ok=True)


def is_path_error(error: OSError) -> bool:
    """Return whether an OS error is due to a path that the user gave (status 2), not to the run."""
    return error.errno in _HINTS and error.errno not in _OF_THE_RUN
