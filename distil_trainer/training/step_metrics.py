"""Training metrics: loss terms, speed, shares of padding and waiting, non-finite values."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

LABEL_TERM = 1
"""The index of the true labels' term among an objective's terms."""

_MAX_EXPONENT = 700.0
"""exp() overflows above it; a perplexity of that size has no meaning anyway."""


class MetricsWindow:
    """Sums since the last log entry; those of the update in progress stay on the device."""

    def __init__(self, alphas: Mapping[str, float]) -> None:
        """Start empty.

        Args:
            alphas: the weight of each term by its name; a term of weight 0 is not reported.
        """
        self._terms = tuple(alphas)
        self._alphas = dict(alphas)
        self.sums = torch.zeros(len(self._terms))
        self._counts: Tensor = torch.zeros(len(self._terms) + 2)
        self._reset()

    def _reset(self) -> None:
        self.updates = 0
        self._means = [0.0] * len(self._terms)
        self._tokens = self._padded = self._labels = 0
        self._waited = 0.0
        self._since: float | None = None

    def begin_waiting(self) -> float:
        """Note the time at which batches are requested; the first request starts the clock."""
        now = time.perf_counter()
        if self._since is None:
            self._since = now
        return now

    def end_waiting(self, since: float) -> None:
        """Add the time waited for batches.

        Args:
            since: what `begin_waiting` returned.
        """
        self._waited += time.perf_counter() - since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude from the clock what is not training: evaluation and saving."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if self._since is not None:
                self._since += time.perf_counter() - started

    def open_update(self, counts: Tensor) -> None:
        """Begin an update.

        Args:
            counts: over all processes each term's count, then attended tokens, then all tokens with
                padding.
        """
        # Pinned by torch. It is there when the host has waited for anything that came after it.
        self._counts = counts.to("cpu", non_blocking=True)
        self.sums = torch.zeros(len(self._terms), device=counts.device)

    def add(self, sums: Tensor) -> None:
        """Add a micro-batch's sums."""
        self.sums = self.sums + sums

    def close_update(self, sums: Sequence[float]) -> None:
        """End an update, once the host has waited for its sums.

        Args:
            sums: each term's sum over all processes.
        """
        *counts, tokens, padded = self._counts.tolist()
        for index, (total, count) in enumerate(zip(sums, counts, strict=True)):
            self._means[index] += total / max(count, 1)
        self._tokens += int(tokens)
        self._padded += int(padded)
        self._labels += int(counts[LABEL_TERM])
        self.updates += 1

    def drain(self) -> dict[str, float]:
        """Return the means per update since the last log entry, and start again."""
        now = time.perf_counter()
        elapsed = now - (now if self._since is None else self._since)
        metrics = {
            f"loss_{term}": mean / self.updates
            for term, mean in zip(self._terms, self._means, strict=True)
            if self._alphas[term]
        }
        metrics["tokens_per_second"] = round(self._tokens / max(elapsed, 1e-9), 1)
        metrics["label_share"] = self._labels / max(self._tokens, 1)
        metrics["padding_share"] = 1 - self._tokens / max(self._padded, 1)
        metrics["wait_share"] = self._waited / max(elapsed, 1e-9)
        self._reset()
        self._since = now
        return metrics


def on_host(values: Tensor) -> Tensor:
    """Return a device's numbers in float64 on the CPU.

    Not every device has float64 (Apple's has none): they are moved before they are widened.
    """
    return values.cpu().double()


def not_finite(terms: Sequence[str], sums: Sequence[float], norm: float) -> str | None:
    """Return what is not finite as subject and verb, such as `L_ce and L_cos are`, or None.

    Args:
        terms: the terms' names.
        sums: the terms' sums.
        norm: the gradient's norm.
    """
    culprits = [
        f"L_{term}" for term, total in zip(terms, sums, strict=True) if not math.isfinite(total)
    ]
    if culprits:
        return f"{' and '.join(culprits)} {'is' if len(culprits) == 1 else 'are'}"
    return None if math.isfinite(norm) else "the gradient is"


def evaluation_metrics(
    alphas: Mapping[str, float], totals: Sequence[float], *, taught: bool
) -> dict[str, float]:
    """Return evaluation metrics: loss and its terms, perplexity, and agreement with a teacher.

    Args:
        alphas: the weight of each term by its name, in the objective's order.
        totals: the terms' sums, rows of agreement, the terms' counts.
        taught: whether there is a teacher.
    """
    size = len(alphas)
    sums, agreement, counts = totals[:size], totals[size], totals[size + 1 :]
    means = {
        term: total / max(count, 1) for term, total, count in zip(alphas, sums, counts, strict=True)
    }
    labels = list(alphas)[LABEL_TERM]
    reported = [term for term in alphas if alphas[term] or term == labels]
    metrics = {"loss": sum(alphas[term] * mean for term, mean in means.items())}
    metrics |= {f"loss_{term}": means[term] for term in reported}
    metrics["perplexity"] = math.exp(min(means[labels], _MAX_EXPONENT))
    if taught:
        metrics["agreement"] = agreement / max(counts[LABEL_TERM], 1)
    return metrics
