"""Checks of untrusted model folders: no custom code, no pickles, no files outside the folder."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.model_files import INDEX, WEIGHTS
from angels_share.names import nearest

_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


def refuse_code(name: str, config: dict[str, Any]) -> None:
    """Refuse a config that refers to custom code.

    Loading it without that code would be worse: it may look like a plain BERT and compute something
    else.
    """
    attention = str(config.get("attn_implementation") or config.get("_attn_implementation") or "")
    # A kernel's name with a slash means a Hub repository of compiled code.
    if "/" in attention:
        found = f"attn_implementation {attention!r}"
    elif "auto_map" in config:
        found = "auto_map"
    else:
        return
    raise UserError(
        f"{name}: its config.json refers to custom code ({found}), which is never run: "
        "if the architecture is a standard one, remove that entry"
    )


def refuse_unknown_fields(where: str, config_class: Any, given: Mapping[str, Any]) -> None:
    """Refuse a misspelt field of a config, which would silently leave a size at its default.

    Args:
        where: how a message names the config.
        config_class: transformers' class for it.
        given: its fields.

    Raises:
        UserError: names the field and the nearest known one.
    """
    if "transformers_version" in given:
        return  # written by transformers, not by hand: unknown fields are another version's
    known = {*config_class().to_dict(), *config_class.attribute_map, "model_type", "dtype"}
    for name in sorted(given.keys() - known):
        raise UserError(
            f"{where}: {config_class.model_type} has no field {name!r}"
            f"{nearest(name, known) or ': remove it'}"
        )


def require_safetensors(folder: Path, class_name: str) -> None:
    """Refuse a folder whose weights are pickled (unpickling can run code) or outside it."""
    if (folder / WEIGHTS).is_file():
        return
    if (index := folder / INDEX).is_file():
        _check_index(index)
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise UserError(
            f"{folder}: holds only pickled weights ({pickles[0]}), which can run code when loaded: "
            f"if you trust them, convert them once with {class_name}.from_pretrained("
            f"{str(folder)!r}, use_safetensors=False).save_pretrained(NEW_FOLDER)"
        )
    raise UserError(f"{folder}: holds no weights: {WEIGHTS} is missing")


def _check_index(index: Path) -> None:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(
            f"{index}: is not an index of weights: {' '.join(str(error).split())}"
        ) from error
    for shard in sorted(map(str, shards)):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise UserError(f"{index}: names {shard!r}, which is not a safetensors file beside it")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bar and load report, which one line of ours replaces."""
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers.modeling_utils")
    had_bar = transformers_logging.is_progress_bar_enabled()
    # A filter, since a raised level makes transformers warn about other things.
    logger.addFilter(_is_error)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.removeFilter(_is_error)
        if had_bar:
            transformers_logging.enable_progress_bar()


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
