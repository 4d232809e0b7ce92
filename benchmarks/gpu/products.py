"""The vocabulary head alone: how large its blocks are, and who writes float32."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.gpu.parts import Figure, Part, Setup, forget_peak, peak_gigabytes
from benchmarks.gpu.step import size_of
from distil_trainer.objectives.vocab_head import Decoder, HeadWeights, head_losses

BLOCKS = (512, 1024, 2048, 4096, 8192, 16384)


def _median(work: Callable[[], object], setup: Setup) -> float:
    repeats = 2 if setup.small else 8
    return statistics.median(machine.seconds(work, setup.device) for _ in range(repeats + 1))


def blocks(setup: Setup) -> Iterator[Figure]:
    """Measure the head, forward and backward, at each number of rows in a block."""
    size = size_of(setup)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(setup.device)

    hidden, weight = draw(size.tokens, size.width), draw(size.vocabulary, size.width) * 0.05
    bias = draw(size.vocabulary)
    leaves = [each.requires_grad_() for each in (hidden, weight, bias)]
    teacher = draw(size.tokens, size.width), Decoder(draw(*weight.shape) * 0.05, bias.detach())
    labels = torch.randint(size.vocabulary, (size.tokens // 7,), generator=generator)
    labels = labels.to(setup.device)

    def head(rows: int) -> None:
        with torch.autocast(setup.device, torch.bfloat16):
            losses = head_losses(
                hidden,
                Decoder(weight, bias),
                [teacher],
                labels,
                weights=HeadWeights(ce=5 / size.tokens, hard=2 / len(labels)),
                temperature=2.0,
                block_rows=rows,
            )
        torch.autograd.grad(losses.objective, leaves)

    for rows in (16, 64) if setup.small else BLOCKS:
        forget_peak(setup)
        yield Figure(f"head, {rows} rows", 1e3 * _median(partial(head, rows), setup), "ms")
        yield peak_gigabytes(setup)._replace(what=f"peak memory, {rows} rows")


def out_dtype(setup: Setup) -> Iterator[Figure]:
    """Measure a bf16 product that is copied into float32 against one that writes it itself."""
    size = size_of(setup)
    rows = min(2048, size.tokens)
    hidden = torch.randn(rows, size.width, device=setup.device).bfloat16()
    weight = torch.randn(size.vocabulary, size.width, device=setup.device).bfloat16()
    bias = torch.randn(size.vocabulary, device=setup.device).bfloat16()
    out = torch.empty(rows, size.vocabulary, device=setup.device)

    def copied() -> None:
        out.copy_(torch.addmm(bias, hidden, weight.t(), beta=0.5, alpha=0.5))

    def direct() -> None:
        torch.addmm(
            bias.float(), hidden, weight.t(), out_dtype=torch.float32, beta=0.5, alpha=0.5, out=out
        )

    def without_bias() -> None:
        torch.mm(hidden, weight.t(), out_dtype=torch.float32, out=out)

    def added() -> None:
        total.add_(gradient @ hidden)

    def added_directly() -> None:
        torch.addmm(total, gradient, hidden, out_dtype=torch.float32, out=total)

    total = torch.zeros(size.vocabulary, size.width, device=setup.device)
    gradient = torch.randn(size.vocabulary, rows, device=setup.device).bfloat16()
    ways = {
        "logits, copied": copied,
        "logits, out_dtype": direct,
        "logits, out_dtype without bias": without_bias,
        "gradient, added": added,
        "gradient, out_dtype": added_directly,
    }
    for name, way in ways.items():
        try:
            yield Figure(name, 1e3 * _median(way, setup), "ms")
        except (RuntimeError, TypeError) as error:
            line = " ".join(str(error).split())[:120]
            yield Figure(name, None, note=f"not here: {line}")
    yield from _how_far(setup, out, copied, direct, hidden, weight, bias)


def _how_far(setup, out, copied, direct, hidden, weight, bias) -> Iterator[Figure]:
    """Compare the logits of both ways with float64 on the CPU, at a few rows."""
    few = slice(0, 16)
    exact = 0.5 * (bias.cpu().double() + hidden[few].cpu().double() @ weight.cpu().double().t())
    for name, way in (("copied", copied), ("out_dtype", direct)):
        try:
            way()
        except (RuntimeError, TypeError):
            continue
        error = (out[few].cpu().double() - exact).abs().max() / exact.abs().max()
        yield Figure(f"largest error of the logits, {name}", float(error))


PARTS = [Part("blocks", 40, blocks), Part("out_dtype", 25, out_dtype)]
