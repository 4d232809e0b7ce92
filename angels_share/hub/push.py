"""Publishing on the Hub: what goes up is chosen here, in one commit, whole or not at all.

Only what is on a list goes up: weights in safetensors, config, tokenizer, the record of the
training, results, a licence, the card. Optimizer states, pickles, checkpoints, logs, the training
text, caches and arguments stay. The commit names its parent, so that nothing of somebody else's is
overwritten unseen; if there is a newer one, the card is made anew on top of it.
"""

import json
import logging
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from angels_share.card.render import CardMeasured, facts_of, render
from angels_share.errors import UserError, one_line
from angels_share.files import explain
from angels_share.hub.asking import (
    DeniedError,
    HubError,
    MissingError,
    answer_seconds,
    ask,
    endpoint,
)
from angels_share.hub.cache import What
from angels_share.hub.inherited import inherited
from angels_share.model_files import CARD, is_of_model
from angels_share.student_record import RECORD

_CONFIG = "config.json"
_RECORDS = frozenset(("config.json", "tokenizer_config.json", RECORD))
"""Files in which a path of this machine may stand; it is shortened to its last part."""

# Not the path of an address, whose slashes follow a name, a colon or a slash.
_PATHS_IN_TEXT = re.compile(r"(?<![\w:/.-])(?:file://|~)?(?:/[^\s/\"':,;]+){2,}")

MakeCard = Callable[[str | None], str]
"""Returns the card's text, given that of the card on the Hub, if there is one."""


@dataclass(frozen=True)
class Destination:
    """Where something is pushed.

    Attributes:
        repo_id: the repository, with or without its owner [the token's user].
        what: a model or a data set.
        private: whether a new repository is private.
        revision: the branch [main].
    """

    repo_id: str
    what: What = "model"
    private: bool = True
    revision: str | None = None

    @property
    def page(self) -> str:
        """The repository's page."""
        return f"{endpoint()}/{'datasets/' if self.what == 'dataset' else ''}{self.repo_id}"


@dataclass(frozen=True)
class Upload:
    """What is pushed.

    Attributes:
        files: each file's path, or its content where that is made here, by its name on the Hub.
        card: makes the card.
        title: the commit's title.
    """

    files: Mapping[str, Path | bytes]
    card: MakeCard
    title: str = "Push by Angel's Share"

    def listing(self) -> str:
        """Return every file with its size, a line each, and the sum."""
        sizes = {name: _size(content) for name, content in self.files.items()}
        sizes[CARD] = len(self.card(None).encode())
        width = max(map(len, sizes))
        lines = [f"{name:{width}}  {size:>15,} bytes" for name, size in sorted(sizes.items())]
        return "\n".join([*lines, f"{'in all':{width}}  {sum(sizes.values()):>15,} bytes"])


def upload_of_model(
    folder: Path,
    destination: Destination,
    *,
    measured: CardMeasured | None = None,
    base: Path | None = None,
    records: Mapping[str, bytes] | None = None,
    licence: str | None = None,
    languages: Sequence[str] = (),
    is_here: bool = False,
) -> Upload:
    """Return what goes up of a saved model: its files, results, and its card.

    Args:
        folder: the model's folder.
        destination: where it goes, with its owner.
        measured: what result files say, for the card.
        base: the folder of the model that was fine-tuned, if it was.
        records: further files, such as results, by their names on the Hub.
        licence: its licence, by the Hub's id [that of the models that it was made from].
        languages: its language codes [likewise].
        is_here: whether the card will lie beside the model instead of going up with it.

    Raises:
        UserError: it is no finished model, or a card can't be made of it.
    """
    files = files_of_model(folder) | dict(records or {})
    known = inherited(folder, *([base] if base else []))
    facts = facts_of(
        folder,
        destination.repo_id,
        measured=measured,
        record=base,
        license=licence or known.licence,
        languages=languages or known.languages,
    )
    return Upload(files, lambda existing: render(replace(facts, is_here=is_here), existing))


def files_of_model(folder: Path) -> dict[str, Path | bytes]:
    """Return what goes up of a saved model's folder.

    Raises:
        UserError: it holds no model that others could load.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found: dict[str, Path | bytes] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_of_model(path.name):
            found[path.name] = _without_paths(path) if path.name in _RECORDS else path
    if "config.json" not in found or not any(name.endswith(".safetensors") for name in found):
        raise UserError(
            f"{folder}: no finished model: config.json and model.safetensors must be in it"
        )
    return found


def _without_paths(path: Path) -> Path | bytes:
    """Return a record's content with paths of this machine cut to their last part."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't be read as JSON: {error}") from error
    shortened = _shortened(record, every=path.name == RECORD)
    if shortened == record:
        return path
    return (json.dumps(shortened, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _shortened(value: Any, *, every: bool) -> Any:
    """Shorten all paths, or those of the fields that transformers writes paths into."""
    if isinstance(value, dict):
        return {
            name: _shortened(each, every=every or name.endswith(("name_or_path", "_file")))
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_shortened(each, every=every) for each in value]
    return last_part(value) if every and isinstance(value, str) else value


def last_part(text: str) -> str:
    """Return the last part of a text that is a path of some machine; any other text as it is."""
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return PureWindowsPath(text).name
    if text.startswith(("/", "~/", "./", "../")) and "\n" not in text and len(text) > 2:
        return PurePosixPath(text).name
    return _PATHS_IN_TEXT.sub(lambda found: PurePosixPath(found[0]).name, text)


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def require_name(name: str) -> None:
    """Refuse what can't be a repository's name.

    Raises:
        UserError: it can't.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(
            f"{name!r}: not a name on the Hub; expected NAME or OWNER/NAME of letters, digits, "
            "'-', '_' and '.', 96 at most, no '--' or '..'"
        ) from error


def require_login(destination: Destination) -> Destination:
    """Return the destination with its owner, after asking the Hub who the token's user is.

    Called before hours of training, so that a missing or too weak token shows at once.

    Raises:
        UserError: there is no token, it may only read, or the name is none.
    """
    from huggingface_hub import HfApi, get_token

    require_name(destination.repo_id)
    name = destination.repo_id
    if get_token() is None:
        raise DeniedError(
            f"pushing to {name} needs a token: `hf auth login`, or set HF_TOKEN to one that may "
            "write"
        )
    user: dict[str, Any] = ask(
        lambda: HfApi().whoami(), f"pushing to {name}", seconds=answer_seconds()
    )
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise DeniedError(
            f"pushing to {name}: your token may only read; make one that may write on "
            f"{endpoint()}/settings/tokens"
        )
    owned = name if "/" in name else f"{user['name']}/{name}"
    owners = {str(user["name"]), *(str(each.get("name")) for each in user.get("orgs") or ())}
    if (owner := owned.partition("/")[0]) not in owners:
        raise DeniedError(
            f"pushing to {name}: your token is {user['name']}'s, which may not write for {owner}"
        )
    return replace(destination, repo_id=owned)


def check_repository(destination: Destination) -> bool:
    """Return whether the repository exists; refuse a public one where private was asked for.

    Raises:
        UserError: it is public, or its name is none.
    """
    from huggingface_hub import HfApi

    require_name(destination.repo_id)
    about = f"pushing to {destination.repo_id}"
    try:
        state = ask(
            lambda: HfApi().repo_info(destination.repo_id, repo_type=destination.what),
            about,
            seconds=answer_seconds(),
        )
    except MissingError:
        return False
    if destination.private and not state.private:
        raise HubError(
            f"{about}: it exists and is public: say that it may be (--hub_private_repo False), or "
            "choose another name"
        )
    return True


def push(upload: Upload, destination: Destination) -> str:
    """Push in one commit and say so in a line; the same content again makes no commit.

    Args:
        upload: what is pushed.
        destination: where to, with its owner.

    Raises:
        UserError: the Hub doesn't take it, and why; nothing of it is there then.
    """
    from huggingface_hub.utils import disable_progress_bars

    about = f"pushing to {destination.repo_id}"
    _make_repository(destination, about)
    if not sys.stderr.isatty():
        disable_progress_bars()
    # It says that nothing is new, in other words than we do.
    logging.getLogger("huggingface_hub").addFilter(_is_no_news)
    return ask(lambda: _commit(upload, destination), about)


def push_command(folder: Path, destination: Destination, results: Path | None = None) -> str:
    """Return the command that pushes a folder again.

    Args:
        folder: the model's folder.
        destination: where it goes.
        results: the results folder, if there is one.
    """
    words = ["python -m eval_harness push", shlex.quote(str(folder))]
    words += ["--repo_id", destination.repo_id]
    words += ["--results_dir", shlex.quote(str(results))] if results else []
    words += ["--revision", destination.revision] if destination.revision else []
    words += [] if destination.private else ["--private False"]
    return " ".join(words)


def _is_no_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("No files have been modified")


def _make_repository(destination: Destination, about: str) -> None:
    from huggingface_hub import HfApi

    api: Any = HfApi()
    name, what = destination.repo_id, destination.what
    if not check_repository(destination):
        ask(
            lambda: api.create_repo(
                name, private=destination.private, repo_type=what, exist_ok=True
            ),
            about,
            seconds=answer_seconds(),
        )
    if destination.revision is not None:
        ask(
            lambda: api.create_branch(
                name, branch=destination.revision, repo_type=what, exist_ok=True
            ),
            about,
            seconds=answer_seconds(),
        )


def _commit(upload: Upload, destination: Destination) -> str:
    """Make the commit on top of the newest one, whose card it goes on from."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api: Any = HfApi()
    name, what, branch = destination.repo_id, destination.what, destination.revision or "main"
    state = api.repo_info(name, repo_type=what, revision=branch)
    parent = state.sha
    _refuse_another_task(upload, destination, parent)
    card = upload.card(_text_at(destination, parent, CARD))
    files = {**upload.files, CARD: card.encode()}
    try:
        operations = [
            CommitOperationAdd(path, str(content) if isinstance(content, Path) else content)
            for path, content in files.items()
        ]
    except OSError as error:
        raise UserError(f"{error.filename}: {explain(error)}") from error
    try:
        info = api.create_commit(
            name,
            operations,
            commit_message=upload.title,
            repo_type=what,
            revision=branch,
            parent_commit=parent,
        )
    except ValueError as error:  # the Hub doesn't take the card's metadata
        raise HubError(f"pushing to {name}: {one_line(error)}") from error
    seen = "private" if state.private else "public"
    if info.oid == parent:
        return f"{destination.page} ({seen}): nothing new, so no commit was made"
    return f"pushed: {info.commit_url} ({seen})"


def _refuse_another_task(upload: Upload, destination: Destination, revision: str) -> None:
    """Refuse to put a model of one task over that of another, whose results lie beside it."""
    ours, theirs = _task_in(upload.files.get(_CONFIG)), None
    if ours is not None and (text := _text_at(destination, revision, _CONFIG)):
        theirs = _task_in(text.encode())
    if theirs not in (None, ours):
        raise HubError(
            f"pushing to {destination.repo_id}: it holds a model for {theirs}, and this one is for "
            f"{ours}: choose another name, such as {destination.repo_id}-{ours}"
        )


def _task_in(config: Path | bytes | None) -> str | None:
    if config is None:
        return None
    try:
        text = config if isinstance(config, bytes) else config.read_bytes()
        task = json.loads(text).get("finetuning_task")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return str(task) if task else None


def _text_at(destination: Destination, revision: str, file: str) -> str | None:
    """Return a text file of a commit on the Hub, if it has it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        path = hf_hub_download(
            destination.repo_id, file, repo_type=destination.what, revision=revision
        )
    except EntryNotFoundError:
        return None
    try:
        return Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise HubError(
            f"pushing to {destination.repo_id}: its {file} is not UTF-8: correct it first"
        ) from error
