"""Rows of a file as a model reads them: what an export is checked on, and a cut is scored on."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.readers.columns import column_names, read_columns
from angels_share.readers.usual_columns import USUAL, usual_columns

Row = Mapping[str, Sequence[int]]

_WORDS = ("tokens",)
"""The column of texts that are split into words."""


def require_padding(name: str, model: Any, tokenizer: Any) -> None:
    """Give a causal classifier its tokenizer's padding token, by which it finds a text's end.

    Raises:
        UserError: there is none.
    """
    if model.config.pad_token_id is not None:
        return
    model.config.pad_token_id = tokenizer.pad_token_id
    finds_the_end = type(model).__name__.endswith("ForSequenceClassification")
    if model.config.pad_token_id is None and finds_the_end:
        raise UserError(
            f"{name}: neither its config nor its tokenizer has a padding token, by which a "
            f"{type(model).__name__} finds the end of a text: set pad_token_id in its config.json"
        )


def read_rows(
    path: Path,
    tokenizer: Any,
    columns: Sequence[str],
    *,
    max_length: int,
    limit: int,
) -> list[Row]:
    """Return the first rows of a csv, tsv, json, jsonl or parquet file.

    Args:
        path: the file.
        tokenizer: the model's tokenizer.
        columns: the column of the text, or the two of a pair; empty for the first that are usual.
        max_length: the length in tokens at which rows are cut.
        limit: how many rows are taken.

    Raises:
        UserError: the file can't be read, or has no such columns.
    """
    names = tuple(columns) or usual_columns(path, (*USUAL, _WORDS))
    if len(names) > 2:
        raise UserError(f"--text_columns {' '.join(names)}: a model reads one text or a pair")
    read = read_columns(path, names)
    words = names == _WORDS or isinstance(read.cells[names[0]][0], (list, tuple))
    texts = [list(read.cells[name] if words else read.texts(name))[:limit] for name in names]
    encoded = tokenizer(*texts, truncation=True, max_length=max_length, is_split_into_words=words)
    for row, (ids, *parts) in enumerate(zip(encoded["input_ids"], *texts, strict=True)):
        if not ids or not any(part if words else part.strip() for part in parts):
            raise UserError(f"{read.where(row)}: its text is empty; remove the row")
    fields = [name for name in _FIELDS if name in encoded]
    return [{name: encoded[name][index] for name in fields} for index in range(len(texts[0]))]


def labels_in(
    path: Path, column: str, model: Any, *, limit: int, required: bool
) -> list[float] | None:
    """Return the classes, or for a regression the numbers, that a column gives the first rows.

    Args:
        path: the file.
        column: the column of the labels.
        model: whose classes they are.
        limit: how many rows are taken.
        required: whether they must be there; a column of that name may hold something else, and a
            test set has none.

    Raises:
        UserError: they must be there, and a cell is neither.
    """
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return None
    if not required and column not in column_names(path):
        return None
    read = read_columns(path, [column])
    labels = [_label(cell, model.config) for cell in read.cells[column][:limit]]
    known = [label for label in labels if label is not None]
    if len(known) == len(labels):
        return known
    if not required:
        return None
    row = labels.index(None)
    wanted = (
        "not a number"
        if model.config.num_labels == 1
        else (f"none of the model's classes, {', '.join(model.config.label2id)}")
    )
    raise UserError(f"{read.where(row)}: label {read.cells[column][row]!r} is {wanted}")


def _label(cell: object, config: Any) -> float | None:
    """Return a cell as a class of the model, for a regression as a number; None if it's neither."""
    if config.num_labels == 1:
        return _number(cell)
    number = _number(config.label2id.get(str(cell), cell))
    return int(number) if number is not None and number in range(config.num_labels) else None


def _number(cell: object) -> float | None:
    """Return a cell as a finite number; None for anything else."""
    try:
        number = float(cell)  # type: ignore[arg-type]  # whatever a file may hold
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


_FIELDS = ("input_ids", "attention_mask", "token_type_ids")
