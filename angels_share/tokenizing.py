"""Tokenizers from outside: fast ones only, and nothing is read outside of their folder."""

import json
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.names import locate

_CONFIG = "tokenizer_config.json"
# Cases, accents alone and in one, blanks, CJK, digits, an emoji, what stands for nothing.
_PROBE = (
    "The  Café in 東京 hat 12,5 €: Zürich's 🙂 ",
    " ÀÉ e\u0301\tNAÏVE Ⅷ “x=3.14” \u200b북 don't",
)
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """The fast tokenizer of a folder, a short name or a Hub id.

    With a revision it is a Hub id that was located before.

    Raises:
        UserError: there is none, it wants to run code, or it names files outside its folder.
    """
    from transformers import AutoTokenizer

    folder = Path(name).expanduser()
    if folder.is_dir():  # it may hold a tokenizer and no model
        _check_folder(folder)
        source = str(folder)
    elif revision is not None:
        source = name
    else:
        located = locate(name)
        source, revision = located.source, located.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, use_fast=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{name}: its tokenizer cannot be loaded: {line[:200]}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{name}: its tokenizer is a slow one; a tokenizer.json is needed")
    return tokenizer


def has_tokenizer(name: str) -> bool:
    """Whether a folder holds a tokenizer; of a name on the Hub that is taken for granted."""
    folder = Path(name).expanduser()
    return not folder.is_dir() or any((folder / file).is_file() for file in _VOCABULARIES)


def _check_folder(folder: Path) -> None:
    """Refuses what an untrusted folder could use to run code or to read files elsewhere."""
    if not has_tokenizer(str(folder)):
        files = ", ".join(_VOCABULARIES)
        raise UserError(
            f"{folder}: holds no tokenizer ({files}); copy those of its teacher into it"
        )
    for path in folder.glob("*token*.json"):
        if path.is_symlink() and folder.resolve() not in path.resolve().parents:
            raise UserError(f"{path}: is a link out of its folder, which is not followed")
    file = folder / _CONFIG
    if not file.is_file():
        return
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: is not JSON: {error}") from error
    if "auto_map" in config:
        raise UserError(f"{file}: names code of its own (auto_map), which is never run")
    for key, value in config.items():
        names_file = key.endswith("_file") and isinstance(value, str)
        if names_file and (Path(value).is_absolute() or ".." in Path(value).parts):
            raise UserError(f"{file}: {key} {value!r} lies outside of the folder; remove it")


def check_vocabularies(student: Mapping[str, int], teacher: Mapping[str, int]) -> None:
    """Compares the tokens themselves: permuted ids of one size would train on nonsense."""
    if student == teacher:
        return
    token = min(student.items() ^ teacher.items(), key=lambda entry: (entry[1], entry[0]))[0]
    raise UserError(
        f"the tokenizers differ: token {token!r} is id {student.get(token, 'none')} for the "
        f"student and {teacher.get(token, 'none')} for the teacher, so use the teacher's tokenizer"
    )


def check_tokenization(student: Any, teacher: Any) -> None:
    """Compares what two tokenizers make of the same words, not only the tokens that they know.

    One of them may lower-case, drop accents or put other special tokens around a text, and then a
    teacher would read ids that it never saw.

    Args:
        student: a fast tokenizer.
        teacher: likewise.

    Raises:
        UserError: says where they differ.
    """
    check_vocabularies(student.get_vocab(), teacher.get_vocab())
    ours, theirs = (_tokens_of_probe(tokenizer) for tokenizer in (student, teacher))
    if ours == theirs:
        return
    pairs = zip_longest(ours, theirs, fillvalue="nothing")
    place = next(place for place, (our, their) in enumerate(pairs) if our != their)
    shown = [" ".join(row[place : place + 3]) or "nothing" for row in (ours, theirs)]
    raise UserError(
        "the tokenizers differ: they know the same tokens, but where the student's makes "
        f"{shown[0]} of a text the teacher's makes {shown[1]} (each token with its type), so use "
        "the teacher's tokenizer"
    )


def _tokens_of_probe(tokenizer: Any) -> list[str]:
    """Each token with its type."""
    encoded = tokenizer(*_PROBE, padding=False, truncation=False, return_token_type_ids=True)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    types = encoded["token_type_ids"]
    return [f"{token}/{kind}" for token, kind in zip(tokens, types, strict=True)]
