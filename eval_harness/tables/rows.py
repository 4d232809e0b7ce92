"""Results as the rows of a table: nothing in a cell differs but the seed. Imports no torch.

A row is a model under settings. What belongs to its tasks may have changed meanwhile: their data,
our defaults, how a task is read and scored. Results of before and after are never mixed: the newest
are the row, and the older ones are further rows, each over all tasks.
"""

import json
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import count
from typing import Any

from angels_share.files import hash_of
from eval_harness.results.record import TaskResult
from eval_harness.results.store import RUNS, Found, Invalid
from eval_harness.runs.run import Model

MISMATCHED = "mnli-mm"
SECOND_CELLS = {
    "mnli": (MISMATCHED, "validation_mismatched", "score"),
    "squad": ("squad EM", "validation", "exact_match"),
    "squad_v2": ("squad_v2 EM", "validation", "exact_match"),
}
"""Of a task with two columns: the second one's cell, and the split and measure that it shows.

No task can be called what the cells of SQuAD are: its name has no blank.
"""

_ADDED_LATER = ("labels", "measures", "columns")
"""Settings of a task that the first results don't name."""

_VERSION = "earlier version of the task"
_DEFAULTS = "earlier defaults"
_TEACHER = "another run of the teacher"
_AGAIN = "an earlier run"
_RESPECTS = {
    "data": "other data",
    "values": _DEFAULTS,
    **dict.fromkeys(("version", *_ADDED_LATER), _VERSION),
    "inputs": _TEACHER,
}


@dataclass(frozen=True)
class Cell:
    """What the seeds of one task gave, in the order of the seeds; None: it is not defined there.

    `asked` are the seeds that there should be, as far as files tell.
    """

    results: tuple[TaskResult, ...]
    scores: tuple[float | None, ...]
    asked: frozenset[int]

    @property
    def counted(self) -> list[float]:
        """The scores that there are."""
        return [score for score in self.scores if score is not None]

    @property
    def median(self) -> float | None:
        """The middle one, or the mean of the middle two."""
        return statistics.median(self.counted) if self.counted else None

    @property
    def data(self) -> str:
        """The hash of the data's content."""
        return str(self.results[0].settings.task.get("data"))


@dataclass(frozen=True)
class Row:
    """A model under settings: a cell for each task.

    `part` says what sets it apart from a newer row of the same model and settings; `told` are the
    flags that its label names.
    """

    model: Model
    settings: Mapping[str, Any]
    cells: Mapping[str, Cell]
    part: str = ""
    label: str = field(default="", compare=False)
    told: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def results(self) -> list[TaskResult]:
        """All that it is made of."""
        return [result for cell in self.cells.values() for result in cell.results]


@dataclass(frozen=True)
class _Part:
    """A task's results under equal settings, one for each seed."""

    settings: Mapping[str, Any]
    results: tuple[TaskResult, ...]
    lost: frozenset[int] = frozenset()
    again: bool = False
    """Whether newer runs of the same seeds took their place: then no seed is missing."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The hyper-parameters."""
        values: Mapping[str, Any] = self.settings.get("values", {})
        return values

    def under(self, changed: Set[str]) -> str:
        """Which generation of the defaults these are, told by the values that changed."""
        return json.dumps({name: self.values.get(name) for name in sorted(changed)})

    @property
    def rank(self) -> tuple[str, int, str]:
        """The newest is the greatest; of equally old ones that with the most seeds."""
        newest = max(result.finished for result in self.results)
        return newest, len(self.results), hash_of(self.settings)

    @property
    def asked(self) -> frozenset[int]:
        """What the newest sweep wanted, what is there, and what doesn't count."""
        there = {result.seed for result in self.results}
        if self.again:
            return frozenset(there)
        sweeps = [result for result in self.results if "seeds" in result.provenance]
        newest = max(sweeps, key=lambda result: result.finished, default=None)
        wanted = newest.provenance["seeds"] if newest else ()
        return frozenset(there.union(self.lost, wanted))


_Parts = Mapping[str, Sequence[_Part]]
"""Each task's parts, the newest first."""


def rows_of(found: Found) -> list[Row]:
    """The rows of what was found, each with a label that no other has, in the labels' order."""
    folders: dict[str, list[TaskResult]] = defaultdict(list)
    for key, result in found.by_key.items():
        folders[key.rpartition("/")[0]].append(result)
    lost = _lost(found.invalid)
    rows: dict[tuple[str, str], dict[str, list[_Part]]] = defaultdict(lambda: defaultdict(list))
    for name, results in folders.items():
        first = results[0]
        part = _Part(first.settings.task, tuple(results), frozenset(lost.get(name, ())))
        rows[first.model.key, first.settings.row_hash][first.task].append(part)
    return _labelled([row for key in sorted(rows) for row in _rows(rows[key])])


def _lost(invalid: Sequence[Invalid]) -> dict[str, set[int]]:
    """The seeds of results that don't count, by the folder where they should be."""
    lost: dict[str, set[int]] = defaultdict(set)
    for each in invalid:
        folder, _, name = each.path.removeprefix(f"{RUNS}/").rpartition("/")
        seed = name.removeprefix("seed-").removesuffix(".json")
        if seed.isdecimal():
            lost[folder].add(int(seed))
    return lost


def _rows(folders: Mapping[str, list[_Part]]) -> list[Row]:
    """The row of the newest results, and further ones of older results that are set apart alike."""
    parts = {task: _parts(folders[task]) for task in sorted(folders)}
    changed = _changed_defaults(parts)
    main = _newest(parts, changed)
    older: dict[tuple[str, str, int], dict[str, _Part]] = defaultdict(dict)
    for task, each in parts.items():
        for part in each:
            if part is not main.get(task):
                what = _apart(part, main.get(task)), part.under(changed)
                place = next(n for n in count() if task not in older.get((*what, n), ()))
                older[*what, place][task] = part
    return [_row(main), *(_row(tasks, what) for (what, *_), tasks in older.items())]


def _changed_defaults(parts: _Parts) -> set[str]:
    """The hyper-parameters in which some task's results differ."""
    return {
        name
        for newest, *others in parts.values()
        for part in others
        for name in newest.values.keys() | part.values.keys()
        if newest.values.get(name) != part.values.get(name)
    }


def _newest(parts: _Parts, changed: Set[str]) -> dict[str, _Part]:
    """The newest results of each task, all of one generation of our defaults.

    Data and versions are each task's own, but defaults change for many tasks at once: a task that
    was judged only before they did is not shown beside those that were judged after it.
    """
    if not changed:
        return {task: each[0] for task, each in parts.items()}
    newest = max((each[0] for each in parts.values()), key=lambda part: part.rank)
    current = newest.under(changed)
    chosen = {
        task: next((part for part in each if part.under(changed) == current), each[0])
        for task, each in parts.items()
    }
    left = [part for task, each in parts.items() for part in each if part is not chosen[task]]
    earlier = {part.under(changed) for part in left} - {current}
    return {task: part for task, part in chosen.items() if part.under(changed) not in earlier}


def _apart(part: _Part, main: _Part | None) -> str:
    """What sets results apart from those of the row, which has none of a task left behind."""
    if main is None:
        return _DEFAULTS
    names = sorted(part.settings.keys() | main.settings.keys())
    differing = [name for name in names if part.settings.get(name) != main.settings.get(name)]
    said = dict.fromkeys(_RESPECTS.get(name, "other settings") for name in differing)
    if len(said) > 1:
        said.pop(_TEACHER, None)  # whose run changes with every other setting
    return ", ".join(said) or _AGAIN


def _row(tasks: Mapping[str, _Part], part: str = "") -> Row:
    first = next(iter(tasks.values())).results[0]
    models = (result.model for each in tasks.values() for result in each.results)
    # Older results say neither how their model was made nor what its weights are.
    model = max(models, key=lambda each: (each.weights is not None, each.distilled is not None))
    cells = {name: cell for each in tasks.values() for name, cell in _cells(each).items()}
    return Row(model, first.settings.row, cells, part)


def _cells(part: _Part) -> dict[str, Cell]:
    """A task's cell; MNLI and SQuAD give two."""
    ordered = tuple(sorted(part.results, key=lambda result: result.seed))
    task, asked = ordered[0].task, part.asked
    cells = {task: Cell(ordered, tuple(result.score for result in ordered), asked)}
    if task in SECOND_CELLS:
        name, split, measure = SECOND_CELLS[task]
        second = [result.scores.get(split, {}).get(measure) for result in ordered]
        cells[name] = Cell(ordered, tuple(second), asked)
    return cells


def _parts(folders: Sequence[_Part]) -> list[_Part]:
    """A task's results by their settings, the newest first.

    What only an added field or a teacher's seed tells apart goes together.
    """
    if len(folders) == 1:
        return [folders[0]]
    alike: dict[str, list[_Part]] = defaultdict(list)
    for folder in _completed(folders):
        alike[hash_of(folder.settings)].append(folder)
    joined = [_joined(group) for group in alike.values()]
    return [layer for part in sorted(joined, key=lambda each: each.rank, reverse=True)
            for layer in _layers(part)]  # fmt: skip


def _completed(folders: Sequence[_Part]) -> list[_Part]:
    """What an older result didn't name yet is what the next newer one says."""
    newest_first = sorted(folders, key=lambda folder: folder.rank, reverse=True)
    said = {
        name: next((each.settings[name] for each in newest_first if name in each.settings), None)
        for name in _ADDED_LATER
    }
    completed = []
    for folder in newest_first:
        said = {name: folder.settings.get(name, value) for name, value in said.items()}
        inputs = _without_seeds(folder.settings.get("inputs", {}))
        completed.append(replace(folder, settings={**folder.settings, **said, "inputs": inputs}))
    return completed


def _without_seeds(inputs: Mapping[str, Any]) -> dict[str, str]:
    """A teacher's seed may go with the student's."""
    return {name: re.sub(r"/seed-\d+$", "", str(key)) for name, key in inputs.items()}


def _joined(parts: Sequence[_Part]) -> _Part:
    results = tuple(result for part in parts for result in part.results)
    lost = frozenset[int]().union(*(part.lost for part in parts))
    return _Part(parts[0].settings, results, lost)


def _layers(part: _Part) -> list[_Part]:
    """The newest result of each seed, then those before them that say something else."""
    by_seed: dict[int, list[TaskResult]] = defaultdict(list)
    for result in sorted(part.results, key=lambda each: (each.finished, each.key), reverse=True):
        if all(result.scores != newer.scores for newer in by_seed[result.seed]):
            by_seed[result.seed].append(result)
    deepest = max(map(len, by_seed.values()))
    layers = [[each[depth] for each in by_seed.values() if depth < len(each)]
              for depth in range(deepest)]  # fmt: skip
    newest = replace(part, results=tuple(layers[0]))
    return [newest, *(_Part(part.settings, tuple(each), again=True) for each in layers[1:])]


def _labelled(rows: Sequence[Row]) -> list[Row]:
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
