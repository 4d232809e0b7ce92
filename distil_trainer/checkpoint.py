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
from angels_share.files import sha256_of_file, sync, write_json

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"
STAGING = "saving-"

# Without these nothing can go on; without the optimizer's or a generator's state it can, inexactly.
_NEEDED = {"config.json", "model.safetensors", "trainer_state.json"}
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
    files = {}
    for path in sorted(path for path in staging.rglob("*") if path.is_file()):
        sync(path)
        name = path.relative_to(staging).as_posix()
        files[name] = {"size": path.stat().st_size, "sha256": sha256_of_file(path)}
    write_json(staging / MANIFEST, {"step": step, "settings": dict(settings), "files": files})
    target = staging.parent / f"{PREFIX}{step}"
    shutil.rmtree(target, ignore_errors=True)  # a torn one: a whole one would have been resumed
    staging.rename(target)
    sync(target.parent)
    return target


def rotate(output_dir: Path, keep: int | None, best: str | None) -> None:
    """Removes the oldest checkpoints beyond `keep`, never the best one. The newest is complete."""
    if keep is None or keep < 1:
        return
    folders = _numbered(output_dir)
    protected = {Path(best).name} if best else set()
    spare = [folder for folder in folders if folder.name not in protected]
    for folder in spare[: max(len(folders) - max(keep, len(protected) + 1), 0)]:
        shutil.rmtree(folder)


def _numbered(output_dir: Path) -> list[Path]:
    """The checkpoint folders by rising step."""
    found = [
        (int(match[1]), path)
        for path in (output_dir.iterdir() if output_dir.is_dir() else ())
        if (match := _NAME.match(path.name)) and path.is_dir()
    ]
    return [path for _, path in sorted(found)]


def complaint(folder: Path, *, inexact: bool = False) -> str | None:
    """What is wrong with a checkpoint, or None. Reads every byte, so that loading can trust it.

    Args:
        folder: the checkpoint.
        inexact: forgive missing files other than the weights and the trainer's state.
    """
    return next(_complaints(folder, inexact=inexact), None)


def _complaints(folder: Path, *, inexact: bool) -> Iterator[str]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
    except FileNotFoundError:
        yield f"it has no {MANIFEST}, so it was not completed (or not made here)"
        return
    except (ValueError, KeyError, TypeError):
        yield f"its {MANIFEST} is torn"
        return
    for name, recorded in sorted(files.items()):
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or path.is_symlink():
            yield f"{name} points outside of it"
        elif not path.is_file():
            if not (inexact and name not in _NEEDED):
                yield f"{name} is missing"
        elif path.stat().st_size != recorded["size"]:
            yield f"{name} has {path.stat().st_size} bytes instead of {recorded['size']}"
        elif sha256_of_file(path) != recorded["sha256"]:
            yield f"the checksum of {name} is wrong"


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
    if "is missing" not in problem:
        return ""
    return " (--allow_inexact_resume goes on without it, to another result)"


def check_settings(
    checkpoint: Checkpoint, settings: Mapping[str, Any], *, inexact: bool = False
) -> None:
    """Refuses to go on with settings that would make another run of it, unless that was asked for.

    Raises:
        UserError: names what differs.
    """
    names = sorted(set(settings) | set(checkpoint.settings))
    different = [name for name in names if settings.get(name) != checkpoint.settings.get(name)]
    if not different:
        return
    name = different[0]
    was, now = checkpoint.settings.get(name), settings.get(name)
    line = f"{checkpoint.folder} was made with {name} {was}, this run has {now}"
    if not inexact:
        raise UserError(f"{line}: use the same, or --allow_inexact_resume")
    _logger.warning("%s: the result will be another one", line)
