"""Atomic, checksummed training checkpoints, verified before anything is read.

A checkpoint is written to a staging folder; its last file is a manifest with the size and hash of
every other file; then the folder is renamed. Only files listed in the manifest are ever loaded.
"""

import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import replace_folder, sync, write_json
from angels_share.sealed_folder import Listed, faults, listed_in, listing

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"
STAGING = "saving-"
AUTO = "auto"
_BEGUN = ".begun"
_RESTARTS = "TORCHELASTIC_RESTART_COUNT"
"""Asks for the newest complete checkpoint, or a fresh start where there is none."""
_REPLACED = f"{STAGING}replaced-"

# Without these no run can resume; without optimizer or generator state it can, inexactly.
_NEEDED = frozenset({"config.json", "model.safetensors", "trainer_state.json"})
_NEEDED_TO_BE_EXACT = _NEEDED | {"optimizer.pt", "scheduler.pt"}
_GENERATORS = "rng_state"
_LOADABLE = ("*.pt", "*.pth", "*.bin", "*.safetensors")
_NAME = re.compile(rf"^{PREFIX}(\d+)$")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint, with the result settings of the run that wrote it."""

    folder: Path
    step: int
    settings: Mapping[str, Any]


def staging_folder(output_dir: Path, step: int) -> Path:
    """Return an empty folder to save into, removing what killed processes left half saved."""
    for leftover in output_dir.glob(f"{STAGING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = output_dir / f"{STAGING}{PREFIX}{step}"
    folder.mkdir(parents=True)
    return folder


def place_files(staging: Path, folder: Path) -> None:
    """Move the files of a complete staging folder into a folder that holds other things, too.

    A model's config comes last and an older one goes first: without it no model is loaded, so
    whoever is killed in between leaves none rather than parts of two.
    """
    sizes = listing(staging)  # which flushes them to disk
    (folder / "config.json").unlink(missing_ok=True)
    for name in sorted(sizes, key=lambda name: name == "config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(folder / name)
    sync(folder)


def complete(staging: Path, step: int, settings: Mapping[str, Any]) -> Path:
    """Write the manifest of a staging folder and rename the folder; return the checkpoint.

    Args:
        staging: the folder that everything was saved into.
        step: the update after which it was saved.
        settings: the result settings of the run, for whoever resumes.
    """
    files = listing(staging)
    write_json(staging / MANIFEST, {"step": step, "settings": dict(settings), "files": files})
    target = staging.parent / f"{PREFIX}{step}"
    replace_folder(staging, target, staging.parent / f"{_REPLACED}{step}")
    return target


def restore_replaced(output_dir: Path) -> None:
    """Give a checkpoint its name back that was being replaced when its process was killed."""
    for replaced in output_dir.glob(f"{_REPLACED}*"):
        target = output_dir / f"{PREFIX}{replaced.name.removeprefix(_REPLACED)}"
        with suppress(OSError):  # another process of this run did it, or the folder is read-only
            if not target.exists() and (replaced / MANIFEST).is_file():
                replaced.rename(target)


def rotate(newest: Path, keep: int | None, best: str | None) -> None:
    """Remove checkpoints beyond `keep`: first later steps of an abandoned run, then the oldest.

    Folders that were never completed are not counted and not removed: the next resume names them.

    Args:
        newest: the checkpoint that was just completed; it is never removed.
        keep: how many checkpoints may stay; None or 0 removes none.
        best: the best checkpoint's folder, if any; it is never removed.
    """
    if keep is None or keep < 1:
        return
    step = _step(newest)
    whole = [path for path in numbered(newest.parent) if (path / MANIFEST).is_file()]
    by_age = sorted(whole, key=lambda path: (_step(path) <= step, _step(path)))
    protected = {newest.name, *([Path(best).name] if best else [])}
    spare = [path for path in by_age if path.name not in protected]
    for path in spare[: max(len(whole) - max(keep, len(protected)), 0)]:
        _logger.info("removed %s (save_total_limit %s)", path, keep)
        # Renamed first: a process that is killed here leaves no half checkpoint under its name,
        # and the next save removes the rest.
        shutil.rmtree(path.rename(path.with_name(f"{STAGING}removed-{path.name}")))


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def numbered(output_dir: Path) -> list[Path]:
    """Return the checkpoint folders by increasing step."""
    folders = output_dir.iterdir() if output_dir.is_dir() else ()
    return sorted((path for path in folders if path.is_dir() and _NAME.match(path.name)), key=_step)


def complaint(folder: Path, *, inexact: bool = False) -> str | None:
    """Return what is wrong with a checkpoint, or None; read every byte to find out.

    Args:
        folder: the checkpoint.
        inexact: ignore missing files other than the config, the weights and the trainer's state.
    """
    return next(_complaints(folder, inexact=inexact), None)


def _complaints(folder: Path, *, inexact: bool) -> Iterator[str]:
    try:
        files = _listed_files(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except FileNotFoundError:
        yield f"it has no {MANIFEST}, so it was not completed (or not written by this trainer)"
        return
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        yield f"its {MANIFEST} is damaged"
        return
    needed = _NEEDED if inexact else _NEEDED_TO_BE_EXACT
    yield from (f"its {MANIFEST} lacks {name}" for name in sorted(needed - files.keys()))
    if not inexact and not any(name.startswith(_GENERATORS) for name in files):
        yield f"its {MANIFEST} lacks {_GENERATORS}"
    for fault in faults(folder, files):
        if not (fault.is_missing and inexact and fault.name not in _NEEDED):
            yield fault.reason
    for path in sorted(each for pattern in _LOADABLE for each in folder.glob(pattern)):
        if path.name not in files:
            yield f"its {MANIFEST} does not list {path.name}"


def _listed_files(manifest: dict[str, Any]) -> dict[str, Listed]:
    """Return size and hash of each file; raise an error of any kind for a damaged manifest."""
    int(manifest["step"])
    dict(manifest["settings"])
    return listed_in(manifest["files"])


def load_verified(folder: Path) -> Checkpoint:
    """Return the checkpoint in a folder in which `complaint` found nothing wrong."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return Checkpoint(folder, int(manifest["step"]), manifest["settings"])


def restarts(output_dir: Path) -> int:
    """Return how often torchrun has started this process again since its training began.

    A start that was refused counts for nothing: repeated by torchrun it is refused again. The
    first start of a launch forgets what an earlier launch of the same name noted.
    """
    count = int(os.environ.get(_RESTARTS) or 0)
    if not count:
        _begun(output_dir).unlink(missing_ok=True)  # of an earlier launch
    return count if _begun(output_dir).is_file() else 0


def note_begun(output_dir: Path) -> None:
    """Note, where torchrun started this process, that its training was not refused."""
    if _RESTARTS in os.environ:
        _begun(output_dir).parent.mkdir(parents=True, exist_ok=True)
        _begun(output_dir).touch()


def _begun(output_dir: Path) -> Path:
    run = re.sub(r"[^\w.-]", "-", os.environ.get("TORCHELASTIC_RUN_ID", ""))
    return output_dir / _BEGUN / f"{socket.gethostname()}-{run}"


def requested(given: Any, restarts: int) -> Any:
    """Return what is asked for of `train(resume_from_checkpoint=...)`, or by the flag.

    torchrun (`--max_restarts`) starts the same command again when a process has died: that goes on
    from the newest checkpoint, if there is one yet, although the command doesn't say so.
    """
    return AUTO if restarts and not given else given


def find_checkpoint(output_dir: Path, name: str, *, inexact: bool = False) -> Checkpoint:
    """Return the newest complete checkpoint (`latest`), or the one in a named folder.

    `latest` logs every folder that it skips. A named folder is never replaced by another.

    Args:
        output_dir: where to look for the latest checkpoint.
        name: `latest`, or a checkpoint's folder.
        inexact: accept checkpoints without the optimizer's or a generator's state.

    Raises:
        UserError: no checkpoint is complete; the error names the folder and what is wrong with it.
    """
    if name != "latest":
        folder = Path(name)
        if not folder.is_dir():
            raise UserError(f"--resume_from_checkpoint {folder}: no such folder")
        if (problem := complaint(folder, inexact=inexact)) is None:
            return load_verified(folder)
        others = [path.name for path in numbered(folder.parent) if complaint(path) is None]
        hint = f"; {others[-1]} beside it is complete" if others else ""
        raise UserError(f"{folder}: {problem}{hint}{_inexact_hint(problem)}")
    restore_replaced(output_dir)
    problems = []
    for folder in reversed(numbered(output_dir)):
        if (problem := complaint(folder, inexact=inexact)) is None:
            return load_verified(folder)
        problems.append(f"{folder}: {problem}")
        _logger.warning("skipped %s: %s", folder, problem)
    if problems:
        raise UserError(f"no complete checkpoint: {problems[0]}{_inexact_hint(problems[0])}")
    raise UserError(f"--resume_from_checkpoint: {output_dir} holds no checkpoint")


def _inexact_hint(problem: str) -> str:
    if "is missing" not in problem or any(f"{name} is missing" in problem for name in _NEEDED):
        return ""
    return " (--allow_inexact_resume resumes without it, with a different result)"


def require_same_settings(
    checkpoint: Checkpoint, settings: Mapping[str, Any], *, inexact: bool = False
) -> None:
    """Refuse to resume with settings that change the result.

    Args:
        checkpoint: the checkpoint to resume from.
        settings: the result settings of the run that resumes.
        inexact: only warn.

    Raises:
        UserError: some settings differ; the error names them.
    """
    # A term of the loss that was added since weighs nothing in a checkpoint that doesn't name it.
    weights = {name: 0.0 for name in settings if name.startswith("alpha_")}
    was = {**weights, **checkpoint.settings}
    different = [
        f"{name} {was.get(name)} (now {settings.get(name)})"
        for name in sorted({*settings, *was})
        if settings.get(name) != was.get(name)
    ]
    if not different:
        return
    line = f"{checkpoint.folder} was made with {', '.join(different)}"
    if not inexact:
        raise UserError(f"{line}: use the same settings, or --allow_inexact_resume")
    _logger.warning("%s: the result will differ", line)
