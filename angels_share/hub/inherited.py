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

from angels_share.card.reading import LANGUAGE, LICENSE
from angels_share.hub.cache import COMMIT, snapshot
from angels_share.student_record import RECORD

_FRONT_MATTER = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---", re.DOTALL)
_DEEPEST = 5


class Inherited(NamedTuple):
    """The licence, by the Hub's id, and the language codes; None and empty where unknown."""

    licence: str | None = None
    languages: tuple[str, ...] = ()


def inherited(folder: Path, *bases: Path) -> Inherited:
    """Return what the card of the model or its base says, else what all its teachers' agree on.

    Args:
        folder: the model's folder.
        bases: folders of the models that it was made from, beside those that its record names.
    """
    near = [_stated(place) for place in (folder, *bases)]
    far = [_stated(origin) for place in (folder, *bases) for origin in _origins(place)]
    licences = {each.licence for each in far} - {None}
    licence = next((each.licence for each in near if each.licence), None)
    languages = next((each.languages for each in (*near, *far) if each.languages), ())
    return Inherited(licence or (licences.pop() if len(licences) == 1 else None), languages)


def _stated(folder: Path) -> Inherited:
    metadata = _metadata(folder / "README.md")
    licence, listed = metadata.get("license"), metadata.get("language")
    texts = [each for each in (listed if isinstance(listed, list) else [listed]) if each]
    return Inherited(
        licence if isinstance(licence, str) and LICENSE.fullmatch(licence) else None,
        tuple(each for each in texts if isinstance(each, str) and LANGUAGE.fullmatch(each)),
    )


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
