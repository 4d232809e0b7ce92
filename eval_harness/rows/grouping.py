"""Results grouped into the rows of a table: within a cell only the seed differs. Imports no torch.

A row is a model under settings, or the students of one training, each of another seed, under the
same settings: the student of pre-training seed i that was fine-tuned with seed i is one more seed.
What belongs to its tasks may have changed in the meantime: their
data, our defaults, how a task is read and scored. Results from before and after such a change are
never mixed: the newest form the row, older ones form further rows, each over all tasks.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from angels_share.files import hash_of
from eval_harness.results.record import TaskResult
from eval_harness.results.store import RUNS, Found, Invalid
from eval_harness.rows.labels import add_labels
from eval_harness.rows.row import Cell, Row
from eval_harness.runs.run import Model
from eval_harness.tasks.perplexity import is_of_perplexity
from eval_harness.tasks.registry import TASKS

_SECOND = {task.name: task.second for task in TASKS if task.second}

_ADDED_LATER = ("labels", "measures", "columns")
"""Settings of a task that the first results do not have."""

_VERSION = "earlier version of the task"
_DEFAULTS = "earlier defaults"
_TEACHER = "another run of the teacher"
_EARLIER_RUN = "an earlier run"
_VARIANTS = {
    "data": "other data",
    "values": _DEFAULTS,
    **dict.fromkeys(("version", *_ADDED_LATER), _VERSION),
    "inputs": _TEACHER,
}
"""How a row is labelled by the setting in which it differs from the newest."""


@dataclass(frozen=True)
class _Group:
    """One task's results under equal settings, one per seed."""

    settings: Mapping[str, Any]
    results: tuple[TaskResult, ...]
    invalid_seeds: frozenset[int] = frozenset()
    is_superseded: bool = False
    """Whether newer runs of the same seeds replaced these: then no seed is missing."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The hyper-parameters."""
        values: Mapping[str, Any] = self.settings.get("values", {})
        return values

    def generation(self, changed: Set[str]) -> str:
        """Return which generation of our defaults these are: the values of those that changed."""
        return json.dumps({name: self.values.get(name) for name in sorted(changed)})

    @property
    def rank(self) -> tuple[str, int, str]:
        """A sort key: the newest is the greatest; among equally old ones, that with most seeds."""
        newest = max(result.finished for result in self.results)
        return newest, len(self.results), hash_of(self.settings)

    @property
    def expected_seeds(self) -> frozenset[int]:
        """The seeds of the newest sweep, of these results, and of files that don't count."""
        present = {result.seed for result in self.results}
        if self.is_superseded:
            return frozenset(present)
        of_sweeps = [result for result in self.results if "seeds" in result.provenance]
        newest = max(of_sweeps, key=lambda result: result.finished, default=None)
        swept = newest.provenance["seeds"] if newest else ()
        return frozenset(present.union(self.invalid_seeds, swept))


_Groups = Mapping[str, Sequence[_Group]]
"""Each task's groups, the newest first."""


def rows_of(found: Found, *, pooled: bool = True) -> list[Row]:
    """Return the rows of a results folder, each with a label of its own, sorted by label.

    Args:
        found: the results.
        pooled: whether students of one training are one row, as long as no task has two results of
            one seed.
    """
    folders: dict[str, list[TaskResult]] = defaultdict(list)
    for key, result in found.by_key.items():
        folders[key.rpartition("/")[0]].append(result)
    invalid = _invalid_seeds(found.invalid)
    owners = _owners(list(found.by_key.values())) if pooled else {}
    rows: dict[tuple[str, str], dict[str, list[_Group]]] = defaultdict(lambda: defaultdict(list))
    for name, results in folders.items():
        first = results[0]
        seeds = frozenset(invalid.get(name, ()))
        group = _Group(first.settings.task, tuple(results), seeds)
        owner = owners.get((first.model.key, first.settings.row_hash), first.model.key)
        rows[owner, first.settings.row_hash][first.task].append(group)
    return add_labels([row for key in sorted(rows) for row in _rows(rows[key])])


def _trainings(results: Iterable[TaskResult]) -> dict[str, Mapping[str, Any]]:
    """Return the training of each model, by its key; older results don't record theirs."""
    pairs = ((result.model.key, result.provenance.get("training")) for result in results)
    return {key: training for key, training in pairs if training}


def _owners(results: Sequence[TaskResult]) -> dict[tuple[str, str], str]:
    """Return what owns the row of a model under settings, where it is a training of several seeds.

    Keys are a model's and that of the row's settings.
    """
    trainings = _trainings(results)
    trained: dict[tuple[str, str], list[TaskResult]] = defaultdict(list)
    for result in results:
        if training := trainings.get(result.model.key):
            trained[training["group"], result.settings.row_hash].append(result)
    owners = {}
    for (group, settings), of_training in trained.items():
        keys = {each.model.key for each in of_training}
        seeds = {trainings[key]["seed"] for key in keys}
        runs = {(each.model.key, each.task, each.seed) for each in of_training}
        taken = Counter(run[1:] for run in runs)
        # A copy of a student is no further seed, and fine-tuning seeds of each are rows of each.
        if len(seeds) == len(keys) > 1 and max(taken.values()) == 1:
            owners.update(dict.fromkeys(((key, settings) for key in keys), group))
    return owners


def _invalid_seeds(invalid: Sequence[Invalid]) -> dict[str, set[int]]:
    """Return the seeds of result files that don't count, by folder."""
    seeds: dict[str, set[int]] = defaultdict(set)
    for file in invalid:
        folder, _, name = file.path.removeprefix(f"{RUNS}/").rpartition("/")
        seed = name.removeprefix("seed-").removesuffix(".json")
        if seed.isdecimal():
            seeds[folder].add(int(seed))
    return seeds


def _rows(folders: Mapping[str, list[_Group]]) -> list[Row]:
    """Return the row of the newest results, then one for each way in which older ones differ."""
    groups = {task: _groups(folders[task]) for task in sorted(folders)}
    changed = _changed_defaults(groups)
    main = _newest(groups, changed)
    older: dict[tuple[str, str, int], dict[str, _Group]] = defaultdict(dict)
    for task, of_task in groups.items():
        for group in of_task:
            if group is not main.get(task):
                key = _variant(group, main.get(task)), group.generation(changed)
                # A row has one group per task: a second one that differs alike starts a new row.
                index = next(n for n in count() if task not in older.get((*key, n), ()))
                older[*key, index][task] = group
    return [_row(main), *(_row(tasks, variant) for (variant, *_), tasks in older.items())]


def _changed_defaults(groups: _Groups) -> set[str]:
    """Return the hyper-parameters in which the results of some task differ."""
    return {
        name
        for newest, *others in groups.values()
        for group in others
        for name in newest.values.keys() | group.values.keys()
        if newest.values.get(name) != group.values.get(name)
    }


def _newest(groups: _Groups, changed: Set[str]) -> dict[str, _Group]:
    """Return the newest group of each task, all of one generation of our defaults.

    Data and versions belong to a single task, but defaults change for many tasks at once: a task
    that was evaluated only before the change is not shown beside those evaluated after it.
    """
    if not changed:
        return {task: of_task[0] for task, of_task in groups.items()}
    newest = max((of_task[0] for of_task in groups.values()), key=lambda group: group.rank)
    current = newest.generation(changed)
    chosen = {
        task: next((group for group in of_task if group.generation(changed) == current), of_task[0])
        for task, of_task in groups.items()
    }
    rest = [
        group for task, of_task in groups.items() for group in of_task if group is not chosen[task]
    ]
    # A task with defaults of its own is in no earlier generation: it stays.
    earlier = {group.generation(changed) for group in rest} - {current}
    return {
        task: group for task, group in chosen.items() if group.generation(changed) not in earlier
    }


def _variant(group: _Group, main: _Group | None) -> str:
    """Return how results differ from the main row's, which may lack a task of older defaults."""
    if main is None:
        return _DEFAULTS
    names = sorted(group.settings.keys() | main.settings.keys())
    differing = [name for name in names if group.settings.get(name) != main.settings.get(name)]
    variants = dict.fromkeys(_VARIANTS.get(name, "other settings") for name in differing)
    if len(variants) > 1:
        variants.pop(_TEACHER, None)  # the teacher's run changes with every other setting
    return ", ".join(variants) or _EARLIER_RUN


def _row(tasks: Mapping[str, _Group], variant: str = "") -> Row:
    first = next(iter(tasks.values())).results[0]
    models = (result.model for group in tasks.values() for result in group.results)
    # Older results record neither how their model was distilled nor the hash of its weights.
    model = max(models, key=lambda one: (one.weights is not None, one.distilled is not None))
    cells = {name: cell for group in tasks.values() for name, cell in _cells(group).items()}
    apart = {name: cell for name, cell in cells.items() if _is_of_perplexity(cell)}
    rest = {name: cell for name, cell in cells.items() if name not in apart}
    return Row(_pooled(model, tasks), first.settings.row, rest, variant, perplexities=apart)


def name_of_students(name: str, count: int) -> str:
    """Return what a row of several students of one training is called."""
    return f"{name} ({count} students)"


def _pooled(model: Model, tasks: Mapping[str, _Group]) -> Model:
    """Return the model as it is, or of several students of one training the first, so named."""
    results = [result for group in tasks.values() for result in group.results]
    found = {result.model.key: result.model for result in results}
    if len(found) == 1:
        return model
    seeds = {key: training["seed"] for key, training in _trainings(results).items()}
    first = min(seeds, key=lambda key: seeds[key])
    model = found[first]
    name = model.name.removesuffix(f"-{seeds[first]}")
    return replace(model, name=name_of_students(name, len(found)))


def _is_of_perplexity(cell: Cell) -> bool:
    return any(map(is_of_perplexity, cell.results[0].scores.values()))


def _cells(group: _Group) -> dict[str, Cell]:
    """Return the cells of a task: MNLI and SQuAD have two."""
    ordered = tuple(sorted(group.results, key=lambda result: result.seed))
    task, expected = ordered[0].task, group.expected_seeds
    cells = {task: Cell(ordered, tuple(result.score for result in ordered), expected)}
    if column := _SECOND.get(task):
        metrics = (result.scores.get(column.split, {}) for result in ordered)
        second = tuple(of_split.get(column.measure) for of_split in metrics)
        cells[column.cell] = Cell(ordered, second, expected)
    return cells


def _groups(folders: Sequence[_Group]) -> list[_Group]:
    """Return a task's results by their settings, the newest first.

    Results that differ only in a setting added later or in the teacher's seed are one group.
    """
    if len(folders) == 1:
        return [folders[0]]
    equal: dict[str, list[_Group]] = defaultdict(list)
    for folder in _completed(folders):
        equal[hash_of(folder.settings)].append(folder)
    merged = [_merged(groups) for groups in equal.values()]
    merged.sort(key=lambda group: group.rank, reverse=True)
    return [layer for group in merged for layer in _layers(group)]


def _completed(folders: Sequence[_Group]) -> list[_Group]:
    """Return the groups, the newest first, with settings added later taken from newer ones."""
    newest_first = sorted(folders, key=lambda folder: folder.rank, reverse=True)
    known = {
        name: next((one.settings[name] for one in newest_first if name in one.settings), None)
        for name in _ADDED_LATER
    }
    completed = []
    for folder in newest_first:
        known = {name: folder.settings.get(name, value) for name, value in known.items()}
        inputs = _without_seeds(folder.settings.get("inputs", {}))
        completed.append(replace(folder, settings={**folder.settings, **known, "inputs": inputs}))
    return completed


def _without_seeds(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of a teacher's runs without their seeds, which may follow the student's."""
    return {name: re.sub(r"/seed-\d+$", "", str(key)) for name, key in inputs.items()}


def _merged(groups: Sequence[_Group]) -> _Group:
    results = tuple(result for group in groups for result in group.results)
    invalid = frozenset[int]().union(*(group.invalid_seeds for group in groups))
    return _Group(groups[0].settings, results, invalid)


def _layers(group: _Group) -> list[_Group]:
    """Return the newest result per seed, then layer by layer earlier ones with other scores."""
    by_seed: dict[int, list[TaskResult]] = defaultdict(list)
    newest_first = sorted(group.results, key=lambda one: (one.finished, one.key), reverse=True)
    for result in newest_first:
        if all(result.scores != newer.scores for newer in by_seed[result.seed]):
            by_seed[result.seed].append(result)
    layers = [
        tuple(results[depth] for results in by_seed.values() if depth < len(results))
        for depth in range(max(map(len, by_seed.values())))
    ]
    newest = replace(group, results=layers[0])
    return [newest, *(_Group(group.settings, layer, is_superseded=True) for layer in layers[1:])]
