"""Text sources by name: files, folders, globs, addresses, Hub data sets; their texts in order."""

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import tqdm

from angels_share.errors import UserError
from distil_trainer.data.file_sources import READERS, TOKEN_READERS, FileSource, ReadTokens, Text
from distil_trainer.data.stream_sources import HubSource, ObjectSource

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

    def texts(self) -> Iterator[Text]:
        """Yield every text in order; blank ones too, so that they can be counted."""


def find_sources(
    names: Sequence[str],
    *,
    text_column: str = "text",
    streaming: bool = False,
    read_tokens: ReadTokens | None = None,
) -> list[Source]:
    """Resolve each name to a file, the files of a folder or glob, an address, or a Hub data set.

    Args:
        names: paths, globs, addresses or Hub ids, in reading order.
        text_column: column of .jsonl, .csv, .parquet and Hub data that holds the text.
        streaming: read Hub data sets over the network instead of downloading them first.
        read_tokens: reads a row's token ids, of data that have them in place of texts.

    Raises:
        UserError: a name matches no file, or a file of an unsupported type.
    """
    found: dict[Path | str, Source] = {}
    for name in names:
        if "://" in name:
            found[name] = _object(name, text_column, read_tokens)
            continue
        paths = _files_of(name, tuple(READERS if read_tokens is None else TOKEN_READERS))
        if paths is None:
            found[name] = HubSource(name, text_column, streaming, read_tokens)
        else:
            # Overlapping globs must not train twice on the same text.
            for path in paths:
                found[path.resolve()] = FileSource(path, text_column, read_tokens)
    return list(found.values())


def _object(address: str, text_column: str, read_tokens: ReadTokens | None) -> ObjectSource:
    source = ObjectSource(address, text_column, read_tokens)
    if not source.name.endswith(".parquet"):
        raise UserError(
            f"{source.name}: of what lies at an address only parquet files are read: end it in "
            ".parquet or /*.parquet"
        )
    return source


def texts_of(sources: Sequence[Source]) -> Iterator[Text]:
    """Yield all texts in order."""
    return (text for source in sources for text in source.texts())


def part_of(sources: Sequence[Source], reader: int, readers: int) -> Iterator[Text]:
    """Yield one reader's part of all texts, in order: every text is in one part.

    Of the files' texts it is every n-th; what `datasets` reads, it splits.

    Args:
        sources: the corpus.
        reader: the reader's number, from 0 on.
        readers: how many there are.
    """
    number = 0
    for source in sources:
        if isinstance(source, HubSource | ObjectSource):
            yield from source.part(reader, readers)
            continue
        for text in source.texts():
            if number % readers == reader:
                yield text
            number += 1


def is_split(sources: Sequence[Source]) -> bool:
    """Return whether `datasets` splits any source among several readers."""
    return any(isinstance(source, HubSource | ObjectSource) for source in sources)


def with_progress(sources: Sequence[Source]) -> Iterator[Text]:
    """Yield all texts in order, showing a progress bar."""
    rows = [source.rows for source in sources]
    total = None if None in rows else sum(count or 0 for count in rows)
    texts = texts_of(sources)
    yield from tqdm.tqdm(texts, total=total, unit=" texts", desc="corpus", leave=False)


def text_chunks(texts: Iterable[Text]) -> Iterator[list[Any]]:
    """Yield the texts in lists of about a million characters, or tokens."""
    chunk: list[Text] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text) + 1  # + 1: a million blank lines must not be one endless chunk
        if characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _files_of(name: str, suffixes: Sequence[str]) -> list[Path] | None:
    """Return the files that a name stands for, sorted; None if it can only be a Hub id."""
    path = Path(name)
    if path.is_dir():
        if (path / "dataset_dict.json").exists():
            raise UserError(f"{name}: holds several splits; name one, such as {path / 'train'}")
        files = sorted(file for file in path.rglob("*") if file.suffix in suffixes)
        # `datasets` keeps what was computed of a data set beside it.
        files = [each for each in files if not re.fullmatch(r"cache-.*\.arrow", each.name)]
    elif glob.has_magic(name) and not path.exists():
        files = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207  (absolute patterns too)
    elif path.exists() or path.suffix in suffixes or not _HUB_ID.fullmatch(name):
        files = [path]
    else:
        return None
    if not files:
        raise UserError(f"{name}: no text files found; supported are {', '.join(suffixes)}")
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: no such file")
        if file.suffix not in suffixes:
            raise UserError(f"{file}: unsupported file type; use {', '.join(suffixes)}")
    return files
