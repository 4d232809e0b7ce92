"""Names of models: short names, "did you mean", and lookup in folders, the Hub cache and the Hub.

Uses the standard library alone until a name is not a folder, and then huggingface_hub, which
imports no torch. A lookup ends within two seconds, with or without a network.
"""

import difflib
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from angels_share.errors import UserError

SECONDS_TO_ANSWER = 1.7
REPO_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


@dataclass(frozen=True)
class ShortName:
    """A short name, the Hub repository that it means, and that repository's older ids.

    Attributes:
        short: the name that people type.
        repo_id: the repository's id today.
        older_ids: ids that still lead to the same repository.
        paper_row: the label of its row in the paper's tables, if it has one.
        teacher: the short name of the model that it was distilled from, if any.
    """

    short: str
    repo_id: str
    older_ids: tuple[str, ...] = ()
    paper_row: str | None = None
    teacher: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names that a user may type for it."""
        return (self.short, self.repo_id, *self.older_ids)


SHORT_NAMES = (
    ShortName("bert", "google-bert/bert-base-uncased", ("bert-base-uncased",), "BERT-base"),
    ShortName("bert-cased", "google-bert/bert-base-cased", ("bert-base-cased",)),
    ShortName(
        "distilbert",
        "distilbert/distilbert-base-uncased",
        ("distilbert-base-uncased",),
        "DistilBERT",
        "bert",
    ),
    ShortName(
        "distilbert-cased",
        "distilbert/distilbert-base-cased",
        ("distilbert-base-cased",),
        teacher="bert-cased",
    ),
    ShortName(
        "distilbert-squad",
        "distilbert/distilbert-base-uncased-distilled-squad",
        ("distilbert-base-uncased-distilled-squad",),
        "DistilBERT (D)",
        "bert",
    ),
    ShortName(
        "distilbert-cased-squad",
        "distilbert/distilbert-base-cased-distilled-squad",
        ("distilbert-base-cased-distilled-squad",),
        teacher="bert-cased",
    ),
    ShortName("roberta", "FacebookAI/roberta-base", ("roberta-base",)),
    ShortName(
        "distilroberta",
        "distilbert/distilroberta-base",
        ("distilroberta-base",),
        teacher="roberta",
    ),
    ShortName("xlm-roberta", "FacebookAI/xlm-roberta-base", ("xlm-roberta-base",)),
    ShortName("gpt2", "openai-community/gpt2"),
    ShortName("distilgpt2", "distilbert/distilgpt2", teacher="gpt2"),
    ShortName(
        "mbert", "google-bert/bert-base-multilingual-cased", ("bert-base-multilingual-cased",)
    ),
    ShortName(
        "distilmbert",
        "distilbert/distilbert-base-multilingual-cased",
        ("distilbert-base-multilingual-cased",),
        teacher="mbert",
    ),
    ShortName(
        "bert-german", "dbmdz/bert-base-german-cased", ("google-bert/bert-base-german-dbmdz-cased",)
    ),
    ShortName(
        "distilbert-german",
        "distilbert/distilbert-base-german-cased",
        ("distilbert-base-german-cased",),
        teacher="bert-german",
    ),
)


@dataclass(frozen=True)
class Located:
    """Where a name was found.

    Attributes:
        given: the name as it was typed.
        source: what `from_pretrained` takes: a folder or a Hub id.
        revision: the commit on the Hub; None for a folder.
        kind: where it was found.
    """

    given: str
    source: str
    revision: str | None
    kind: Literal["folder", "cache", "hub"]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or '' if none is close."""
    candidates = sorted(set(known))
    folded = {candidate.lower(): candidate for candidate in reversed(candidates)}
    close = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return f"; did you mean '{folded[close[0]]}'?" if close else ""


def short_name_of(name: str) -> ShortName | None:
    """Return the row of the table that a name belongs to, or None."""
    return next((row for row in SHORT_NAMES if name in row.names), None)


def locate(name: str, *, what: Literal["model", "dataset"] = "model") -> Located:
    """Find a model or a data set in a folder, the local Hub cache or the Hub, in this order.

    Raises:
        UserError: not found within two seconds; names the ways that work without a network.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _in_folder(name, folder, what)
    if folder.exists() or name.startswith(("/", "./", "../", "~")) or not REPO_ID.match(name):
        raise UserError(
            f"no {what} at {name!r}: that is neither a folder nor a name on the Hub"
            + nearest(name, _typed_names(what))
        )
    row = short_name_of(name) if what == "model" else None
    ids = (row.repo_id, *row.older_ids) if row else (name,)
    for repo_id in ids:
        if revision := _cached_revision(repo_id, what):
            return Located(name, repo_id, revision, "cache")
    return Located(name, ids[0], _revision_on_hub(name, ids[0], what), "hub")


def _in_folder(name: str, folder: Path, what: str) -> Located:
    if what == "model" and not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; expected a folder written by save_pretrained")
    return Located(name, str(folder), None, "folder")


def _typed_names(what: str) -> list[str]:
    """Return the names to suggest; data sets have no table."""
    return [name for row in SHORT_NAMES for name in row.names] if what == "model" else []


def cache_folder() -> Path:
    """Return the folder of huggingface_hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cached_revision(repo_id: str, what: str) -> str | None:
    """Return the cached commit of a repository's main branch, if its files are there too."""
    root = cache_folder() / f"{what}s--{repo_id.replace('/', '--')}"
    reference = root / "refs" / "main"
    try:
        revision = reference.read_text().strip()
        snapshot = root / "snapshots" / revision
        whole = (snapshot / "config.json").exists() if what == "model" else snapshot.is_dir()
    except OSError:  # no such entry, or a cache that this user can't read
        return None
    return revision if revision and whole else None


def _revision_on_hub(name: str, repo_id: str, what: str) -> str:
    """Return the newest revision on the Hub; turn every failure into a UserError."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise _unreachable(name, repo_id, what, "HF_HUB_OFFLINE is set")
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    answer = _ask_hub(repo_id, what)
    if answer is None:
        raise _unreachable(name, repo_id, what, "the Hub can't be reached")
    if isinstance(answer, GatedRepoError):
        raise UserError(f"{repo_id} is gated: accept its terms on the Hub, then `hf auth login`")
    if isinstance(answer, RepositoryNotFoundError):
        raise UserError(
            f"no {what} {name!r}: no folder of that name, and the Hub has none that you may read"
            + nearest(name, _typed_names(what))
        )
    if isinstance(answer, Exception):
        raise _unreachable(name, repo_id, what, "the Hub can't be reached")
    _require_writable_cache(repo_id)
    return str(answer)


def _ask_hub(repo_id: str, what: str) -> object:
    """Return the Hub's revision of a repository, an exception, or None after a timeout.

    The request runs in a thread, since its timeout does not cover resolving the host name.
    """
    answers: list[object] = []

    def ask() -> None:
        from huggingface_hub import HfApi

        api: Any = HfApi()
        look_up = api.model_info if what == "model" else api.dataset_info
        try:
            answers.append(look_up(repo_id, timeout=SECONDS_TO_ANSWER).sha)
        except Exception as error:  # noqa: BLE001  (returned to the caller, who reports it)
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS_TO_ANSWER)
    return answers[0] if answers else None


def _require_writable_cache(repo_id: str) -> None:
    from angels_share.files import require_writable_folder

    require_writable_folder(cache_folder(), f"the Hub cache (HF_HOME) for {repo_id}:")


def _unreachable(name: str, repo_id: str, what: str, why: str) -> UserError:
    hint = "" if what != "model" or short_name_of(name) else nearest(name, _typed_names(what))
    kind = "" if what == "model" else " --repo-type dataset"
    return UserError(
        f"{what} {name!r} is neither a folder nor in the local cache ({cache_folder()}), and {why}"
        f"{hint or '.'} Without a network, give a folder, or run `hf download {repo_id}{kind}` "
        "on a machine that has one and copy its cache here"
    )
