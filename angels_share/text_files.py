"""Strict readers of text, csv, tsv, jsonl, json and parquet files, a row at a time.

Any fault raises a `UserError` that names the file, the line (or row) and the reason. Half a file,
or one in another encoding, would otherwise give a wrong result that looks like any other.
"""

import codecs
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import explain

TABLE_ENDINGS = (".parquet", ".csv", ".tsv", ".json", ".jsonl")
"""Endings of files that hold tables."""

_LONGEST_CSV_FIELD = 1 << 27
"""In characters: a longer field is an unclosed quote, not a document."""


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line without its end, numbered from 1; accept a byte order mark and CRLF.

    Only a line feed ends a line: a text may contain Unicode's other line separators.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    byte = line[error.start]
                    raise UserError(
                        f"{path}:{number}: not UTF-8 (byte 0x{byte:02x}); convert it first"
                    ) from error
                if "\0" in text:
                    raise UserError(f"{path}:{number}: contains a NUL byte; is it a text file?")
                yield number, text.removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error


def read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the header and each row with the number of its first line; skip blank lines.

    Raises:
        UserError: a row has more or fewer fields than the header, or a quote is not closed.
    """
    csv.field_size_limit(_LONGEST_CSV_FIELD)
    reader = csv.reader((line + "\n" for _, line in read_lines(path)), strict=True)
    width, start = 0, 1
    try:
        for fields in reader:
            if fields:
                width = width or len(fields)
                require_width(fields, width, f"{path}:{start}")
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{start}: {error}; a quote that is not closed?") from error


def read_tsv(path: Path, width: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Yield each line's fields between tabs, numbered; a quote character is literal.

    Every line must have `width` fields, or as many as the first one where it is 0.
    """
    for number, line in read_lines(path):
        fields = line.split("\t")
        width = width or len(fields)
        require_width(fields, width, f"{path}:{number}")
        yield number, fields


def require_width(fields: Sequence[str], width: int, where: str) -> None:
    """Refuse a row with more or fewer fields than the first one.

    Args:
        fields: the row.
        width: the number of fields of the first row.
        where: file and line, for the error.

    Raises:
        UserError: names both numbers.
    """
    if len(fields) != width:
        count = "1 column" if len(fields) == 1 else f"{len(fields)} columns"
        raise UserError(f"{where}: {count} instead of {width}")


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the value on each line, numbered; skip blank lines."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}:{number}: not JSON ({error.msg}, column {error.colno})"
            ) from error


def read_json(path: Path) -> Any:
    """Return the one value that a JSON file holds."""
    try:
        return json.loads("\n".join(line for _, line in read_lines(path)))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error


def open_parquet(path: Path) -> Any:
    """Return pyarrow's ParquetFile, mapped into memory."""
    import pyarrow.parquet  # not needed for plain text

    try:
        return pyarrow.parquet.ParquetFile(path, memory_map=True)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a readable parquet file ({reason})") from error


def require_columns(names: Iterable[str], required: Iterable[str], where: str) -> None:
    """Refuse a header that lacks a required column, or has it twice.

    Args:
        names: the columns of the header.
        required: the columns that must be there; others are ignored.
        where: the file, and the line if there is one, for the error.

    Raises:
        UserError: names the column.
    """
    present = list(names)
    for name in required:
        if name not in present:
            listed = ", ".join(map(repr, present)) or "none"
            raise UserError(f"{where}: no column {name!r}; the columns are {listed}")
        if present.count(name) > 1:
            raise UserError(f"{where}: column {name!r} appears twice; remove one")


def fault_in_text(text: str) -> str | None:
    """Return why a tokenizer can't read a text: a NUL or an unpaired surrogate; else None."""
    if "\0" in text:
        return "contains a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can contain one, as in "\ud83d"
        return f"character {error.start} is an unpaired surrogate"
    return None
