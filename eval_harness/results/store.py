"""Where results are kept: written whole or not at all, found fast, nothing torn ever counted.

    runs/<model>-<8 hex>/<task>/<8 hex of the settings>/seed-<n>.json
    and beside it its predictions, seed-<n>.<8 hex of their content>.parquet

Imports no torch.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, replacing, sync, write_atomically
from eval_harness.results.predictions import Predictions, from_parquet, to_parquet
from eval_harness.results.record import TaskResult, from_record, to_record
from eval_harness.results.schema import NewerSchemaError, not_finite, parsed
from eval_harness.runs.run import Settings

P = TypeVar("P", bound=Predictions)

RUNS = "runs"
_LOCK = ".lock"


class InvalidResult(UserError):  # noqa: N818  (it says what a file is)
    """A file that is no result: which, and why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(path), reason


class NewerResult(InvalidResult):
    """A result that this version can't read: not counted, and never overwritten."""


@dataclass(frozen=True)
class Invalid:
    """A file that doesn't count: its path from the results folder, and why."""

    path: str
    reason: str

    @property
    def is_passing(self) -> bool:
        """Whether it is no result: a process is writing it, or left it when it was killed."""
        return self.path.endswith((".tmp", ".parquet"))

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Found:
    """What a results folder holds, in the order of its paths: results by their keys."""

    by_key: Mapping[str, TaskResult] = field(default_factory=dict)
    invalid: tuple[Invalid, ...] = ()

    @property
    def results(self) -> tuple[TaskResult, ...]:
        """What counts."""
        return tuple(self.by_key.values())


def path_of(root: Path | str, key: str) -> Path:
    """The file of a result."""
    return Path(root) / RUNS / f"{key}.json"


def publish(
    root: Path | str, result: TaskResult, predictions: Predictions, *, replace: bool = False
) -> bool:
    """Saves a result with its predictions; False where a valid one is there already.

    The first that was finished counts, whoever else made the same run. Killed at any moment it
    leaves no result or a whole one; one that is to be replaced stands until the new one does.

    Raises:
        RunFailed: a number is not finite.
        NewerResult: one is there that this version can't read.
    """
    _require_finite(result, predictions)
    from filelock import FileLock

    path = path_of(root, result.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / _LOCK).acquire(poll_interval=0.01):
        there = _counting(path)
        _remove_others(path, _beside(there) if there else None)
        if there and not replace:
            return False
        _remove_others(path, _write(path, result, predictions))
    return True


def load(path: Path | str) -> TaskResult:
    """One result, checked all but its predictions' hash.

    Raises:
        InvalidResult: why it doesn't count.
    """
    path = Path(path)
    key, result = _Reader().read(str(path))
    if path.parts[-4:] != tuple(f"{key}.json".split("/")):
        raise InvalidResult(path, _misplaced(key))
    if wrong := _wrong_predictions(str(path), result):
        raise InvalidResult(path, wrong)
    return result


def find(root: Path | str) -> Found:
    """Every result under a folder, and every file there that isn't one.

    Of two that claim one key and say different things neither counts.
    """
    reader, by_key, invalid = _Reader(), dict[str, TaskResult](), list[Invalid]()
    strays: list[tuple[str, str, TaskResult]] = []
    predictions: list[str] = []
    for path, entry in _candidates(Path(root), predictions, invalid):
        try:
            key, result = reader.read(entry.path)
        except InvalidResult as error:
            invalid.append(Invalid(path, error.reason))
            continue
        if path != f"{RUNS}/{key}.json":
            strays.append((path, key, result))
        elif wrong := _wrong_predictions(entry.path, result):
            invalid.append(Invalid(path, wrong))
        else:
            by_key[key] = result
    invalid += _judged(strays, by_key)
    invalid += _unnamed(predictions, by_key)
    return Found(by_key, tuple(sorted(invalid, key=lambda each: each.path)))


def read_predictions(root: Path | str, result: TaskResult, wanted: type[P]) -> P:
    """Return the predictions beside a result, after checking their hash.

    Args:
        root: the results folder.
        result: whose they are.
        wanted: the class that they must be of: one kind's, or `Predictions` for any.

    Raises:
        InvalidResult: they are missing, not those that the result was saved with, or another
            kind's.
    """
    path = path_of(root, result.key).with_name(_beside(result))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidResult(path, explain(error)) from error
    if hashlib.sha256(data).hexdigest() != (result.predictions or {})["sha256"]:
        raise InvalidResult(path, "is not what the result was saved with (another sha256)")
    try:
        predictions = from_parquet(data)
    except (ValueError, OSError) as error:
        raise InvalidResult(path, " ".join(str(error).split())) from error
    if not isinstance(predictions, wanted):
        held = type(predictions).__name__
        raise InvalidResult(path, f"holds {held} instead of {wanted.__name__}")
    return predictions


def _beside(result: TaskResult) -> str:
    """The name of a saved result's predictions."""
    return str((result.predictions or {})["name"])


def _require_finite(result: TaskResult, predictions: Predictions) -> None:
    """Raises where a number is NaN or infinite: JSON has no such thing and no table should."""
    fault = predictions.fault()
    if found := not_finite(to_record(result)):
        raise RunFailed(f"{result.key}: {found}: not saved; write null where it is undefined")
    if fault:
        raise RunFailed(f"{result.key}: {fault} aren't finite: not saved")


def _counting(path: Path) -> TaskResult | None:
    """The result that is there, if it counts.

    Raises:
        NewerResult: one is there of which this version can't know whether it counts.
    """
    try:
        return load(path)
    except NewerResult:
        raise
    except InvalidResult:
        return None


def _remove_others(path: Path, predictions: str | None) -> None:
    """What else lies there of this very result: older predictions, what a killed process left.

    Under the lock nobody else is writing it.
    """
    for name in os.listdir(path.parent):  # noqa: PTH208  (one pass over thousands of seeds)
        unfinished = name.startswith(f".{path.stem}.") and name.endswith(".tmp")
        older = name.startswith(f"{path.stem}.") and name.endswith(".parquet")
        if unfinished or (older and name != predictions):
            (path.parent / name).unlink()


def _write(path: Path, result: TaskResult, predictions: Predictions) -> str:
    """Writes both files, the result last; gives the name of the predictions.

    They are named by their content, so those of an older result stay its own until the new one has
    taken its place: there is no moment without a result.
    """
    data = to_parquet(predictions)
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{path.stem}.{sha256[:8]}.parquet"
    saved = {"name": name, "size": len(data), "sha256": sha256}
    record = to_record(replace(result, predictions=saved))
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with replacing(path) as new:
        new.write_text(text + "\n", encoding="utf-8")
        sync(new)  # a disk that is full says so here, before anything has changed
        write_atomically(path.with_name(name), data)
    return name


def _wrong_predictions(path: str, result: TaskResult) -> str | None:
    """Why a result's predictions can't be its own; a look at their size, since a hash is slow."""
    saved = result.predictions or {}
    name, seed = saved["name"], f"seed-{result.seed}"
    # Never a path that leads elsewhere. The first results' predictions have no hash in the name.
    if "/" in name or name not in (f"{seed}.{saved['sha256'][:8]}.parquet", f"{seed}.parquet"):
        return f"names {name!r} as its predictions instead of {seed}.<hash>.parquet"
    try:
        size = os.lstat(f"{path.removesuffix(f'{seed}.json')}{name}").st_size
    except OSError as error:
        return f"its predictions {name}: {explain(error)}"
    if size != saved["size"]:
        return f"its predictions {name} have {size} bytes instead of {saved['size']}"
    return None


def _misplaced(key: str) -> str:
    return f"says that it is {key}; a result counts only in its own place"


class _Reader:
    """Reads results; the settings that the files of a folder share are hashed once."""

    def __init__(self) -> None:
        self._settings: dict[str, Settings] = {}
        self._hashes: dict[str, str] = {}

    def read(self, path: str) -> tuple[str, TaskResult]:
        """What a file says, wherever it lies, and its key."""
        try:
            with open(path, "rb", buffering=0) as stream:  # noqa: PTH123  (thousands of them)
                text = stream.read().decode()
            folder = path.rpartition("/")[0]
            result = from_record(parsed(text), self._settings.get(folder))
            settings = self._hash_of(result.settings, folder)
        except NewerSchemaError as error:
            raise NewerResult(path, str(error)) from error
        except ValueError as error:
            raise InvalidResult(path, " ".join(str(error).split())) from error
        except OSError as error:
            raise InvalidResult(path, explain(error)) from error
        return f"{result.model.key}/{result.task}/{settings}/seed-{result.seed}", result

    def _hash_of(self, settings: Settings, folder: str) -> str:
        if self._settings.get(folder) is not settings:
            _require_flat((settings.row, settings.task))
            self._settings[folder], self._hashes[folder] = settings, settings.hash
        return self._hashes[folder]


def _require_flat(value: Any, depth: int = 8) -> None:
    """Settings are shown in tables, and nobody's are deeper than a method's options."""
    if depth == 0:
        raise ValueError("settings are nested too deep")
    if isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            _require_flat(each, depth - 1)


def _candidates(
    root: Path, predictions: list[str], invalid: list[Invalid]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every JSON file under `runs/` with its path from the root; what else lies there is told."""
    top = root / RUNS
    skip = len(str(top)) - len(RUNS)
    for folder in _folders(str(top)) if top.is_dir() else ():
        names = {entry.name for entry in folder}
        for entry in folder:
            path = entry.path[skip:]
            if wrong := _no_candidate(entry, names):
                invalid.append(Invalid(path, wrong))
            elif entry.name.endswith(".json"):
                yield path, entry
            elif entry.name.endswith(".parquet"):
                predictions.append(path)


def _folders(folder: str) -> Iterator[list[os.DirEntry[str]]]:
    """The entries of a folder that are no folders, then those below; links lead nowhere."""
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    below = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    yield [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
    for entry in below:
        yield from _folders(entry.path)


def _no_candidate(entry: os.DirEntry[str], names: set[str]) -> str | None:
    """Why a file can't be a result or belong to one."""
    if entry.is_symlink():
        return "is a link: results are files of their own here"
    if entry.name.endswith(".tmp"):
        return "was being written: by a process that was killed, or is at it just now"
    stem, _, ending = entry.name.rpartition(".")
    if ending == "parquet" and f"{stem.partition('.')[0]}.json" not in names:
        return "predictions without a result"
    return None


def _unnamed(predictions: list[str], by_key: dict[str, TaskResult]) -> Iterator[Invalid]:
    """Predictions beside a result that names others as its own."""
    for path in predictions:
        folder, _, name = path.rpartition("/")
        result = by_key.get(f"{folder[len(RUNS) + 1 :]}/{name.partition('.')[0]}")
        if result is not None and _beside(result) != name:
            yield Invalid(path, "predictions of a result that was replaced, or is being written")


def _judged(
    strays: list[tuple[str, str, TaskResult]], by_key: dict[str, TaskResult]
) -> list[Invalid]:
    """Why files that lie elsewhere than they say don't count; a contradicted result goes too."""
    found = []
    contradicted = set()
    for path, key, result in strays:
        home = by_key.get(key)
        if home is None:
            found.append(Invalid(path, _misplaced(key)))
        elif (home.score, home.scores) == (result.score, result.scores):
            found.append(Invalid(path, f"is a copy of {RUNS}/{key}.json"))
        else:
            contradicted.add(key)
            found.append(Invalid(path, f"contradicts {RUNS}/{key}.json: neither counts"))
    for key in contradicted:
        del by_key[key]
        found.append(
            Invalid(f"{RUNS}/{key}.json", "is contradicted by another file: neither counts")
        )
    return found
