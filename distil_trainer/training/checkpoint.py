"""Checkpoints that are whole or not there, and known to be whole before anything is read.

A checkpoint is written into a folder of another name; last of all a manifest with every file's size
and hash; then the folder is renamed. Only what the manifest vouches for is ever loaded.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import sync, write_json
from angels_share.sealed_folder import Listed, faults, listed_in, listing

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"
STAGING = "saving-"

# Without these nothing can go on; without the optimizer's or a generator's state it can, inexactly.
_NEEDED = frozenset({"config.json", "model.safetensors", "trainer_state.json"})
_NEEDED_TO_BE_EXACT = _NEEDED | {"optimizer.pt", "scheduler.pt"}
_GENERATORS = "rng_state"
_LOADABLE = ("*.pt", "*.pth", "*.bin", "*.safetensors")
_NAME = re.compile(rf"^{PREFIX}(\d+)$")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was verified: what it was made with stands in `settings`."""

    folder: Path
    step: int
    settings: Mapping[str, Any]


def staging_folder(output_dir: Path, step: int) -> Path:
    """An empty folder to save into; what an interrupted save left there is removed."""
    folder = output_dir / f"{STAGING}{PREFIX}{step}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def complete(staging: Path, step: int, settings: Mapping[str, Any]) -> Path:
    """Vouches for the files in a staging folder and gives it its name; returns the checkpoint."""
    files = listing(staging)
    write_json(staging / MANIFEST, {"step": step, "settings": dict(settings), "files": files})
    target = staging.parent / f"{PREFIX}{step}"
    replaced = staging.parent / f"{STAGING}replaced-{step}"
    if target.exists():
        target.rename(replaced)
    staging.rename(target)
    sync(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    return target


def rotate(newest: Path, keep: int | None, best: str | None) -> None:
    """Removes checkpoints beyond `keep`: those of an abandoned future first, then the oldest.

    The newest (it is complete, or nothing would be removed) and the best always stay. Folders that
    were never completed are not counted, and not touched: the next resume names them.
    """
    if keep is None or keep < 1:
        return
    step = _step(newest)
    whole = [path for path in _numbered(newest.parent) if (path / MANIFEST).is_file()]
    by_age = sorted(whole, key=lambda path: (_step(path) <= step, _step(path)))
    protected = {newest.name, *([Path(best).name] if best else [])}
    spare = [path for path in by_age if path.name not in protected]
    for path in spare[: max(len(whole) - max(keep, len(protected)), 0)]:
        _logger.info("removed %s (save_total_limit %s)", path, keep)
        shutil.rmtree(path)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def _numbered(output_dir: Path) -> list[Path]:
    """The checkpoint folders by rising step."""
    folders = output_dir.iterdir() if output_dir.is_dir() else ()
    return sorted((path for path in folders if path.is_dir() and _NAME.match(path.name)), key=_step)


def complaint(folder: Path, *, inexact: bool = False) -> str | None:
    """What is wrong with a checkpoint, or None. Reads every byte, so that loading can trust it.

    Args:
        folder: the checkpoint.
        inexact: forgive missing files other than the weights and the trainer's state.
    """
    return next(_complaints(folder, inexact=inexact), None)


def _complaints(folder: Path, *, inexact: bool) -> Iterator[str]:
    try:
        files = _vouched_for(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except FileNotFoundError:
        yield f"it has no {MANIFEST}, so it was not completed (or not made here)"
        return
    except (ValueError, KeyError, TypeError, AttributeError):
        yield f"its {MANIFEST} is torn"
        return
    wanted = _NEEDED if inexact else _NEEDED_TO_BE_EXACT
    yield from (f"its {MANIFEST} lacks {name}" for name in sorted(wanted - files.keys()))
    if not inexact and not any(name.startswith(_GENERATORS) for name in files):
        yield f"its {MANIFEST} lacks {_GENERATORS}"
    for fault in faults(folder, files):
        if not (fault.is_missing and inexact and fault.name not in _NEEDED):
            yield fault.reason
    for path in sorted(each for pattern in _LOADABLE for each in folder.glob(pattern)):
        if path.name not in files:
            yield f"its {MANIFEST} does not vouch for {path.name}"


def _vouched_for(manifest: dict[str, Any]) -> dict[str, Listed]:
    """Size and hash of each file; an error of any kind where the manifest isn't one."""
    int(manifest["step"])
    dict(manifest["settings"])
    return listed_in(manifest["files"])


def load_verified(folder: Path) -> Checkpoint:
    """The checkpoint in a folder that `complaint` had nothing to say about."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return Checkpoint(folder, int(manifest["step"]), manifest["settings"])


def find_checkpoint(output_dir: Path, wanted: str, *, inexact: bool = False) -> Checkpoint:
    """The newest whole checkpoint (`latest`), or the one in a folder that the user names.

    Folders that are passed over are named. A folder that the user asked for is not silently
    replaced by another.

    Raises:
        UserError: none is whole; the line names the folder and what is wrong with it.
    """
    if wanted != "latest":
        folder = Path(wanted)
        if not folder.is_dir():
            raise UserError(f"--resume_from_checkpoint {folder}: there is no such folder")
        if (problem := complaint(folder, inexact=inexact)) is None:
            return load_verified(folder)
        others = [path.name for path in _numbered(folder.parent) if complaint(path) is None]
        hint = f"; {others[-1]} beside it is whole" if others else ""
        raise UserError(f"{folder}: {problem}{hint}{_inexact_hint(problem)}")
    problems = []
    for folder in reversed(_numbered(output_dir)):
        if (problem := complaint(folder, inexact=inexact)) is None:
            return load_verified(folder)
        problems.append(f"{folder}: {problem}")
        _logger.warning("passed over %s: %s", folder, problem)
    if problems:
        raise UserError(f"no whole checkpoint: {problems[0]}{_inexact_hint(problems[0])}")
    raise UserError(f"--resume_from_checkpoint: {output_dir} holds no checkpoint")


def _inexact_hint(problem: str) -> str:
    if "is missing" not in problem or any(f"{name} is missing" in problem for name in _NEEDED):
        return ""
    return " (--allow_inexact_resume goes on without it, to another result)"


def check_settings(
    checkpoint: Checkpoint, settings: Mapping[str, Any], *, inexact: bool = False
) -> None:
    """Refuses to go on with settings that would make another run of it, unless that was asked for.

    Raises:
        UserError: names all that differs.
    """
    was = checkpoint.settings
    different = [
        f"{name} {was.get(name)} (now {settings.get(name)})"
        for name in sorted({*settings, *was})
        if settings.get(name) != was.get(name)
    ]
    if not different:
        return
    line = f"{checkpoint.folder} was made with {', '.join(different)}"
    if not inexact:
        raise UserError(f"{line}: use the same, or --allow_inexact_resume")
    _logger.warning("%s: the result will be another one", line)
