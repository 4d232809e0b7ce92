"""A row of token ids: its tokens without padding, and what its other columns add to them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from angels_share.errors import UserError
from distil_trainer.data.masking import AnyInts

COLUMNS = ("attention_mask", "labels", "token_type_ids", "special_tokens_mask")
"""Columns beside `input_ids` that say something of a row's tokens."""
# What a model's forward would take, and nothing here passes on.
NOT_PASSED_ON = (
    "position_ids", "inputs_embeds", "decoder_input_ids", "decoder_attention_mask",
    "encoder_hidden_states", "encoder_attention_mask", "past_key_values", "shift_labels",
    "cu_seq_lens_q", "cu_seq_lens_k", "seq_idx",
)  # fmt: skip

Columns = Mapping[str, AnyInts]
"""What a data set says of a sequence's tokens beside their ids, by the column's name."""


class Row(NamedTuple):
    """A data set's row: its tokens without padding, and the other columns that say something."""

    tokens: AnyInts
    columns: Columns


def read_row(row: Any, *, causal: bool, special_ids: Sequence[int] = ()) -> Row:
    """Return a row's tokens, and what its other columns add to them.

    - `attention_mask`: padding at either end is left out, in every column.
    - `labels`: a masked model's text was masked beforehand, and is not masked again; a causal
      model learns the tokens whose label isn't -100 (labels are not shifted, as in transformers).
    - `token_type_ids`: passed on to the models that have types.
    - `special_tokens_mask`: what it marks is no target of a masked model, in addition to the
      tokenizer's special tokens; a causal model predicts every token, as in transformers.

    Args:
        row: a mapping from column names, or the token ids themselves.
        causal: whether the data are a causal model's.
        special_ids: ids of the special tokens, which are never targets anyway.

    Raises:
        UserError: a column has another length than `input_ids`, or can't be honoured.
    """
    if not isinstance(row, Mapping):
        return Row(_integers("the row", row), {})
    tokens = _integers("input_ids", row["input_ids"])
    if refused := [name for name in NOT_PASSED_ON if row.get(name) is not None]:
        raise UserError(f"{refused[0]} of a language model's data is not supported; remove it")
    given = {name: _integers(name, row[name]) for name in COLUMNS if row.get(name) is not None}
    for name, values in given.items():
        if values.shape != tokens.shape:
            raise UserError(f"{name} has {values.size} values, input_ids {tokens.size}")
    for name in ("attention_mask", "special_tokens_mask"):
        if not np.isin(given.get(name, 0), (0, 1)).all():
            raise UserError(f"{name} holds other values than 0 and 1, which is not supported")
    text = _text_within(given.pop("attention_mask", None))
    tokens, given = tokens[text], {name: values[text] for name, values in given.items()}
    if not given.get("token_type_ids", tokens[:0]).any():
        given.pop("token_type_ids", None)
    if (special := given.pop("special_tokens_mask", None)) is not None and not causal:
        special = special * ~np.isin(tokens, special_ids)
        given |= {"special_tokens_mask": special} if special.any() else {}
    if len(tokens) and np.array_equal(given.get("labels", tokens[:0]), tokens):
        if not causal:
            raise UserError(
                "labels are a copy of input_ids, in which nothing is masked; remove the column and "
                "tokens are masked here, or label with -100 what is not to be predicted"
            )
        del given["labels"]
    return Row(tokens, given)


def _integers(name: str, values: Any) -> AnyInts:
    """Return one dimension of whole numbers; a float such as 1.0 is one, 5.7 is not."""
    given = np.asarray(values)
    if given.ndim != 1:
        raise UserError(f"{name} has {given.ndim} dimensions instead of 1")
    if given.size and given.dtype.kind not in "biuf":
        raise TypeError(f"{name} of type {given.dtype}")
    if given.dtype.kind == "f" and not bool(np.all(given == np.trunc(given))):
        raise UserError(f"{name} has values that are no whole numbers")
    return given.astype(np.int64)


def _text_within(mask: AnyInts | None) -> slice:
    """Return where a row's text lies, between padding on its left and right."""
    if mask is None:
        return slice(None)
    places = np.flatnonzero(mask)
    if len(places) == 0:
        return slice(0, 0)
    if places[-1] - places[0] + 1 != len(places):
        raise UserError("attention_mask has a gap inside the text, which is not supported")
    return slice(int(places[0]), int(places[-1]) + 1)
