"""How texts become clean token sequences: tokenized, cut, cleaned and framed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tokenizers

from angels_share.errors import UserError
from distil_trainer.data.masking import AnyInts


@dataclass(frozen=True)
class CorpusOptions:
    """Options for cutting and cleaning texts; each is part of the fingerprint.

    Attributes:
        text_column: column of .jsonl, .csv, .parquet and Hub data that holds the text.
        max_length: maximum sequence length in tokens, special ones included; longer texts are cut.
        min_tokens: minimum sequence length in tokens, special ones included; shorter sequences are
            dropped.
        max_unknown: sequences are dropped if this share of their tokens, or more, is unknown.
        validation_fraction: share of sequences held out for validation.
        seed: decides which sequences are held out.
    """

    text_column: str = "text"
    max_length: int = 512
    min_tokens: int = 12
    max_unknown: float = 0.5
    validation_fraction: float = 0.005
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.min_tokens <= self.max_length:
            raise UserError(f"min_tokens {self.min_tokens}: must lie in 1..{self.max_length}")
        if not 0 < self.max_unknown <= 1:
            raise UserError(f"max_unknown {self.max_unknown}: must be above 0 and at most 1")
        if not 0 <= self.validation_fraction <= 0.5:
            raise UserError(f"validation_fraction {self.validation_fraction}: must lie in 0..0.5")


class Pieces(NamedTuple):
    """Token sequences, concatenated, and the length of each."""

    tokens: AnyInts
    lengths: AnyInts

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Pieces":
        """Return the chosen sequences only."""
        return Pieces(self.tokens[np.repeat(chosen, self.lengths)], self.lengths[chosen])


class Maker(Protocol):
    """What makes sequences of what sources give: of texts, or of rows of token ids."""

    options: CorpusOptions
    vocab_size: int
    dtype: np.dtype[Any]
    tally: Counter[str]
    """Texts, cuts, and reasons to drop a sequence."""

    @property
    def added_frame(self) -> tuple[list[int], list[int]] | None:
        """The ids that are put before and after each text, where the tokenizer doesn't itself."""

    def sequences(self, chunks: Iterable[list[Any]]) -> Iterator[Pieces]:
        """Yield the sequences of each chunk of texts, in order."""


class SequenceMaker:
    """Maker of clean token sequences from texts; `tally` counts texts, cuts and reasons to drop."""

    def __init__(
        self, tokenizer: Any, options: CorpusOptions, *, causal: bool | None = None
    ) -> None:
        """Find the tokens that each sequence begins and ends with; see `prepare_corpus`."""
        self._backend = plain_backend(tokenizer)
        if causal is None:
            causal = tokenizer.mask_token_id is None
        self.added_frame = _end_of_text_frame(tokenizer, self._backend) if causal else None
        self._prefix, self._suffix = self.added_frame or _special_tokens_around(self._backend)
        self.options = options
        self._unknown_id = tokenizer.unk_token_id
        self._max_piece = options.max_length - len(self._prefix) - len(self._suffix)
        if self._max_piece < 1:
            raise UserError(
                f"max_length {options.max_length}: no room for text beside the special tokens"
            )
        # Not len(tokenizer): the ids of some tokenizers have gaps.
        self.vocab_size = 1 + max(tokenizer.get_vocab().values())
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.int32)
        self.tally: Counter[str] = Counter()

    def sequences(self, chunks: Iterable[list[str]]) -> Iterator[Pieces]:
        """Yield the clean sequences of each chunk of texts, in order."""
        # One chunk ahead: tokenizing releases the GIL while the last chunk is cleaned and used.
        with ThreadPoolExecutor(max_workers=1) as thread:
            ahead = None
            for chunk in chunks:
                following = thread.submit(
                    self._backend.encode_batch_fast, chunk, add_special_tokens=False
                )
                if ahead is not None:
                    yield self._clean(ahead.result())
                ahead = following
            if ahead is not None:
                yield self._clean(ahead.result())

    def _clean(self, encoded: Sequence[tokenizers.Encoding]) -> Pieces:
        pieces = self._cut([np.array(encoding.ids, dtype=self.dtype) for encoding in encoded])
        return self._add_special_tokens(self._drop_short_and_unknown(pieces))

    def _cut(self, texts: Sequence[AnyInts]) -> Pieces:
        """Cut texts into pieces of the maximum length; a text's last piece may be shorter."""
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        counts = -(-lengths // self._max_piece)
        blank, cut = int((counts == 0).sum()), int((counts > 1).sum())
        self.tally.update(texts=len(texts), blank=blank, cut=cut)
        piece_lengths = np.full(int(counts.sum()), self._max_piece, dtype=np.int64)
        last_lengths = lengths - (counts - 1) * self._max_piece
        has_pieces = counts > 0
        piece_lengths[np.cumsum(counts)[has_pieces] - 1] = last_lengths[has_pieces]
        return Pieces(np.concatenate(texts), piece_lengths)

    def _drop_short_and_unknown(self, pieces: Pieces) -> Pieces:
        full_lengths = pieces.lengths + len(self._prefix) + len(self._suffix)
        short = full_lengths < self.options.min_tokens
        unknown_tokens = _count_each(pieces, self._unknown_id)
        unknown = unknown_tokens >= self.options.max_unknown * full_lengths
        self.tally.update(short=int(short.sum()), unknown=int((unknown & ~short).sum()))
        return pieces.where(~short & ~unknown)

    def _add_special_tokens(self, pieces: Pieces) -> Pieces:
        ends = np.cumsum(pieces.lengths)
        bounds = np.stack([ends - pieces.lengths, ends], axis=1)
        # A piece's end is the next one's beginning: np.insert puts the suffix before the prefix.
        places = np.repeat(bounds, [len(self._prefix), len(self._suffix)], axis=1)
        specials = np.array(self._prefix + self._suffix, dtype=self.dtype)
        tokens = np.insert(pieces.tokens, places.ravel(), np.tile(specials, len(bounds)))
        return Pieces(tokens, pieces.lengths + len(specials))


def _count_each(pieces: Pieces, token: int | None) -> AnyInts:
    """Count a token's occurrences in each piece."""
    if token is None or len(pieces.lengths) == 0:
        return np.zeros(len(pieces.lengths), dtype=np.int64)
    starts = np.cumsum(pieces.lengths) - pieces.lengths
    return np.add.reduceat((pieces.tokens == token).astype(np.int64), starts)


def plain_backend(tokenizer: Any) -> tokenizers.Tokenizer:
    """Return a copy of the tokenizer without the padding and truncation that its last use set."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UserError(
            f"{type(tokenizer).__name__}: not a fast tokenizer; use one that has a tokenizer.json"
        )
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    return backend


def _special_tokens_around(backend: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    sample = backend.encode("a")
    body = [i for i, special in enumerate(sample.special_tokens_mask) if not special]
    if not body:
        raise UserError(
            "the tokenizer gives the letter 'a' no token, so its special tokens can't be located"
        )
    return sample.ids[: body[0]], sample.ids[body[-1] + 1 :]


def _end_of_text_frame(
    tokenizer: Any, backend: tokenizers.Tokenizer
) -> tuple[list[int], list[int]] | None:
    """Return what stands before and after a causal model's text; None if the tokenizer adds both.

    GPT-2's tokenizer adds no special tokens, but the text that the model was trained on, and that
    of the original Distil* code, stands between end-of-text tokens. Llama's adds a beginning only:
    its student would never see an end.
    """
    prefix, suffix = _special_tokens_around(backend)
    end = tokenizer.eos_token_id
    if end is None or (prefix and suffix):
        return None
    begin = tokenizer.bos_token_id
    return prefix or [end if begin is None else begin], suffix or [end]
