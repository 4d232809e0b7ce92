"""Columns of a file as they are in it: parquet, csv, tsv, json. Imports no torch.

Reading is strict: whatever is not clean raises a `UserError` of the form `path:line: reason` (with
rows instead of lines for parquet files and JSON lists). Half a file, or one in another encoding,
would give a score that looks like any other.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.readers import text_files
from angels_share.readers.text_files import TABLE_ENDINGS, fault_in_text

IDS = ("idx", "index", "id")
"""Columns that identify a row, if a file has one of them."""


@dataclass(frozen=True)
class Columns:
    """Some columns of one file.

    Attributes:
        source: the file's path, or its name on the Hub.
        cells: the cells of each column, by its name; all columns are equally long.
        lines: the line on which each row starts; None if places are given as rows.
        class_names: the names of a column's class ids, where the file has them.
        numbered: whether labels may be class ids rather than names.
        is_line_per_item: whether the items of a row's list stand on lines of their own.
    """

    source: str
    cells: Mapping[str, Sequence[Any]]
    lines: Sequence[int] | None = None
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numbered: bool = True
    is_line_per_item: bool = False

    def where(self, row: int, item: int | None = None) -> str:
        """Return the place of a row, or of an item of its list, for a message.

        Both count from 0, the message from 1.
        """
        if self.lines is not None and self.is_line_per_item:
            return f"{self.source}:{self.lines[row] + (item or 0)}"
        of_row = f": row {row + 1}" if self.lines is None else f":{self.lines[row]}"
        return f"{self.source}{of_row}" + (f", item {item + 1}" if item is not None else "")

    def texts(self, name: str) -> list[str]:
        """Return a column's texts.

        Raises:
            UserError: a cell is not text, or not text that a tokenizer can take.
        """
        cells = list(self.cells[name])
        for row, cell in enumerate(cells):
            if type(cell) is not str:
                raise UserError(f"{self.where(row)}: column {name!r} holds {_kind(cell)}, not text")
        if fault_in_text("".join(cells)):  # ten times as fast as cell by cell
            row = next(row for row, cell in enumerate(cells) if fault_in_text(cell))
            raise UserError(f"{self.where(row)}: column {name!r}: {fault_in_text(cells[row])}")
        return cells

    def ids(self, first: int) -> list[str]:
        """Return the file's ids of its rows, else their numbers, counted from `first`."""
        name = next((name for name in IDS if name in self.cells), None)
        if name is None:
            rows = len(next(iter(self.cells.values())))
            return [str(number) for number in range(first, first + rows)]
        cells = self.cells[name]
        for row, cell in enumerate(cells):
            if type(cell) not in (int, str):
                raise UserError(
                    f"{self.where(row)}: column {name!r} holds {_kind(cell)}, not an id"
                )
        return [str(cell) for cell in cells]


def _kind(cell: Any) -> str:
    return "null" if cell is None else type(cell).__name__


def read_columns(path: Path, required: Sequence[str], optional: Sequence[str] = IDS) -> Columns:
    """Read columns of a file by their names.

    Args:
        path: a .parquet, .csv, .tsv, .json or .jsonl file. A quote character in a .tsv is literal;
            a .json is a list of objects, or one object per line.
        required: columns that the file must have.
        optional: columns that are read if the file has them.

    Raises:
        UserError: the file is missing, isn't clean, or has no rows.
    """
    if path.suffix not in _READERS:
        raise UserError(f"{path}: unsupported file type; use one of {', '.join(_READERS)}")
    others = [name for name in optional if name not in required]
    return require_rows(_READERS[path.suffix](path, required, others))


def column_names(path: Path) -> tuple[str, ...]:
    """Return the names of a file's columns; of JSON objects, those of the first.

    Raises:
        UserError: the file is missing, or has no rows.
    """
    if path.suffix not in _READERS:
        raise UserError(f"{path}: unsupported file type; use one of {', '.join(_READERS)}")
    if path.suffix == ".parquet":
        return tuple(text_files.open_parquet(path).schema_arrow.names)
    if path.suffix == ".json":
        found = text_files.read_json(path)
        first = found[0] if isinstance(found, list) and found else {}
    else:
        readers = {
            ".csv": text_files.read_csv,
            ".tsv": text_files.read_tsv,
            ".jsonl": text_files.read_jsonl,
        }
        _, first = next(iter(readers[path.suffix](path)), (1, ()))
    names = tuple(map(str, first)) if isinstance(first, (dict, list)) else ()
    if not names:
        raise UserError(f"{path}: has no columns")
    return names


def require_rows(columns: Columns) -> Columns:
    """Return the columns as they are; refuse them if they have no rows."""
    if not next(iter(columns.cells.values())):
        raise UserError(f"{columns.source}: has no rows (empty, or only a header)")
    return columns


TEXT_ENDING = ".txt"
"""The ending of files of plain text."""


def read_text_file(path: Path, column: str) -> Columns:
    """Read a file of plain text as one column, a row per line.

    Args:
        path: the file.
        column: the column's name.

    Raises:
        UserError: the file is missing, isn't UTF-8, or is empty.
    """
    lines = list(text_files.read_lines(path))
    cells = {column: [text for _, text in lines]}
    return require_rows(Columns(str(path), cells, [number for number, _ in lines]))


def read_tsv(
    path: Path,
    required: Mapping[str, str],
    optional: Sequence[str] = IDS,
    *,
    header: Sequence[str] | None = None,
) -> Columns:
    """Read columns of tab-separated lines; a quote character is literal.

    Args:
        path: the file.
        required: columns that the file must have: their name in it by the name to give them.
        optional: columns that are read if the file has them.
        header: the names of the columns if the file has no header line.

    Raises:
        UserError: the file is missing, isn't clean, or has no rows.
    """
    rows = text_files.read_tsv(path, len(header or ()))
    names = list(header) if header is not None else next(rows, (1, [""]))[1]
    body = list(rows)
    if not body:
        raise UserError(f"{path}: has no rows (empty, or only a header)")
    chosen = {**required, **{name: name for name in optional if name in names}}
    text_files.require_columns(names, chosen.values(), f"{path}:1")
    places = [names.index(name) for name in chosen.values()]
    columns = zip(*([fields[place] for place in places] for _, fields in body), strict=True)
    cells = dict(zip(chosen, columns, strict=True))
    return Columns(str(path), cells, [number for number, _ in body])


def _read_plain_tsv(path: Path, required: Sequence[str], optional: Sequence[str]) -> Columns:
    return read_tsv(path, {name: name for name in required}, optional)


def _read_csv(path: Path, required: Sequence[str], optional: Sequence[str]) -> Columns:
    rows = text_files.read_csv(path)
    _, names = next(rows, (1, []))
    if not names:
        raise UserError(f"{path}: has no rows (empty, or only a header)")
    chosen = [*required, *(name for name in optional if name in names)]
    text_files.require_columns(names, chosen, f"{path}:1")
    body = list(rows)
    cells = {name: [fields[names.index(name)] for _, fields in body] for name in chosen}
    return Columns(str(path), cells, [number for number, _ in body])


def _read_jsonl(path: Path, required: Sequence[str], optional: Sequence[str]) -> Columns:
    rows = list(text_files.read_jsonl(path))
    empty = Columns(str(path), {}, [number for number, _ in rows])
    return _from_objects(empty, [value for _, value in rows], required, optional)


def _read_json(path: Path, required: Sequence[str], optional: Sequence[str]) -> Columns:
    """Read a list of objects, or JSON lines, which many tools save as .json too."""
    _, first = next(text_files.read_lines(path), (1, ""))
    if not first.lstrip().startswith("["):
        return _read_jsonl(path, required, optional)
    return _from_objects(Columns(str(path), {}), text_files.read_json(path), required, optional)


def _from_objects(
    empty: Columns, rows: Sequence[Any], required: Sequence[str], optional: Sequence[str]
) -> Columns:
    """Turn JSON objects into columns; all must have the optional ones that the first one has."""
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    chosen = [*required, *(name for name in optional if name in first)]
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{empty.where(number)}: {_kind(row)} instead of an object of columns")
        text_files.require_columns(row, chosen, empty.where(number))
    cells = {name: [row[name] for row in rows] for name in chosen}
    return Columns(empty.source, cells, empty.lines)


def _read_parquet(path: Path, required: Sequence[str], optional: Sequence[str]) -> Columns:
    file = text_files.open_parquet(path)
    names = list(file.schema_arrow.names)
    chosen = [*required, *(name for name in optional if name in names)]
    text_files.require_columns(names, chosen, str(path))
    try:
        table = file.read(columns=chosen)
        cells = {name: table.column(name).to_pylist() for name in chosen}
        class_names = _class_names(file.schema_arrow.metadata)
    except (OSError, ValueError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a readable parquet file ({reason})") from error
    return Columns(str(path), cells, class_names=class_names)


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the names of class ids, from the metadata that `datasets` adds to parquet files.

    Raises:
        ValueError: the metadata are not those of `datasets`.
    """
    try:
        written = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = written.get("info", {}).get("features") or {}
        found = {name: _names_in(feature) for name, feature in features.items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError("its 'huggingface' metadata are damaged") from error
    return {name: names for name, names in found.items() if names is not None}


def _names_in(feature: Any) -> tuple[str, ...] | None:
    """Return the names of a column's classes, or of its lists' items; None where it has none."""
    if isinstance(feature, list):  # how older versions write a list's feature
        feature = feature[0]
    if "names" in feature:
        return tuple(feature["names"])
    return _names_in(feature["feature"]) if "feature" in feature else None


_READERS: dict[str, Callable[[Path, Sequence[str], Sequence[str]], Columns]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_plain_tsv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
}
assert tuple(_READERS) == TABLE_ENDINGS
