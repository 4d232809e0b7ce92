"""The local cache of the Hub, in huggingface_hub's own layout.

Everything is fetched by its commit, so that no later commit can slip in; which commit a branch or
a tag stood for is written down in `refs`, as huggingface_hub does when it is given the branch.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from angels_share.files import require_writable_folder, write_atomically
from angels_share.model_files import INDEX, VOCABULARIES, WEIGHTS

What = Literal["model", "dataset"]
COMMIT = re.compile(r"[0-9a-f]{40}")
_PART_OF_COMMIT = re.compile(r"[0-9a-f]{7,40}")
MAIN = "main"
_TOKENIZER_SETTINGS = "tokenizer_config.json"
# Beside huggingface_hub's own folders, which it leaves alone.
_NOTES = "angels-share"


def cache_folder() -> Path:
    """Return the folder of huggingface_hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def require_writable_cache(repo_id: str) -> None:
    """Refuse a cache that can't be written to, before anything is downloaded.

    Raises:
        UserError: it can't be written to.
    """
    require_writable_folder(cache_folder(), f"the Hub cache (HF_HOME) for {repo_id}:")


def snapshot(repo_id: str, revision: str, what: What) -> Path:
    """Return the folder of a commit's files, whether it is there or not."""
    return _repository(repo_id, what) / "snapshots" / revision


def repository_of(folder: Path) -> tuple[str, str] | None:
    """Return the repository's id and the commit of a model's snapshot; None for other folders."""
    home = cache_folder().resolve()
    parts = (
        folder.resolve().relative_to(home).parts if folder.resolve().is_relative_to(home) else ()
    )
    match parts:
        case (str(name), "snapshots", str(revision)) if name.startswith("models--"):
            return name.removeprefix("models--").replace("--", "/"), revision
    return None


def recorded_commit(repo_id: str, reference: str, what: What) -> str | None:
    """Return the cached commit that a branch, a tag or a commit's id stands for, if any."""
    if _PART_OF_COMMIT.fullmatch(reference):
        found = (_repository(repo_id, what) / "snapshots").glob(f"{reference}*")
        names = [path.name for path in found if COMMIT.fullmatch(path.name)]
        revision = names[0] if len(names) == 1 else ""
    else:
        try:
            file = _repository(repo_id, what) / "refs" / reference
            revision = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):  # none, or a cache that this user can't read
            return None
    try:
        is_there = bool(revision) and snapshot(repo_id, revision, what).is_dir()
    except OSError:
        return None
    return revision if is_there else None


def _record_commit(repo_id: str, reference: str, revision: str, what: What) -> None:
    """Write down the commit that a branch or a tag stands for; a commit's own id needs no note."""
    if reference != revision:
        file = _repository(repo_id, what) / "refs" / reference
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, revision)


_pending: dict[tuple[str, str, What], str] = {}


def note_pending(repo_id: str, reference: str, revision: str, what: What) -> None:
    """Remember that a reference is to stand for a commit as soon as that is whole.

    Args:
        repo_id: the repository.
        reference: the branch or tag.
        revision: the commit.
        what: the kind of repository.
    """
    _pending[repo_id, revision, what] = reference


def record_pending(repo_id: str, revision: str, what: What, *, whole: bool) -> None:
    """Write down what a reference stands for from now on.

    Args:
        repo_id: the repository.
        revision: the commit.
        what: the kind of repository.
        whole: whether all of it is there; a part takes no whole commit's place.
    """
    key = (repo_id, revision, what)
    reference = _pending.get(key)
    if reference is None or (not whole and recorded_commit(repo_id, reference, what)):
        return
    _record_commit(repo_id, reference, revision, what)
    del _pending[key]


def has_model(folder: Path, *, weights: bool) -> bool:
    """Return whether a snapshot holds a model's config and tokenizer, and its weights if asked.

    Of a snapshot that another program filled. Without its settings a tokenizer would be another.
    """
    has_tokenizer = any((folder / name).exists() for name in VOCABULARIES)
    absent = folder.parent.parent / ".no_exist" / folder.name / _TOKENIZER_SETTINGS
    has_settings = (folder / _TOKENIZER_SETTINGS).exists() or absent.exists()
    if not has_tokenizer or not has_settings or not (folder / "config.json").exists():
        return False
    return not weights or (folder / WEIGHTS).exists() or _has_shards(folder)


def _has_shards(folder: Path) -> bool:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return all((folder / str(name)).exists() for name in set(index["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def noted_files(
    repo_id: str, revision: str, name: str | None, what: What = "dataset"
) -> list[str] | None:
    """Return files that belong together, if all of them were fetched before and are there.

    Args:
        repo_id: the repository.
        revision: the commit.
        name: a data set's configuration; of a model, what of it.
        what: the kind of repository.
    """
    try:
        note = _note(repo_id, revision, name, what)
        files: list[str] = json.loads(note.read_text(encoding="utf-8"))
        folder = snapshot(repo_id, revision, what)
        return files if all((folder / name).exists() for name in files) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def note_files(
    repo_id: str,
    revision: str,
    name: str | None,
    files: Iterable[str],
    what: What = "dataset",
) -> None:
    """Write down that these files, which belong together, were fetched.

    Args:
        repo_id: the repository.
        revision: the commit.
        name: a data set's configuration; of a model, what of it.
        files: their names.
        what: the kind of repository.
    """
    note = _note(repo_id, revision, name, what)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(note, json.dumps(sorted(files)))


def _note(repo_id: str, revision: str, name: str | None, what: What) -> Path:
    file = re.sub(r"[^\w-]", "-", name or "default")
    return _repository(repo_id, what) / _NOTES / revision / f"{file}.json"


def _repository(repo_id: str, what: What) -> Path:
    return cache_folder() / f"{what}s--{repo_id.replace('/', '--')}"
