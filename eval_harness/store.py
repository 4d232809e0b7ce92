"""Where results are kept: written whole or not at all, found fast, nothing torn ever counted.

    runs/<model>-<8 hex>/<task>/<8 hex of the settings>/seed-<n>.json, its predictions beside it

Imports no torch.
"""

import gc
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, replacing, sync
from eval_harness.results import (
    NewerSchemaError,
    Predictions,
    TaskResult,
    from_record,
    not_finite,
    to_record,
)
from eval_harness.runs import Settings

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

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Found:
    """What a results folder holds, in the order of its paths."""

    results: tuple[TaskResult, ...] = ()
    invalid: tuple[Invalid, ...] = ()


def path_of(root: Path | str, key: str) -> Path:
    """The file of a result."""
    return Path(root) / RUNS / f"{key}.json"


def publish(
    root: Path | str, result: TaskResult, predictions: Predictions, *, replace: bool = False
) -> bool:
    """Saves a result with its predictions; False where a valid one is there already.

    The first that was finished counts, whoever else made the same run. Killed at any moment it
    leaves no result or a whole one.

    Raises:
        RunFailed: a number is not finite.
        NewerResult: one is there that this version can't read.
    """
    _require_finite(result, predictions)
    from filelock import FileLock

    path = path_of(root, result.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / _LOCK).acquire(poll_interval=0.01):
        _remove_leftovers(path)
        if not replace and _is_valid(path):
            return False
        _write(path, result, predictions)
    return True


def load(path: Path | str) -> TaskResult:
    """One result, checked all but its predictions' hash.

    Raises:
        InvalidResult: why it doesn't count.
    """
    path = Path(path)
    result = _Reader().read(str(path))
    if path.parts[-4:] != tuple(f"{result.key}.json".split("/")):
        raise InvalidResult(path, _misplaced(result.key))
    if wrong := _wrong_predictions(str(path), result):
        raise InvalidResult(path, wrong)
    return result


def find(root: Path | str) -> Found:
    """Every result under a folder, and every file there that isn't one.

    Of two that claim one key and say different things neither counts.
    """
    with _without_collection():
        return _find(Path(root))


def _find(root: Path) -> Found:
    reader, by_key, invalid = _Reader(), dict[str, TaskResult](), list[Invalid]()
    strays: list[tuple[str, str, TaskResult]] = []
    for path, entry in _candidates(root, invalid):
        try:
            result = reader.read(entry.path)
        except InvalidResult as error:
            invalid.append(Invalid(path, error.reason))
            continue
        key = reader.key_of(result)
        if path != f"{RUNS}/{key}.json":
            strays.append((path, key, result))
        elif wrong := _wrong_predictions(entry.path, result):
            invalid.append(Invalid(path, wrong))
        else:
            by_key[key] = result
    invalid += _judged(strays, by_key)
    return Found(tuple(by_key.values()), tuple(sorted(invalid, key=lambda each: each.path)))


@contextmanager
def _without_collection() -> Iterator[None]:
    """Results are trees, without cycles: looking for cycles costs a third of the time here."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_predictions(root: Path | str, result: TaskResult) -> Predictions:
    """The predictions beside a result, whose hash is checked.

    Raises:
        InvalidResult: they are missing, or not those that the result was saved with.
    """
    import pyarrow as pa
    from pyarrow import parquet

    path = path_of(root, result.key).with_suffix(".parquet")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidResult(path, explain(error)) from error
    if result.predictions is None or hashlib.sha256(data).hexdigest() != _sha256(result):
        raise InvalidResult(path, "is not what the result was saved with (another sha256)")
    table = parquet.read_table(pa.BufferReader(data)).combine_chunks()
    logits = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return Predictions(
        table["split"].to_pylist(),
        table["id"].to_pylist(),
        table["label"].to_numpy(),
        logits.reshape(len(table), -1),
    )


def _sha256(result: TaskResult) -> str:
    return str((result.predictions or {})["sha256"])


def _require_finite(result: TaskResult, predictions: Predictions) -> None:
    """Raises where a number is NaN or infinite: JSON has no such thing and no table should.

    A label may be NaN: those of GLUE's test splits are the server's secret.
    """
    sizes = {len(each) for each in (predictions.split, predictions.ids, predictions.labels)}
    if sizes != {len(predictions.logits)} or predictions.logits.ndim != 2:
        raise ValueError(f"{result.key}: predictions of unequal lengths")
    if found := not_finite(to_record(result)):
        raise RunFailed(f"{result.key}: {found}: not saved; write null where it is undefined")
    finite = np.isfinite(predictions.logits).all(axis=1)
    if not finite.all():
        example = predictions.ids[int(np.argmin(finite))]
        raise RunFailed(f"{result.key}: logits of example {example!r} aren't finite: not saved")


def _is_valid(path: Path) -> bool:
    try:
        load(path)
    except NewerResult:
        raise
    except InvalidResult:
        return False
    return True


def _remove_leftovers(path: Path) -> None:
    """What a killed process left of this very result; under the lock nobody else is writing it."""
    ours = (f".{path.name}.", f".{path.stem}.parquet.")
    for name in os.listdir(path.parent):  # noqa: PTH208  (one pass over thousands of seeds)
        if name.startswith(ours) and name.endswith(".tmp"):
            (path.parent / name).unlink()


def _write(path: Path, result: TaskResult, predictions: Predictions) -> None:
    """Both files are on the disk before the old result goes; then the predictions' name, then ours.

    So a full disk leaves the old result, and a kill between the two names leaves none.
    """
    beside, data = path.with_suffix(".parquet"), _parquet(predictions)
    saved = {
        "name": beside.name,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    record = to_record(replace(result, predictions=saved))
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with replacing(path) as new, replacing(beside) as new_predictions:
        new.write_text(text + "\n", encoding="utf-8")
        new_predictions.write_bytes(data)
        sync(new)
        sync(new_predictions)
        path.unlink(missing_ok=True)


def _parquet(predictions: Predictions) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    logits = np.asarray(predictions.logits, dtype=np.float32)
    starts = np.arange(len(logits) + 1, dtype=np.int32) * logits.shape[1]
    table = pa.table(
        {
            "split": pa.array(predictions.split, pa.string()),
            "id": pa.array(predictions.ids, pa.string()),
            "label": pa.array(np.asarray(predictions.labels)),
            "logits": pa.ListArray.from_arrays(pa.array(starts), pa.array(logits.ravel())),
        }
    )
    stream = pa.BufferOutputStream()
    parquet.write_table(table, stream)
    return bytes(stream.getvalue())


def _wrong_predictions(path: str, result: TaskResult) -> str | None:
    """Why a result's predictions can't be its own; a look at their size, since a hash is slow."""
    saved = result.predictions or {}
    name = f"seed-{result.seed}.parquet"
    if saved["name"] != name:  # never a path that leads elsewhere
        return f"names {saved['name']!r} as its predictions instead of {name}"
    try:
        size = os.lstat(f"{path.removesuffix('.json')}.parquet").st_size
    except OSError as error:
        return f"its predictions {name}: {explain(error)}"
    if size != saved["size"]:
        return f"its predictions {name} have {size} bytes instead of {saved['size']}"
    return None


def _misplaced(key: str) -> str:
    return f"says that it is {key}; a result counts only in its own place"


class _Reader:
    """Reads results; the settings that neighbours share become one object that is hashed once."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._hash = ""

    def read(self, path: str) -> TaskResult:
        """What a file says, wherever it lies."""
        try:
            with open(path, "rb", buffering=0) as stream:  # noqa: PTH123  (thousands of them)
                text = stream.read().decode()
            return from_record(json.loads(text, parse_constant=_refuse), self._shared)
        except json.JSONDecodeError as error:
            torn = f"is torn: line {error.lineno}: {error.msg}" if text else "is empty"
            raise InvalidResult(path, torn) from error
        except NewerSchemaError as error:
            raise NewerResult(path, str(error)) from error
        except ValueError as error:
            raise InvalidResult(path, " ".join(str(error).split())) from error
        except OSError as error:
            raise InvalidResult(path, explain(error)) from error

    def key_of(self, result: TaskResult) -> str:
        """The key of the result that was read last."""
        if result.settings is not self._settings:
            self._settings, self._hash = result.settings, result.settings.hash
        return f"{result.model.key}/{result.task}/{self._hash}/seed-{result.seed}"

    def _shared(self, row: dict[str, Any], task: dict[str, Any]) -> Settings:
        last = self._settings
        if last is not None and last.row == row and last.task == task:
            return last
        return Settings(row, task)


def _refuse(constant: str) -> None:
    raise ValueError(f"holds {constant}, which is no number")


def _candidates(root: Path, invalid: list[Invalid]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every JSON file under `runs/` with its path from the root; what else lies there is named."""
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
    if ending == "parquet" and f"{stem}.json" not in names:
        return "predictions without a result"
    return None


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
