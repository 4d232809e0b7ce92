"""Merges a new card into an existing one: what people wrote stays, what we wrote is replaced.

Our text stands between two markers. Our metadata can't be marked, so the first marker is followed
by hashes of what we wrote: an entry with another hash is somebody else's, and stays.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from angels_share.errors import UserError

BEGIN = (
    "<!-- angels-share: begin. This part is written anew every time: "
    "write above or below it, not in it. -->"
)
END = "<!-- angels-share: end -->"

_MARKER = re.compile(r"^<!-- angels-share: (begin|end)\b[^\n]*-->[ \t]*(?=\r?$)", re.MULTILINE)
_WROTE = re.compile(r"^<!-- angels-share: metadata((?: [\w-]+=[0-9a-f,]+)*) -->", re.MULTILINE)
# The Hub's own expression, as huggingface_hub has it.
_FRONT_MATTER = re.compile(
    r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$))"
)

_PEOPLES_OWN = ("license", "language")
"""Keys whose value stays if somebody changed it: they may know better than any record."""
_LISTS = ("datasets", "metrics", "tags", "model-index")
"""Keys whose entries are each ours or somebody else's."""


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice out twice: people read this, and anchors confuse them."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def to_yaml(metadata: Mapping[str, Any]) -> str:
    """Return metadata as YAML, a line per value, without a newline at the end."""
    return yaml.dump(
        dict(metadata), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    ).rstrip("\n")


class _Card(NamedTuple):
    """An existing card in parts; joined they are the card."""

    opening: str
    front: str
    closing: str
    body: str


class Existing:
    """An existing card: its metadata, and its text with or without a part of ours.

    Attributes:
        metadata: its metadata.
        newline: its line ending.
    """

    def __init__(self, text: str) -> None:
        """Read a card.

        Args:
            text: the card, with its own line endings.

        Raises:
            UserError: its metadata or its markers are damaged, so that nothing could be kept.
        """
        # With a byte order mark the Hub would not see the metadata.
        self._parts = _split(text.removeprefix("\ufeff"))
        found = re.search(r"\r?\n", text)
        self.newline = found[0] if found else "\n"
        self.metadata = _parsed(self._parts.front)
        self._ours = _marked(self._parts.body)
        part = self._parts.body[self._ours] if self._ours is not None else ""
        self._wrote = _wrote(part)

    @property
    def has_text(self) -> bool:
        """Whether it has any text of its own, or ours."""
        return bool(self._parts.body.strip())

    def merged(self, ours: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
        """Return the metadata of both: ours in place of what we wrote, everything else as it is.

        Args:
            ours: our metadata.
            keys: all keys that we may write.

        Raises:
            UserError: the existing results are not in the Hub's form.
        """
        changed = {key: self._value(key, ours.get(key)) for key in keys}
        others = {key: value for key, value in self.metadata.items() if key not in keys}
        order = [*self.metadata, *(key for key in keys if key not in self.metadata)]
        found = {key: changed[key] if key in changed else others[key] for key in order}
        return {key: value for key, value in found.items() if key in others or value is not None}

    def _value(self, key: str, new: Any) -> Any:
        old = self.metadata.get(key)
        wrote = self._wrote.get(key, ())
        if key in _LISTS:
            entries = list(_entries(key, new))
            others = [each for each in _entries(key, old) if _hash(each) not in wrote]
            entries += [each for each in others if each not in entries]
            if new is None and entries == list(_entries(key, old)):
                return old
            return _list_of(key, entries, new or old)
        if old is not None and _hash(old) not in wrote and (key in _PEOPLES_OWN or new is None):
            return old
        return new

    def with_part(self, metadata: Mapping[str, Any], part: str, title: str) -> str:
        """Return the card with new metadata and our part: in its place, else at the end.

        Args:
            metadata: the merged metadata.
            part: our part, with its markers.
            title: the heading of a card that has no text yet.
        """
        opening, front, closing, body = self._parts
        if not opening:
            opening, closing = f"---{self.newline}", f"{self.newline}---{self.newline}"
        new = part.replace("\n", self.newline)
        gap = self.newline * 2
        if self._ours is not None:
            body = f"{body[: self._ours.start]}{new}{body[self._ours.stop :]}"
        elif self.has_text:
            ends = len(body) - len(body.rstrip("\r\n"))
            missing = "" if ends >= len(gap) else self.newline if ends else gap
            start = "" if self._parts.opening else self.newline
            body = f"{start}{body}{missing}{new}{self.newline}"
        else:
            body = f"{self.newline}{title}{gap}{new}{self.newline}"
        return f"{opening}{self._front(front, metadata)}{closing}{body}"

    def _front(self, front: str, metadata: Mapping[str, Any]) -> str:
        """Return the YAML of the metadata; what did not change keeps its lines and comments."""
        lines: list[str] = []
        seen = set()
        for key, own in _lines_by_key(front):
            if key is None or (key in metadata and metadata[key] == self.metadata[key]):
                lines += own
            else:
                lines += to_yaml({key: metadata[key]}).split("\n") if key in metadata else []
                lines += _trailing(own)
            seen.add(key)
        new = {key: value for key, value in metadata.items() if key not in seen}
        lines += to_yaml(new).split("\n") if new else []
        written = self.newline.join(lines)
        # A front matter on one line, or with anchors, can't be changed in parts.
        if _parsed_or_none(written) != metadata:
            written = self.newline.join(to_yaml(metadata).split("\n"))
        return written


def remembered(metadata: Mapping[str, Any]) -> str:
    """Return the comment by which the next push knows which metadata we wrote."""
    words = [
        f"{key}={','.join(map(_hash, _entries(key, value) if key in _LISTS else [value]))}"
        for key, value in metadata.items()
    ]
    return f"<!-- angels-share: metadata {' '.join(words)} -->"


def _wrote(part: str) -> dict[str, tuple[str, ...]]:
    """Return the hashes of what we wrote into the metadata, by key."""
    found = _WROTE.search(part)
    pairs = (word.split("=") for word in found[1].split()) if found else ()
    return {key: tuple(hashes.split(",")) for key, hashes in pairs}


def _hash(value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _split(text: str) -> _Card:
    found = _FRONT_MATTER.search(text)
    if found is None:
        return _Card("", "", "", text)
    return _Card(found[1], found[2], found[3], text[found.end() :])


def _parsed(front: str) -> dict[str, Any]:
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(front)):
            raise ValueError("an alias; write the value out")  # noqa: TRY301
        root = yaml.compose(front, Loader=yaml.SafeLoader)
        value = yaml.safe_load(front)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the existing model card: its metadata can't be read ({reason}): correct them first"
        ) from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not isinstance(root, yaml.MappingNode):
        raise UserError("the existing model card: its metadata are not lines of `key: value`")
    keys = [str(key.value) for key, _ in root.value]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise UserError(f"the existing model card: its metadata have {twice!r} twice: keep one")
    return value


def _parsed_or_none(front: str) -> dict[str, Any] | None:
    try:
        return _parsed(front)
    except UserError:
        return None


def _marked(body: str) -> slice | None:
    """Return where our part is, markers included; None where there is none."""
    found = list(_MARKER.finditer(body))
    if not found:
        return None
    if [marker[1] for marker in found] != ["begin", "end"]:
        names = ", ".join(marker[1] for marker in found)
        raise UserError(
            f"the existing model card: its angels-share markers are {names} instead of begin, end: "
            "restore them, or remove them all to have our part added at the end"
        )
    return slice(found[0].start(), found[1].end())


def _entries(key: str, value: Any) -> list[Any]:
    """Return the entries of a key that may have several; of results those of all their models."""
    if value is None:
        return []
    entries = value if isinstance(value, list) else [value]
    if key != "model-index":
        return entries
    try:
        return [entry for model in entries for entry in model["results"]]
    except (KeyError, TypeError) as error:
        raise UserError(
            "the existing model card: its model-index is not in the Hub's form, "
            "[{name: …, results: […]}]: correct or remove it"
        ) from error


def _list_of(key: str, entries: list[Any], like: Any) -> Any:
    if not entries:
        return None
    return entries if key != "model-index" else [{**like[0], "results": entries}]


def _lines_by_key(front: str) -> Iterator[tuple[str | None, list[str]]]:
    """Yield each key of a front matter with its lines; None with the lines before the first."""
    lines = front.splitlines()
    root = yaml.compose(front, Loader=yaml.SafeLoader)
    nodes = root.value if isinstance(root, yaml.MappingNode) else []
    starts = [key.start_mark.line for key, _ in nodes]
    yield None, lines[: starts[0]] if starts else lines
    ends = [*starts[1:], len(lines)][: len(starts)]
    for (key, _), start, end in zip(nodes, starts, ends, strict=True):
        yield str(key.value), lines[start:end]


def _trailing(lines: Sequence[str]) -> list[str]:
    """Return the blank lines and comments after a value, which belong to what follows."""
    end = len(lines)
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    return list(lines[end:])
