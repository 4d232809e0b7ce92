"""Strict reader of YAML and JSON settings: every key known, none twice, every type right."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from angels_share.errors import UserError
from angels_share.names import nearest
from angels_share.readers.text_files import JsonFault, parse_json
from angels_share.training_flags import REFUSED

_LARGEST = 1 << 16
"""In bytes; PyYAML reads that much in half a second."""
_DEEPEST = 20
LARGEST_INTEGER = 1 << 63
"""What numpy and torch can hold."""
_LONGEST_SHOWN = 100
"""In characters: how much of a value a message shows."""

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


def read_config(
    path: Path | str,
    settings: Mapping[str, Setting],
    refusal: Callable[[str], str | None] = REFUSED.get,
) -> dict[str, Any]:
    """Return a file's settings by the names of their flags.

    Args:
        path: the file.
        settings: the flags by their names.
        refusal: returns what to use instead of a name, if it is known not to be accepted.

    Raises:
        UserError: names the key that is unknown, given twice or of the wrong type.
    """
    content = _load(Path(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected lines of `key: value`")
    chosen: dict[str, Any] = {}
    for key, value in content.items():
        if key not in settings:
            if reason := refusal(str(key)):
                raise UserError(f"{path}: {key} is not accepted: {reason}")
            raise UserError(f"{path}: unknown key {shown(key)}{nearest(str(key), settings)}")
        setting = settings[key]
        if setting.name in chosen:
            raise UserError(f"{path}: {key!r} and {setting.name!r} are the same setting; keep one")
        chosen[setting.name] = typed(value, setting, f"{path}: {key}")
    return chosen


def _load(path: Path) -> Any:
    try:
        text = _text_of(path)
        if path.suffix == ".json":
            return parse_json(text)
        return yaml.load(text, _CarefulLoader)  # noqa: S506  (a SafeLoader that refuses more)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except JsonFault as fault:
        raise fault.within(path) from fault
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise UserError(f"{path}{line}: {' '.join(reason.split())}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)  # not all of it: it may be a device without an end
    if len(content) > _LARGEST:
        raise UserError(f"{path}: more than {_LARGEST >> 10} KiB; is it a file of settings?")
    return content.decode("utf-8-sig")


def _refuse_duplicates(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    content: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, Hashable):
            raise ValueError(f"key {key!r} is not a name; expected lines of `key: value`")  # noqa: TRY004  (JSON's hook and `_load` know ValueError)
        if key in content:
            raise ValueError(f"key {key!r} appears twice; keep one")
        content[key] = value
    return content


class _CarefulLoader(yaml.SafeLoader):
    """A YAML loader that refuses what PyYAML would take without a word, or choke on.

    Of a duplicate key it would take the last; a few aliases can stand for billions of values; deep
    nesting exhausts Python's stack.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse aliases and deep nesting, before anything is made of them."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _fault(f"*{event.anchor} is an alias: write its value out", event)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _fault(f"nested more than {_DEEPEST} deep", event)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  (PyYAML's signature)
        """Name the place of a value that its type can't have: a 13th month, a huge integer."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, OverflowError) as error:
            if not isinstance(node, yaml.ScalarNode):
                raise
            kind = node.tag.rpartition(":")[2]
            raise _fault(f"{shown(node.value)} is not a valid {kind}", node) from error
        if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
            problem = f"{shown(value)}: an integer of more than 64 bits"
            raise _fault(problem, node)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  (PyYAML's signature)
        """Refuse a key that appears twice."""
        if isinstance(node, yaml.MappingNode):  # else PyYAML refuses it
            keys = [(self.construct_object(key, deep=True), None) for key, _ in node.value]
            _refuse_duplicates(keys)
        return super().construct_mapping(node, deep)


def _fault(problem: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


def shown(value: Any) -> str:
    """Return a value as a message shows it: a long one shortened."""
    try:
        text = repr(value)
    except ValueError:  # Python's own limit
        return "an integer of thousands of digits"
    except RecursionError:
        return "a value that is nested too deeply"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


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
    if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
        raise UserError(f"{where}: {shown(value)}: an integer of more than 64 bits")
    if isinstance(value, accepted) and not is_stray_bool:
        return value
    expected = " or ".join(_WORDS[kind] for kind in setting.accepts)
    seen = _WORDS.get(type(value), type(value).__name__)
    raise UserError(
        f"{where}: {shown(value)} is {seen}, expected {expected}{_hint(value, accepted)}"
    )


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
