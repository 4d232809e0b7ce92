"""Results as the rows of a table: nothing in a cell differs but the seed. Imports no torch.

A row is a model under settings. What belongs to its tasks may have changed meanwhile: their data,
our defaults, how a task is read and scored. Results of before and after are never mixed: the newest
are the row, and the older ones are further rows, each over all tasks.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from angels_share.files import hash_of
from eval_harness.results.record import TaskResult
from eval_harness.results.store import RUNS, Found, Invalid
from eval_harness.tables.row import Cell, Row
from eval_harness.tables.row_labels import labelled
from eval_harness.tasks.registry import TASKS

_SECOND = {task.name: task.second for task in TASKS if task.second}

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
    return labelled([row for key in sorted(rows) for row in _rows(rows[key])])


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
    if column := _SECOND.get(task):
        scores = (result.scores.get(column.split, {}) for result in ordered)
        second = tuple(each.get(column.measure) for each in scores)
        cells[column.cell] = Cell(ordered, second, asked)
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
