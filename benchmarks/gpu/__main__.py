"""The command line of the measurements on a GPU.

    python -m benchmarks.gpu --check        is what a GPU computes right?       3 minutes
    python -m benchmarks.gpu                how fast is it?                     8 minutes
    python -m benchmarks.gpu --rehearse     does every part run? on the CPU     1 minute

Weights and data are random; no network is needed. Nothing here was run on a GPU yet.
"""

import argparse
import os
import sys
from pathlib import Path

import torch

from benchmarks.gpu import check, fine_tuning, latency, parts, products, step

OLDEST_TORCH = (2, 11)
PARTS = [*step.PARTS, *products.PARTS, *fine_tuning.PARTS, *latency.PARTS]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=check.__doc__.splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="compare with float64 instead")
    parser.add_argument("--rehearse", action="store_true", help="run all parts, tiny, on the CPU")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", choices=[part.name for part in PARTS],
        help=f"of: {', '.join(part.name for part in PARTS)} [all]",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder of the results [gpu-results]")
    parser.add_argument("--minutes", type=float, help="all parts together [8]")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="of the check [cuda]")
    parser.add_argument("--size", choices=list(check.SIZES), help="of the check [full on a GPU]")
    options = parser.parse_args()
    measures = (options.only, options.out, options.minutes, options.rehearse or None)
    if options.check and any(each is not None for each in measures):
        parser.error("--check takes no flags of the measurements")
    if not options.check and (options.device or options.size):
        parser.error("--device and --size are the check's; --rehearse measures on the CPU")
    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if found < OLDEST_TORCH:
        parser.error(f"torch {torch.__version__} is older than 2.11")
    device = options.device or ("cpu" if options.rehearse else "cuda")
    # The parts are forks, of which none could use a GPU that this process had begun to use.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu rehearses the check without one")
    if options.check:
        return check.report(options.size or ("full" if device == "cuda" else "small"), device)
    chosen = [part for part in PARTS if options.only is None or part.name in options.only]
    setup = parts.Setup(device, small=options.rehearse)
    folder = options.out or Path("gpu-results")
    return parts.measure(chosen, setup, folder, 60 * (options.minutes or 8))


if __name__ == "__main__":
    sys.exit(main())
