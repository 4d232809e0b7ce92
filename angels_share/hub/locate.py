"""Lookup of models and data sets: in folders, in the local cache of the Hub, on the Hub.

What is in the cache is used as it is, network or not; one line says so when the Hub has a newer
commit. `NAME@REVISION` names a commit, a tag or a branch; with a branch or a tag the Hub is asked
first, so `NAME@main` is the newest.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from angels_share.errors import UserError
from angels_share.hub.asking import (
    TRIES,
    HubError,
    MissingError,
    NoNetworkError,
    NoRevisionError,
    answer_seconds,
    ask,
    endpoint,
    is_offline,
    say,
)
from angels_share.hub.cache import (
    COMMIT,
    MAIN,
    What,
    cache_folder,
    note_pending,
    record_pending,
    recorded_commit,
    require_writable_cache,
    snapshot,
)
from angels_share.names import REPO_ID, SHORT_NAMES, nearest, short_name_of

_REVISION = re.compile(r"[\w][\w./-]{0,200}")
_SECONDS_FOR_NEWS = 5.0
"""How long the Hub may take to say whether what is in the cache is still the newest."""


@dataclass(frozen=True)
class Located:
    """Where a name was found.

    Attributes:
        given: the name as it was typed.
        source: a folder or a Hub id.
        revision: the commit on the Hub; None for a folder.
        kind: where it was found.
        what: what was looked for.
    """

    given: str
    source: str
    revision: str | None
    kind: Literal["folder", "cache", "hub"]
    what: What = "model"


@dataclass(frozen=True)
class Entry:
    """What the Hub says of a repository at a revision.

    Attributes:
        revision: the commit.
        files: the size of each file in bytes.
        gated: whether reading it needs somebody's consent.
    """

    revision: str
    files: dict[str, int]
    gated: bool


def locate(name: str, *, what: What = "model", newest: bool = False) -> Located:
    """Find a model or a data set in a folder, the local Hub cache or the Hub, in this order.

    Args:
        name: a folder, a short name or a Hub id, the latter two with `@REVISION` if one is meant.
        what: what is looked for.
        newest: ask the Hub first, as for a branch by name.

    Raises:
        UserError: not found; says why, and names the ways that work without a network.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _in_folder(name, folder, what)
    base, at, reference = name.partition("@")
    if folder.exists() or name.startswith(("/", "./", "../", "~")) or not REPO_ID.match(base):
        raise UserError(
            f"no {what} at {name!r}: that is neither a folder nor a name on the Hub"
            + nearest(base, _typed_names(what))
        )
    if at and (not _REVISION.fullmatch(reference) or ".." in reference):
        raise UserError(f"{name}: {reference!r} is no commit, tag or branch")
    key = (name, what, newest, str(cache_folder()), endpoint(), is_offline())
    if key not in _FOUND:
        _FOUND[key] = _on_hub(name, base, reference or MAIN, what, newest=newest or bool(at))
    return _FOUND[key]


# What was found stays the same for the rest of the process, and is asked for once.
_FOUND: dict[tuple[Any, ...], Located] = {}
_ENTRIES: dict[tuple[str, ...], Entry] = {}
_SILENT: set[str] = set()
"""Addresses that gave no answer: later questions about news would only wait again."""


def _in_folder(name: str, folder: Path, what: What) -> Located:
    if what == "model" and not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; expected a folder written by save_pretrained")
    return Located(name, str(folder), None, "folder", what)


def _typed_names(what: What) -> list[str]:
    """Return the names to suggest; data sets have no table."""
    return [name for row in SHORT_NAMES for name in row.names] if what == "model" else []


def _on_hub(name: str, base: str, reference: str, what: What, *, newest: bool) -> Located:
    row = short_name_of(base) if what == "model" else None
    ids = (row.repo_id, *row.older_ids) if row else (base,)
    cached = next(
        ((each, found) for each in ids if (found := recorded_commit(each, reference, what))), None
    )
    if COMMIT.fullmatch(reference) and cached:
        return Located(name, *cached, "cache", what)
    if cached and not newest:
        _tell_of_news(*cached, reference, what)
        return Located(name, *cached, "cache", what)
    try:
        entry = entry_of(ids[0], reference, what)
    except NoNetworkError as error:
        if cached:
            say(f"{error}; {_short(*cached)} of the cache is used")
            return Located(name, *cached, "cache", what)
        raise _without_network(name, ids[0], what, error) from error
    except MissingError as error:
        raise UserError(_missing(name, base, reference, what, error)) from error
    if cached and cached[1] == entry.revision:
        return Located(name, *cached, "cache", what)
    if entry.gated:
        _require_access(ids[0], what)
    require_writable_cache(ids[0])
    # What is whole in the cache stands for the name until the newer one is whole, too.
    note_pending(ids[0], reference, entry.revision, what)
    if snapshot(ids[0], entry.revision, what).is_dir():  # then there may be nothing to fetch
        record_pending(ids[0], entry.revision, what, whole=False)
    return Located(name, ids[0], entry.revision, "hub", what)


def entry_of(
    repo_id: str, reference: str, what: What, *, seconds: float | None = None, tries: int = TRIES
) -> Entry:
    """Return what the Hub says of a repository; asked once for each revision.

    Args:
        repo_id: the repository's id.
        reference: a commit, tag or branch.
        what: the kind of repository.
        seconds: how long an answer may take [HF_HUB_ETAG_TIMEOUT].
        tries: how often it is asked at most.

    Raises:
        HubError: the Hub doesn't say, and why.
    """
    from huggingface_hub import HfApi

    key = (repo_id, reference, what, endpoint())
    if key in _ENTRIES:
        return _ENTRIES[key]
    limit = answer_seconds() if seconds is None else seconds
    api: Any = HfApi()
    look_up = api.model_info if what == "model" else api.dataset_info
    about = f"{what} {repo_id}" + (f"@{reference}" if reference != MAIN else "")
    info = ask(
        lambda: look_up(repo_id, revision=reference, files_metadata=True, timeout=limit),
        about,
        seconds=limit,
        tries=tries,
    )
    files = {each.rfilename: int(each.size or 0) for each in info.siblings or ()}
    entry = Entry(str(info.sha), files, bool(info.gated))
    for name in (reference, entry.revision):
        _ENTRIES[repo_id, name, what, endpoint()] = entry
    return entry


def _require_access(repo_id: str, what: What) -> None:
    """Refuse a gated repository that this user may not read, before anything is fetched."""
    from huggingface_hub import HfApi

    about = f"{what} {repo_id}"
    ask(lambda: HfApi().auth_check(repo_id, repo_type=what), about, seconds=answer_seconds())


def _tell_of_news(repo_id: str, revision: str, reference: str, what: What) -> None:
    """Say so if the Hub has a newer commit; without an answer say nothing."""
    if is_offline() or endpoint() in _SILENT:
        return
    try:
        entry = entry_of(repo_id, reference, what, seconds=_SECONDS_FOR_NEWS, tries=1)
    except NoNetworkError:
        _SILENT.add(endpoint())
        return
    except HubError:
        return
    if entry.revision != revision:
        say(
            f"the Hub has a newer commit of {what} {repo_id} ({entry.revision[:8]}); "
            f"{_short(repo_id, revision)} of the cache is used: "
            f"`python -m eval_harness fetch` or {repo_id}@{reference} takes the newer one"
        )


def _short(repo_id: str, revision: str) -> str:
    return f"{repo_id}@{revision[:8]}"


def _missing(name: str, base: str, reference: str, what: What, error: HubError) -> str:
    if isinstance(error, NoRevisionError):
        return f"{what} {base!r} has no revision {reference!r} on the Hub"
    return (
        f"no {what} {name!r}: no folder of that name, and the Hub has none that you may read"
        + nearest(base, _typed_names(what))
    )


def _without_network(name: str, repo_id: str, what: What, error: HubError) -> UserError:
    base = name.partition("@")[0]
    hint = "" if what != "model" or short_name_of(base) else nearest(base, _typed_names(what))
    reason = str(error).partition(": ")[2]
    option = "--model …" if what == "model" else "--tasks …` or `--corpus …"
    return NoNetworkError(
        f"{what} {name!r} is neither a folder nor in the local cache ({cache_folder()}), and "
        f"{reason}{hint or '.'} Without a network, give a folder, or run `python -m eval_harness "
        f"fetch {option}` on a machine that has one and copy its cache here"
    )
