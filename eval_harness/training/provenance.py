"""What a number was made with: code, libraries, machine. Imports torch."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from angels_share import __version__
from angels_share.files import hash_of, sha256_of_file

_LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "scikit-learn")
_PACKAGES = ("angels_share", "distil_trainer", "eval_harness")


def provenance(device: torch.device) -> dict[str, Any]:
    """Code, libraries, machine, and the threads that this process has."""
    return {
        **_fixed(),
        "threads": torch.get_num_threads(),
        "device": _name_of(device),
    }


@cache
def _fixed() -> dict[str, Any]:
    root = Path(__file__).parents[2]
    files = sorted(path for package in _PACKAGES for path in (root / package).rglob("*.py"))
    return {
        "version": __version__,
        "commit": _commit(root),
        # Tells changed files from committed ones, which a commit alone doesn't.
        "sources": hash_of(
            {str(path.relative_to(root)): sha256_of_file(path) for path in files}
        ),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "machine": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
        },
    }  # fmt: skip


def _commit(root: Path) -> str | None:
    """The commit of a checkout; an installed package has none."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip()[:12] or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
