"""Tokenizers from outside: fast ones only, and nothing is read outside of their folder."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from angels_share.errors import UserError
from angels_share.names import locate

_CONFIG = "tokenizer_config.json"


def load_tokenizer(name: str) -> Any:
    """The fast tokenizer of a folder, a short name or a Hub id.

    Raises:
        UserError: there is none, it wants to run code, or it names files outside its folder.
    """
    located = locate(name)
    if located.kind == "folder":
        _check_folder(Path(located.source))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            located.source, revision=located.revision, use_fast=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{name}: its tokenizer cannot be loaded: {line[:200]}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{name}: its tokenizer is a slow one; a tokenizer.json is needed")
    return tokenizer


def _check_folder(folder: Path) -> None:
    """Refuses what an untrusted folder could use to run code or to read files elsewhere."""
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.txt").is_file():
        names = "tokenizer.json, nor a vocab.txt"
        if not (folder / "vocab.json").is_file():
            raise UserError(f"{folder}: holds no tokenizer ({names}); --tokenizer names another")
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
