"""Disks that are really too small: a mocked error is always the one that was expected."""

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(folder, size):
    """Mount a file system of a size, e.g. "1m"; skip the test where that isn't allowed.

    With SMALL_DISKS=required the test fails there: somewhere these tests must run.
    """
    give_up = pytest.fail if os.environ.get("SMALL_DISKS") == "required" else pytest.skip
    folder.mkdir(parents=True, exist_ok=True)
    if not shutil.which("mount") or not hasattr(os, "geteuid"):
        give_up("a full disk needs a tmpfs, and this system has no mount command")
    before = [] if os.geteuid() == 0 or not shutil.which("sudo") else ["sudo", "-n"]
    words = [*before, "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        give_up(f"a full disk needs a tmpfs: {' '.join(mounted.stderr.split())}")
    try:
        yield folder
    finally:
        subprocess.run([*before, "umount", "--lazy", str(folder)], check=True)


def fill(folder, leave=0):
    """Fill a small disk with one file, except for a few bytes."""
    filler = folder / "filler"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    filler.write_bytes(b"x" * max(free - leave, 0))
    return filler


@contextmanager
def file_size_limit(size):
    """Limit the size of any file that is written in the block, as `ulimit -f` does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
