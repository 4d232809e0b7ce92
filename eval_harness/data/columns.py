"""The columns of a file as they stand there: parquet, csv, tsv, json. Imports no torch.

Everything is read strictly: what is not clean is a `UserError` that says `path:line: reason` (a
parquet file or a JSON list has rows instead of lines). Half a file, or one in another encoding,
would give a number that looks like any other.
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import explain

IDS = ("idx", "index", "id")
"""Columns that name a row, where a file has one of them."""


@dataclass(frozen=True)
class Columns:
    """Some columns of one file.

    Attributes:
        source: the file's path, or what it is called on the Hub.
        cells: each column's cells by its name; all columns are equally long.
        lines: the line that each row starts at; None where rows are counted instead.
        class_names: what the class ids of a column mean, where the file says so.
        numbered: whether a number among the labels means a class id.
    """

    source: str
    cells: Mapping[str, Sequence[Any]]
    lines: Sequence[int] | None = None
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numbered: bool = True

    def where(self, row: int) -> str:
        """How a message names a row, counted from 0 here and from 1 there."""
        if self.lines is None:
            return f"{self.source}: row {row + 1}"
        return f"{self.source}:{self.lines[row]}"

    def texts(self, name: str) -> list[str]:
        """A column's texts, checked: a tokenizer can take each of them."""
        cells = list(self.cells[name])
        for row, cell in enumerate(cells):
            if type(cell) is not str:
                raise UserError(f"{self.where(row)}: column {name!r} holds {_kind(cell)}, not text")
        if not _is_clean("".join(cells)):
            row = next(row for row, cell in enumerate(cells) if not _is_clean(cell))
            raise UserError(f"{self.where(row)}: column {name!r} holds a NUL or half a character")
        return cells

    def ids(self, first: int) -> list[str]:
        """The file's own names of its rows, else their numbers from `first` on."""
        name = next((name for name in IDS if name in self.cells), None)
        if name is None:
            rows = len(next(iter(self.cells.values())))
            return [str(number) for number in range(first, first + rows)]
        cells = self.cells[name]
        for row, cell in enumerate(cells):
            if type(cell) not in (int, str):
                raise UserError(f"{self.where(row)}: column {name!r} holds {_kind(cell)}, no id")
        return [str(cell) for cell in cells]


def _kind(cell: Any) -> str:
    return "nothing" if cell is None else type(cell).__name__


def _is_clean(text: str) -> bool:
    """No NUL, and no half of a surrogate pair, which JSON can spell."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def read_columns(path: Path, wanted: Sequence[str], optional: Sequence[str] = IDS) -> Columns:
    """Some columns of a file by their names.

    Args:
        path: its ending says what it is: .parquet, .csv, .tsv, .json or .jsonl. A quote character
            in a .tsv is literal; a .json is a list of objects, or lines of them.
        wanted: must be there.
        optional: are read where they are there.

    Raises:
        UserError: it isn't there, isn't clean, or has no rows.
    """
    if path.suffix not in _READERS:
        raise UserError(f"{path}: unknown kind of data; readable are {', '.join(_READERS)}")
    others = [name for name in optional if name not in wanted]
    return require_rows(_READERS[path.suffix](path, wanted, others))


def require_rows(columns: Columns) -> Columns:
    """The same columns; none at all is an error, because nobody means to train on nothing."""
    if not next(iter(columns.cells.values())):
        raise UserError(f"{columns.source}: no rows in it (empty, or a header alone)")
    return columns


def read_lines(path: Path) -> list[str]:
    """A text file's lines without their ends; a byte order mark and CRLF are accepted."""
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise UserError(
            f"{path}:{line}: not UTF-8 (byte 0x{byte:02x}); convert it first"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}:{line}: holds a NUL byte; is it a text file?")
    # Not splitlines: a text may hold a line separator of Unicode's.
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines] if "\r" in text else lines


def read_tsv(
    path: Path,
    wanted: Mapping[str, str],
    optional: Sequence[str] = IDS,
    *,
    header: Sequence[str] | None = None,
) -> Columns:
    """Columns of tab-separated lines; a quote character is literal.

    Args:
        path: the file.
        wanted: the name in the file of each column, by the name that it shall have.
        optional: are read where they are there.
        header: the names of the columns of a file that doesn't name them.
    """
    lines = read_lines(path)
    first = 1 if header is not None else 2
    names = list(header) if header is not None else lines[0].split("\t") if lines else []
    body = lines[first - 1 :]
    if not body:
        raise UserError(f"{path}: no rows in it (empty, or a header alone)")
    kept = {**wanted, **{name: name for name in optional if name in names}}
    _require(names, kept.values(), f"{path}:1")
    places, width = [names.index(name) for name in kept.values()], len(names)
    rows = []
    for number, line in enumerate(body, first):
        fields = line.split("\t")
        if len(fields) != width:
            raise UserError(f"{path}:{number}: {_count(fields)}, {width} are wanted")
        rows.append([fields[place] for place in places])
    cells = dict(zip(kept, zip(*rows, strict=True), strict=True))
    return Columns(str(path), cells, range(first, first + len(body)))


def _count(fields: Sequence[str]) -> str:
    return "1 column" if len(fields) == 1 else f"{len(fields)} columns"


def _require(names: Sequence[str], wanted: Iterable[str], where: str) -> None:
    """Every wanted column is there, and once."""
    for name in wanted:
        if name not in names:
            there = ", ".join(repr(each) for each in names) or "none"
            raise UserError(f"{where}: no column {name!r}; there are {there}")
        if names.count(name) > 1:
            raise UserError(f"{where}: column {name!r} stands there twice; remove one")


def _read_plain_tsv(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Columns:
    return read_tsv(path, {name: name for name in wanted}, optional)


def _read_csv(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Columns:
    reader = csv.reader((line + "\n" for line in read_lines(path)), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    start = 1
    try:
        for fields in reader:
            if fields:  # a blank line is no row
                if rows and len(fields) != len(rows[0]):
                    raise UserError(f"{path}:{start}: {_count(fields)}, {len(rows[0])} are wanted")
                rows.append(fields)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{start}: {error}; a quote that is not closed?") from error
    names = rows[0] if rows else []
    if not names:
        raise UserError(f"{path}: no rows in it (empty, or a header alone)")
    kept = [*wanted, *(name for name in optional if name in names)]
    _require(names, kept, f"{path}:1")
    places = {name: names.index(name) for name in kept}
    cells = {name: [row[place] for row in rows[1:]] for name, place in places.items()}
    return Columns(str(path), cells, lines[1:])


def _read_jsonl(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Columns:
    rows, numbers = [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            reason = f"not JSON ({error.msg}, column {error.colno})"
            raise UserError(f"{path}:{number}: {reason}") from error
        numbers.append(number)
    return _of_objects(Columns(str(path), {}, numbers), rows, wanted, optional)


def _read_json(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Columns:
    lines = read_lines(path)
    if not lines or not lines[0].lstrip().startswith("["):
        return _read_jsonl(path, wanted, optional)
    try:
        rows = json.loads("\n".join(lines))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    return _of_objects(Columns(str(path), {}), rows, wanted, optional)


def _of_objects(
    empty: Columns, rows: Sequence[Any], wanted: Sequence[str], optional: Sequence[str]
) -> Columns:
    """Columns of objects that all have the wanted keys; the first says which optional ones."""
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    kept = [*wanted, *(name for name in optional if name in first)]
    for row, each in enumerate(rows):
        if not isinstance(each, dict):
            raise UserError(f"{empty.where(row)}: {_kind(each)} instead of an object with columns")
        _require(list(each), kept, empty.where(row))
    cells = {name: [each[name] for each in rows] for name in kept}
    return Columns(empty.source, cells, empty.lines)


def _read_parquet(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Columns:
    import pyarrow.parquet  # not needed for plain text

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)
        kept = [*wanted, *(name for name in optional if name in names)]
        _require(names, kept, str(path))
        table = file.read(columns=kept)
        cells = {name: table.column(name).to_pylist() for name in kept}
        class_names = _class_names(file.schema_arrow.metadata)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a parquet file that can be read ({reason})") from error
    return Columns(str(path), cells, class_names=class_names)


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """What class ids mean, as the Hub's own writer notes it in a parquet file."""
    noted = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    features = noted.get("info", {}).get("features") or {}
    return {name: tuple(each["names"]) for name, each in features.items() if "names" in each}


_READERS: dict[str, Callable[[Path, Sequence[str], Sequence[str]], Columns]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_plain_tsv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
}

ENDINGS = tuple(_READERS)
