"""What rows are called: the model, and whatever tells its row from another's. Imports no torch."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any

from eval_harness.tables.row import Row


def labelled(rows: Sequence[Row]) -> list[Row]:
    """Gives each row a name that says what it is, and no more than tells it from the others."""
    several = _names_of_several(rows)
    shared = _shared_overrides(rows)
    told = [frozenset(row.settings.get("overrides", {})) - shared for row in rows]
    alike: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        alike[_label(row, told[place], several=row.model.name in several)].append(place)
    labels = [""] * len(rows)
    for label, places in alike.items():
        more = _telling_apart([rows[place] for place in places])
        for place, extra in zip(places, more, strict=True):
            labels[place] = ", ".join(filter(None, (label, extra)))
    named = [
        replace(row, label=label, told=flags)
        for row, label, flags in zip(rows, _unique(labels), told, strict=True)
    ]
    return sorted(named, key=lambda row: (row.model.name, row.model.key, row.label))


def _names_of_several(rows: Sequence[Row]) -> set[str]:
    """The names that several models bear."""
    keys: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        keys[row.model.name].add(row.model.key)
    return {name for name, those in keys.items() if len(those) > 1}


def _shared_overrides(rows: Sequence[Row]) -> set[str]:
    """The flags that every row was given alike: they tell none from another."""
    given = [
        {(name, plain(value)) for name, value in row.settings.get("overrides", {}).items()}
        for row in rows
    ]
    return {name for name, _ in set.intersection(*given)} if given else set()


def _label(row: Row, told: Set[str], *, several: bool) -> str:
    """The model and what the user set: `bert (D), learning_rate 1e-4, limit 100`."""
    settings, method = row.settings, row.settings.get("method")
    name = f"{row.model.name} {row.model.digest}" if several else row.model.name
    if method:
        name += " (D)" if method["name"] == "distil" else f" ({method['name']})"
    said = [f"{flag} {plain(settings['overrides'][flag])}" for flag in sorted(told)]
    if settings.get("limit") is not None:
        said.append(f"limit {settings['limit']}")
    if settings.get("choose", "last") != "last":
        said.append(f"{settings['choose']} epoch")
    if method and method["options"].get("kd_over_all_positions"):
        said.append("kd_over_all_positions")
    return ", ".join([name, *said, *filter(None, [row.part])])


def _telling_apart(rows: Sequence[Row]) -> list[str]:
    """What must be added to equal labels: every setting in which their rows differ."""
    flat = [_flat(row.settings) for row in rows]
    names = sorted(set().union(*flat))
    differing = [name for name in names if len({str(each.get(name)) for each in flat}) > 1]
    return [
        ", ".join(f"{name.rpartition('.')[2]} {plain(each.get(name))}" for name in differing)
        for each in flat
    ]


def _unique(labels: Sequence[str]) -> list[str]:
    """The labels as they are printed, numbered where they are still equal."""
    unique: dict[str, None] = {}
    for label in map(one_line, labels):
        names = (label if n == 1 else f"{label} ({n})" for n in count(1))
        unique[next(name for name in names if name not in unique)] = None
    assert len(unique) == len(labels), "two rows bear one label"
    return list(unique)


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{above}{name}."))
        else:
            flat[f"{above}{name}"] = value
    return flat


def one_line(text: str) -> str:
    """What can be printed of a text: a model's name may hold anything that a folder's may."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def plain(value: Any) -> str:
    """A setting as people write it: 1e-4, not 0.0001."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    if isinstance(value, float) and value != 0 and abs(value) < 1e-2:
        return f"{Decimal(repr(value)).normalize():e}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    if isinstance(value, list | tuple):
        return "+".join(map(plain, value))
    return str(value)
