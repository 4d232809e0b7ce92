"""What of a batch a model's forward takes. Imports no torch: it only looks at a signature."""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")
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
