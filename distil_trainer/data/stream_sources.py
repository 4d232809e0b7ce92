"""Text that `datasets` reads: data sets on the Hub, and parquet files in object storage.

Of several readers each takes its own part, as `datasets` splits a data set by node: whole files
where their number is a multiple of that of the readers; else every reader reads everything and
keeps every n-th row. Either way no row is in two parts, and none in no part.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from angels_share.errors import UserError
from angels_share.hub.fetch import configuration_folder
from angels_share.hub.locate import Located, locate
from angels_share.imports import needed
from distil_trainer.data.file_sources import ReadTokens, Text, text_of, token_columns

_ROWS_AT_ONCE = 256

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubSource:
    """The train split of a Hub data set, `NAME`, `NAME@REVISION` or `NAME:CONFIG`, or with both.

    With `streaming` it is read over the network and takes no disk space; otherwise it is first
    downloaded, unless it is in the local cache.
    """

    given: str
    text_column: str = "text"
    streaming: bool = False
    read_tokens: ReadTokens | None = None

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

    def texts(self) -> Iterator[Text]:
        """Yield every text of the train split.

        Raises:
            UserError: the data set can't be read, or has no train split or no such column.
        """
        return self.part(0, 1)

    def part(self, reader: int, readers: int) -> Iterator[Text]:
        """Yield one reader's part of the texts; see `_part`."""
        try:
            # From the network, or from the files in the cache: no copy of them is made.
            rows = self._builder.as_streaming_dataset(split="train")
            yield from _part(rows, reader, readers, self)
        except (OSError, ValueError, KeyError) as error:  # the network, or no train split
            raise _failure(self.given, "the Hub", error) from error

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
            raise _failure(self.given, "the Hub", error) from error


@dataclass(frozen=True)
class ObjectSource:
    """Parquet files in object storage or on a web server, by their address; only streamed.

    The address may be a pattern where the storage can list its files (`s3://bucket/wiki/*.parquet`).
    Whoever may read them is said where that storage's own library looks for it.
    """

    address: str
    text_column: str = "text"
    read_tokens: ReadTokens | None = None

    @property
    def given(self) -> str:
        """Its name in errors."""
        return self.name

    @property
    def name(self) -> str:
        """The address without user, password and query: they may be secrets, names are public."""
        return "::".join(map(_public, self.address.split("::")))

    @property
    def identity(self) -> str:
        """Unknown: what lies at an address may change, and reading all of it would take hours."""
        raise UserError(f"{self.name}: it can only be streamed: add --stream_corpus")

    @property
    def rows(self) -> int | None:
        """Unknown without reading."""
        return None

    def texts(self) -> Iterator[Text]:
        """Yield every text, or every row's token ids.

        Raises:
            UserError: the files can't be read, or have no such column.
        """
        return self.part(0, 1)

    def part(self, reader: int, readers: int) -> Iterator[Text]:
        """Yield one reader's part of the texts; see `_part`."""
        datasets = needed("datasets", self.name)
        try:
            rows = datasets.load_dataset(
                "parquet", data_files=self.address, split="train", streaming=True
            )
            yield from _part(rows, reader, readers, self)
        except ImportError as error:  # fsspec's: it names the package
            raise UserError(f"{self.name}: can't be read: {error}") from error
        except (OSError, ValueError, KeyError) as error:
            raise _failure(self.name, "there", error) from error


_WITHOUT_QUERY = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "hf", "file", "memory")
"""Storages in whose addresses ? and # are part of a pattern or a name."""


def _public(part: str) -> str:
    """Return one address of a chain, such as `simplecache::https://…`, without its secrets."""
    scheme, separator, rest = part.partition("://")
    if not separator:
        return part
    if scheme.lower() not in _WITHOUT_QUERY:
        rest = rest.partition("?")[0].partition("#")[0]
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


class _Streamed(Protocol):
    """What `_part` needs to know of a source."""

    @property
    def given(self) -> str: ...

    @property
    def text_column(self) -> str: ...

    @property
    def read_tokens(self) -> ReadTokens | None: ...


def _part(rows: Any, reader: int, readers: int, source: _Streamed) -> Iterator[Text]:
    """Yield one reader's part of a data set's texts.

    Args:
        rows: what `datasets` streams.
        reader: the reader's number.
        readers: how many there are.
        source: where the rows are from, and what of them is wanted.
    """
    distributed = needed("datasets.distributed", source.given)
    names = rows.column_names
    if source.read_tokens is not None and names:
        rows = rows.select_columns(token_columns(names, source.given))
    if reader == 0 and rows.num_shards % readers:
        _logger.warning(
            "%s: %d files for %d readers (processes x loader workers): each reads all of them and "
            "keeps its rows; with a multiple of %d files each would read its own",
            source.given,
            rows.num_shards,
            readers,
            readers,
        )
    part = distributed.split_dataset_by_node(rows, rank=reader, world_size=readers)
    which = f" of part {reader + 1} of {readers}" if readers > 1 else ""
    number = 0
    # In batches: row by row, `datasets` would split the part again among a loader's workers.
    for batch in part.iter(batch_size=_ROWS_AT_ONCE):
        for values in zip(*batch.values(), strict=True):
            number += 1
            row = dict(zip(batch, values, strict=True))
            where = f"{source.given}: row {number}{which}"
            if source.read_tokens is None:
                yield text_of(row, source.text_column, where)
            else:
                token_columns(list(row), where)
                yield source.read_tokens(row, where)
    # Older versions of `datasets` say nothing of a pattern that nothing matches; of few rows some
    # readers get none.
    if number == 0 and readers == 1:
        raise UserError(f"{source.given}: has no row")


def _failure(name: str, place: str, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return UserError(f"{name}: can't be read from {place} ({reason})")
