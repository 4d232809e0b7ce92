"""A language model's batches by a collator of the user's: what is checked, said and recorded."""

import logging
from dataclasses import fields
from typing import Any

import transformers

from angels_share.errors import UserError
from distil_trainer.data.batches import TextStream
from distil_trainer.data.sequences import RowStream, has_sequences
from distil_trainer.training.args import DistilTrainingArguments

# Ours, of which the masks and batches of a user's collator make no use.
_WITHOUT_EFFECT = ("tokens_per_batch", "mlm_probability", "mlm_smoothing", "mask_scope")
_PURE = (
    transformers.DataCollatorWithPadding,
    transformers.DataCollatorForTokenClassification,
    transformers.DataCollatorForSeq2Seq,
    transformers.DefaultDataCollator,
)

_logger = logging.getLogger(__name__)


def check_collator(args: DistilTrainingArguments, token_counts: Any) -> None:
    """Refuse settings of our masks and batches, which a user's collator would leave without effect.

    Raises:
        UserError: one of them is set.
    """
    defaults = {each.name: each.default for each in fields(args)}
    changed = [name for name in _WITHOUT_EFFECT if getattr(args, name) != defaults[name]]
    if token_counts is not None:
        changed.append("token_counts")
    if changed:
        raise UserError(
            f"{changed[0]} would be ignored: the data_collator makes and masks the batches; "
            "leave one of the two out"
        )


def masks_differ(collator: Any) -> bool:
    """Return whether a collator may mask an example differently each time, and warn if so."""
    masked = getattr(collator, "mlm", None)
    known = isinstance(collator, transformers.DataCollatorForLanguageModeling) and not masked
    if known or isinstance(collator, _PURE) or collator is transformers.default_data_collator:
        return False
    _logger.warning(
        "data_collator %s: its masks may differ each time that an example is read, so a resumed "
        "run is not bit-equal to an uninterrupted one; without data_collator it is",
        name_of(collator),
    )
    return True


def name_of(collator: Any) -> str:
    """Return a collator's name, by which a resumed run recognises it."""
    kind = collator if hasattr(collator, "__qualname__") else type(collator)
    return f"{kind.__module__}.{kind.__qualname__}"


def as_rows(dataset: Any) -> Any:
    """Return a data set as a collator reads it: sequences become rows with `input_ids`.

    Raises:
        UserError: it is a stream of texts, which are batched as they are tokenized.
    """
    if isinstance(dataset, dict):
        return {name: as_rows(member) for name, member in dataset.items()}
    if isinstance(dataset, TextStream | RowStream):
        raise UserError(
            "a data_collator can't be used with a stream of texts; prepare the corpus instead"
        )
    return _RowsOf(dataset) if has_sequences(dataset) else dataset


class _RowsOf:
    """Sequences as rows."""

    def __init__(self, sequences: Any) -> None:
        self._sequences = sequences

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if hasattr(self._sequences, "row"):
            tokens, columns = self._sequences.row(index)
            return {"input_ids": tokens.tolist()} | {k: v.tolist() for k, v in columns.items()}
        return {"input_ids": self._sequences[index].tolist()}
