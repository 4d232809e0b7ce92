"""Tokenizers of untrusted models: fast ones only, and no file outside their folder is read."""

import copy
import json
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.hub.cache import cache_folder
from angels_share.hub.fetch import at_commit, model_folder
from angels_share.hub.locate import locate
from angels_share.model_files import VOCABULARIES

_CONFIG = "tokenizer_config.json"
# Case, accents precomposed and combining, blanks, CJK, digits, an emoji, a zero-width space.
_PROBE = (
    "The  Café in 東京 hat 12,5 €: Zürich's 🙂 ",
    " ÀÉ e\u0301\tNAÏVE Ⅷ “x=3.14” \u200b북 don't",
)


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """Load the fast tokenizer of a folder, a short name or a Hub id.

    With a revision the name is a Hub id that was located before.

    Raises:
        UserError: none is found, it refers to custom code or to files outside its folder.
    """
    folder = Path(name).expanduser()
    if revision is None and folder.is_dir():  # `locate` would require a model in it
        _check_links(folder)
    else:
        located = locate(name) if revision is None else at_commit(name, revision)
        folder = model_folder(located, weights=False)
    _check_folder(folder)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), use_fast=True, trust_remote_code=False
        )
    except MemoryError:
        raise
    except Exception as error:  # a damaged file gives errors of any type, also a bare Exception
        line = " ".join(str(error).split())
        raise UserError(f"{name}: its tokenizer cannot be loaded: {line[:200]}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{name}: its tokenizer is a slow one; a tokenizer.json is required")
    return tokenizer


def splitting_words(tokenizer: Any) -> Any:
    """Return a tokenizer that takes words rather than a text, each as if a blank stood before it.

    Byte-level ones mark a word's beginning with its blank. A list of words has none, so theirs must
    be added to every word: a copy of the tokenizer does.

    Args:
        tokenizer: a fast one, which is left as it is.
    """
    before = tokenizer.backend_tokenizer.pre_tokenizer
    if before is None:
        return tokenizer
    state = json.loads(before.__getstate__())
    is_changed = False
    for part in state.get("pretokenizers", [state]):
        for setting, wanted in (("add_prefix_space", True), ("prepend_scheme", "always")):
            if part.get(setting, wanted) != wanted:
                part[setting], is_changed = wanted, True
    if not is_changed:
        return tokenizer
    changed = copy.deepcopy(tokenizer)
    changed.add_prefix_space = True
    pre_tokenizer = changed.backend_tokenizer.pre_tokenizer
    pre_tokenizer.__setstate__(json.dumps(state).encode())
    changed.backend_tokenizer.pre_tokenizer = pre_tokenizer
    return changed


def has_tokenizer(name: str) -> bool:
    """Return whether a folder holds a tokenizer; a name on the Hub is assumed to have one."""
    folder = Path(name).expanduser()
    return not folder.is_dir() or any((folder / file).is_file() for file in VOCABULARIES)


def _check_links(folder: Path) -> None:
    """Refuse links out of a folder; those of a snapshot in the Hub's cache lead to its blobs."""
    home = folder.resolve()
    if home.is_relative_to(cache_folder().resolve()):
        home = home.parent.parent
    for path in folder.glob("*token*.json"):
        if path.is_symlink() and home not in path.resolve().parents:
            raise UserError(f"{path}: a link to outside its folder, which is not followed")


def _check_folder(folder: Path) -> None:
    """Refuse what an untrusted folder could use to run code or to read files elsewhere."""
    if not has_tokenizer(str(folder)):
        files = ", ".join(VOCABULARIES)
        raise UserError(f"{folder}: holds no tokenizer ({files}); copy its teacher's into it")
    file = folder / _CONFIG
    if not file.is_file():
        return
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{file}: not a tokenizer's settings: expected an object")
    if "auto_map" in config:
        raise UserError(f"{file}: refers to custom code (auto_map), which is never run")
    for key, value in config.items():
        names_file = key.endswith("_file") and isinstance(value, str)
        if names_file and (Path(value).is_absolute() or ".." in Path(value).parts):
            raise UserError(f"{file}: {key} {value!r} points outside the folder; remove it")


def check_vocabularies(student: Mapping[str, int], teacher: Mapping[str, int]) -> None:
    """Check that two vocabularies give every token the same id.

    Comparing sizes is not enough: with permuted ids a student would train on nonsense.

    Raises:
        UserError: names the first token that differs.
    """
    if student == teacher:
        return
    token = min(student.items() ^ teacher.items(), key=lambda entry: (entry[1], entry[0]))[0]
    raise UserError(
        f"the tokenizers differ: token {token!r} has id {student.get(token, 'none')} for the "
        f"student and {teacher.get(token, 'none')} for the teacher; use the teacher's tokenizer"
    )


def check_tokenization(student: Any, teacher: Any) -> None:
    """Check that two fast tokenizers encode a probe text alike, beyond sharing a vocabulary.

    If only one of them lower-cases, drops accents or adds certain special tokens, the teacher would
    be given ids that its training never produced.

    Raises:
        UserError: shows where they differ.
    """
    check_vocabularies(student.get_vocab(), teacher.get_vocab())
    ours, theirs = _tokens_of_probe(student), _tokens_of_probe(teacher)
    if ours == theirs:
        return
    pairs = zip_longest(ours, theirs, fillvalue="nothing")
    start = next(index for index, (our, their) in enumerate(pairs) if our != their)
    excerpts = [" ".join(tokens[start : start + 3]) or "nothing" for tokens in (ours, theirs)]
    raise UserError(
        f"the tokenizers differ: equal vocabularies, but the same text becomes {excerpts[0]} for "
        f"the student and {excerpts[1]} for the teacher (token/type); use the teacher's tokenizer"
    )


def _tokens_of_probe(tokenizer: Any) -> list[str]:
    """Return the probe's tokens, each with its type."""
    encoded = tokenizer(*_PROBE, padding=False, truncation=False, return_token_type_ids=True)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    types = encoded["token_type_ids"]
    return [f"{token}/{kind}" for token, kind in zip(tokens, types, strict=True)]
