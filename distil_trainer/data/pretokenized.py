"""Token ids that another pipeline made, taken as they are: rows of `input_ids` in place of texts.

They are neither cut nor cleaned nor framed. What would train a worse student in silence is refused:
ids beyond the vocabulary, rows longer than the models read, labels or types that a corpus has no
place for. That the ids are this tokenizer's can't be seen from them: whoever takes them says so.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from angels_share.errors import UserError
from distil_trainer.data.masking import AnyInts
from distil_trainer.data.rows import read_row
from distil_trainer.data.sequence_maker import CorpusOptions, Pieces


class TokenTaker:
    """What `SequenceMaker` is for texts: reads rows of token ids, checks them, counts them."""

    added_frame: tuple[list[int], list[int]] | None = None
    """Nothing is put around a row."""

    def __init__(self, tokenizer: Any, options: CorpusOptions, *, causal: bool | None) -> None:
        """Find out what the rows are checked by.

        Args:
            tokenizer: the tokenizer that the ids are said to be of.
            options: `max_length` is the most that a row may have; nothing is cleaned.
            causal: whether a causal model learns from them; None if it is where the tokenizer has
                no mask token.
        """
        self.options = options
        self.vocab_size = 1 + max(tokenizer.get_vocab().values())
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.int32)
        self.tally: Counter[str] = Counter()
        self._causal = tokenizer.mask_token_id is None if causal is None else causal
        pad = tokenizer.pad_token_id
        roles = ("bos", "eos", "unk", "sep", "cls", "mask")
        others = [getattr(tokenizer, f"{role}_token_id") for role in roles]
        self._padding = None if pad in others else pad
        self._special_ids = tuple(tokenizer.all_special_ids)

    def read(self, row: Mapping[str, Any], where: str) -> AnyInts:
        """Return a row's token ids, without its padding.

        Args:
            row: its columns, `input_ids` among them.
            where: the file and the row, for an error.

        Raises:
            UserError: the row can't be used as it is.
        """
        try:
            tokens, others = read_row(row, causal=self._causal, special_ids=self._special_ids)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: input_ids holds no token ids ({error})") from None
        if others:
            raise UserError(
                f"{where}: a corpus has no place for {next(iter(others))}; leave the column out, "
                "or pass the rows as train_dataset in Python"
            )
        if "attention_mask" not in row and self._is_padded(tokens):
            raise UserError(
                f"{where}: begins or ends with the padding token, which would be learned as text: "
                "add a column attention_mask, or leave the padding out"
            )
        if len(tokens) > self.options.max_length:
            raise UserError(
                f"{where}: {len(tokens)} tokens, and a sequence may have {self.options.max_length}:"
                " raise --max_seq_length if the models read more, or make shorter rows"
            )
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < self.vocab_size:
            wrong = tokens[(tokens < 0) | (tokens >= self.vocab_size)][0]
            raise UserError(
                f"{where}: token id {wrong}, and the tokenizer has ids from 0 to "
                f"{self.vocab_size - 1}: the rows were made with another one"
            )
        return tokens.astype(self.dtype)

    def _is_padded(self, tokens: AnyInts) -> bool:
        """Return whether a row has padding at an end; one that frames texts may stand there."""
        return bool(len(tokens)) and self._padding in (tokens[0], tokens[-1])

    def sequences(self, chunks: Iterable[Sequence[Any]]) -> Iterator[Pieces]:
        """Yield the rows of each chunk that have a token, in order."""
        for rows in chunks:
            lengths = np.array([len(row) for row in rows], dtype=np.int64)
            self.tally.update(texts=len(rows), blank=int((lengths == 0).sum()))
            yield Pieces(np.concatenate(rows), lengths[lengths > 0])
