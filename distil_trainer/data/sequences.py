"""Any data set of token ids as the sequences that batches are planned from."""

from typing import Any

import numpy as np
import numpy.typing as npt

from angels_share.errors import UserError
from distil_trainer.data.batches import Sequences, TextStream, estimate_token_counts


class Rows:
    """The `input_ids` of a data set's rows, with their lengths read once."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.lengths = np.array([len(self[index]) for index in range(len(dataset))])

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> npt.NDArray[np.integer[Any]]:
        row = self._dataset[int(index)]
        return np.asarray(row["input_ids"] if isinstance(row, dict) else row, dtype=np.int64)


def as_sequences(dataset: Any) -> Any:
    """A prepared corpus' sequences or a stream as they are; a data set with `input_ids` as such.

    Several named data sets, to be evaluated on one after the other, are each taken so.

    Raises:
        UserError: it holds no token ids.
    """
    if isinstance(dataset, dict):
        return {name: as_sequences(each) for name, each in dataset.items()}
    if dataset is None or isinstance(dataset, TextStream) or hasattr(dataset, "lengths"):
        return dataset
    if hasattr(dataset, "column_names") and "input_ids" not in dataset.column_names:
        raise UserError(
            f"the data set has columns {', '.join(dataset.column_names)} and no input_ids: "
            "tokenize it first, with special tokens, or use prepare_corpus"
        )
    return Rows(dataset)


def count_tokens(dataset: Sequences | TextStream, vocab_size: int) -> npt.NDArray[np.int64]:
    """How often each token of the vocabulary occurs; of a stream, in its beginning."""
    if isinstance(dataset, TextStream):
        return estimate_token_counts(dataset)
    counts = np.zeros(vocab_size, dtype=np.int64)
    for index in range(len(dataset)):
        counts += np.bincount(dataset[index], minlength=vocab_size)
    return counts
