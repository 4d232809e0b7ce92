"""Provenance of a result: code, libraries and machine. Imports no torch."""

import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from angels_share import __version__
from angels_share.files import hash_of, sha256_of_file
from angels_share.hardware import cores, processor

ROOT = Path(__file__).parents[1]
"""The folder of the packages: a checkout, or site-packages."""
_PACKAGES = ("angels_share", "distil_trainer", "eval_harness")
_LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "scikit-learn")


def provenance(*, threads: int, device: str) -> dict[str, Any]:
    """Return code, libraries and machine, plus the threads and the device, which torch knows."""
    return {**_of_this_process(), "threads": threads, "device": device}


def versions_of(libraries: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each library."""
    return {name: version(name) for name in libraries}


@cache
def _of_this_process() -> dict[str, Any]:
    return {
        "version": __version__,
        "commit": _commit(),
        # The commit alone doesn't show uncommitted changes.
        "sources": sources_hash(ROOT),
        "libraries": versions_of(_LIBRARIES),
        "machine": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "processor": processor(),
            "cores": cores(),
        },
    }


def sources_hash(root: Path) -> str:
    """Return one hash of all modules of the packages in a folder, sub-packages included."""
    files = sorted(path for package in _PACKAGES for path in (root / package).rglob("*.py"))
    return hash_of({path.relative_to(root).as_posix(): sha256_of_file(path) for path in files})


def _commit() -> str | None:
    """Return the commit of a checkout; None for an installed package."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip()[:12] or None
