"""Files of text, or of rows of token ids, read strictly.

Every reader yields one text at a time, so memory doesn't grow with a file, and stops with
`file:line: reason` at the first thing that isn't clean text: a corpus that is read halfway, or in
the wrong encoding, would silently train a worse student.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.imports import needed
from angels_share.readers.text_files import (
    fault_in_text,
    open_parquet,
    read_csv,
    read_jsonl,
    read_lines,
    require_columns,
)
from distil_trainer.data.masking import AnyInts
from distil_trainer.data.rows import COLUMNS, NOT_PASSED_ON

_BLOCK = 1 << 20

Text = str | AnyInts
"""A text, or a row of token ids that another pipeline made of one."""

ReadTokens = Callable[[Mapping[str, Any], str], AnyInts]
"""Returns a row's token ids, given its columns and where it stands."""


@dataclass(frozen=True)
class FileSource:
    """A .txt file (each line is a text), or a .jsonl, .csv or .parquet file with a text column.

    With `read_tokens`, a .parquet or .arrow file with a column `input_ids`.
    """

    path: Path
    text_column: str = "text"
    read_tokens: ReadTokens | None = None

    @property
    def name(self) -> str:
        """The file's name alone: reports are published, and folders are private."""
        return self.path.name

    @property
    def identity(self) -> str:
        """File type and content hash, independent of the path."""
        return f"{self.path.suffix}:{self._scan[0]}"

    @property
    def rows(self) -> int | None:
        """Lines of the file; rows of a parquet file; unknown for csv, whose rows may span lines."""
        if self.path.suffix == ".parquet":
            return int(open_parquet(self.path).metadata.num_rows)
        return None if self.path.suffix in {".csv", ".arrow"} else self._scan[1]

    def texts(self) -> Iterator[Text]:
        """Yield every text, or every row's token ids.

        Raises:
            UserError: a text can't be read, or the file has none: nobody means to train on that.
        """
        empty = True
        for text in self._all():
            empty = False
            yield text
        if empty:
            raise UserError(f"{self.path}: contains no text (empty or only a header); leave it out")

    def _all(self) -> Iterator[Text]:
        if self.read_tokens is None:
            return READERS[self.path.suffix](self.path, self.text_column)
        return TOKEN_READERS[self.path.suffix](self.path, self.read_tokens)

    @cached_property
    def _scan(self) -> tuple[str, int]:
        """The content's sha256 and number of line ends, read in one pass."""
        digest, line_ends = hashlib.sha256(), 0
        try:
            with self.path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    line_ends += block.count(b"\n")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from error
        return digest.hexdigest(), line_ends


def text_of(row: Any, column: str, where: str) -> str:
    """Return a row's text; refuse one that is missing or that a tokenizer can't take."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: {type(row).__name__} instead of an object with columns")
    require_columns(row, [column], where)
    return _checked(row[column], column, where)


def _checked(text: Any, column: str, where: str) -> str:
    if not isinstance(text, str):
        raise UserError(f"{where}: column {column!r} holds {type(text).__name__}, not text")
    if fault := fault_in_text(text):
        raise UserError(f"{where}: {fault}")
    return text


def _texts_of_txt(path: Path, _column: str) -> Iterator[str]:
    return (line for _, line in read_lines(path))


def _texts_of_jsonl(path: Path, column: str) -> Iterator[str]:
    return (text_of(row, column, f"{path}:{number}") for number, row in read_jsonl(path))


def _texts_of_csv(path: Path, column: str) -> Iterator[str]:
    rows = read_csv(path)
    line, header = next(rows, (1, []))
    if not header:
        return
    require_columns(header, [column], f"{path}:{line}")
    index = header.index(column)
    for number, fields in rows:
        yield _checked(fields[index], column, f"{path}:{number}")


def _texts_of_parquet(path: Path, column: str) -> Iterator[str]:
    file = open_parquet(path)
    require_columns(file.schema_arrow.names, [column], str(path))
    number = 0
    for batch in _batches_of(file, path, [column]):
        for value in batch.column(0).to_pylist():
            number += 1
            yield _checked(value, column, f"{path}: row {number}")


def _batches_of(file: Any, path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Yield a parquet file's rows in batches; refuse a file whose pages are damaged."""
    pa = needed("pyarrow", str(path))
    try:
        yield from file.iter_batches(batch_size=256, columns=list(columns))
    except MemoryError:  # pyarrow's own is an ArrowException, too
        raise
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a readable parquet file ({reason})") from error


READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".txt": _texts_of_txt,
    ".jsonl": _texts_of_jsonl,
    ".csv": _texts_of_csv,
    ".parquet": _texts_of_parquet,
}


def _tokens_of_parquet(path: Path, read: ReadTokens) -> Iterator[AnyInts]:
    file = open_parquet(path)
    columns = token_columns(file.schema_arrow.names, str(path))
    yield from _tokens_of(_batches_of(file, path, columns), path, read)


def _tokens_of_arrow(path: Path, read: ReadTokens) -> Iterator[AnyInts]:
    pa = needed("pyarrow", str(path))
    try:
        mapped = pa.memory_map(str(path))
        try:
            file = pa.ipc.open_stream(mapped)  # as `datasets` writes them
            batches: Iterable[Any] = file
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(mapped)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        columns = token_columns(file.schema.names, str(path))
        yield from _tokens_of((batch.select(columns) for batch in batches), path, read)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a readable Arrow file ({reason})") from error


def token_columns(names: Sequence[str], where: str) -> list[str]:
    """Return the columns that say something of a row's tokens, the ids first.

    Raises:
        UserError: there are no ids.
    """
    require_columns(names, ["input_ids"], where)
    return ["input_ids", *(name for name in (*COLUMNS, *NOT_PASSED_ON) if name in names)]


def _tokens_of(batches: Iterable[Any], path: Path, read: ReadTokens) -> Iterator[AnyInts]:
    number = 0
    for batch in batches:
        for index in range(batch.num_rows):
            number += 1
            row = {name: _values(batch.column(name)[index]) for name in batch.schema.names}
            yield read(row, f"{path}: row {number}")


def _values(cell: Any) -> Any:
    """Return a cell's list as an array; anything else as it is, which the reader refuses."""
    if not cell.is_valid or not hasattr(getattr(cell, "values", None), "to_numpy"):
        return cell.as_py()
    return cell.values.to_numpy(zero_copy_only=False)


TOKEN_READERS: dict[str, Callable[[Path, ReadTokens], Iterator[AnyInts]]] = {
    ".parquet": _tokens_of_parquet,
    ".arrow": _tokens_of_arrow,
}
