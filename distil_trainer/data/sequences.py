"""Adapters: any data set of token ids as the sequences that batches are planned from."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from angels_share.errors import UserError
from distil_trainer.data.batches import (
    BatchPlan,
    Example,
    Key,
    Sequences,
    TextStream,
    estimate_token_counts,
)
from distil_trainer.data.masking import AnyInts, Ints
from distil_trainer.data.rows import Row, read_row

_ROWS_AT_ONCE = 1000
"""Rows of an iterable data set among which batches of similar length are formed."""

_logger = logging.getLogger(__name__)


class Rows:
    """A data set's rows that have a token; their lengths are read once."""

    def __init__(self, dataset: Any, read: Callable[[Any], Row]) -> None:
        """Read every row once.

        Args:
            dataset: rows by number.
            read: `read_row`, with all but its first argument.

        Raises:
            UserError: a row can't be used, or none has a token.
        """
        self._dataset = dataset
        self._read = read
        lengths = np.array([len(self._row(n).tokens) for n in range(len(dataset))], dtype=np.int64)
        self._numbers = np.flatnonzero(lengths)
        self.lengths = lengths[self._numbers]
        if empty := len(lengths) - len(self.lengths):
            if empty == len(lengths):
                raise UserError("the data set: no row has a token")
            _logger.warning("%d of %d rows have no token; they are left out", empty, len(lengths))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> AnyInts:
        return self.row(index).tokens

    def row(self, index: int) -> Row:
        """Return a row with all of its columns."""
        return self._row(int(self._numbers[index]))

    def _row(self, number: int) -> Row:
        return _read_numbered(self._read, self._dataset[number], number)


def _read_numbered(read: Callable[[Any], Row], row: Any, number: int) -> Row:
    try:
        return read(row)
    except UserError as error:
        raise UserError(f"the data set, row {number}: {error}") from None
    except KeyError as error:
        raise UserError(f"the data set, row {number}: no column {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"the data set, row {number}: not token ids ({error})") from None


class RowStream:
    """An iterable data set, whose rows are read anew in every epoch."""

    def __init__(self, dataset: Any, read: Callable[[Any], Row]) -> None:
        self._dataset = dataset
        self._read = read

    @property
    def is_read_once(self) -> bool:
        """True for a generator, and for anything else that is its own iterator."""
        return iter(self._dataset) is self._dataset

    def rows(self, epoch: int = 0) -> Iterator[tuple[int, Row]]:
        """Yield an epoch's rows that have a token, each with its number.

        Raises:
            UserError: there are none, as in the second pass over a generator.
        """
        if hasattr(self._dataset, "set_epoch"):
            self._dataset.set_epoch(epoch)
        empty = True
        for number, raw in enumerate(self._dataset):
            row = _read_numbered(self._read, raw, number)
            if len(row.tokens):
                empty = False
                yield number, row
        if empty:
            again = "; it must give its rows again in every pass" if epoch else ""
            raise UserError(f"the iterable data set gave no rows in pass {epoch + 1}{again}")


class StreamedRows(IterableDataset[list[Example]]):
    """Batches of one process' part of an iterable data set: endless, or one pass for evaluation.

    Of P processes, process p reads rows p, p + P, p + 2P and so on. Batches are formed and
    shuffled within a thousand rows.
    """

    def __init__(
        self,
        stream: RowStream,
        *,
        process_index: int = 0,
        num_processes: int = 1,
        endless: bool = True,
        **plan: Any,
    ) -> None:
        """Set up one process' part.

        Args:
            stream: the data set.
            process_index: this process' number.
            num_processes: processes that share the data set.
            endless: begin again after each pass.
            **plan: keyword arguments of `BatchPlan` that size and seed the batches.
        """
        self._stream = stream
        self._part = (process_index, num_processes)
        self._endless = endless
        self._plan = plan

    def __iter__(self) -> Iterator[list[Example]]:
        for epoch in count() if self._endless else range(1):
            rows = islice(self._stream.rows(epoch), self._part[0], None, self._part[1])
            while some := list(islice(rows, _ROWS_AT_ONCE)):
                plan = BatchPlan([len(row.tokens) for _, row in some], **self._plan)
                for batch in plan.epoch_batches(epoch, 0):
                    yield [
                        Example(Key(epoch, some[n][0]), some[n][1].tokens, some[n][1].columns)
                        for n in batch.tolist()
                    ]


@dataclass(frozen=True)
class _Reader:
    """`read_row` for one kind of data; picklable, unlike a lambda, so that workers can use it."""

    causal: bool
    special_ids: tuple[int, ...]

    def __call__(self, row: Any) -> Row:
        return read_row(row, causal=self.causal, special_ids=self.special_ids)


def as_sequences(dataset: Any, *, causal: bool = False, special_ids: Sequence[int] = ()) -> Any:
    """Return a data set with `input_ids` as sequences; a stream, sequences or None unchanged.

    A dict of named data sets, for evaluation on one after the other, is converted entry by entry;
    an iterable data set becomes a `RowStream`.

    Args:
        dataset: the data set; see `read_row` for its columns.
        causal: whether the data are a causal model's.
        special_ids: ids of the tokenizer's special tokens.

    Raises:
        UserError: the data set has no column of token ids, or a row can't be used.
    """
    if isinstance(dataset, dict):
        return {
            name: as_sequences(member, causal=causal, special_ids=special_ids)
            for name, member in dataset.items()
        }
    if dataset is None or isinstance(dataset, TextStream | RowStream) or has_sequences(dataset):
        return dataset
    if getattr(dataset, "column_names", None) and "input_ids" not in dataset.column_names:
        raise UserError(
            f"the data set has columns {', '.join(dataset.column_names)} and no input_ids: "
            "tokenize it first, with special tokens, or use prepare_corpus"
        )
    read = _Reader(causal, tuple(special_ids))
    if is_iterable(dataset):
        return RowStream(dataset, read)
    return Rows(dataset, read)


def has_sequences(dataset: Any) -> bool:
    """Return whether a data set gives token ids by number and their lengths, as a corpus does."""
    return hasattr(dataset, "lengths") and not (
        len(dataset) and isinstance(dataset[0], Mapping)  # rows, of a class with such a name
    )


def is_iterable(dataset: Any) -> bool:
    """Return whether a data set can only be read from its beginning, without a known length."""
    return isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")


def count_tokens(dataset: Sequences | TextStream | RowStream, vocab_size: int) -> Ints:
    """Count each token's occurrences; in a stream, only those at its beginning."""
    if isinstance(dataset, TextStream):
        return estimate_token_counts(dataset)
    counts = np.zeros(vocab_size, dtype=np.int64)
    if isinstance(dataset, RowStream):
        if dataset.is_read_once:
            raise UserError(
                "the data set gives its rows only once, and counting the tokens would use them up: "
                "pass token_counts, or a data set that can be read again"
            )
        for _, row in islice(dataset.rows(), 100_000):
            counts += _counts_of(row.tokens, vocab_size)
        return counts
    for index in range(len(dataset)):
        counts += _counts_of(dataset[index], vocab_size)
    return counts


def _counts_of(tokens: AnyInts, vocab_size: int) -> Ints:
    if len(tokens) and not 0 <= np.min(tokens) <= np.max(tokens) < vocab_size:
        wrong = tokens[(tokens < 0) | (tokens >= vocab_size)][0]
        raise UserError(
            f"the data hold token id {wrong}, but the student's vocabulary has {vocab_size} tokens "
            "(0 and up): tokenize with the student's own tokenizer"
        )
    return np.bincount(tokens, minlength=vocab_size)
