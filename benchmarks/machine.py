"""Speed, memory and description of this machine, measured in the same run as the benchmark."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


def finish(device: str) -> None:
    """Wait until the device has finished all queued work."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: str) -> float:
    """Return the wall-clock seconds of one call."""
    finish(device)
    start = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - start


def product_rate(
    device: str, *, repeats: int = 5, side: int = 2048, dtype: torch.dtype | None = None
) -> float:
    """Return the FLOP/s of a product of square matrices: float32 on a CPU, bf16 on a GPU."""
    dtype = dtype or (torch.bfloat16 if device == "cuda" else torch.float32)
    left, right, out = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
    times = [seconds(lambda: torch.mm(left, right, out=out), device) for _ in range(repeats + 1)]
    return 2 * side**3 / statistics.median(times[1:])


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Return the peak memory during the work, above what was in use before it."""
    before = start_peak(device)
    work()
    return peak_since(before, device)


def start_peak(device: str) -> int:
    """Return the memory in use, and let the record of its peak begin anew."""
    finish(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    return _status("VmRSS")


def peak_since(before: int, device: str) -> int:
    """Return the peak memory since `start_peak`, above what it returned."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() - before
    return _status("VmHWM") - before


def describe(device: str) -> str:
    """Return the machine in one line."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    return f"CPU, {threads} threads, load {load:.1f}, torch {torch.__version__}"


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
