"""What a model is called: short names, the nearest right name, and where a name can be had.

Everything here is plain standard library until a name must be looked up on the Hub, and then
huggingface_hub, which imports no torch. A name is answered within two seconds, network or not.
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
    """A name that people type, the Hub repository it means, and the older ids of the same one."""

    short: str
    repo_id: str
    older_ids: tuple[str, ...] = ()
    paper_row: str | None = None
    teacher: str | None = None
    """The short name of the model that it was distilled from."""

    @property
    def names(self) -> tuple[str, ...]:
        """Everything a user may type for it."""
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
    """Where a name was found: what `from_pretrained` takes, and the revision where there is one."""

    given: str
    source: str
    revision: str | None
    kind: Literal["folder", "cache", "hub"]


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or nothing where none is near."""
    candidates = sorted(set(known))
    folded = {candidate.lower(): candidate for candidate in reversed(candidates)}
    close = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return f"; did you mean '{folded[close[0]]}'?" if close else ""


def known_as(name: str) -> ShortName | None:
    """The row of the table that a name belongs to."""
    return next((row for row in SHORT_NAMES if name in row.names), None)


def locate(name: str, *, what: Literal["model", "dataset"] = "model") -> Located:
    """Finds a model or a data set: a folder, the local Hub cache, or the Hub, in this order.

    Raises:
        UserError: one line within two seconds, which names the ways that work without a network.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _in_folder(name, folder, what)
    if folder.exists() or name.startswith(("/", "./", "../", "~")) or not REPO_ID.match(name):
        raise UserError(
            f"no {what} at {name!r}: that is neither a folder nor a name on the Hub"
            + nearest(name, _typed_names(what))
        )
    row = known_as(name) if what == "model" else None
    ids = (row.repo_id, *row.older_ids) if row else (name,)
    for repo_id in ids:
        if revision := _cached_revision(repo_id, what):
            return Located(name, repo_id, revision, "cache")
    return Located(name, ids[0], _revision_on_hub(name, ids[0], what), "hub")


def _in_folder(name: str, folder: Path, what: str) -> Located:
    if what == "model" and not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds no config.json: a model's folder is what save_pretrained writes"
        )
    return Located(name, str(folder), None, "folder")


def _typed_names(what: str) -> list[str]:
    return [name for row in SHORT_NAMES for name in row.names] if what == "model" else []


def cache_folder() -> Path:
    """Where the Hub's own client keeps what it has fetched."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cached_revision(repo_id: str, what: str) -> str | None:
    """The commit that the cache holds of a repository's main branch, if the files are there too."""
    root = cache_folder() / f"{what}s--{repo_id.replace('/', '--')}"
    reference = root / "refs" / "main"
    try:
        revision = reference.read_text().strip()
        snapshot = root / "snapshots" / revision
        whole = (snapshot / "config.json").exists() if what == "model" else snapshot.is_dir()
    except OSError:  # no such entry, or a cache that this user can't read: then it isn't there
        return None
    return revision if revision and whole else None


def _revision_on_hub(name: str, repo_id: str, what: str) -> str:
    """Asks the Hub for the newest revision; whatever goes wrong becomes one line."""
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
    """The Hub's revision of a repository, or the exception, or None when time ran out.

    It runs in a thread because resolving a host's name knows no time limit of its own.
    """
    answers: list[object] = []

    def ask() -> None:
        from huggingface_hub import HfApi

        api: Any = HfApi()
        look_up = api.model_info if what == "model" else api.dataset_info
        try:
            answers.append(look_up(repo_id, timeout=SECONDS_TO_ANSWER).sha)
        except Exception as error:  # noqa: BLE001  (handed to the caller, who names it)
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS_TO_ANSWER)
    return answers[0] if answers else None


def _require_writable_cache(repo_id: str) -> None:
    from angels_share.files import require_writable_folder

    require_writable_folder(cache_folder(), f"the Hub cache (HF_HOME) wanted for {repo_id}:")


def _unreachable(name: str, repo_id: str, what: str, why: str) -> UserError:
    hint = "" if what != "model" or known_as(name) else nearest(name, _typed_names(what))
    kind = "" if what == "model" else " --repo-type dataset"
    return UserError(
        f"{what} {name!r} is neither a folder nor in the local cache ({cache_folder()}), and {why}"
        f"{hint or '.'} Without a network: give a folder, or run `hf download {repo_id}{kind}` "
        "where there is one and copy that cache here"
    )
