"""What a model takes: which part of a batch, and how many tokens. Looks only; imports no torch."""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")
_POSITIONS = ("position_embeddings", "wpe")
_LABELS = {"labels", "start_positions", "end_positions"}


def inputs_of(model: Any) -> frozenset[str]:
    """What a model is given: a DistilBERT gets no token types, a BERT does; never the labels.

    A model with one token type learned nothing for a second, whatever its tokenizer says.
    """
    names = set(inspect.signature(model.forward).parameters) - _LABELS
    if getattr(model.config, "type_vocab_size", 1) < 2:
        names.discard("token_type_ids")
    return frozenset(names)


def chosen(batch: Mapping[str, _T], names: frozenset[str]) -> dict[str, _T]:
    """The part of a batch that a model takes."""
    return {name: value for name, value in batch.items() if name in names}


def positions_of(model: Any) -> int | None:
    """Return the tokens of the longest text that a model has positions for; None without a table.

    The table of RoBERTa and its kin begins behind the padding's position.
    """
    for name, module in model.named_modules():
        if hasattr(module, "num_embeddings") and name.endswith(_POSITIONS):
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            positions: int = module.num_embeddings - skipped
            return positions
    return None
