"""Text sources: files, folders, globs and Hub data sets, read strictly.

Every reader yields one text at a time, so memory doesn't grow with a file, and stops with
`file:line: reason` at the first thing that isn't clean text: a corpus that is read halfway, or in
the wrong encoding, would silently train a worse student.
"""

import glob
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import tqdm

from angels_share.errors import UserError
from angels_share.hub.fetch import configuration_folder
from angels_share.hub.locate import Located, locate
from angels_share.imports import needed
from angels_share.readers.text_files import (
    fault_in_text,
    open_parquet,
    read_csv,
    read_jsonl,
    read_lines,
    require_columns,
)

_BLOCK = 1 << 20
# Tokenized at a time: enough to keep all cores busy, and about 50 MB of encodings.
_CHUNK_CHARACTERS = 1 << 20
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(@[\w./-]+)?(:[\w.-]+)?")


class Source(Protocol):
    """Text with a name, an identity that changes with the text, and a way to read it."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    @property
    def identity(self) -> str:
        """Its part of the corpus fingerprint, which changes with the text."""

    @property
    def rows(self) -> int | None:
        """The number of texts, for a progress bar; None where only reading would tell."""

    def texts(self) -> Iterator[str]:
        """Yield every text in order; blank ones too, so that they can be counted."""


@dataclass(frozen=True)
class FileSource:
    """A .txt file (each line is a text), or a .jsonl, .csv or .parquet file with a text column."""

    path: Path
    text_column: str = "text"

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
        return None if self.path.suffix == ".csv" else self._scan[1]

    def texts(self) -> Iterator[str]:
        """Yield every text.

        Raises:
            UserError: a text can't be read, or the file has none: nobody means to train on that.
        """
        empty = True
        for text in _READERS[self.path.suffix](self.path, self.text_column):
            empty = False
            yield text
        if empty:
            raise UserError(f"{self.path}: contains no text (empty or only a header); leave it out")

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


@dataclass(frozen=True)
class HubSource:
    """The train split of a Hub data set, `NAME`, `NAME@REVISION` or `NAME:CONFIG`, or with both.

    With `streaming` it is read over the network and takes no disk space; otherwise it is first
    downloaded, unless it is in the local cache.
    """

    given: str
    text_column: str = "text"
    streaming: bool = False

    @property
    def name(self) -> str:
        """The name with the commit that is read, so that it can be typed again."""
        config = f":{self._config}" if self._config else ""
        return f"{self._located.source}@{self._located.revision}{config}"

    @property
    def identity(self) -> str:
        """The repository, its configuration and the commit."""
        return f"hub:{self.name}"

    @property
    def rows(self) -> int | None:
        """The count in the data set's metadata, if there is one."""
        splits = self._builder.info.splits or {}
        return splits["train"].num_examples if "train" in splits else None

    def texts(self) -> Iterator[str]:
        """Yield every text of the train split.

        Raises:
            UserError: the data set can't be read, or has no train split or no such column.
        """
        try:
            # From the network, or from the files in the cache: no copy of them is made.
            rows = self._builder.as_streaming_dataset(split="train")
            for number, row in enumerate(rows, 1):
                yield _text_of(row, self.text_column, f"{self.given}: row {number}")
        except (OSError, ValueError, KeyError) as error:  # the network, or no train split
            raise self._failure(error) from error

    @property
    def _config(self) -> str | None:
        return self.given.partition(":")[2] or None

    @cached_property
    def _located(self) -> Located:
        try:
            return locate(self.given.partition(":")[0], what="dataset")
        except UserError as error:
            raise UserError(f"{error} (nor is there a file or folder {self.given!r})") from error

    @cached_property
    def _builder(self) -> Any:
        located = self._located
        folder = None if self.streaming else str(configuration_folder(located, self._config))
        datasets = needed("datasets", self.given)  # two seconds, and only Hub data needs it
        try:
            if folder is not None:
                return datasets.load_dataset_builder(folder, self._config)
            return datasets.load_dataset_builder(
                located.source, self._config, revision=located.revision
            )
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> UserError:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return UserError(f"{self.given}: can't be read from the Hub ({reason})")


def find_sources(
    names: Sequence[str], *, text_column: str = "text", streaming: bool = False
) -> list[Source]:
    """Resolve each name to a file, the files of a folder or glob, or a Hub data set.

    Args:
        names: paths, globs or Hub ids, in reading order.
        text_column: column of .jsonl, .csv, .parquet and Hub data that holds the text.
        streaming: read Hub data sets over the network instead of downloading them first.

    Raises:
        UserError: a name matches no file, or a file of an unsupported type.
    """
    found: dict[Path | str, Source] = {}
    for name in names:
        paths = _files_of(name)
        if paths is None:
            found[name] = HubSource(name, text_column, streaming)
        else:
            # Overlapping globs must not train twice on the same text.
            found.update({path.resolve(): FileSource(path, text_column) for path in paths})
    return list(found.values())


def texts_of(sources: Sequence[Source]) -> Iterator[str]:
    """Yield all texts in order."""
    return (text for source in sources for text in source.texts())


def with_progress(sources: Sequence[Source]) -> Iterator[str]:
    """Yield all texts in order, showing a progress bar."""
    rows = [source.rows for source in sources]
    total = None if None in rows else sum(count or 0 for count in rows)
    texts = texts_of(sources)
    yield from tqdm.tqdm(texts, total=total, unit=" texts", desc="corpus", leave=False)


def text_chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the texts in lists of about a million characters."""
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text) + 1  # + 1: a million blank lines must not be one endless chunk
        if characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _files_of(name: str) -> list[Path] | None:
    """Return the files that a name stands for, sorted; None if it can only be a Hub id."""
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _READERS)
    elif glob.has_magic(name) and not path.exists():
        files = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207  (absolute patterns too)
    elif path.exists() or path.suffix in _READERS or not _HUB_ID.fullmatch(name):
        files = [path]
    else:
        return None
    if not files:
        raise UserError(f"{name}: no text files found; supported are {', '.join(_READERS)}")
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: no such file")
        if file.suffix not in _READERS:
            raise UserError(f"{file}: unsupported file type; use {', '.join(_READERS)}")
    return files


def _text_of(row: Any, column: str, where: str) -> str:
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
    return (_text_of(row, column, f"{path}:{number}") for number, row in read_jsonl(path))


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
    for batch in file.iter_batches(batch_size=256, columns=[column]):
        for value in batch.column(0).to_pylist():
            number += 1
            yield _checked(value, column, f"{path}: row {number}")


_READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".txt": _texts_of_txt,
    ".jsonl": _texts_of_jsonl,
    ".csv": _texts_of_csv,
    ".parquet": _texts_of_parquet,
}
