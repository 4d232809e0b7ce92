"""Adapters: any data set of token ids as the sequences that batches are planned from."""

from typing import Any

import numpy as np

from angels_share.errors import UserError
from distil_trainer.data.batches import Sequences, TextStream, estimate_token_counts
from distil_trainer.data.masking import AnyInts, Ints


class Rows:
    """The `input_ids` of a data set's rows; their lengths are read once."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.lengths = np.array([len(self[index]) for index in range(len(dataset))])

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> AnyInts:
        row = self._dataset[int(index)]
        return np.asarray(row["input_ids"] if isinstance(row, dict) else row, dtype=np.int64)


def as_sequences(dataset: Any) -> Any:
    """Return a data set with `input_ids` as sequences; a stream, sequences or None unchanged.

    A dict of named data sets, for evaluation on one after the other, is converted entry by entry.

    Raises:
        UserError: the data set has no column of token ids.
    """
    if isinstance(dataset, dict):
        return {name: as_sequences(member) for name, member in dataset.items()}
    if dataset is None or isinstance(dataset, TextStream) or hasattr(dataset, "lengths"):
        return dataset
    if hasattr(dataset, "column_names") and "input_ids" not in dataset.column_names:
        raise UserError(
            f"the data set has columns {', '.join(dataset.column_names)} and no input_ids: "
            "tokenize it first, with special tokens, or use prepare_corpus"
        )
    return Rows(dataset)


def count_tokens(dataset: Sequences | TextStream, vocab_size: int) -> Ints:
    """Count each token's occurrences; in a stream, only those at its beginning."""
    if isinstance(dataset, TextStream):
        return estimate_token_counts(dataset)
    counts = np.zeros(vocab_size, dtype=np.int64)
    for index in range(len(dataset)):
        counts += np.bincount(dataset[index], minlength=vocab_size)
    return counts
