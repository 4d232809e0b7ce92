"""Labels of rows: the model's name and the settings that distinguish its row. Imports no torch.

A long label is shown as its beginning and a mark, `distilbert [a]`; a footnote has the rest.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from decimal import Decimal
from itertools import count, product
from typing import Any

from eval_harness.results.record import texts_added
from eval_harness.rows.row import Row

_LONGEST = 30
"""Characters of a label that is shown whole: a short name with one setting."""
_LETTERS = "abcdefghijklmnopqrstuvwyz"
"""No x: `[x]` at the beginning of a note would be a ticked box in markdown."""
_PHRASES = {
    "learning_rate": "learning rate {}",
    "num_train_epochs": "{} epochs",
    "per_device_train_batch_size": "batch size {}",
    "max_seq_length": "at most {} tokens",
    "limit": "at most {} examples a split",
    "kd_over_all_positions": "soft targets over padding and question, too",
    "transfer_set": "with {} unlabelled texts",
}
"""How a footnote says a setting; any other stands there as on the command line."""


def add_labels(rows: Sequence[Row]) -> list[Row]:
    """Label each row with its model and no more than distinguishes it; return them by label."""
    ambiguous = _ambiguous_names(rows)
    shared = _shared_overrides(rows)
    flags = [frozenset(row.settings.get("overrides", {})) - shared for row in rows]
    parts = [_parts(row, names) for row, names in zip(rows, flags, strict=True)]
    names = [_name(row, with_digest=row.model.name in ambiguous) for row in rows]
    by_label: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        by_label[_joined(name, parts[index])].append(index)
    for indices in by_label.values():
        differing = _differing_settings([rows[index] for index in indices])
        for index, settings in zip(indices, differing, strict=True):
            parts[index] += settings
    labels = _unique([_joined(*each) for each in zip(names, parts, strict=True)])
    labelled = [
        replace(row, label=label, flags_in_label=named)
        for row, label, named in zip(rows, labels, flags, strict=True)
    ]
    shortened = _shortened(labelled, names, parts)
    return sorted(shortened, key=lambda row: (row.model.name, row.model.key, row.label))


_Part = tuple[str, str]
"""A setting and its value, or a text and nothing."""


def _joined(name: str, parts: Iterable[_Part]) -> str:
    return ", ".join([name, *(f"{setting} {value}".rstrip() for setting, value in parts)])


def _shortened(
    rows: Sequence[Row], names: Sequence[str], parts: Sequence[Sequence[_Part]]
) -> list[Row]:
    """Return the rows with what tables show of their labels; equal footnotes have one mark."""
    marks, taken = _marks(), {row.label.rpartition(" ")[2] for row in rows}
    by_text: dict[str, str] = {}
    shortened = []
    for row, name, of_row in sorted(zip(rows, names, parts, strict=True), key=_by_label):
        if len(row.label) <= _LONGEST or not of_row:
            shortened.append(replace(row, short=row.label))
            continue
        number = row.label.removeprefix(one_line(_joined(name, of_row)))  # of equal labels
        text = one_line(f"{', '.join(_said(*part) for part in of_row)}{number}")
        mark = by_text.get(text) or next(mark for mark in marks if mark not in taken)
        by_text[text] = mark
        short = f"{one_line(name)} {mark}"
        shortened.append(replace(row, short=short, footnote=f"{mark} {text}"))
    return shortened


def _by_label(labelled: tuple[Row, str, Sequence[_Part]]) -> tuple[str, str, str]:
    row = labelled[0]
    return row.model.name, row.model.key, row.label


def _marks() -> Iterator[str]:
    """Yield `[a]`, `[b]`, ..., `[aa]`, ..."""
    for length in count(1):
        for letters in product(_LETTERS, repeat=length):
            yield f"[{''.join(letters)}]"


def _said(setting: str, value: str) -> str:
    if setting == "num_train_epochs" and value == "1":
        return "1 epoch"
    return _PHRASES.get(setting, f"{setting} {{}}").replace("{}", value).rstrip()


def footnotes_of(rows: Iterable[Row]) -> list[str]:
    """Return what the marks in these rows' names stand for, each once, in the marks' order."""
    found = {f"{row.footnote}." for row in rows if row.footnote}
    return sorted(found, key=lambda text: (text.index("]"), text))


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


def _name(row: Row, *, with_digest: bool) -> str:
    """Return the model, and whether it was distilled on the task, `bert (D)`, or not trained."""
    method = row.settings.get("method")
    name = f"{row.model.name} {row.model.digest}" if with_digest else row.model.name
    if method:
        name += " (D)" if method["name"] == "distil" else f" ({method['name']})"
    if row.settings.get("eval_only") and not row.model.is_onnx:  # a file can't be trained
        name += " (as it is)"
    return name


def _parts(row: Row, flags: Set[str]) -> list[_Part]:
    """Return what the user set: `learning_rate`, `1e-4`; `limit`, `100`."""
    settings, method = row.settings, row.settings.get("method")
    parts = [(flag, format_setting(settings["overrides"][flag])) for flag in sorted(flags)]
    if settings.get("limit") is not None:
        parts.append(("limit", str(settings["limit"])))
    if settings.get("choose", "last") != "last":
        parts.append((f"{settings['choose']} epoch", ""))
    if method and method["options"].get("kd_over_all_positions"):
        parts.append(("kd_over_all_positions", ""))
    if method and "transfer_set" in method["options"]:
        parts.append(("transfer_set", _added_to(row)))
    if row.variant:
        parts.append((row.variant, ""))
    return parts


def _added_to(row: Row) -> str:
    """Return how many texts of a transfer set a row's runs learned from, on its various tasks."""
    counts = {texts_added(result) for result in row.results}
    return " to ".join(f"{number:,}" for number in sorted({min(counts), max(counts)}))


def _differing_settings(rows: Sequence[Row]) -> list[list[_Part]]:
    """Return for each of some rows with equal labels every setting in which they differ."""
    flat = [_flatten(row.settings) for row in rows]
    names = sorted(set().union(*flat))
    differing = [name for name in names if len({str(values.get(name)) for values in flat}) > 1]
    return [
        [(name.rpartition(".")[2], format_setting(values.get(name))) for name in differing]
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
