"""One distillation step: the original algorithm against ours, side by side in one run.

    python -m benchmarks.distil_step --size mini
    python -m benchmarks.distil_step --size base --restrict --steps 7
    python -m benchmarks.distil_step --size base --device cuda

A step is the forward pass of teacher and student, losses, backward, clipping and AdamW. The
variants take turns and medians are printed, so that a busy machine slows all of them alike.
"Of the rate" is the rate of the matrix products that the result needs, as a share of the rate of a
2048 x 2048 x 2048 product measured between the steps. Memory is the peak over three steps in a
fresh process, above what was resident before the first one, with gradients and optimizer state.
"""

import argparse
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
)

from benchmarks import machine, textbook
from benchmarks.textbook import Batch, Recipe
from distil_trainer.objectives.losses import IGNORED, hidden_cosine
from distil_trainer.objectives.vocab_head import Decoder, HeadWeights, Rows, head_losses, order_rows


class Size(NamedTuple):
    """The shape of a teacher, whose student has half its depth, and of the batch."""

    width: int
    heads: int
    depth: int
    sequences: int
    length: int
    vocabulary: int = 30_522

    @property
    def tokens(self) -> int:
        """The tokens of a batch, none of them padding."""
        return self.sequences * self.length

    def operations(self, soft_rows: int) -> float:
        """Return the operations of a step's matrix products; a backward pass costs two forward."""
        layer = 24 * self.width**2 + 4 * self.length * self.width
        head = 2 * self.width**2 + 2 * self.width * self.vocabulary
        teacher = self.tokens * self.depth * layer + soft_rows * head
        student = self.tokens * self.depth // 2 * layer + soft_rows * head
        return teacher + 3 * student


SIZES = {
    ("mini", "cpu"): Size(width=256, heads=4, depth=4, sequences=16, length=128),
    ("base", "cpu"): Size(width=768, heads=12, depth=12, sequences=4, length=128),
    ("mini", "cuda"): Size(width=256, heads=4, depth=4, sequences=32, length=512),
    ("base", "cuda"): Size(width=768, heads=12, depth=12, sequences=32, length=512),
}


class Pair(NamedTuple):
    """A student in training and its teacher."""

    student: PreTrainedModel
    teacher: PreTrainedModel


def make_pair(size: Size, attention: str, device: str) -> Pair:
    torch.manual_seed(0)
    teacher = BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        attn_implementation=attention,
    )
    student = DistilBertConfig(
        vocab_size=size.vocabulary,
        dim=size.width,
        n_layers=size.depth // 2,
        n_heads=size.heads,
        hidden_dim=4 * size.width,
        attn_implementation=attention,
    )
    return Pair(
        DistilBertForMaskedLM(student).to(device).train(),
        BertForMaskedLM(teacher).to(device).eval().requires_grad_(requires_grad=False),
    )


def make_batch(size: Size, device: str) -> Batch:
    """Return sequences without padding, 15 % of whose tokens are targets."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1000, size.vocabulary, (size.tokens,), generator=generator)
    targets = torch.randperm(size.tokens, generator=generator)[: math.ceil(0.15 * size.tokens)]
    labels = torch.full_like(ids, IGNORED)
    labels[targets] = ids[targets]
    ids[targets] = 103
    shape = size.sequences, size.length
    attended = torch.ones(shape, dtype=torch.long)
    return Batch(*(part.view(shape).to(device) for part in (ids, attended, labels)))


def our_loss(pair: Pair, batch: Batch, rows: Rows, recipe: Recipe) -> Tensor:
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with torch.no_grad():
        teacher_hidden = pair.teacher.bert(**inputs).last_hidden_state
        predictions = pair.teacher.cls.predictions
        teacher_rows = predictions.transform(teacher_hidden.flatten(0, 1)[rows.positions])
    student_hidden = pair.student.distilbert(**inputs).last_hidden_state
    student_rows = pair.student.vocab_transform(student_hidden.flatten(0, 1)[rows.positions])
    student_rows = pair.student.vocab_layer_norm(pair.student.activation(student_rows))
    head = head_losses(
        student_rows,
        Decoder(pair.student.vocab_projector.weight, pair.student.vocab_projector.bias),
        [(teacher_rows, Decoder(predictions.decoder.weight, predictions.decoder.bias))],
        rows.labels,
        weights=HeadWeights(ce=recipe.ce / len(rows.positions), hard=recipe.mlm / len(rows.labels)),
        temperature=recipe.temperature,
    )
    cosine = hidden_cosine(student_hidden, teacher_hidden, batch.attention_mask.bool())
    return head.objective + recipe.cos * cosine.total / cosine.count


def make_step(variant: str, size: Size, device: str) -> Callable[[], None]:
    """Return a function that does one step of a variant, with its own models and optimizer."""
    algorithm, _, restricted = variant.partition(" ")
    batch, recipe = make_batch(size, device), Recipe()
    if algorithm == "textbook":
        pair = make_pair(size, "eager", device)
        optimizer = textbook.make_optimizer(pair.student)

        def loss() -> Tensor:
            return textbook.loss(*pair, batch, recipe, restrict=bool(restricted))
    else:
        pair = make_pair(size, "sdpa", device)
        optimizer = torch.optim.AdamW(
            pair.student.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, fused=True
        )
        soft = batch.labels != IGNORED if restricted else batch.attention_mask.bool()
        rows = order_rows(batch.labels, soft)

        def loss() -> Tensor:
            return our_loss(pair, batch, rows, recipe)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            objective = loss()
        objective.backward()
        torch.nn.utils.clip_grad_norm_(pair.student.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_peak(variant: str, options: argparse.Namespace) -> int:
    """Return the peak memory of three steps in a fresh process."""
    flags = ["--size", options.size, "--device", options.device, "--peak_of", variant]
    command = [sys.executable, "-m", "benchmarks.distil_step", *flags]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure_steps(
    variants: list[str], size: Size, device: str, count: int
) -> tuple[dict[str, float], float]:
    """Return the median seconds of a step of each variant, and the median product rate."""
    steps = {variant: make_step(variant, size, device) for variant in variants}
    for step in steps.values():  # warm-up: allocations, kernels, the optimizer's state
        step()
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    rates = []
    for _ in range(count):
        rates.append(machine.product_rate(device))
        for variant, step in steps.items():
            times[variant].append(machine.seconds(step, device))
    return {variant: statistics.median(t) for variant, t in times.items()}, statistics.median(rates)


def report(options: argparse.Namespace) -> None:
    size, device = SIZES[options.size, options.device], options.device
    variants = ["textbook", "ours"]
    if options.restrict:
        variants = ["textbook", "textbook restricted", "ours restricted"]
    peaks = {variant: measure_peak(variant, options) for variant in variants}
    times, rate = measure_steps(variants, size, device, options.steps)
    print(f"{options.size}: {size}")
    print(f"{machine.describe(device)}; product rate {rate / 1e9:.0f} GFLOP/s")
    print("| variant | s/step | tokens/s | speed-up | peak MB | of textbook's | of the rate |")
    print("|---|---|---|---|---|---|---|")
    masked = math.ceil(0.15 * size.tokens)
    for variant, seconds in times.items():
        needed = size.operations(masked if variant.endswith("restricted") else size.tokens)
        print(
            f"| {variant} | {seconds:.3f} | {size.tokens / seconds:,.0f} "
            f"| {times['textbook'] / seconds:.2f} | {peaks[variant] / 1e6:,.0f} "
            f"| {peaks[variant] / peaks['textbook']:.2f} | {needed / seconds / rate:.0%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--size", choices=["mini", "base"], default="mini", help="of the models [mini]"
    )
    parser.add_argument(
        "--restrict", action="store_true", help="soft targets at masked positions only"
    )
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each variant [7]")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="[cpu]")
    parser.add_argument("--peak_of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of is None:
        report(options)
    else:
        step = make_step(options.peak_of, SIZES[options.size, options.device], options.device)
        print(machine.peak_bytes(lambda: [step() for _ in range(3)], options.device))


if __name__ == "__main__":
    main()
