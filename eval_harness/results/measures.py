"""The measures of `probe`, one row each: their titles, their directions, and how they add up.

A measure of a model is computed from its examples, each weighted by a count: all ones give the
score itself, a bootstrap's draws its resamples. Needs numpy alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval_harness.results.probes import OF_PAIRS, OF_TEXT, Examples

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """A measure of a language model before any fine-tuning.

    Attributes:
        name: its name in results.
        probe: the probe that it belongs to.
        title: its header in tables.
        columns: the columns that it is computed from.
        score: returns the score of each resample, [resamples], given counts [resamples, examples].
        digits: the decimals to print.
        higher_is_better: its direction.
        trained: whether distillation minimises it: it shows that a term does something.
    """

    name: str
    probe: str
    title: str
    columns: tuple[str, ...]
    score: Callable[[Numbers, Examples], Numbers]
    digits: int = 1
    higher_is_better: bool = True
    trained: bool = False

    @property
    def of_teacher(self) -> bool:
        """Whether it compares a model with its teacher."""
        return bool({"kl", "agreed", "cosine"} & set(self.columns))

    def has(self, examples: Examples) -> bool:
        """Return whether examples have its columns."""
        return all(name in examples for name in self.columns)

    def of(self, examples: Examples) -> float | None:
        """Return the score; None if the examples lack its columns, or it is undefined."""
        if not self.has(examples):
            return None
        ones = np.ones((1, len(examples["id"])))
        value = float(self.score(ones, examples)[0])
        return value if np.isfinite(value) else None


def _ratio(above: str, below: str, scale: float = 1.0) -> Callable[[Numbers, Examples], Numbers]:
    def score(counts: Numbers, examples: Examples) -> Numbers:
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: Numbers = scale * (counts @ examples[above]) / (counts @ examples[below])
        return ratio

    return score


def _perplexity(counts: Numbers, examples: Examples) -> Numbers:
    perplexity: Numbers = np.exp(_ratio("surprisal", "tokens")(counts, examples))
    return perplexity


def _preferred(counts: Numbers, examples: Examples) -> Numbers:
    # A pair between which a model doesn't choose counts half.
    right = (examples["margin"] > 0) + 0.5 * (examples["margin"] == 0)
    share: Numbers = 100 * (counts @ right) / counts.sum(axis=1)
    return share


PREFERRED = Measure("pairs", OF_PAIRS, "Pairs", ("margin",), _preferred)
LOSS = Measure(
    "loss", OF_TEXT, "Word loss", ("loss", "words"), _ratio("loss", "words"),
    digits=3, higher_is_better=False,
)  # fmt: skip
PERPLEXITY = Measure(
    "perplexity", OF_TEXT, "Perplexity", ("surprisal", "tokens"), _perplexity,
    digits=2, higher_is_better=False,
)  # fmt: skip
AGREEMENT = Measure(
    "agreement", OF_TEXT, "Agreement", ("agreed", "tokens"), _ratio("agreed", "tokens", 100.0)
)
KL = Measure(
    "kl", OF_TEXT, "KL", ("kl", "tokens"), _ratio("kl", "tokens"),
    digits=3, higher_is_better=False, trained=True,
)  # fmt: skip
COSINE = Measure(
    "cosine", OF_TEXT, "Cosine", ("cosine", "attended"), _ratio("cosine", "attended"),
    digits=3, trained=True,
)  # fmt: skip

MEASURES = (PREFERRED, LOSS, PERPLEXITY, AGREEMENT, KL, COSINE)
"""In the order of a table's columns; the tasks' probes stand after the pairs."""
