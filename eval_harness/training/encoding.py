"""Tokenization of texts without padding, and collation into padded batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angels_share.errors import UserError
from angels_share.inputs import UNLABELLED
from eval_harness.data.texts import Split
from eval_harness.data.token_rows import TokenRows

_NO_LABEL = -100
_CHUNK = 10_000  # texts tokenized at a time: the tokenizer's outputs are far larger than the ids


@dataclass(frozen=True)
class Encoded(TokenRows):
    """A split's token ids, and its labels; None for a test split."""

    labels: NDArray[Any] | None

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = super().__getitem__(index)
        if self.labels is not None:
            example["labels"] = self.labels[index]
        return example


def encode(split: Split, tokenizer: Any, max_seq_length: int) -> Encoded:
    """Tokenize a split's texts (one or two each), truncating the longer of two first.

    Args:
        split: the texts.
        tokenizer: the model's tokenizer.
        max_seq_length: maximum sequence length in tokens, including special tokens.

    Raises:
        UserError: the length leaves no room for a token of each text.
    """
    special = tokenizer.num_special_tokens_to_add(pair=len(split.texts) > 1)
    if max_seq_length < special + len(split.texts):
        raise UserError(
            f"--max_seq_length {max_seq_length}: {special} of them are special tokens, which "
            f"leaves too few for {len(split.texts)} text(s): increase it"
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
    all_types = np.concatenate(types)
    return Encoded(
        np.concatenate(ids), all_types if all_types.any() else None, starts, split.labels
    )


@dataclass(frozen=True)
class WithUnlabelled:
    """Labelled examples, then others of which a student learns only what its teacher answers.

    A data set for a Trainer. Every example says where it has no label of its own, also the labelled
    ones, since a batch is made of both.

    Attributes:
        labelled: the examples of the training split.
        unlabelled: those of the transfer set, with any label where one would stand.
    """

    labelled: TokenRows
    unlabelled: TokenRows

    def __len__(self) -> int:
        return len(self.labelled) + len(self.unlabelled)

    def __getitem__(self, index: int) -> dict[str, Any]:
        first = len(self.labelled)
        is_ours = index < first
        example = self.labelled[index] if is_ours else self.unlabelled[index - first]
        if self.labelled.types is not None or self.unlabelled.types is not None:
            example.setdefault("token_type_ids", np.zeros(len(example["input_ids"]), np.uint8))
        nowhere = np.zeros(np.shape(example["labels"]), bool)
        return {**example, UNLABELLED: nowhere if is_ours else example["labels"] != _NO_LABEL}

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of each example."""
        return np.concatenate([self.labelled.lengths, self.unlabelled.lengths])


@dataclass(frozen=True)
class Collator:
    """A collator that pads on the right, as all encoders here were trained.

    Attributes:
        pad_id: the token id that batches are padded with.
        width: the width of every batch in tokens; None for that of its longest example.
    """

    pad_id: int
    width: int | None = None

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the examples as one padded batch, with its attention mask."""
        # Filled by numpy: one tensor per example would be most of a small model's overhead.
        lengths = np.array([len(example["input_ids"]) for example in examples])
        attended = np.arange(self.width or lengths.max()) < lengths[:, None]
        batch = {"attention_mask": torch.from_numpy(attended.astype(np.int64))}
        for name, value in examples[0].items():
            match np.ndim(value):
                case 0:
                    values = np.asarray([example[name] for example in examples])
                    dtype = torch.float32 if values.dtype.kind == "f" else torch.int64
                    batch[name] = torch.as_tensor(values, dtype=dtype)
                case 1:  # one value per token
                    flat = np.concatenate([example[name] for example in examples])
                    kind = np.bool_ if flat.dtype == np.bool_ else np.int64
                    padded: NDArray[Any] = np.full(attended.shape, self._padding(name), dtype=kind)
                    padded[attended] = flat
                    batch[name] = torch.from_numpy(padded)
        return batch

    def _padding(self, name: str) -> int:
        """Return the padding value of an input; cross-entropy ignores labels of -100."""
        return {"input_ids": self.pad_id, "labels": _NO_LABEL}.get(name, 0)


def by_length(encoded: TokenRows, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of evaluation batches, longest examples first.

    Sorting minimizes padding, and a batch that is too large for the memory fails at once.
    """
    order = np.argsort(-encoded.lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]
