"""What a batch hides: which tokens are targets, and what the student sees in their place.

There is no random generator here. Every draw is a hash of (seed, epoch, example, position), so the
same example in the same epoch is masked in the same way in any batch, worker, process or resumed
run, and step k can be replayed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from angels_share.errors import UserError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_Words = npt.NDArray[np.uint64]

IGNORED = -100
"""The label of a token that is no target; what torch's cross-entropy ignores."""


class Draw(IntEnum):
    """What a draw is for: draws for different purposes are independent of one another."""

    TARGET = 0
    DISGUISE = 1
    REPLACEMENT = 2
    EXAMPLE_ORDER = 3
    STEP_ORDER = 4
    HOLD_OUT = 5


def uniform(*words: npt.ArrayLike) -> Floats:
    """A number in (0, 1) for each combination of integers, as if drawn at random.

    A pure function: the words (broadcast against each other) are chained through the finaliser of
    splitmix64, each step a bijection of the 64-bit state, so that neighbouring seeds, epochs,
    examples and positions give unrelated numbers.
    """
    state: _Words = np.zeros(1, dtype=np.uint64)
    for word in words:
        state = _mix(state ^ np.asarray(word, dtype=np.int64).astype(np.uint64))
    # 53 bits and a half: exact in float64, and never 0 or 1, so that its logarithm is finite.
    return ((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mix(state: _Words) -> _Words:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@dataclass(frozen=True)
class MaskingOptions:
    """How targets are chosen and disguised.

    Attributes:
        probability: the share of tokens (special ones counted) that become targets.
        smoothing: a token seen c times in the corpus is chosen with weight max(c, 1)^-smoothing,
            so that rare words are targets more often; 0 gives every word the same weight.
        scope: "example" chooses among each example's own tokens; "batch" among all tokens of the
            micro-batch, as DistilBERT's authors did; "token" chooses each token independently
            with `probability`, as BERT's authors did, and has no use for weights.
        mask_share: the share of targets that is replaced by the mask token.
        keep_share: the share of targets that stays as it is; what is left becomes random tokens.
    """

    probability: float = 0.15
    smoothing: float = 0.7
    scope: Literal["example", "batch", "token"] = "example"
    mask_share: float = 0.8
    keep_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            raise UserError(f"mlm_probability {self.probability}: must lie between 0 and 1")
        if self.smoothing < 0:
            raise UserError(f"mlm_smoothing {self.smoothing}: must not be negative")
        if self.scope not in ("example", "batch", "token"):
            raise UserError(f"mask_scope {self.scope!r}: must be example, batch or token")
        if min(self.mask_share, self.keep_share) < 0 or self.mask_share + self.keep_share > 1:
            raise UserError("mask_share and keep_share: must not be negative nor exceed 1 together")


class Masked(NamedTuple):
    """What the student sees, and what it should say (`IGNORED` where nothing is asked)."""

    input_ids: Ints
    labels: Ints


class Masker:
    """Masks examples of one corpus for one tokenizer; picklable, so that workers can hold it."""

    def __init__(
        self,
        options: MaskingOptions,
        *,
        seed: int,
        token_counts: npt.ArrayLike,
        mask_id: int,
        special_ids: Sequence[int],
    ) -> None:
        """Turns the corpus' token counts into weights; special tokens are never targets."""
        counts = np.asarray(token_counts)
        weights = np.maximum(counts, 1).astype(np.float64) ** -options.smoothing
        weights[list(special_ids)] = 0.0
        self._options = options
        self._seed = seed
        self._mask_id = mask_id
        self._weights = weights

    @classmethod
    def for_tokenizer(
        cls, tokenizer: Any, options: MaskingOptions, *, seed: int, token_counts: npt.ArrayLike
    ) -> "Masker":
        """The masker that knows a tokenizer's mask and special tokens ([UNK] is one of them)."""
        if tokenizer.mask_token_id is None:
            raise UserError("the tokenizer has no mask token: a masked objective needs one")
        return cls(
            options,
            seed=seed,
            token_counts=token_counts,
            mask_id=tokenizer.mask_token_id,
            special_ids=tokenizer.all_special_ids,
        )

    def mask_example(self, tokens: npt.ArrayLike, *, epoch: int, example: int) -> Masked:
        """Masks one example as any batch of scope "example" or "token" would."""
        row = np.asarray(tokens, dtype=np.int64)[None]
        lengths, epochs, examples = (np.array([n]) for n in (row.size, epoch, example))
        masked = self.mask_batch(row, lengths, epochs, examples)
        return Masked(masked.input_ids[0], masked.labels[0])

    def mask_batch(self, tokens: Ints, lengths: Ints, epochs: Ints, examples: Ints) -> Masked:
        """Masks a padded batch.

        Args:
            tokens: [rows, width] token ids; what lies beyond a row's length is never a target.
            lengths: [rows] tokens of each row, special ones counted.
            epochs: [rows] the epoch for which each row is drawn.
            examples: [rows] each row's number in its corpus.
        """
        place = (self._seed, epochs[:, None], examples[:, None], np.arange(tokens.shape[1]))
        weights = self._weights[tokens]
        weights[np.arange(tokens.shape[1]) >= lengths[:, None]] = 0.0
        targets = self._targets(uniform(Draw.TARGET, *place), weights, lengths)
        return Masked(
            input_ids=np.where(targets, self._disguised(tokens, place), tokens),
            labels=np.where(targets, tokens, IGNORED),
        )

    def _targets(self, draws: Floats, weights: Floats, lengths: Ints) -> npt.NDArray[np.bool_]:
        options = self._options
        if options.scope == "token":
            return (draws < options.probability) & (weights > 0)
        # Exponential waiting times with rates `weights`: whoever comes first is a weighted draw,
        # and the first n are a weighted sample without replacement. Rate 0 never comes.
        with np.errstate(divide="ignore"):
            arrivals = -np.log(draws) / weights
        if options.scope == "batch":
            quota = np.ceil(options.probability * lengths.sum(keepdims=True))
            return _first(arrivals.reshape(1, -1), quota).reshape(arrivals.shape)
        return _first(arrivals, np.ceil(options.probability * lengths))

    def _disguised(self, tokens: Ints, place: tuple[npt.ArrayLike, ...]) -> Ints:
        options = self._options
        disguise = uniform(Draw.DISGUISE, *place)
        replacement = uniform(Draw.REPLACEMENT, *place) * len(self._weights)
        changed = np.where(
            disguise < options.mask_share, self._mask_id, replacement.astype(np.int64)
        )
        kept = disguise >= 1 - options.keep_share
        return np.where(kept, tokens, changed)


def _first(arrivals: Floats, quota: Floats) -> npt.NDArray[np.bool_]:
    """The `quota` earliest arrivals of each row, fewer where fewer arrive at all."""
    ordered = np.sort(arrivals, axis=1)
    last = np.take_along_axis(ordered, quota.astype(np.int64)[:, None] - 1, axis=1)
    return (arrivals <= last) & np.isfinite(arrivals)
