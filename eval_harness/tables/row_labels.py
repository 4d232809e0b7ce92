"""Labels of rows: the model's name and the settings that distinguish its row. Imports no torch."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any

from eval_harness.tables.row import Row


def add_labels(rows: Sequence[Row]) -> list[Row]:
    """Label each row with its model and no more than distinguishes it; return them by label."""
    ambiguous = _ambiguous_names(rows)
    shared = _shared_overrides(rows)
    flags = [frozenset(row.settings.get("overrides", {})) - shared for row in rows]
    by_label: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        label = _label(row, flags[index], with_digest=row.model.name in ambiguous)
        by_label[label].append(index)
    labels = [""] * len(rows)
    for label, indices in by_label.items():
        suffixes = _differing_settings([rows[index] for index in indices])
        for index, suffix in zip(indices, suffixes, strict=True):
            labels[index] = ", ".join(filter(None, (label, suffix)))
    labelled = [
        replace(row, label=label, flags_in_label=named)
        for row, label, named in zip(rows, _unique(labels), flags, strict=True)
    ]
    return sorted(labelled, key=lambda row: (row.model.name, row.model.key, row.label))


def _ambiguous_names(rows: Sequence[Row]) -> set[str]:
    """Return the names that several models have."""
    keys: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        keys[row.model.name].add(row.model.key)
    return {name for name, models in keys.items() if len(models) > 1}


def _shared_overrides(rows: Sequence[Row]) -> set[str]:
    """Return the flags that have one value in all rows: they distinguish none."""
    given = [
        {(name, format_setting(value)) for name, value in row.settings.get("overrides", {}).items()}
        for row in rows
    ]
    return {name for name, _ in set.intersection(*given)} if given else set()


def _label(row: Row, flags: Set[str], *, with_digest: bool) -> str:
    """Return the model and what the user set: `bert (D), learning_rate 1e-4, limit 100`."""
    settings, method = row.settings, row.settings.get("method")
    name = f"{row.model.name} {row.model.digest}" if with_digest else row.model.name
    if method:
        name += " (D)" if method["name"] == "distil" else f" ({method['name']})"
    parts = [name]
    parts += [f"{flag} {format_setting(settings['overrides'][flag])}" for flag in sorted(flags)]
    if settings.get("limit") is not None:
        parts.append(f"limit {settings['limit']}")
    if settings.get("choose", "last") != "last":
        parts.append(f"{settings['choose']} epoch")
    if method and method["options"].get("kd_over_all_positions"):
        parts.append("kd_over_all_positions")
    if row.variant:
        parts.append(row.variant)
    return ", ".join(parts)


def _differing_settings(rows: Sequence[Row]) -> list[str]:
    """Return for each of some rows with equal labels every setting in which they differ."""
    flat = [_flatten(row.settings) for row in rows]
    names = sorted(set().union(*flat))
    differing = [name for name in names if len({str(values.get(name)) for values in flat}) > 1]
    return [
        ", ".join(
            f"{name.rpartition('.')[2]} {format_setting(values.get(name))}" for name in differing
        )
        for values in flat
    ]


def _unique(labels: Sequence[str]) -> list[str]:
    """Return the labels as they are printed, numbered where they are still equal."""
    unique: dict[str, None] = {}
    for label in map(one_line, labels):
        names = (label if n == 1 else f"{label} ({n})" for n in count(1))
        unique[next(name for name in names if name not in unique)] = None
    assert len(unique) == len(labels), "two rows have the same label"
    return list(unique)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def one_line(text: str) -> str:
    """Return the text in one line, unprintable characters as `?`: folder names may hold any."""
    return "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))


def format_setting(value: Any) -> str:
    """Return a setting as people write it: 1e-4, not 0.0001."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    if isinstance(value, float) and value != 0 and abs(value) < 1e-2:
        return f"{Decimal(repr(value)).normalize():e}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    if isinstance(value, list | tuple):
        return "+".join(map(format_setting, value))
    return str(value)
