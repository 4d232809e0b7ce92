"""Texts as token ids, each as long as it is, and batches as wide as their longest example."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angels_share.errors import UserError
from eval_harness.data.texts import Split
from eval_harness.data.token_rows import TokenRows

_CHUNK = 10_000  # texts at a time: the tokenizer's own objects are far larger than their ids


@dataclass(frozen=True)
class Encoded(TokenRows):
    """A split's texts, and their labels unless it is a test split."""

    labels: NDArray[Any] | None

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = super().__getitem__(index)
        if self.labels is not None:
            example["labels"] = self.labels[index]
        return example


def encode(split: Split, tokenizer: Any, max_seq_length: int) -> Encoded:
    """A split's texts (one or two each) cut to so many tokens, the longer of two first.

    Raises:
        UserError: so few tokens leave no room for the texts.
    """
    special = tokenizer.num_special_tokens_to_add(pair=len(split.texts) > 1)
    if max_seq_length < special + len(split.texts):
        raise UserError(
            f"--max_seq_length {max_seq_length}: {special} of them go to special tokens, which "
            f"leaves no word of {len(split.texts)} text(s)"
        )
    ids, types, lengths = [], [], []
    for first in range(0, len(split), _CHUNK):
        texts = [list(column[first : first + _CHUNK]) for column in split.texts]
        encoded = tokenizer(
            *texts,
            truncation=True,
            max_length=max_seq_length,
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
    """Pads a batch on the right, as every encoder here was trained.

    Attributes:
        pad_id: what stands in the padding.
        width: of every batch; as wide as its longest example where it is None.
    """

    pad_id: int
    width: int | None = None

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Examples as one batch."""
        # Filled by numpy: a tensor for each example would be most of a small model's overhead.
        lengths = np.array([len(example["input_ids"]) for example in examples])
        attended = np.arange(self.width or lengths.max()) < lengths[:, None]
        batch = {"attention_mask": torch.from_numpy(attended.astype(np.int64))}
        for name, value in examples[0].items():
            match np.ndim(value):
                case 0:
                    values = np.asarray([example[name] for example in examples])
                    dtype = torch.float32 if values.dtype.kind == "f" else torch.int64
                    batch[name] = torch.as_tensor(values, dtype=dtype)
                case 1:  # something of each token
                    joined = np.concatenate([example[name] for example in examples])
                    kind = np.bool_ if joined.dtype == np.bool_ else np.int64
                    padded: NDArray[Any] = np.full(attended.shape, self._padding(name), dtype=kind)
                    padded[attended] = joined
                    batch[name] = torch.from_numpy(padded)
        return batch

    def _padding(self, name: str) -> int:
        """Return what stands behind an example's own tokens; -100 is a label that nobody learns."""
        return {"input_ids": self.pad_id, "labels": -100}.get(name, 0)


def by_length(encoded: TokenRows, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """The indices of evaluation batches, longest examples first: little padding, memory known."""
    order = np.argsort(-encoded.lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]
