"""The results folder: results are written atomically, and damaged files are never counted.

    runs/<model>-<8 hex>/<task>/<8 hex of the settings>/seed-<n>.json
    and next to it its predictions, seed-<n>.<8 hex of their content>.parquet

Imports no torch.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, locked, replacing, sync, write_atomically
from eval_harness.results.predictions import Predictions, from_parquet, to_parquet
from eval_harness.results.record import TaskResult, from_text, to_record, to_text
from eval_harness.results.schema import NewerSchemaError, not_finite
from eval_harness.runs.run import Settings, placeless

P = TypeVar("P", bound=Predictions)

RUNS = "runs"
_LOCK = ".lock"

_LINK = "is a link, which is not followed"
NO_FILE = "is neither a file nor a folder (a FIFO, a socket or a device): it is not read"
"""Why something among the results is passed over: to read a FIFO is to wait for its writer."""
WITHHELD = "predictions not published: the result says that they are withheld"
"""Why a result that counts has no predictions to read."""


class InvalidResult(UserError):  # noqa: N818  (it tells what a file is)
    """A file that is not a valid result: its path and the reason."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(path), reason


class NewerResult(InvalidResult):
    """A result of a newer schema: not counted, and never overwritten."""


@dataclass(frozen=True)
class Invalid:
    """A file that is not counted: its path in the results folder, and the reason."""

    path: str
    reason: str

    @property
    def is_leftover(self) -> bool:
        """True for a leftover rather than a result: unfinished, or predictions alone."""
        return self.path.endswith((".tmp", ".parquet"))

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Found:
    """The content of a results folder, in the order of its paths: results by key, other files."""

    by_key: Mapping[str, TaskResult] = field(default_factory=dict)
    invalid: tuple[Invalid, ...] = ()

    @property
    def results(self) -> tuple[TaskResult, ...]:
        """The valid results."""
        return tuple(self.by_key.values())


def path_of(root: Path | str, key: str) -> Path:
    """Return the path of a result's file."""
    return Path(root) / RUNS / f"{key}.json"


def refuse_linked_folders(root: Path | str, keys: Iterable[str]) -> None:
    """Refuse links among the folders of these results: whatever is saved behind one never counts.

    Raises:
        UserError: names the link.
    """
    for folder in dict.fromkeys(path.parent for path in (path_of(root, key) for key in keys)):
        for part in (folder, *folder.parents[: len(folder.relative_to(root).parts) - 2]):
            if part.is_symlink():
                raise UserError(f"{part}: {_LINK}: replace it by the folder that it points to")


def publish(
    root: Path | str, result: TaskResult, predictions: Predictions, *, replace: bool = False
) -> bool:
    """Save a result with its predictions, unless a valid one exists.

    The first result of a run counts, even if another process repeats the run. A process killed at
    any moment leaves either no result or a complete one; a result that is to be replaced stays
    until the new one is complete.

    Args:
        root: the results folder.
        result: the result; `predictions` is filled in.
        predictions: the predictions that it was computed from.
        replace: whether to replace a valid result.

    Returns:
        Whether the result was saved.

    Raises:
        RunFailed: a number is not finite.
        NewerResult: a result of a newer schema exists.
    """
    _require_finite(result, predictions)
    path = path_of(root, result.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / _LOCK, poll_seconds=0.01):
        existing = _valid_result(path)
        _remove_leftovers(path, _predictions_name(existing) if existing else None)
        if existing and not replace:
            return False
        _remove_leftovers(path, _write(path, result, predictions))
    return True


def load(path: Path | str) -> TaskResult:
    """Load a result and check everything except its predictions' hash.

    Raises:
        InvalidResult: the file is not a valid result.
    """
    path = Path(path)
    if path.is_symlink():
        raise InvalidResult(path, _LINK)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InvalidResult(path, NO_FILE)
    key, result = _Reader().read(str(path))
    if path.parts[-4:] != tuple(f"{key}.json".split("/")):
        raise InvalidResult(path, _misplaced(key))
    if problem := _problem_with_predictions(str(path), result):
        raise InvalidResult(path, problem)
    return result


def find(root: Path | str) -> Found:
    """Load all results of a results folder, and name the files that are not valid results.

    If two files of one key have different scores, neither counts.
    """
    reader, by_key, invalid = _Reader(), dict[str, TaskResult](), list[Invalid]()
    misplaced: list[tuple[str, str, TaskResult]] = []
    predictions: list[str] = []
    for path, entry in _candidates(Path(root), predictions, invalid):
        try:
            key, result = reader.read(entry.path)
        except InvalidResult as error:
            invalid.append(Invalid(path, error.reason))
            continue
        if path != f"{RUNS}/{key}.json":
            misplaced.append((path, key, result))
        elif problem := _problem_with_predictions(entry.path, result):
            invalid.append(Invalid(path, problem))
        else:
            by_key[key] = result
    invalid += _compare_misplaced(misplaced, by_key)
    invalid += _superseded(predictions, by_key)
    return Found(by_key, tuple(sorted(invalid, key=lambda file: file.path)))


def read_predictions(root: Path | str, result: TaskResult, expected: type[P]) -> P:
    """Read the predictions of a saved result and check their hash; refuse withheld ones.

    Args:
        root: the results folder.
        result: the result, as it was loaded.
        expected: the class that they must have; `Predictions` accepts any.

    Raises:
        InvalidResult: they are withheld or missing, have another hash, or are of another class.
    """
    path, predictions = _read_predictions(root, result)
    if not isinstance(predictions, expected):
        found = type(predictions).__name__
        raise InvalidResult(path, f"holds {found} instead of {expected.__name__}")
    return predictions


def read_any_predictions(root: Path | str, result: TaskResult) -> Predictions:
    """Do what `read_predictions` does, for predictions of any class."""
    return _read_predictions(root, result)[1]


def _read_predictions(root: Path | str, result: TaskResult) -> tuple[Path, Predictions]:
    if result.predictions is None:
        raise InvalidResult(path_of(root, result.key), WITHHELD)
    path = path_of(root, result.key).with_name(_predictions_name(result))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidResult(path, explain(error)) from error
    if hashlib.sha256(data).hexdigest() != result.predictions["sha256"]:
        raise InvalidResult(path, "is not what the result was saved with (sha256 differs)")
    try:
        return path, from_parquet(data)
    except (ValueError, OSError) as error:
        raise InvalidResult(path, " ".join(str(error).split())) from error


def withhold(root: Path | str, result: TaskResult) -> None:
    """Remove the predictions of a saved result, which counts without them and says so.

    For results that may be published where their examples may not.

    Raises:
        InvalidResult: the predictions are not those of the result, so nothing could prove it.
    """
    path = path_of(root, result.key)
    with locked(path.parent / _LOCK, poll_seconds=0.01):
        read_any_predictions(root, result)
        text = to_text(
            replace(
                result,
                model=placeless(result.model),
                predictions=None,
                withheld=result.predictions,
            )
        )
        write_atomically(path, text)
        path.with_name(_predictions_name(result)).unlink()


def _predictions_name(result: TaskResult) -> str:
    """Return the name of the file with a saved result's predictions."""
    return str(result.saved_predictions["name"])


def _require_finite(result: TaskResult, predictions: Predictions) -> None:
    """Refuse NaN and infinity, which JSON cannot express and tables could not average."""
    fault = predictions.fault()
    if found := not_finite(to_record(result)):
        raise RunFailed(f"{result.key}: {found}: not saved; write null where it is undefined")
    if fault:
        raise RunFailed(f"{result.key}: {fault} are not finite: not saved")


def _valid_result(path: Path) -> TaskResult | None:
    """Load the result at a path; return None if there is none, or none that is valid.

    Raises:
        NewerResult: this version can't tell whether the result is valid.
    """
    try:
        return load(path)
    except NewerResult:
        raise
    except InvalidResult:
        return None


def _remove_leftovers(path: Path, predictions: str | None) -> None:
    """Remove a result's older predictions and the temporary files that killed processes left.

    Args:
        path: the result's file. The caller holds the lock, so no process is writing it.
        predictions: the name of the predictions that stay.
    """
    for name in os.listdir(path.parent):  # noqa: PTH208  (one pass over thousands of seeds)
        is_unfinished = name.startswith(f".{path.stem}.") and name.endswith(".tmp")
        is_predictions = name.startswith(f"{path.stem}.") and name.endswith(".parquet")
        if is_unfinished or (is_predictions and name != predictions):
            (path.parent / name).unlink()


def _write(path: Path, result: TaskResult, predictions: Predictions) -> str:
    """Write both files, the result last; return the name of the predictions' file.

    Predictions are named by their content, so those of the old result are not overwritten before
    the new result replaces it: at every moment there is one complete pair.
    """
    data = to_parquet(predictions)
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{path.stem}.{sha256[:8]}.parquet"
    saved = {"name": name, "size": len(data), "sha256": sha256}
    # Whatever lies there doesn't count, or is to be replaced.
    text = to_text(replace(result, predictions=saved, withheld=None, replaces=path.exists()))
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")
        sync(new)  # fails here if the disk is full, before anything has changed
        write_atomically(path.with_name(name), data)
    return name


def _problem_with_predictions(path: str, result: TaskResult) -> str | None:
    """Return why a predictions' file can't be the result's, by name and size: hashing is slow."""
    saved = result.saved_predictions
    name, seed = saved["name"], f"seed-{result.seed}"
    # Never follow a path out of the folder. The first results' names contain no hash.
    if "/" in name or name not in (f"{seed}.{saved['sha256'][:8]}.parquet", f"{seed}.parquet"):
        return f"names {name!r} as its predictions instead of {seed}.<hash>.parquet"
    if result.predictions is None:  # withheld
        return None
    try:
        size = os.lstat(f"{path.removesuffix(f'{seed}.json')}{name}").st_size
    except OSError as error:
        return f"its predictions {name}: {explain(error)}"
    if size != saved["size"]:
        return f"its predictions {name} have {size} bytes instead of {saved['size']}"
    return None


def _misplaced(key: str) -> str:
    return f"belongs at {RUNS}/{key}.json; a result counts only in its own place"


class _Reader:
    """A reader of results that hashes the settings shared by a folder's files only once."""

    def __init__(self) -> None:
        self._settings: dict[str, Settings] = {}
        self._hashes: dict[str, str] = {}

    def read(self, path: str) -> tuple[str, TaskResult]:
        """Return the key and the result in a file, wherever it lies."""
        try:
            with open(path, "rb", buffering=0) as stream:  # noqa: PTH123  (thousands of them)
                text = stream.read()
            folder = path.rpartition("/")[0]
            result = from_text(text, self._settings.get(folder))
            settings_hash = self._hash_of(result.settings, folder)
        except NewerSchemaError as error:
            raise NewerResult(path, str(error)) from error
        except ValueError as error:
            raise InvalidResult(path, " ".join(str(error).split())) from error
        except OSError as error:
            raise InvalidResult(path, explain(error)) from error
        return f"{result.model.key}/{result.task}/{settings_hash}/seed-{result.seed}", result

    def _hash_of(self, settings: Settings, folder: str) -> str:
        # `from_record` returns the known object for equal settings, so identity is enough.
        if self._settings.get(folder) is not settings:
            _require_flat((settings.row, settings.task))
            self._settings[folder], self._hashes[folder] = settings, settings.hash
        return self._hashes[folder]


def _require_flat(value: Any, depth: int = 8) -> None:
    """Refuse settings nested deeper than any real ones: tables walk through them recursively."""
    if depth == 0:
        raise ValueError("settings are nested too deep")
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _require_flat(item, depth - 1)


def _candidates(
    root: Path, predictions: list[str], invalid: list[Invalid]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the JSON files under `runs/` with their paths in the results folder.

    Args:
        root: the results folder.
        predictions: the paths of parquet files are added to it.
        invalid: files that belong to no result are added to it.
    """
    top = root / RUNS
    skip = len(str(top)) - len(RUNS)
    for folder in _folders(str(top)) if top.is_dir() else ():
        names = {entry.name for entry in folder}
        for entry in folder:
            path = entry.path[skip:]
            if problem := _problem_with_entry(entry, names):
                invalid.append(Invalid(path, problem))
            elif entry.name.endswith(".json"):
                yield path, entry
            elif entry.name.endswith(".parquet"):
                predictions.append(path)


def _folders(folder: str) -> Iterator[list[os.DirEntry[str]]]:
    """Yield the files of a folder, then those of each folder below; links are not followed."""
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    subfolders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    yield [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
    for entry in subfolders:
        yield from _folders(entry.path)


def _problem_with_entry(entry: os.DirEntry[str], names: set[str]) -> str | None:
    """Return why a file can't be a result or belong to one; `names` are all files of its folder."""
    if entry.is_symlink():
        return _LINK
    if not entry.is_file(follow_symlinks=False):
        return NO_FILE
    if entry.name.endswith(".tmp"):
        return "is unfinished: its process was killed, or is still writing it"
    stem, _, ending = entry.name.rpartition(".")
    if ending == "parquet" and f"{stem.partition('.')[0]}.json" not in names:
        return "predictions without a result"
    return None


def _superseded(predictions: list[str], by_key: dict[str, TaskResult]) -> Iterator[Invalid]:
    """Yield the predictions whose result names another file as its predictions."""
    for path in predictions:
        folder, _, name = path.rpartition("/")
        result = by_key.get(f"{folder[len(RUNS) + 1 :]}/{name.partition('.')[0]}")
        if result is not None and _predictions_name(result) != name:
            yield Invalid(path, "predictions of a result that was replaced, or is being written")


def _compare_misplaced(
    misplaced: list[tuple[str, str, TaskResult]], by_key: dict[str, TaskResult]
) -> list[Invalid]:
    """Return why misplaced results don't count; remove what they contradict from `by_key`."""
    invalid = []
    contradicted = set()
    for path, key, result in misplaced:
        in_place = by_key.get(key)
        if in_place is None:
            invalid.append(Invalid(path, _misplaced(key)))
        elif (in_place.score, in_place.scores) == (result.score, result.scores):
            invalid.append(Invalid(path, f"is a copy of {RUNS}/{key}.json"))
        elif in_place.replaces and result.finished <= in_place.finished:
            invalid.append(Invalid(path, f"is older than {RUNS}/{key}.json, which was run again"))
        else:
            contradicted.add(key)
            invalid.append(Invalid(path, f"contradicts {RUNS}/{key}.json: neither counts"))
    for key in contradicted:
        del by_key[key]
        invalid.append(
            Invalid(f"{RUNS}/{key}.json", "is contradicted by another file: neither counts")
        )
    return invalid
