"""Dynamic masking: which tokens are prediction targets, and what the student sees instead.

No random generator is involved: every draw is a hash of (seed, epoch, example, position), so an
example of a given epoch is masked in the same way in any worker, process or resumed run (and in any
batch, unless the scope is "batch"), and step k can be replayed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from angels_share.errors import UserError

AnyInts = npt.NDArray[np.integer[Any]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_Words = npt.NDArray[np.uint64]

IGNORED = -100
"""Label of a token that is not a target; torch's cross-entropy ignores it."""


class Draw(IntEnum):
    """Purpose of a random draw; draws for different purposes are independent."""

    TARGET = 0
    CORRUPTION = 1
    REPLACEMENT = 2
    EXAMPLE_ORDER = 3
    STEP_ORDER = 4
    HOLD_OUT = 5


def uniform(*words: npt.ArrayLike) -> Floats:
    """Return a number between 0 and 1 for each combination of integers, as if drawn at random.

    A pure function: the words (broadcast against each other) are chained through splitmix64, each
    step a bijection of the 64-bit state, so that neighbouring seeds, epochs, examples and positions
    give unrelated numbers.
    """
    state: _Words = np.zeros(1, dtype=np.uint64)
    for word in words:
        state = _mix(state ^ np.asarray(word, dtype=np.int64).astype(np.uint64))
    # The upper 53 bits, as many as a float64 holds, and a half: never 0, whose logarithm is
    # infinite. (Rounding gives 1 once in 2**53 draws.)
    return ((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mix(state: _Words) -> _Words:
    """Return splitmix64's output for a state; overflow wraps around, as intended."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


Scope = Literal["example", "batch", "token"]
"""The unit in which the share of masked tokens holds."""


@dataclass(frozen=True)
class MaskingOptions:
    """Options for choosing targets and corrupting them.

    Attributes:
        probability: share of tokens that become targets, special tokens included in the count.
        smoothing: a token seen c times in the corpus is chosen with weight max(c, 1)^-smoothing,
            so that rare words are targets more often; 0 gives every word the same weight.
        scope: "example" chooses among each example's tokens; "batch" among all tokens of the
            micro-batch, as DistilBERT's authors did; "token" chooses each token independently
            with `probability`, as BERT's authors did, and ignores the weights.
        mask_share: share of targets that are replaced by the mask token.
        keep_share: share of targets that stay unchanged; the rest become random tokens.
    """

    probability: float = 0.15
    smoothing: float = 0.7
    scope: Scope = "example"
    mask_share: float = 0.8
    keep_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            raise UserError(f"mlm_probability {self.probability}: must lie between 0 and 1")
        if self.smoothing < 0:
            raise UserError(f"mlm_smoothing {self.smoothing}: must not be negative")
        if self.scope not in get_args(Scope):
            raise UserError(f"mask_scope {self.scope!r}: must be example, batch or token")
        if min(self.mask_share, self.keep_share) < 0 or self.mask_share + self.keep_share > 1:
            raise UserError("mask_share and keep_share: must not be negative nor exceed 1 together")


class Masked(NamedTuple):
    """The student's input, and its labels (`IGNORED` for tokens that are not targets)."""

    input_ids: Ints
    labels: Ints


class Masker:
    """Masking of one corpus for one tokenizer; picklable, so that workers can use it."""

    def __init__(
        self,
        options: MaskingOptions,
        *,
        seed: int,
        token_counts: npt.ArrayLike,
        mask_id: int,
        special_ids: Sequence[int],
    ) -> None:
        """Turn the corpus' token counts into weights; special tokens are never targets.

        Args:
            options: how targets are chosen and corrupted.
            seed: seed of every mask.
            token_counts: how often each token of the vocabulary occurs in the corpus.
            mask_id: the mask token's id.
            special_ids: ids of the special tokens.
        """
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
        """Return a masker with a tokenizer's mask and special tokens, [UNK] among them.

        Args:
            tokenizer: a transformers tokenizer.
            options: how targets are chosen and corrupted.
            seed: seed of every mask.
            token_counts: how often each token of the vocabulary occurs in the corpus.

        Raises:
            UserError: the tokenizer has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise UserError("the tokenizer has no mask token, which a masked objective needs")
        return cls(
            options,
            seed=seed,
            token_counts=token_counts,
            mask_id=tokenizer.mask_token_id,
            special_ids=tokenizer.all_special_ids,
        )

    def mask_example(self, tokens: npt.ArrayLike, *, epoch: int, example: int) -> Masked:
        """Mask one example as any batch does whose scope is "example" or "token".

        Args:
            tokens: the example's token ids, special ones included.
            epoch: the epoch to mask it for.
            example: its number in the corpus.
        """
        row = np.asarray(tokens, dtype=np.int64)[None]
        lengths, epochs, examples = (np.array([n]) for n in (row.size, epoch, example))
        masked = self.mask_batch(row, lengths, epochs, examples)
        return Masked(masked.input_ids[0], masked.labels[0])

    def mask_batch(
        self,
        tokens: Ints,
        lengths: Ints,
        epochs: Ints,
        examples: Ints,
        *,
        excluded: Ints | None = None,
    ) -> Masked:
        """Mask a padded batch.

        Args:
            tokens: [rows, width] token ids; padding beyond a row's length is never a target.
            lengths: [rows] number of tokens in each row, special ones included.
            epochs: [rows] the epoch to mask each row for.
            examples: [rows] each row's number in its corpus.
            excluded: [rows, width] tokens that are no targets either, where not 0.
        """
        key = (self._seed, epochs[:, None], examples[:, None], np.arange(tokens.shape[1]))
        weights = self._weights[tokens]
        weights[np.arange(tokens.shape[1]) >= lengths[:, None]] = 0.0
        if excluded is not None:
            weights[excluded != 0] = 0.0
        targets = self._choose_targets(uniform(Draw.TARGET, *key), weights, lengths)
        return Masked(
            input_ids=np.where(targets, self._corrupt(tokens, key), tokens),
            labels=np.where(targets, tokens, IGNORED),
        )

    def _choose_targets(
        self, draws: Floats, weights: Floats, lengths: Ints
    ) -> npt.NDArray[np.bool_]:
        options = self._options
        if options.scope == "token":
            return (draws < options.probability) & (weights > 0)
        # Exponential waiting times with `weights` as rates: the first arrival is a weighted draw,
        # and the first n are a weighted sample without replacement. Rate 0 never arrives (inf).
        with np.errstate(divide="ignore"):
            arrivals = -np.log(draws) / weights
        if options.scope == "batch":
            quota = np.ceil(options.probability * lengths.sum(keepdims=True))
            return _earliest(arrivals.reshape(1, -1), quota).reshape(arrivals.shape)
        return _earliest(arrivals, np.ceil(options.probability * lengths))

    def _corrupt(self, tokens: Ints, key: tuple[npt.ArrayLike, ...]) -> Ints:
        """Return what the student sees of each token if it is a target."""
        draws = uniform(Draw.CORRUPTION, *key)
        # Random tokens come from the whole vocabulary, special ones included.
        random = (uniform(Draw.REPLACEMENT, *key) * len(self._weights)).astype(np.int64)
        changed = np.where(draws < self._options.mask_share, self._mask_id, random)
        return np.where(draws >= 1 - self._options.keep_share, tokens, changed)


def _earliest(arrivals: Floats, quota: Floats) -> npt.NDArray[np.bool_]:
    """Mark the `quota` earliest arrivals of each row, fewer where fewer arrive at all."""
    ordered = np.sort(arrivals, axis=1)
    last = np.take_along_axis(ordered, quota.astype(np.int64)[:, None] - 1, axis=1)
    return (arrivals <= last) & np.isfinite(arrivals)
