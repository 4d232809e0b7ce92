"""Downloads from the Hub into its cache: what is needed and nothing else, in parallel, one bar."""

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tqdm

from angels_share.errors import UserError, one_line
from angels_share.files import explain
from angels_share.hub.asking import NoNetworkError, ask
from angels_share.hub.cache import (
    What,
    has_model,
    note_files,
    noted_files,
    record_pending,
    snapshot,
)
from angels_share.hub.locate import Located, entry_of
from angels_share.imports import needed
from angels_share.model_files import BESIDE_WEIGHTS, IS_WEIGHTS, WEIGHTS

_PICKLES = re.compile(r"pytorch_model.*\.bin")
_AT_ONCE = 8
_DELAY = 1.0
"""Seconds before the bar shows: most of what is fetched is there by then."""
_LAST = "config.json"
"""Fetched after all others, so that a snapshot that has it has what belongs to it."""


@dataclass(frozen=True)
class Wanted:
    """Files of one commit.

    Attributes:
        repo_id: the repository.
        revision: the commit.
        what: the kind of repository.
        files: their names in it, each with its size in bytes.
        part: which part of the repository they are, to be noted when all are there: of a model
            "weights" (it is whole then) or "small", of a data set its configuration.
    """

    repo_id: str
    revision: str
    what: What
    files: tuple[tuple[str, int], ...]
    part: str | None = None

    @property
    def folder(self) -> Path:
        """The commit's folder in the cache."""
        return snapshot(self.repo_id, self.revision, self.what)

    def with_files(self, more: tuple[tuple[str, int], ...]) -> "Wanted":
        """Return the same with more files."""
        return replace(self, files=tuple(sorted({*self.files, *more})))

    @property
    def missing(self) -> list[tuple[str, int]]:
        """The files that are not in the cache yet."""
        return [(name, size) for name, size in self.files if not (self.folder / name).exists()]


def at_commit(repo_id: str, revision: str, what: What = "model") -> Located:
    """Return a place on the Hub that was looked up before."""
    return Located(repo_id, repo_id, revision, "hub", what)


def model_folder(located: Located, *, weights: bool = True) -> Path:
    """Return a model's folder, after fetching what is missing of it.

    Args:
        located: where the model is.
        weights: whether its weights are needed, or its config and tokenizer alone.

    Raises:
        UserError: it can't be fetched, or has no weights that can be read without running code.
    """
    if located.revision is None:
        return Path(located.source)
    wanted = files_of_model(located, weights=weights)
    if wanted is not None:
        download([wanted])
    elif weights:
        with suppress(OSError):
            record_pending(located.source, located.revision, "model", whole=True)
    return snapshot(located.source, located.revision, "model")


def files_of_model(located: Located, *, weights: bool = True) -> Wanted | None:
    """Return the files to fetch of a model; None if it is a folder or all are there.

    Raises:
        UserError: the Hub has no weights of it that can be read without running code.
    """
    if located.revision is None:
        return None
    parts = ("weights",) if weights else ("weights", "small")
    if any(noted_files(located.source, located.revision, part, "model") for part in parts):
        return None
    try:
        return all_files_of_model(located, weights=weights)
    except NoNetworkError:  # what another program fetched may do
        if has_model(snapshot(located.source, located.revision, "model"), weights=weights):
            return None
        raise


def all_files_of_model(located: Located, *, weights: bool = True) -> Wanted | None:
    """Return what is fetched of a model, also of one that is in the cache; None for a folder.

    Raises:
        UserError: the Hub has no weights of it that can be read without running code.
    """
    if located.revision is None:
        return None
    entry = entry_of(located.source, located.revision, "model")
    chosen = entry.files.keys() & (BESIDE_WEIGHTS | {"README.md"})  # the card tells the licence
    if weights:
        found = {name for name in entry.files if IS_WEIGHTS.fullmatch(name)}
        if WEIGHTS in found:
            found = {WEIGHTS}
        if not found:
            raise UserError(_no_weights(located, entry.files))
        chosen |= found
    wanted = _wanted(located, chosen, entry.files)
    return replace(wanted, part="weights" if weights else "small")


def _no_weights(located: Located, files: Iterable[str]) -> str:
    pickles = sorted(name for name in files if _PICKLES.fullmatch(name))
    if not pickles:
        return f"{located.given}: the Hub has no weights of it (model.safetensors)"
    return (
        f"{located.given}: the Hub has only pickled weights of it ({pickles[0]}), which can run "
        "code when loaded; use another model, or convert it where you trust it"
    )


def _wanted(located: Located, names: Iterable[str], sizes: dict[str, int]) -> Wanted:
    assert located.revision is not None
    files = tuple((name, sizes[name]) for name in sorted(names))
    return Wanted(located.source, located.revision, located.what, files)


def files_of_splits(located: Located, folder: str, splits: Sequence[str]) -> Wanted | None:
    """Return the parquet files of some splits in a data set's folder; None if it has no such files.

    Args:
        located: where the data set is.
        folder: the configuration's folder in the repository.
        splits: the splits.
    """
    assert located.revision is not None
    entry = entry_of(located.source, located.revision, "dataset")
    chosen: list[str] = []
    for split in splits:
        shard = re.compile(rf"{re.escape(f'{folder}/{split}')}-\d{{5}}-of-(\d{{5}})\.parquet")
        found = {name: match for name in entry.files if (match := shard.fullmatch(name))}
        counts = {int(match[1]) for match in found.values()}
        if counts != {len(found)}:
            return None
        chosen += found
    return _wanted(located, chosen, entry.files)


def configuration_folder(located: Located, config: str | None) -> Path:
    """Return a folder that `datasets` loads a data set's configuration from, fetched if need be.

    Raises:
        UserError: the data set can't be read or fetched.
    """
    assert located.revision is not None
    folder = snapshot(located.source, located.revision, "dataset")
    wanted = files_of_configuration(located, config)
    if wanted is not None:
        download([wanted])
    return folder


def files_of_configuration(located: Located, config: str | None) -> Wanted | None:
    """Return the files of a data set's configuration; None if all of them were fetched before.

    Raises:
        UserError: the data set can't be read.
    """
    assert located.revision is not None
    if noted_files(located.source, located.revision, config) is not None:
        return None
    entry = entry_of(located.source, located.revision, "dataset")
    names = _files_of_configuration(located, config)
    names |= {name for name in ("README.md",) if name in entry.files}
    wanted = _wanted(located, names & entry.files.keys(), entry.files)
    return replace(wanted, part=config or "default")


def _files_of_configuration(located: Located, config: str | None) -> set[str]:
    """Return the files of a configuration, which `datasets` finds out by its own rules."""
    datasets = needed("datasets", located.given)  # two seconds; only an unknown layout needs it

    def builder() -> Any:
        return datasets.load_dataset_builder(located.source, config, revision=located.revision)

    try:
        made = ask(builder, f"dataset {located.source}")
    except (ValueError, OSError) as error:  # no such configuration, or a script
        reason = one_line(error)
        raise UserError(f"{located.given}: `datasets` can't read it: {reason}") from error
    prefix = f"hf://datasets/{located.source}@{located.revision}/"
    urls = [str(url) for split in (made.config.data_files or {}).values() for url in split]
    if not urls or any(not url.startswith(prefix) for url in urls):
        raise UserError(f"{located.given}: its files are not in its own repository on the Hub")
    return {url.removeprefix(prefix) for url in urls}


def size_of(wanted: Iterable[Wanted]) -> int:
    """Return how many bytes must be downloaded."""
    return sum(size for each in wanted for _, size in each.missing)


def download(wanted: Sequence[Wanted]) -> None:
    """Fetch files of several repositories in parallel, with one bar; those in the cache stay.

    Raises:
        UserError: something can't be fetched: why, and that what was fetched stays.
    """
    missing = [(each, name) for each in wanted for name, _ in each.missing]
    if missing:
        # The client's own warnings hold signed addresses, which let anybody download for a while.
        for name in ("file_download", "utils._http"):
            logging.getLogger(f"huggingface_hub.{name}").addFilter(_has_no_address)
        first = [(each, name) for each, name in missing if name != _LAST]
        last = [(each, name) for each, name in missing if name == _LAST]
        with _Bar(size_of(wanted)) as bar, ThreadPoolExecutor(_AT_ONCE) as threads:
            for part in (first, last):
                jobs = [threads.submit(_fetch_file, each, name, bar) for each, name in part]
                try:
                    for job in jobs:
                        job.result()
                except BaseException:
                    threads.shutdown(cancel_futures=True)
                    raise
    with suppress(OSError):  # a cache that may only be read, with all in it: it needs no notes
        for each in wanted:
            if each.part is not None:
                names = [name for name, _ in each.files]
                note_files(each.repo_id, each.revision, each.part, names, each.what)
            whole = each.part != "small"
            record_pending(each.repo_id, each.revision, each.what, whole=whole)


class _Bar:
    """One bar for all files, in bytes."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._counted: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "_Bar":
        self._bar = tqdm.tqdm(
            total=self._total, desc="download", unit="B", unit_scale=True, file=sys.stderr,
            leave=False, delay=_DELAY,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def part(self, name: str) -> type:
        """Return what huggingface_hub takes for the bar of one file, and which feeds this one."""

        class Part(_Part):
            count = staticmethod(partial(self._count, name))

        return Part

    def _count(self, name: str, done: int) -> None:
        with self._lock:
            self._bar.update(done - self._counted.get(name, 0))  # less than before on a new try
            self._counted[name] = done


class _Part(tqdm.tqdm):
    """A bar that isn't shown: it counts a file's bytes for the one that is."""

    count: Callable[[int], None]

    def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
        super().__init__(disable=True)
        self._done = initial
        self.count(initial)

    def update(self, n: float | None = 1) -> None:
        """Count bytes that are in the file."""
        self._done += int(n or 0)
        self.count(self._done)

    def update_transfer(self, n: float) -> None:
        """Count nothing: bytes that were received aren't in the file yet."""

    def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
        """Show no speed of its own."""


def _has_no_address(record: logging.LogRecord) -> bool:
    return "http" not in record.getMessage()


def _fetch_file(wanted: Wanted, name: str, bar: "_Bar") -> None:
    from huggingface_hub import hf_hub_download

    about = f"{wanted.what} {wanted.repo_id}"

    def fetch() -> None:
        hf_hub_download(
            wanted.repo_id,
            name,
            repo_type=wanted.what,
            revision=wanted.revision,
            tqdm_class=bar.part(f"{wanted.repo_id}/{name}"),
        )

    try:
        ask(fetch, about)
    except NoNetworkError as error:
        raise NoNetworkError(f"{error}; the same command goes on where it stopped") from error
    except OSError as error:
        raise UserError(
            f"{about}: {name} can't be written to the cache: {explain(error)}"
        ) from error
