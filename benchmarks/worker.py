"""One variant of the distillation step in a process of its own, which works only when told to.

    python -m benchmarks.worker textbrewer mini cpu

`benchmarks.distil_step` starts it, with the interpreter of the variant's environment. Each line of
its standard input is a request in JSON, each line of its standard output the answer; its first line
says what it runs on. What libraries print goes to standard error.
"""

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from itertools import chain
from typing import Any, TextIO

import numpy as np
import torch

import benchmarks.vision_operators  # noqa: F401  (before anything imports transformers)
from benchmarks import machine
from benchmarks.peers import VARIANTS, Variant
from benchmarks.setting import (
    IGNORED,
    SIZES,
    Batch,
    Recipe,
    grouped_batches,
    make_batch,
    make_lengths,
    make_optimizer,
    make_pair,
    random_batches,
)

GRADIENT_CLIP = 5.0


class Worker:
    """A variant's models, and the requests that it answers: its public methods."""

    def __init__(
        self, variant: Variant, size: str, device: str, *, ragged: bool, restrict: bool
    ) -> None:
        self._variant, self._size, self._device = variant, SIZES[size, device], device
        self._lengths = make_lengths(self._size, ragged=ragged)
        self._restrict = restrict
        self._module = import_module(f"benchmarks.variants.{variant.name}")
        self._step: Callable[[Batch], None] | None = None
        self._numbers = self._choose_batches()

    def step(self) -> dict[str, Any]:
        """Do one step on the next batch: seconds, real tokens, needed operations, memory."""
        batch = make_batch(self._size, self._lengths, next(self._numbers))
        if self._step is None:
            self._step = self._make_step()
            self._before = machine.start_peak(self._device)
        step, lengths = self._step, batch.lengths
        masked = int((batch.labels != IGNORED).sum())
        batch = batch if self._variant.batching == "tokens" else batch.to(self._device)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds = machine.seconds(lambda: step(batch), self._device)
        return {
            "seconds": seconds,
            "page_faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults,
            "tokens": sum(lengths),
            "padded": batch.input_ids.numel(),
            "operations": self._size.operations(
                lengths, masked if self._restrict else sum(lengths)
            ),
            "peak": machine.peak_since(self._before, self._device),
        }

    def compare(self, terms: list[str], *, ragged: bool, restrict: bool) -> dict[str, float]:
        """Compute loss and gradient norm of some terms, without dropout, on a batch for all.

        The sums over weights and batch tell whether it was the same one.
        """
        pair = make_pair(self._size, self._variant.attention, self._device, dropout=0.0)
        for model in pair:  # fresh models predict all words alike: no soft target would matter
            model.get_output_embeddings().weight.data.mul_(20)
        weights = sum(
            float(each.detach().double().abs().sum())
            for each in chain(pair.student.parameters(), pair.teacher.parameters())
        )
        recipe = Recipe()._replace(**dict.fromkeys({"ce", "mlm", "cos"} - set(terms), 0.0))
        lengths = make_lengths(self._size, ragged=ragged)
        batch = make_batch(self._size, lengths, next(random_batches(self._size, lengths)))
        student, loss = self._module.make_objective(pair, recipe, restrict=restrict)
        value = loss(batch)
        value.backward()
        if surplus := getattr(self._module, "surplus", None):
            value = value - surplus(pair, batch, recipe, restrict=restrict)
        gradients = [each.grad for each in student.parameters() if each.grad is not None]
        return {
            "loss": value.item(),
            "norm": float(torch.nn.utils.get_total_norm(gradients)),
            "weights": weights,
            "batch": sum(float(part.double().sum()) for part in batch),
        }

    def _choose_batches(self) -> Iterator[Any]:
        if self._variant.batching == "tokens":
            return self._module.token_batches(self._size, self._lengths)
        choose = {"random": random_batches, "grouped": grouped_batches}
        return choose[self._variant.batching](self._size, self._lengths)

    def _make_step(self) -> Callable[[Batch], None]:
        pair = make_pair(self._size, self._variant.attention, self._device)
        student, loss = self._module.make_objective(pair, Recipe(), restrict=self._restrict)
        optimizer = getattr(self._module, "make_optimizer", make_optimizer)(student)
        trained = [each for each in student.parameters() if each.requires_grad]

        def step(batch: Batch) -> None:
            with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
                objective = loss(batch)
            objective.backward()
            torch.nn.utils.clip_grad_norm_(trained, GRADIENT_CLIP)
            optimizer.step()
            optimizer.zero_grad()

        return step


def serve(worker: Worker, requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print, too
    name, size, device, *flags = sys.argv[1:]
    variant = next(each for each in VARIANTS if each.name == name)
    worker = Worker(variant, size, device, ragged="ragged" in flags, restrict="restrict" in flags)
    packages = ["torch", "transformers", *filter(None, [variant.distribution])]
    started = {
        "threads": torch.get_num_threads(),
        "numpy": np.__version__,
        "versions": {each: version(each) for each in packages},
    }
    print(json.dumps(started), file=answers, flush=True)
    serve(worker, sys.stdin, answers)


if __name__ == "__main__":
    main()
