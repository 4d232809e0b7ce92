"""Strict reader of YAML and JSON settings: every key known, none twice, every type right."""

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from angels_share.errors import UserError
from angels_share.names import nearest
from angels_share.training_flags import REFUSED

_WORDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


class Setting(Protocol):
    """The attributes of a flag that checking a value from a file needs."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def accepts(self) -> tuple[type, ...]: ...  # noqa: D102
    @property
    def optional(self) -> bool: ...  # noqa: D102


def read_config(path: Path | str, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Return a file's settings by the names of their flags.

    Raises:
        UserError: names the key that is unknown, given twice or of the wrong type.
    """
    content = _load(Path(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected lines of `key: value`")
    chosen: dict[str, Any] = {}
    for key, value in content.items():
        if key in REFUSED:
            raise UserError(f"{path}: {key} is not accepted: {REFUSED[key]}")
        if key not in settings:
            raise UserError(f"{path}: unknown key {key!r}{nearest(str(key), settings)}")
        setting = settings[key]
        if setting.name in chosen:
            raise UserError(f"{path}: {key!r} and {setting.name!r} are the same setting; keep one")
        chosen[setting.name] = typed(value, setting, f"{path}: {key}")
    return chosen


def _load(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=_refuse_duplicates)
        return yaml.load(text, _UniqueKeyLoader)  # noqa: S506  (a SafeLoader that refuses duplicate keys)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _refuse_duplicates(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    content: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, Hashable):
            raise ValueError(f"key {key!r} is not a name; expected lines of `key: value`")  # noqa: TRY004  (JSON's hook and `_load` know ValueError)
        if key in content:
            raise ValueError(f"key {key!r} appears twice; keep one")
        content[key] = value
    return content


class _UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that refuses a duplicate key, of which PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  (PyYAML's signature)
        _refuse_duplicates([(self.construct_object(key, deep=True), None) for key, _ in node.value])
        return super().construct_mapping(node, deep)


def typed(value: Any, setting: Setting, where: str) -> Any:
    """Return a value as its flag expects it; strings and numbers are never converted.

    Args:
        value: what the file holds.
        setting: the flag.
        where: the file and the key, for the error.

    Raises:
        UserError: the value has the wrong type.
    """
    if value is None and setting.optional:
        return None
    if list in setting.accepts and not isinstance(value, list):
        value = [value]
    accepted = (*setting.accepts, int) if float in setting.accepts else setting.accepts
    # A bool is an int to isinstance, but `true` is not meant as 1.
    is_stray_bool = isinstance(value, bool) and bool not in accepted
    if isinstance(value, accepted) and not is_stray_bool:
        return value
    expected = " or ".join(_WORDS[kind] for kind in setting.accepts)
    seen = _WORDS.get(type(value), type(value).__name__)
    raise UserError(f"{where}: {value!r} is {seen}, expected {expected}{_hint(value, accepted)}")


def _hint(value: Any, accepted: tuple[type, ...]) -> str:
    """Suggest how to spell a number that YAML 1.1 reads as text, such as `1e-4`."""
    if not isinstance(value, str) or int not in accepted:
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    if number.is_integer() and abs(number) < 1e15:
        return f" (write {int(number)})"
    digits, e, exponent = repr(number).partition("e")
    pointed = digits if "." in digits else f"{digits}.0"
    return f" (write {pointed}{e}{exponent})" if float in accepted else ""
