"""Untrusted text and numbers, made safe for a card: for its YAML, its Markdown and its reader.

Names in records come from anybody. In the card each is one line without markup, without paths of a
machine and without tokens.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from angels_share.errors import UserError

T = TypeVar("T")

_LONGEST = 300
"""In characters; a longer name is no name."""
_COMPONENT = r"[^\s\\/|'\"`<>()\[\],;]+"
_PATH = re.compile(
    # An address on the web is no path of this machine.
    rf"(?<![\w/.])(?<!http:)(?<!https:)(?:(?:~[\w.-]*|[A-Za-z]:)[\\/]+{_COMPONENT}|"
    rf"[\\/]+{_COMPONENT}[\\/]+{_COMPONENT})(?:[\\/]+{_COMPONENT})*[\\/]*"
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_HOMES = ("home", "Users")
_MARKUP = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.")
"""What Markdown, its tables and its extensions take for markup, addresses and formulas included."""
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_COMMAND = re.compile(r"(?<![\\`])(`[a-z][\w .-]*`)(?!`)")
"""A command between backticks, as the tables' notes have: nothing in it can be markup."""


def plain(value: object) -> str:
    """Return a text as one short line without paths and tokens; unprintable characters as `?`."""
    words = " ".join(str(value)[: 10 * _LONGEST].split())
    shown = "".join(sign if sign.isprintable() else "?" for sign in words)
    bare = _TOKEN.sub("…", _PATH.sub("…", shown))
    return bare if len(bare) <= _LONGEST else f"{bare[:_LONGEST]}…"


def name_of(value: object) -> str:
    """Return a name, or of a path its last part: folders are private; '' if nothing is left."""
    found = _PATH.search(str(value))
    if found is not None and found.start() > 0:  # a text with a path in it
        return plain(value)
    parts = [part for part in re.split(r"[\\/]+", str(value)) if part not in ("", ".", "..", "~")]
    if not parts or (len(parts) > 1 and parts[-2] in _HOMES):
        return ""
    return plain(parts[-1])


def inline(value: object) -> str:
    """Return a text for a line or a table of Markdown, where it shows as it is."""
    return _escaped(plain(value))


def note(text: str) -> str:
    """Return a note of the tables for Markdown, whole; of its markup only commands remain."""
    parts = _COMMAND.split(" ".join(map(plain, text.split())))
    return "".join(part if _COMMAND.fullmatch(part) else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    # As entities, so that not even a reader of raw HTML finds a tag or a comment.
    return _MARKUP.sub(lambda found: _ENTITIES.get(found[0]) or f"\\{found[0]}", text)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; the caller has escaped its cells."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def link(repo_id: str, revision: str | None = None, *, kind: str = "") -> str:
    """Return a Markdown link to a repository on the Hub, to one of its commits if that is known.

    Args:
        repo_id: its id, which has been checked to be one.
        revision: the commit.
        kind: "datasets/" for a data set.
    """
    address = f"https://huggingface.co/{kind}{repo_id}"
    if revision is None:
        return f"[{_escaped(repo_id)}]({address})"
    return f"[{_escaped(repo_id)}]({address}/tree/{revision}) at revision {revision[:7]}"


def number(value: float) -> str:
    """Return a setting as people write it: 3e-5, 0.1, 1,000."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return re.sub(r"e([+-])0*(\d)", lambda found: f"e{found[1]}{found[2]}", f"{value:.6g}").replace(
        "e+", "e"
    )


def duration(seconds: float) -> str:
    """Return a time for readers: `3.2 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Return a number of bytes for readers, as disks count them: `267.8 MB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def checked(value: T, where: str = "") -> T:
    """Return facts with plain Python numbers instead of numpy's.

    Args:
        value: facts, or a part of them.
        where: its name in the whole, for the message.

    Raises:
        UserError: a number is NaN or infinite, which is no measurement and no valid metadata.
    """
    if is_dataclass(value) and not isinstance(value, type):
        changed = {
            each.name: checked(getattr(value, each.name), f"{where}.{each.name}".lstrip("."))
            for each in fields(value)
        }
        return replace(value, **changed)
    return _checked(value, where)  # type: ignore[no-any-return]


def _checked(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {name: checked(each, f"{where}.{plain(name)}") for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(checked(each, f"{where}[{n}]") for n, each in enumerate(value))
    if not isinstance(value, str | bytes) and hasattr(value, "item"):  # a number of numpy's
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(
                f"model card: {where} is {value}: a card states measurements only; "
                "leave it out where it is undefined"
            )
        return float(value)  # numpy's float64 is a float, too, and YAML would name its class
    return value
