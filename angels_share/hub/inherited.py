"""What a model inherits from those that it was made from: licence and languages. Imports no torch.

They stand in the metadata of the card of its teacher or base model: in that model's folder, or in
the Hub's cache, where a card is fetched along with the model.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from angels_share.hub.cache import COMMIT, snapshot
from angels_share.student_record import RECORD

_FRONT_MATTER = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---", re.DOTALL)
_DEEPEST = 5


class Inherited(NamedTuple):
    """The licence, by the Hub's id, and the language codes; None and empty where unknown."""

    licence: str | None = None
    languages: tuple[str, ...] = ()


def inherited(folder: Path, *bases: Path) -> Inherited:
    """Return what the first card says that says anything: the model's own, or those of its origins.

    Args:
        folder: the model's folder.
        bases: folders of the models that it was made from, beside those that its record names.
    """
    licence: str | None = None
    languages: tuple[str, ...] = ()
    for place in (
        folder,
        *bases,
        *_origins(folder),
        *(o for base in bases for o in _origins(base)),
    ):
        metadata = _metadata(place / "README.md")
        licence = licence or _licence(metadata.get("license"))
        languages = languages or _languages(metadata.get("language"))
    return Inherited(licence, languages)


def _origins(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the folders of the teachers in a model's record, and of theirs."""
    try:
        teachers = json.loads((folder / RECORD).read_text(encoding="utf-8"))["teachers"]
        places = [(str(each["source"]), each.get("revision")) for each in teachers]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    for source, revision in places:
        on_hub = isinstance(revision, str) and COMMIT.fullmatch(revision)
        place = snapshot(source, str(revision), "model") if on_hub else Path(source)
        yield place
        if depth < _DEEPEST:
            yield from _origins(place, depth + 1)


def _metadata(card: Path) -> Mapping[str, Any]:
    try:
        found = _FRONT_MATTER.search(card.read_text(encoding="utf-8"))
        metadata = yaml.safe_load(found[1]) if found else {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}  # a damaged card of somebody else's says nothing
    return metadata if isinstance(metadata, dict) else {}


def _licence(value: Any) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", value) else None


def _languages(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    return tuple(
        each for each in listed if isinstance(each, str) and re.fullmatch(r"[a-z-]+", each)
    )
