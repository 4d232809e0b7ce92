"""What every variant of the distillation step shares: models, data, optimizer, weights.

It imports nothing but torch, numpy and transformers, since peers run in environments of their own.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
)

IGNORED = -100
"""The label of a token that is no target."""
MASK = 103
"""The token that stands in every target's place."""
_SEQUENCES, _FIRST_WORD = 2048, 1000


class Size(NamedTuple):
    """The shape of a teacher, whose student has half its depth, and of the batch."""

    width: int
    heads: int
    depth: int
    sequences: int
    length: int
    vocabulary: int = 30_522

    @property
    def tokens(self) -> int:
        """The tokens of a batch, padding included."""
        return self.sequences * self.length

    def operations(self, lengths: npt.ArrayLike, soft_rows: int) -> float:
        """Return the operations of the matrix products that a step's result needs.

        A backward pass costs two forward passes; padding needs nothing.

        Args:
            lengths: of the batch's sequences, without padding.
            soft_rows: the tokens at which logits are needed.
        """
        tokens = np.asarray(lengths, dtype=np.float64)
        layer = float((24 * self.width**2 * tokens + 4 * self.width * tokens**2).sum())
        head = soft_rows * (2 * self.width**2 + 2 * self.width * self.vocabulary)
        return self.depth * layer + head + 3 * (self.depth // 2 * layer + head)


SIZES = {
    ("mini", "cpu"): Size(width=256, heads=4, depth=4, sequences=16, length=128),
    ("base", "cpu"): Size(width=768, heads=12, depth=12, sequences=4, length=128),
    ("mini", "cuda"): Size(width=256, heads=4, depth=4, sequences=32, length=512),
    ("base", "cuda"): Size(width=768, heads=12, depth=12, sequences=32, length=512),
    ("tiny", "cpu"): Size(width=32, heads=2, depth=2, sequences=3, length=16, vocabulary=1100),
}


class Recipe(NamedTuple):
    """Weights of the three terms and the temperature, as published."""

    ce: float = 5.0
    mlm: float = 2.0
    cos: float = 1.0
    temperature: float = 2.0


class Batch(NamedTuple):
    """Masked sequences; labels are -100 where a token is not a target."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def to(self, device: str) -> "Batch":
        """Return the batch on a device."""
        return Batch(*(part.to(device) for part in self))

    @property
    def lengths(self) -> list[int]:
        """The sequences' lengths, without padding."""
        return self.attention_mask.sum(1).tolist()


class Pair(NamedTuple):
    """A student in training and its teacher."""

    student: PreTrainedModel
    teacher: PreTrainedModel


def teacher_config(size: Size, **more: Any) -> BertConfig:
    """Return a BERT's configuration of a size."""
    return BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        **more,
    )


def student_config(size: Size, **more: Any) -> DistilBertConfig:
    """Return the configuration of a DistilBERT of half that depth."""
    return DistilBertConfig(
        vocab_size=size.vocabulary,
        dim=size.width,
        n_layers=size.depth // 2,
        n_heads=size.heads,
        hidden_dim=4 * size.width,
        **more,
    )


def make_pair(size: Size, attention: str, device: str, dropout: float = 0.1) -> Pair:
    """Return models whose random weights depend on the size alone."""
    torch.manual_seed(0)
    teacher = teacher_config(size, attn_implementation=attention)
    student = student_config(
        size, dropout=dropout, attention_dropout=dropout, attn_implementation=attention
    )
    return Pair(
        DistilBertForMaskedLM(student).to(device).train(),
        BertForMaskedLM(teacher).to(device).eval().requires_grad_(requires_grad=False),
    )


def make_optimizer(student: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW with the published settings, in torch's fastest form."""
    trained = [each for each in student.parameters() if each.requires_grad]
    return torch.optim.AdamW(
        trained, lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, fused=True
    )


def make_lengths(size: Size, *, ragged: bool) -> npt.NDArray[np.int64]:
    """Return the corpus' lengths: all full, or lognormal with about half of that as the median."""
    if not ragged:
        return np.full(_SEQUENCES, size.length)
    drawn = np.random.default_rng(0).lognormal(math.log(0.52 * size.length), 0.5, _SEQUENCES)
    return np.clip(drawn, min(12, size.length // 2), size.length).astype(np.int64)


def make_batch(size: Size, lengths: npt.NDArray[np.int64], chosen: npt.ArrayLike) -> Batch:
    """Return sequences of the corpus, padded to the longest; 15 % of each one's tokens are targets.

    A sequence and its masks depend on its number alone, so every batching sees the same ones.
    """
    numbers = np.asarray(chosen)
    shape = len(numbers), int(lengths[numbers].max())
    ids, labels = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORED)
    for row, number in enumerate(numbers.tolist()):
        rng, length = np.random.default_rng([1, number]), int(lengths[number])
        ids[row, :length] = rng.integers(_FIRST_WORD, size.vocabulary, length)
        targets = rng.permutation(length)[: math.ceil(0.15 * length)]
        labels[row, targets] = ids[row, targets]
        ids[row, targets] = MASK
    attended = (np.arange(shape[1]) < lengths[numbers][:, None]).astype(np.int64)
    return Batch(*map(torch.from_numpy, (ids, attended, labels)))


def random_batches(size: Size, lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the numbers of each batch's sequences, drawn as transformers' Trainer does."""
    order = np.random.default_rng(2).permutation(len(lengths))
    yield from np.split(order, range(size.sequences, len(order), size.sequences))


def grouped_batches(size: Size, lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield equally many sequences of similar length, as the original code groups them."""
    rng = np.random.default_rng(2)
    order = rng.permutation(len(lengths))
    by_length = order[np.argsort(lengths[order], kind="stable")]
    batches = np.split(by_length, range(size.sequences, len(order), size.sequences))
    for number in rng.permutation(len(batches)):
        yield batches[number]
