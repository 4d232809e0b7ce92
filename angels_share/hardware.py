"""The cores and GPUs that this process may use, found without importing torch."""

import os
import platform
import re
import subprocess
from itertools import takewhile
from pathlib import Path

from angels_share.errors import RunFailed


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Return the processor's name, or an empty string if the system doesn't tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


_OF_BYTES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")


def processor_flags() -> tuple[str, ...]:
    """Return which of the instructions that make int8 fast an x86 has; empty where none tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return tuple(name for name in _OF_BYTES if name in flags)


def visible_gpus() -> list[str]:
    """Return the visible GPUs as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = (name.strip() for name in chosen.split(","))
        # CUDA ignores everything from the first invalid name on.
        return list(takewhile(lambda name: name not in ("", "-1"), names))
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607  (wherever this machine has it)
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except FileNotFoundError:
        return []
    except subprocess.TimeoutExpired as error:
        raise RunFailed(
            "nvidia-smi -L did not answer within 60 s: set CUDA_VISIBLE_DEVICES"
        ) from error
    return _gpus_in(listed.stdout) if listed.returncode == 0 else []


def _gpus_in(listing: str) -> list[str]:
    """Return the UUID of each GPU, or those of its MIG instances if it is partitioned.

    Not the numbers: CUDA may number GPUs in another order than nvidia-smi.
    """
    gpus: list[list[str]] = []
    for line in listing.splitlines():
        if not (found := re.search(r"\(UUID: (\S+)\)", line)):
            continue
        if line.startswith("GPU "):
            gpus.append([found[1]])
        else:
            gpus[-1].append(found[1])
    return [name for gpu in gpus for name in gpu[1:] or gpu]


def limit_spinning() -> None:
    """Make torch's threads spin less while they wait for one another, unless the user chose.

    They synchronize thousands of times in a step. GNU OpenMP spins for milliseconds at each
    barrier, which is free on an idle machine and ruinous on a shared one: with a busy neighbour on
    two cores a step's vocabulary head took 10 s, but 1.4 s with a spin count of 3,000 and 1.9 s
    with 8,000; on an idle machine it took 0.5 to 0.6 s with any of them.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # read when torch is imported
