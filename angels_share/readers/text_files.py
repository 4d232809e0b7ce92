"""Strict readers of text, csv, tsv, jsonl, json and parquet files, a row at a time.

Any fault raises a `UserError` that names the file, the line (or row) and the reason. Half a file,
or one in another encoding, would otherwise give a wrong result that looks like any other.
"""

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import explain
from angels_share.imports import needed

TABLE_ENDINGS = (".parquet", ".csv", ".tsv", ".json", ".jsonl")
"""Endings of files that hold tables."""

_LONGEST_CSV_FIELD = 1 << 27
"""In characters: a longer field is an unclosed quote, not a document."""
_LONGEST_LINE = 1 << 27
"""In bytes: SQuAD's training file is one line of 30 MB; an endless one must not fill the memory."""
_ENDLESS_NUMBER = re.compile(r"[0-9]{4301,}")
"""Python reads no integer of more digits, since that takes quadratic time."""
_JSON_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')
_DEEP = 500
"""Depth at which a JSON text is shown to be too deep; Python's own limit is about twice that."""


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield each line without its end, numbered from 1; accept a byte order mark and CRLF.

    Only a line feed ends a line: a text may contain Unicode's other line separators.

    Args:
        path: the file.
        encoding: one in which a line feed is the byte 10.
    """
    try:
        with path.open("rb") as file:
            pieces = iter(partial(file.readline, _LONGEST_LINE + 1), b"")
            for number, raw in enumerate(pieces, 1):
                if len(raw) > _LONGEST_LINE:
                    raise UserError(
                        f"{path}:{number}: a line of more than {_LONGEST_LINE >> 20} MiB; is it a "
                        "text file? Break the line, or split the file"
                    )
                line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
                try:
                    text = line.decode(encoding)
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
            yield number, parse_json(line)
        except JsonFault as fault:
            cause = fault.cause
            reason = f"not JSON ({cause.msg}, column {cause.colno})" if cause else fault.reason
            raise UserError(f"{path}:{number}: {reason}") from fault


def read_json(path: Path) -> Any:
    """Return the one value that a JSON file holds."""
    try:
        return parse_json("\n".join(line for _, line in read_lines(path)))
    except JsonFault as fault:
        raise fault.within(path) from fault


class JsonFault(ValueError):  # noqa: N818  (it is what is wrong with a text, as in the messages)
    """What is wrong with a text that should be JSON.

    Attributes:
        line: where, counted from 1; 0 if that is not known.
        reason: what, in half a line.
        cause: the library's error where the text is not JSON at all.
    """

    def __init__(self, line: int, reason: str, cause: json.JSONDecodeError | None = None) -> None:
        super().__init__(f"{reason}, on line {line}" if line else reason)
        self.line, self.reason, self.cause = line, reason, cause

    def within(self, path: Path) -> UserError:
        """Return the error for a file that holds the text."""
        place = f"{path}:{self.line}" if self.line else str(path)
        return UserError(f"{place}: {self.reason}")


def parse_json(text: str) -> Any:
    """Return the value that a text holds; refuse a key that an object has twice.

    Nesting of a hundred thousand brackets and numbers of thousands of digits are valid JSON that
    Python's reader refuses with errors of other types, without a place.

    Raises:
        JsonFault: a ValueError with line and reason.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except JsonFault:
        raise
    except (ValueError, RecursionError) as error:
        if (fault := json_fault(text, error)) is None:
            raise
        raise fault from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise JsonFault(0, f"key {twice!r} appears twice; keep one")
    return values


def json_fault(text: str, error: Exception) -> JsonFault | None:
    """Return why `json.loads` refused a text, and on which line; None for an error of a hook."""
    if isinstance(error, json.JSONDecodeError):
        return JsonFault(error.lineno, f"not JSON ({error.msg})", error)
    if isinstance(error, RecursionError):
        return JsonFault(_line_of_depth(text), "is nested too deeply")
    if (endless := _ENDLESS_NUMBER.search(text)) is None:
        return None
    digits = endless.end() - endless.start()
    line = text.count("\n", 0, endless.start()) + 1
    return JsonFault(line, f"has a number of {digits} digits")


def _line_of_depth(text: str) -> int:
    """Return the line on which a JSON text becomes too deep to be read."""
    brackets = _JSON_BRACKETS.finditer(text)
    depth, change = 0, {"[": 1, "{": 1, "]": -1, "}": -1}
    for bracket in brackets:
        depth += change.get(bracket[0], 0)
        if depth > _DEEP:
            return text.count("\n", 0, bracket.start()) + 1
    return 1


def open_parquet(path: Path) -> Any:
    """Return pyarrow's ParquetFile, mapped into memory."""
    parquet = needed("pyarrow.parquet", str(path))  # not needed for plain text
    try:
        return parquet.ParquetFile(path, memory_map=True)
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
