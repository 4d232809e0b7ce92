"""Fine-tuned models that others learn from: whole as they were written, or not used. No torch."""

import json
from functools import lru_cache
from pathlib import Path

from angels_share.errors import RunFailed
from angels_share.files import sha256_of_file, write_json

_LIST = "written.json"


def seal(folder: Path) -> None:
    """Writes down what a folder holds, as the last of its files."""
    write_json(
        folder / _LIST,
        {
            path.name: {"size": path.stat().st_size, "sha256": sha256_of_file(path)}
            for path in sorted(folder.iterdir())
            if path.is_file()
        },
    )


def is_whole(folder: Path) -> bool:
    """Whether all that was written is there, by its size; contents are looked at before use."""
    try:
        listed = json.loads((folder / _LIST).read_text(encoding="utf-8"))
        return all(
            (folder / name).stat().st_size == about["size"] for name, about in listed.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def require_unchanged(folder: Path) -> None:
    """Refuses a sealed folder whose files aren't what was written; others are the user's own.

    Raises:
        RunFailed: names the file.
    """
    if (folder / _LIST).is_file():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        _check(folder, tuple((path.name, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=8)
def _check(folder: Path, _stamps: tuple[tuple[str, int], ...]) -> None:
    """Once for all the runs that learn from one folder, while nothing in it changes."""
    listed = json.loads((folder / _LIST).read_text(encoding="utf-8"))
    for name, about in listed.items():
        path = folder / name
        if not path.is_file() or sha256_of_file(path) != about["sha256"]:
            raise RunFailed(
                f"{path} isn't what was written there: remove the folder, and the same command "
                "makes it again"
            )
