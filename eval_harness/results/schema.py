"""What the JSON records of results must look like: versions, fields, types. One checker for all.

A shape is a tuple of types, a dict of fields that must be exactly these, a list with the shape of
each of its elements, or one of the classes below.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

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
    """A dict that may hold anything; these fields have these shapes where they are there."""

    fields: Mapping[str, Shape]


@dataclass(frozen=True)
class Named:
    """A dict of any names, each with one shape."""

    each: Shape


@dataclass(frozen=True)
class Optional:
    """None, or the shape."""

    shape: Shape


class NewerSchemaError(ValueError):
    """A record of a version of this program that is still to come."""


def parsed(text: str | bytes) -> Any:
    """Return JSON's value; refuse what JSON can spell and no file could be written of again.

    Raises:
        ValueError: what is wrong with it, in half a line.
    """
    text = text.decode() if isinstance(text, bytes) else text
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        line = f"is torn: line {error.lineno}: {error.msg}" if text else "is empty"
        raise ValueError(line) from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if "\\ud" in text or "\\uD" in text:  # looked for first: encoding every record would cost
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
        record: JSON's value.
        newest: the version that this program writes.
        noun: what the record should be, with its article.

    Raises:
        NewerSchemaError: it was written by a newer version.
        ValueError: it has no version.
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
    """Refuse a value that doesn't have exactly this shape; JSON's true is not a number here.

    Args:
        value: JSON's value.
        shape: what it must look like.
        noun: what it is a part of, with its article, for messages.
        where: its path in the record.
        check: looks at each single value and its path too, and raises.

    Raises:
        ValueError: the path and what is wrong there, in half a line.
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
            inside = f"{where}." if where else ""
            for name, wanted in _fields(value, shape, noun, inside).items():
                require(value[name], wanted, noun, f"{inside}{name}", check)


def _require_type(value: Any, types: Types, where: str) -> None:
    if type(value) not in types:
        raise ValueError(f"{where} is a {type(value).__name__}")


def _fields(value: Record, shape: Shape, noun: str, inside: str) -> Mapping[str, Shape]:
    """Return the shapes of the fields of a dict that are looked at."""
    if isinstance(shape, Named):
        return dict.fromkeys(value, shape.each)
    if isinstance(shape, Open):
        return {name: each for name, each in shape.fields.items() if name in value}
    if missing := sorted(shape.keys() - value.keys()):
        raise ValueError(f"{inside}{missing[0]} is missing")
    if odd := sorted(value.keys() - shape.keys()):
        raise ValueError(f"{inside}{odd[0]} is no field of {noun}")
    fields: Mapping[str, Shape] = shape
    return fields


def not_finite(value: Any, where: str = "") -> str | None:
    """Return the path of the first NaN or infinity in plain data, and what stands there."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{where} is {value}"
    if isinstance(value, Mapping):
        inside = ((f"{where}.{name}" if where else str(name), each) for name, each in value.items())
    elif isinstance(value, list | tuple):
        inside = ((f"{where}[{number}]", each) for number, each in enumerate(value))
    else:
        return None
    return next(filter(None, (not_finite(each, path) for path, each in inside)), None)
