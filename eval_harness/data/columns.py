"""The columns of a file as they stand there: parquet, csv, tsv, json. Imports no torch.

Everything is read strictly: what is not clean is a `UserError` that says `path:line: reason` (a
parquet file or a JSON list has rows instead of lines). Half a file, or one in another encoding,
would give a number that looks like any other.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from angels_share import text_files
from angels_share.errors import UserError
from angels_share.text_files import TABLE_ENDINGS, fault_in_text

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
        if fault_in_text("".join(cells)):  # at once: cell by cell it would take ten times as long
            row = next(row for row, cell in enumerate(cells) if fault_in_text(cell))
            raise UserError(f"{self.where(row)}: column {name!r}: {fault_in_text(cells[row])}")
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
        raise UserError(f"{columns.source}: has no rows (empty, or a header alone)")
    return columns


def read_tsv(
    path: Path,
    wanted: Mapping[str, str],
    optional: Sequence[str] = IDS,
    *,
    header: Sequence[str] | None = None,
) -> Columns:
    """Read columns of tab-separated lines; a quote character is literal.

    Args:
        path: the file.
        wanted: the name in the file of each column, by the name that it shall have.
        optional: are read where they are there.
        header: the names of the columns of a file that doesn't name them.

    Raises:
        UserError: the file isn't there, isn't clean, or has no rows.
    """
    rows = text_files.read_tsv(path, len(header or ()))
    names = list(header) if header is not None else next(rows, (1, [""]))[1]
    body = list(rows)
    if not body:
        raise UserError(f"{path}: has no rows (empty, or a header alone)")
    kept = {**wanted, **{name: name for name in optional if name in names}}
    text_files.require_columns(names, kept.values(), f"{path}:1")
    places = [names.index(name) for name in kept.values()]
    columns = zip(*([fields[place] for place in places] for _, fields in body), strict=True)
    cells = dict(zip(kept, columns, strict=True))
    return Columns(str(path), cells, [number for number, _ in body])


def _read_plain_tsv(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Columns:
    return read_tsv(path, {name: name for name in wanted}, optional)


def _read_csv(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Columns:
    rows = text_files.read_csv(path)
    _, names = next(rows, (1, []))
    if not names:
        raise UserError(f"{path}: has no rows (empty, or a header alone)")
    kept = [*wanted, *(name for name in optional if name in names)]
    text_files.require_columns(names, kept, f"{path}:1")
    body = list(rows)
    cells = {name: [fields[names.index(name)] for _, fields in body] for name in kept}
    return Columns(str(path), cells, [number for number, _ in body])


def _read_jsonl(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Columns:
    rows = list(text_files.read_jsonl(path))
    empty = Columns(str(path), {}, [number for number, _ in rows])
    return _of_objects(empty, [value for _, value in rows], wanted, optional)


def _read_json(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Columns:
    """Read a list of objects, or lines of them, as many tools call .json too."""
    _, first = next(text_files.read_lines(path), (1, ""))
    if not first.lstrip().startswith("["):
        return _read_jsonl(path, wanted, optional)
    return _of_objects(Columns(str(path), {}), text_files.read_json(path), wanted, optional)


def _of_objects(
    empty: Columns, rows: Sequence[Any], wanted: Sequence[str], optional: Sequence[str]
) -> Columns:
    """Turn objects with the wanted keys into columns; the first one says which optional ones."""
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    kept = [*wanted, *(name for name in optional if name in first)]
    for row, each in enumerate(rows):
        if not isinstance(each, dict):
            raise UserError(f"{empty.where(row)}: {_kind(each)} instead of an object with columns")
        text_files.require_columns(each, kept, empty.where(row))
    cells = {name: [each[name] for each in rows] for name in kept}
    return Columns(empty.source, cells, empty.lines)


def _read_parquet(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Columns:
    file = text_files.open_parquet(path)
    names = list(file.schema_arrow.names)
    kept = [*wanted, *(name for name in optional if name in names)]
    text_files.require_columns(names, kept, str(path))
    try:
        table = file.read(columns=kept)
        cells = {name: table.column(name).to_pylist() for name in kept}
        class_names = _class_names(file.schema_arrow.metadata)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a readable parquet file ({reason})") from error
    return Columns(str(path), cells, class_names=class_names)


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return what class ids mean, as the Hub's own writer notes it in a parquet file."""
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
assert tuple(_READERS) == TABLE_ENDINGS
