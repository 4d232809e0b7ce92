"""What a model accepts: the fields of a batch, and the number of tokens. Imports no torch."""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")
_POSITIONS = ("position_embeddings", "wpe")
_LABELS = {"labels", "start_positions", "end_positions"}
_LONGEST = 512

UNLABELLED = "unlabelled"
"""The batch field that is true at rows (of tagged words: tokens) that only a teacher answers."""


def inputs_of(model: Any) -> frozenset[str]:
    """Return the batch fields that a model takes, labels excluded.

    A BERT takes token types, a DistilBERT doesn't. Nor does a model with one type: it has no
    embedding for the second, which its tokenizer may still emit.
    """
    names = set(inspect.signature(model.forward).parameters) - _LABELS
    if getattr(model.config, "type_vocab_size", 1) < 2:
        names.discard("token_type_ids")
    return frozenset(names)


def chosen(batch: Mapping[str, _T], names: frozenset[str]) -> dict[str, _T]:
    """Return the part of a batch that has these names."""
    return {name: value for name, value in batch.items() if name in names}


def positions_of(model: Any) -> int | None:
    """Return how many tokens a model's position table can hold; None if it has no table.

    In RoBERTa and its relatives the entries up to the padding index are not used for tokens.
    """
    for name, module in model.named_modules():
        if hasattr(module, "num_embeddings") and name.endswith(_POSITIONS):
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            positions: int = module.num_embeddings - skipped
            return positions
    return None


def longest_of(model: Any) -> int:
    """Return the number of tokens of a model's longest text: what it can read, 512 at most."""
    found = positions_of(model) or getattr(model.config, "max_position_embeddings", None)
    return min(found or _LONGEST, _LONGEST)
