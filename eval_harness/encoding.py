"""Texts as token ids, each as long as it is, and batches as wide as their longest example."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angels_share.errors import UserError
from eval_harness.data import Split

_CHUNK = 10_000  # texts at a time: the tokenizer's own objects are far larger than their ids


@dataclass(frozen=True)
class Encoded:
    """A split's token ids in one array; what a Trainer takes for a data set.

    `types` are None where no token has another type than 0: models take that for granted.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.uint8] | None
    starts: NDArray[np.int64]
    labels: NDArray[Any] | None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)  # what ends a loop over it
        part = slice(self.starts[index], self.starts[index + 1])
        example: dict[str, Any] = {"input_ids": self.ids[part]}
        if self.types is not None:
            example["token_type_ids"] = self.types[part]
        if self.labels is not None:
            example["labels"] = self.labels[index]
        return example

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.starts)


def encode(split: Split, tokenizer: Any, max_length: int) -> Encoded:
    """A split's texts (one or two each) cut to so many tokens, the longer of two first.

    Raises:
        UserError: so few tokens leave no room for the texts.
    """
    special = tokenizer.num_special_tokens_to_add(pair=len(split.texts) > 1)
    if max_length < special + len(split.texts):
        raise UserError(
            f"--max_seq_length {max_length}: {special} of them go to special tokens, which leaves "
            f"no word of {len(split.texts)} text(s)"
        )
    ids, types, lengths = [], [], []
    for first in range(0, len(split), _CHUNK):
        texts = [list(column[first : first + _CHUNK]) for column in split.texts]
        encoded = tokenizer(
            *texts,
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=True,
        )
        ids += [np.asarray(each, dtype=np.int32) for each in encoded["input_ids"]]
        types += [np.asarray(each, dtype=np.uint8) for each in encoded["token_type_ids"]]
        lengths += [len(each) for each in encoded["input_ids"]]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    joined = np.concatenate(types)
    return Encoded(np.concatenate(ids), joined if joined.any() else None, starts, split.labels)


@dataclass(frozen=True)
class Collator:
    """Pads a batch to its longest example: on the right, as every encoder here was trained."""

    pad_id: int

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Examples as one batch."""
        # Filled by numpy: a tensor for each example would be most of a small model's overhead.
        lengths = np.array([len(example["input_ids"]) for example in examples])
        attended = np.arange(lengths.max()) < lengths[:, None]
        batch = {"attention_mask": torch.from_numpy(attended.astype(np.int64))}
        for name, padding in (("input_ids", self.pad_id), ("token_type_ids", 0)):
            if name in examples[0]:
                padded = np.full(attended.shape, padding, dtype=np.int64)
                padded[attended] = np.concatenate([example[name] for example in examples])
                batch[name] = torch.from_numpy(padded)
        if "labels" in examples[0]:
            labels = np.asarray([example["labels"] for example in examples])
            dtype = torch.float32 if labels.dtype.kind == "f" else torch.int64
            batch["labels"] = torch.as_tensor(labels, dtype=dtype)
        return batch


def by_length(encoded: Encoded, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """The indices of evaluation batches, longest examples first: little padding, memory known."""
    order = np.argsort(-encoded.lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]
