"""Results as the rows of a table: nothing in a cell differs but the seed. Imports no torch."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby
from typing import Any

from angels_share.files import hash_of
from eval_harness.results import TaskResult
from eval_harness.runs import Model, Settings
from eval_harness.store import RUNS, Found, Invalid

MISMATCHED = "mnli-mm"
_MISMATCHED_SPLIT = "validation_mismatched"

_Lost = Mapping[tuple[str, str, int], set[int]]
"""Seeds whose results don't count, by their folder."""


@dataclass(frozen=True)
class Cell:
    """What the seeds of one task gave, in the order of the seeds; None: it is not defined there."""

    results: tuple[TaskResult, ...]
    scores: tuple[float | None, ...]

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

    `seeds` are all that it was asked for, as far as files tell; `part` says what sets it apart
    from another row of the same model and settings: other data, say.
    """

    model: Model
    settings: Mapping[str, Any]
    cells: Mapping[str, Cell]
    seeds: frozenset[int]
    part: str = ""
    label: str = field(default="", compare=False)

    @property
    def results(self) -> list[TaskResult]:
        """All that it is made of."""
        return [result for cell in self.cells.values() for result in cell.results]


def rows_of(found: Found) -> list[Row]:
    """The rows of what was found, each with a label that no other has, in the labels' order."""
    folders = [list(group) for _, group in groupby(found.results, key=_folder)]
    rows: dict[tuple[str, str], list[list[TaskResult]]] = defaultdict(list)
    row_hashes = _RowHashes()
    for results in folders:
        rows[results[0].model.key, row_hashes.of(results[0].settings)].append(results)
    lost = _lost(found.invalid, folders) if found.invalid else {}
    return _labelled([row for key in sorted(rows) for row in _rows(rows[key], lost)])


def _folder(result: TaskResult) -> tuple[str, str, int]:
    """Neighbours that share a folder share the object of their settings, too."""
    return result.model.key, result.task, id(result.settings)


class _RowHashes:
    """The hash of a row's settings, made once for neighbours that share them."""

    def __init__(self) -> None:
        self._last: tuple[Mapping[str, Any] | None, str] = None, ""

    def of(self, settings: Settings) -> str:
        if settings.row != self._last[0]:
            self._last = settings.row, settings.row_hash
        return self._last[1]


def _lost(
    invalid: Sequence[Invalid], folders: Sequence[list[TaskResult]]
) -> dict[tuple[str, str, int], set[int]]:
    """The seeds of results that don't count, by the folder where they should be."""
    known = {results[0].key.rpartition("/")[0]: _folder(results[0]) for results in folders}
    lost: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for each in invalid:
        folder, _, name = each.path.removeprefix(f"{RUNS}/").rpartition("/")
        seed = name.removeprefix("seed-").removesuffix(".json")
        if folder in known and seed.isdecimal():
            lost[known[folder]].add(int(seed))
    return lost


def _rows(folders: Sequence[list[TaskResult]], lost: _Lost) -> list[Row]:
    """One row, and one more for each task's results that differ in more than the seed.

    The row gets those of which there are most.
    """
    by_task: dict[str, list[list[TaskResult]]] = defaultdict(list)
    for folder in folders:
        by_task[folder[0].task].append(folder)
    ranked = {task: _alike(by_task[task]) for task in sorted(by_task)}
    rows = [_row([parts[0] for parts in ranked.values()], lost)]
    for main, *others in ranked.values():
        rows += [_row([other], lost, _difference(main[0], other[0])) for other in others]
    return rows


def _alike(folders: list[list[TaskResult]]) -> list[list[TaskResult]]:
    """A task's results by what differs but for the seed; the most first, of equals the lower hash.

    Folders of students whose teachers differ in nothing but the seed go together, unless one of
    the students' seeds would come twice.
    """
    if len(folders) == 1:
        return folders
    alike: dict[str, list[list[TaskResult]]] = defaultdict(list)
    for folder in folders:
        alike[hash_of(_without_seeds(folder[0].settings.task))].append(folder)
    parts: list[list[TaskResult]] = []
    for _, group in sorted(alike.items()):
        together = [result for folder in group for result in folder]
        once = len({result.seed for result in together}) == len(together)
        parts += [together] if once else group
    return sorted(parts, key=len, reverse=True)


def _row(tasks: Sequence[list[TaskResult]], lost: _Lost, part: str = "") -> Row:
    results = [result for task in tasks for result in task]
    seeds = {result.seed for result in results}
    seeds.update(*(result.provenance.get("seeds", ()) for result in results))
    seeds.update(*(lost.get(folder, ()) for folder in set(map(_folder, results))))
    cells = {name: cell for task in tasks for name, cell in _cells(task).items()}
    return Row(results[0].model, results[0].settings.row, cells, frozenset(seeds), part)


def _without_seeds(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task's settings, of a teacher's run all but its seed, which may go with the student's."""
    inputs = {name: str(key).rpartition("/")[0] for name, key in task.get("inputs", {}).items()}
    return {**task, "inputs": inputs}


def _difference(main: TaskResult, other: TaskResult) -> str:
    """What to call results that are not those of the row: by whatever differs."""
    for stripped in (_without_seeds, dict):
        ours, theirs = (_flat(stripped(each.settings.task)) for each in (main, other))
        names = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        if names:
            break
    return ", ".join(f"{name.rpartition('.')[2]} {plain(theirs.get(name))}" for name in names)


def _cells(results: Sequence[TaskResult]) -> dict[str, Cell]:
    """A task's cell; MNLI gives two."""
    ordered = tuple(sorted(results, key=lambda result: result.seed))
    task = ordered[0].task
    cells = {task: Cell(ordered, tuple(result.score for result in ordered))}
    if task == "mnli":
        second = [result.scores.get(_MISMATCHED_SPLIT, {}).get("score") for result in ordered]
        cells[MISMATCHED] = Cell(ordered, tuple(second))
    return cells


def _labelled(rows: list[Row]) -> list[Row]:
    """Gives each row a name that says what it is, and no more than tells it from the others."""
    digests: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        digests[row.model.name].add(row.model.key)
    alike: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        alike[_label(row, several=len(digests[row.model.name]) > 1)].append(row)
    labelled = [
        _with_label(row, ", ".join(filter(None, (label, extra))))
        for label, group in alike.items()
        for row, extra in zip(group, _telling_apart(group), strict=True)
    ]
    return sorted(labelled, key=lambda row: (row.model.name, row.model.key, row.label))


def _with_label(row: Row, label: str) -> Row:
    return Row(row.model, row.settings, row.cells, row.seeds, row.part, label)


def _label(row: Row, *, several: bool) -> str:
    """The model and what the user set: `bert (D), learning_rate 1e-4, limit 100`."""
    settings, method = row.settings, row.settings.get("method")
    name = f"{row.model.name} {row.model.digest}" if several else row.model.name
    if method:
        name += " (D)" if method["name"] == "distil" else f" ({method['name']})"
    said = [f"{key} {plain(value)}" for key, value in sorted(settings.get("overrides", {}).items())]
    if settings.get("limit") is not None:
        said.append(f"limit {settings['limit']}")
    if settings.get("choose", "last") != "last":
        said.append(f"{settings['choose']} epoch")
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


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{above}{name}."))
        else:
            flat[f"{above}{name}"] = value
    return flat


def plain(value: Any) -> str:
    """A setting as people write it: 1e-4, not 0.0001."""
    if isinstance(value, float) and value != 0 and abs(value) < 1e-3:
        return f"{Decimal(repr(value)).normalize():e}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
