"""What a run says of itself: parts of the loss, speed, padding, waiting, and what went wrong."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

LABELS = 1
"""Where an objective's true labels stand among its terms."""

_MAX_EXPONENT = 700.0
"""Beyond it exp() overflows; a perplexity like that means nothing anyway."""


class Window:
    """Sums since the last record; those of the update in progress stay on the device."""

    def __init__(self, alphas: Mapping[str, float]) -> None:
        """Starts empty.

        Args:
            alphas: the weight of each term by its name; a term of weight 0 is not reported.
        """
        self._terms = tuple(alphas)
        self._alphas = dict(alphas)
        self.sums = torch.zeros(len(self._terms))
        self.counts: Tensor = torch.zeros(len(self._terms) + 2)
        self._reset()

    def _reset(self) -> None:
        self.updates = 0
        self._means = [0.0] * len(self._terms)
        self._tokens = self._padded = self._labels = 0
        self._waited = 0.0
        self._since: float | None = None

    def begin(self) -> float:
        """Batches are asked for: the clock runs from the first time that this is so."""
        now = time.perf_counter()
        if self._since is None:
            self._since = now
        return now

    def end_waiting(self, since: float) -> None:
        """The batches are there."""
        self._waited += time.perf_counter() - since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out of the clock what is not training: evaluation and saving."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if self._since is not None:
                self._since += time.perf_counter() - started

    def open_update(self, counts: Tensor) -> None:
        """A new update begins: each term's count, attended tokens, and padded ones, everywhere."""
        self.counts = counts
        self.sums = torch.zeros(len(self._terms), device=counts.device)

    def add(self, sums: Tensor) -> None:
        """Takes in a micro-batch's sums."""
        self.sums = self.sums + sums

    def close_update(self, sums: Sequence[float], all_counts: Sequence[float]) -> None:
        """The update's sums over all processes, and the counts it was opened with, as numbers."""
        *counts, tokens, padded = all_counts
        for index, (total, count) in enumerate(zip(sums, counts, strict=True)):
            self._means[index] += total / max(count, 1)
        self._tokens += int(tokens)
        self._padded += int(padded)
        self._labels += int(counts[LABELS])
        self.updates += 1

    def drain(self) -> dict[str, float]:
        """The means per update since the last record, and a new beginning."""
        now = time.perf_counter()
        elapsed = now - (now if self._since is None else self._since)
        figures = {
            f"loss_{term}": mean / self.updates
            for term, mean in zip(self._terms, self._means, strict=True)
            if self._alphas[term]
        }
        figures["tokens_per_second"] = round(self._tokens / max(elapsed, 1e-9), 1)
        figures["label_share"] = self._labels / max(self._tokens, 1)
        figures["padding_share"] = 1 - self._tokens / max(self._padded, 1)
        figures["wait_share"] = self._waited / max(elapsed, 1e-9)
        self._reset()
        self._since = now
        return figures


def not_finite(terms: Sequence[str], sums: Sequence[float], norm: float) -> str | None:
    """`L_ce and L_cos are`, where their sums are not finite, or the gradient; None if all is."""
    wrong = [
        f"L_{term}" for term, total in zip(terms, sums, strict=True) if not math.isfinite(total)
    ]
    if wrong:
        return f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'}"
    return None if math.isfinite(norm) else "the gradient is"


def evaluation_figures(
    alphas: Mapping[str, float], totals: Sequence[float], *, taught: bool
) -> dict[str, float]:
    """Cross-entropy of the labels and perplexity; under a teacher the other terms and agreement.

    Args:
        alphas: the weight of each term by its name, in the objective's order.
        totals: sums of the terms, rows of agreement, counts of the terms.
        taught: whether a teacher was asked.
    """
    size = len(alphas)
    sums, agreement, counts = totals[:size], totals[size], totals[size + 1 :]
    means = {
        term: total / max(count, 1) for term, total, count in zip(alphas, sums, counts, strict=True)
    }
    labels = list(alphas)[LABELS]
    shown = [term for term in alphas if alphas[term] or term == labels]
    figures = {"loss": sum(alphas[term] * mean for term, mean in means.items())}
    figures |= {f"loss_{term}": means[term] for term in shown}
    figures["perplexity"] = math.exp(min(means[labels], _MAX_EXPONENT))
    if taught:
        figures["agreement"] = agreement / max(counts[LABELS], 1)
    return figures
