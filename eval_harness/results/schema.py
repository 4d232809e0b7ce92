"""Validation of JSON records: schema versions, fields, types.

A shape is a tuple of types, a dict of exactly these fields with their shapes, a list with the shape
of its elements, or one of the classes below.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

from angels_share.readers.text_files import json_fault

Record = dict[str, Any]
Types = tuple[type, ...]
Shape = Any
"""Types, a dict of shapes, a list of one shape, `Open`, `Optional` or `Named`."""

TEXT: Types = (str,)
COUNT: Types = (int,)
NUMBER: Types = (int, float)
FLAG: Types = (bool,)
TEXT_OR_NONE: Types = (str, NoneType)


@dataclass(frozen=True)
class Open:
    """A dict that may hold anything; these fields have these shapes if they are present."""

    fields: Mapping[str, Shape]


@dataclass(frozen=True)
class Named:
    """A dict with any keys, whose values all have one shape."""

    each: Shape


@dataclass(frozen=True)
class Optional:
    """None, or a value of the shape."""

    shape: Shape


class NewerSchemaError(ValueError):
    """A record written by a newer version of this program."""


def parsed(text: str | bytes) -> Any:
    """Parse JSON; refuse values that could not be written again, such as NaN or a lone surrogate.

    Raises:
        ValueError: the text is invalid; the message is half a line.
    """
    text = text.decode() if isinstance(text, bytes) else text
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        line = f"is torn: line {error.lineno}: {error.msg}" if text else "is empty"
        raise ValueError(line) from error
    except (ValueError, RecursionError) as error:
        if (fault := json_fault(text, error)) is None:
            raise
        raise ValueError(f"{fault.reason}, on line {fault.line}") from error
    if "\\ud" in text or "\\uD" in text:  # only then, since encoding every record is slow
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("contains an unpaired surrogate") from error
    return value


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"contains {constant}, which is not a number")


def version_of(record: Any, newest: int, noun: str) -> int:
    """Return a record's schema version.

    Args:
        record: the parsed JSON.
        newest: the schema version that this program writes.
        noun: what the record should be, for the message, for example "a result".

    Raises:
        NewerSchemaError: the record was written by a newer version.
        ValueError: the record has no schema version.
    """
    if type(record) is not dict or type(record.get("schema")) is not int:
        raise ValueError(f"is not {noun}: it has no schema")
    schema: int = record["schema"]
    if schema > newest:
        raise NewerSchemaError(
            f"was written by a newer version (schema {schema}, known up to {newest}): update"
        )
    return schema


def require(
    value: Any,
    shape: Shape,
    noun: str,
    where: str = "",
    check: Callable[[Any, str], None] | None = None,
) -> None:
    """Refuse a value that does not have exactly this shape; a boolean is not a number here.

    Args:
        value: the parsed JSON.
        shape: the shape that it must have.
        noun: what it is part of, for messages, for example "a result".
        where: its path in the record.
        check: an additional check of every single value, called with the value and its path.

    Raises:
        ValueError: the shape differs; the message is the path and the problem, in half a line.
    """
    match shape:
        case tuple():
            _require_type(value, shape, where)
            if check is not None:
                check(value, where)
        case Optional():
            if value is not None:
                require(value, shape.shape, noun, where, check)
        case [each]:
            _require_type(value, (list,), where)
            for number, element in enumerate(value):
                require(element, each, noun, f"{where}[{number}]", check)
        case _:
            _require_type(value, (dict,), where)
            prefix = f"{where}." if where else ""
            for name, field in _fields(value, shape, noun, prefix).items():
                require(value[name], field, noun, f"{prefix}{name}", check)


def _require_type(value: Any, types: Types, where: str) -> None:
    if type(value) not in types:
        raise ValueError(f"{where} is a {type(value).__name__}")


def _fields(value: Record, shape: Shape, noun: str, prefix: str) -> Mapping[str, Shape]:
    """Return the fields of a dict that must be checked, with their shapes."""
    if isinstance(shape, Named):
        return dict.fromkeys(value, shape.each)
    if isinstance(shape, Open):
        return {name: each for name, each in shape.fields.items() if name in value}
    if missing := sorted(shape.keys() - value.keys()):
        raise ValueError(f"{prefix}{missing[0]} is missing")
    if odd := sorted(value.keys() - shape.keys()):
        raise ValueError(f"{prefix}{odd[0]} is no field of {noun}")
    fields: Mapping[str, Shape] = shape
    return fields


def not_finite(value: Any, where: str = "") -> str | None:
    """Return the path and value of the first NaN or infinity in plain data, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{where} is {value}"
    if isinstance(value, Mapping):
        items = ((f"{where}.{name}" if where else str(name), item) for name, item in value.items())
    elif isinstance(value, list | tuple):
        items = ((f"{where}[{number}]", item) for number, item in enumerate(value))
    else:
        return None
    return next(filter(None, (not_finite(item, path) for path, item in items)), None)
