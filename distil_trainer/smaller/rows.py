"""Rows of a file as a model reads them: what an export is checked on, and a cut is scored on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from angels_share.errors import UserError
from angels_share.readers.columns import read_columns
from angels_share.readers.usual_columns import USUAL, usual_columns

Row = Mapping[str, Sequence[int]]

_WORDS = ("tokens",)
"""The column of texts that are split into words."""


class Rows(NamedTuple):
    """Tokenized rows, and the cells of a column beside them."""

    rows: Sequence[Row]
    beside: Sequence[Any] | None
    where: str


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
    beside: str | None = None,
) -> Rows:
    """Return the first rows of a csv, tsv, json, jsonl or parquet file.

    Args:
        path: the file.
        tokenizer: the model's tokenizer.
        columns: the column of the text, or the two of a pair; empty for the first that are usual.
        max_length: the length in tokens at which rows are cut.
        limit: how many rows are taken.
        beside: a column that is returned as it is.

    Raises:
        UserError: the file can't be read, or has no such columns.
    """
    names = tuple(columns) or usual_columns(path, (*USUAL, _WORDS))
    if len(names) > 2:
        raise UserError(f"--text_columns {' '.join(names)}: a model reads one text or a pair")
    read = read_columns(path, [*names, *([beside] if beside else [])])
    words = names == _WORDS or isinstance(read.cells[names[0]][0], (list, tuple))
    texts = [list(read.cells[name] if words else read.texts(name))[:limit] for name in names]
    encoded = tokenizer(*texts, truncation=True, max_length=max_length, is_split_into_words=words)
    for row, (ids, *parts) in enumerate(zip(encoded["input_ids"], *texts, strict=True)):
        if not ids or not any(part if words else part.strip() for part in parts):
            raise UserError(f"{read.where(row)}: its text is empty; remove the row")
    fields = [name for name in _FIELDS if name in encoded]
    rows = [{name: encoded[name][index] for name in fields} for index in range(len(texts[0]))]
    return Rows(rows, read.cells[beside][:limit] if beside else None, str(path))


_FIELDS = ("input_ids", "attention_mask", "token_type_ids")
