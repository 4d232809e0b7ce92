"""What a compiled pass over the logits would gain: the bound that decided against building one.

    python -m benchmarks.one_pass

Soft targets of one teacher, 512 rows of 30,522 words: the head's passes in torch against one in C
(`one_pass.c`, compiled here by `cc`), in turns, and a product of these rows with a decoder of width
256 beside them, of which a step has four. Value and gradient of both are compared first.
"""

import argparse
import ctypes
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import machine
from distil_trainer.objectives import vocab_head

ROWS, WORDS, WIDTH = 512, 30_522, 256
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC")


def main() -> None:
    """Parse the command line, compare and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=9, help="of each [9]")
    turns = parser.parse_args().turns
    if shutil.which("cc") is None:
        raise SystemExit("skipped: no C compiler (cc)")
    torch.manual_seed(0)
    ours, theirs, hidden, weight = (
        torch.randn(shape)
        for shape in ((ROWS, WORDS), (ROWS, WORDS), (ROWS, WIDTH), (WORDS, WIDTH))
    )
    with tempfile.TemporaryDirectory() as folder:
        one_pass = compiled(Path(folder))
        left, right = (3 * ours).clone(), (3 * ours).clone()
        values = one_pass(left, 3 * theirs), in_torch(right, 3 * theirs)
        print(
            f"{machine.describe('cpu')}; largest difference of a value "
            f"{float((values[0] - values[1]).abs().max()):.1e}, of a gradient "
            f"{float((left - right).abs().max()):.1e}"
        )
        product = torch.empty(ROWS, WORDS)
        work: dict[str, Callable[[], object]] = {
            "in torch": lambda: in_torch(ours, theirs),
            "one pass in C": lambda: one_pass(ours, theirs),
            "a product": lambda: torch.mm(hidden, weight.t(), out=product),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(turns):
            for name, each in work.items():
                times[name].append(machine.seconds(each, "cpu"))
    for name, found in times.items():
        median, low, high = (1e3 * pick(found) for pick in (statistics.median, min, max))
        print(f"{name:14} {median:6.1f} ms ({low:.1f} to {high:.1f})")


def compiled(folder: Path) -> Callable[[Tensor, Tensor], Tensor]:
    """Compile the pass, and return a function of student's and teacher's logits, as `in_torch`."""
    source, library = Path(__file__).with_suffix(".c"), folder / "one_pass.so"
    subprocess.run(["cc", *FLAGS, str(source), "-o", str(library), "-lm"], check=True)
    function = ctypes.CDLL(str(library)).kl_rows
    function.restype = None

    def run(ours: Tensor, theirs: Tensor) -> Tensor:
        values = torch.empty(len(ours), dtype=torch.float64)
        pointers = (ctypes.c_void_p(each.data_ptr()) for each in (ours, theirs, values))
        sizes = (ctypes.c_long(each) for each in ours.shape)
        function(*pointers, *sizes, ctypes.c_float(1.0), torch.get_num_threads())
        return values

    return run


def in_torch(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the divergences; the student's logits become their gradient, as in the head."""
    values, factor = [], torch.ones(())
    for part in vocab_head._slices(len(ours), vocab_head._cached_rows(ours)):
        divergence, gradient = vocab_head._divergence(ours[part], [theirs[part]], 2.0)
        ours[part].zero_().addcmul_(gradient, factor)
        values.append(divergence)
    return torch.cat(values)


if __name__ == "__main__":
    main()
