"""What must be known of our rows' cells, each said once under a table."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import eq

from eval_harness.results.record import TaskResult
from eval_harness.runs.settings import FINE_TUNING
from eval_harness.tables.cells import title_of
from eval_harness.tables.row import Cell, Row
from eval_harness.tables.row_labels import plain
from eval_harness.tasks.registry import MISMATCHED, TASKS


@dataclass(frozen=True)
class _Shown:
    """A cell of the table and where it stands."""

    row: Row
    task: str
    cell: Cell

    def values(self) -> dict[str, str]:
        """The hyper-parameters that the row's label doesn't name."""
        values = self.cell.results[0].settings.task.get("values", {})
        return {name: plain(each) for name, each in values.items() if name not in self.row.told}


_Fact = tuple[_Shown, str]


def notes(rows: Sequence[Row], tasks: Sequence[str]) -> list[str]:
    """What must be known of these rows' cells in these columns, each said once."""
    shown = [
        _Shown(row, task, row.cells[task])
        for task in tasks
        if task != MISMATCHED
        for row in rows
        if task in row.cells
    ]
    return [note for make in _NOTES for note in make(shown)]


def _merged(facts: Iterable[_Fact], shown: Sequence[_Shown]) -> str:
    """`CoLA 16, STS-B 6`; where a fact isn't of all rows with that task, it says of which."""
    said: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each, text in facts:
        said[each.task, text].append(each.row.label)
    parts = []
    for (task, text), labels in said.items():
        everyone = [each.row.label for each in shown if each.task == task]
        whose = "" if labels == everyone else f" ({'; '.join(labels)})"
        parts.append(f"{title_of(task)} {text}{whose}")
    return ", ".join(parts)


_SAID_ALWAYS = {
    "learning_rate": "learning rate",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch",
    "max_seq_length": "length",
}
_DEFAULTS = {
    name: plain(value)
    for values in (*(task.fine_tuning for task in TASKS), FINE_TUNING)
    for name, value in values.items()
}
"""Ours by setting; of one that only some tasks have (the windows of SQuAD), theirs."""


def _hyper_parameters(shown: Sequence[_Shown]) -> Iterable[str]:
    """Whose they are and the four that matter; of the others what isn't our default."""
    cells = [(each, each.values()) for each in shown]
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for each, values in cells:
        for name, value in values.items():
            counted[name][value] += 1 if each.row.part else len(cells)  # of rows of today first
    common = {name: each.most_common(1)[0][0] for name, each in counted.items()}
    if not common:
        return
    order = [*_SAID_ALWAYS, *sorted(common.keys() - _SAID_ALWAYS.keys())]
    said = [_named(name, common[name]) for name in order if _is_said(name, common)]
    yield (
        f"Hyper-parameters (ours: the paper's were never published): {', '.join(said)}; "
        "the rest: `python -m eval_harness tasks`."
    )
    other: dict[str, list[_Shown]] = defaultdict(list)
    for each, values in cells:
        if said := [_named(*own) for own in values.items() if own[1] != common[own[0]]]:
            other[", ".join(said)].append(each)
    for text, differing in other.items():
        yield f"Other hyper-parameters: {_where(differing, shown)}: {text}."


def _is_said(name: str, common: Mapping[str, str]) -> bool:
    if name in _SAID_ALWAYS:
        return name in common
    return common[name] != _DEFAULTS.get(name)


def _named(name: str, value: str) -> str:
    return f"{_SAID_ALWAYS.get(name, name)} {value}"


def _where(cells: Sequence[_Shown], shown: Sequence[_Shown]) -> str:
    """Whole columns, whole rows, or the tasks of each row."""
    tasks = dict.fromkeys(each.task for each in cells)
    if len(cells) == sum(each.task in tasks for each in shown):
        return ", ".join(map(title_of, tasks))
    by_row: dict[str, list[str]] = defaultdict(list)
    for each in cells:
        by_row[each.row.label].append(title_of(each.task))
    if len(cells) == sum(each.row.label in by_row for each in shown):
        return "; ".join(by_row)
    return "; ".join(f"{label} ({', '.join(titles)})" for label, titles in by_row.items())


def _from_files(shown: Sequence[_Shown]) -> Iterable[str]:
    """Data from elsewhere than the Hub may be anything: its content's hash says what.

    GLUE's own files are as good as the Hub's, unless they say that they stand in for them; of
    others nobody knows what they stand in for.
    """
    own, others = list[_Fact](), list[_Fact]()
    named: dict[str, list[_Fact]] = defaultdict(list)
    for each in shown:
        sources = _sources(each)
        if not sources:
            continue
        content = str(each.cell.data)[:8]
        if name := _data_name(each):
            named[name].append((each, content))
        elif sources <= _copies(each.task):
            own.append((each, content))
        else:
            others.append((each, f"{content} from {' and '.join(sorted(sources))}"))
    for name, facts in named.items():
        yield f"Stand-in data: {name}: {_merged(facts, shown)}."
    if own:
        yield f"Read from files, not from the Hub: {_merged(own, shown)}."
    if others:
        yield (
            "Perhaps stand-in data: read from files that are laid out neither as the Hub's nor as "
            "GLUE's own: "
            f"{_merged(others, shown)}."
        )


_BY_NAME = {task.name: task for task in TASKS}


def _copies(name: str) -> set[str | None]:
    """Where a copy of GLUE's own files, or of the Hub's, lies; and a task of one's own."""
    if (task := _BY_NAME.get(name)) is None:
        return {f"files of {name}"}
    return {task.glue.folder if task.glue else None, name, f"glue/{name}", f"{name}/{task.config}"}


def _data_name(shown: _Shown) -> str:
    """What a cell's data say that they are."""
    names = (result.data.get("name") for result in shown.cell.results)
    return " and ".join(sorted({name for name in names if name}))


def _sources(shown: _Shown) -> set[str]:
    """What a cell's data were read from, where that wasn't the Hub."""
    data = [result.data for result in shown.cell.results]
    return {str(each.get("source")) for each in data if each.get("revision") is None}


def _names_of_several(shown: Sequence[_Shown]) -> Iterable[str]:
    """A model that was trained again in its folder keeps its name: which row is of today's."""
    newest: dict[str, dict[str, str]] = defaultdict(dict)
    for each in shown:
        model, finished = each.row.model, max(one.finished for one in each.cell.results)
        seen = newest[model.name]
        seen[model.digest] = max(finished, seen.get(model.digest, ""))
    for name, models in newest.items():
        if len(models) > 1:
            latest = max(models, key=lambda digest: models[digest])
            yield f"{len(models)} models are called {name}; the newest results are of {latest}."


def _overlap(shown: Sequence[_Shown]) -> Iterable[str]:
    """What a model may have seen before it is asked."""
    facts: dict[str, list[_Fact]] = defaultdict(list)
    for each in shown:
        if (overlap := each.cell.results[0].data.get("overlap", 0)) > 0:
            facts["test" if each.task == "imdb" else "dev"].append((each, str(overlap)))
    for split, those in facts.items():
        yield f"Examples of {split} that are in train too: {_merged(those, shown)}."


def _degenerate(shown: Sequence[_Shown]) -> Iterable[str]:
    """Runs that learned nothing count, and are named."""
    facts = list(_marked(shown, lambda mark: mark.startswith("degenerate")))
    if facts:
        yield f"Degenerate (one answer to everything), and counted: {_merged(facts, shown)}."


def _other_marks(shown: Sequence[_Shown]) -> Iterable[str]:
    """What else runs were marked with; that the best epoch was chosen stands in the label."""
    marks = {mark for each in shown for result in each.cell.results for mark in result.marks}
    for mark in sorted(marks):
        if not mark.startswith("degenerate") and not mark.endswith("the best on dev"):
            facts = _marked(shown, partial(eq, mark))
            yield f"Marked '{mark}', and counted: {_merged(facts, shown)}."


def _marked(shown: Sequence[_Shown], wanted: Callable[[str], bool]) -> Iterable[_Fact]:
    for each in shown:
        seeds = [result.seed for result in each.cell.results if any(map(wanted, result.marks))]
        if seeds:
            yield each, _seeds(seeds)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {' and '.join(map(str, seeds))}"


def _undefined(shown: Sequence[_Shown]) -> Iterable[str]:
    facts = []
    for each in shown:
        pairs = zip(each.cell.results, each.cell.scores, strict=True)
        if seeds := [result.seed for result, score in pairs if score is None]:
            facts.append((each, _seeds(seeds)))
    if facts:
        yield (
            "Not counted, since the score is not defined (constant predictions): "
            f"{_merged(facts, shown)}."
        )


def _versions(shown: Sequence[_Shown]) -> Iterable[str]:
    """Code or libraries that differ within a row; a commit alone is no other version."""
    rows: dict[str, list[TaskResult]] = defaultdict(list)
    for each in shown:
        rows[each.row.label] += each.cell.results
    said: dict[str, list[str]] = defaultdict(list)
    for label, results in rows.items():
        made = [result.provenance for result in results]
        if len(codes := sorted({str(each.get("version")) for each in made})) > 1:
            said[f"Made by several versions of the code: {', '.join(codes)}"].append(label)
        libraries = [each.get("libraries", {}) for each in made]
        for name in sorted(set().union(*libraries)):
            if len(found := sorted({str(each.get(name)) for each in libraries})) > 1:
                said[f"Made with several versions of {name}: {', '.join(found)}"].append(label)
    for text, labels in said.items():
        yield f"{text}." if len(labels) == len(rows) else f"{text}. Rows: {'; '.join(labels)}."


def _machines(shown: Sequence[_Shown]) -> Iterable[str]:
    """Equal seeds give equal numbers on one device with one number of threads."""
    facts = []
    for each in shown:
        made = [result.provenance for result in each.cell.results]
        machines = {f"{one.get('device')} x {one.get('threads')}" for one in made}
        if len(machines) > 1:
            facts.append((each, f"on {' and '.join(sorted(machines))}"))
    if facts:
        yield f"Seeds of one cell ran on several devices or threads: {_merged(facts, shown)}."


_NOTES: tuple[Callable[[Sequence[_Shown]], Iterable[str]], ...] = (
    _hyper_parameters,
    _names_of_several,
    _from_files,
    _overlap,
    _degenerate,
    _other_marks,
    _undefined,
    _versions,
    _machines,
)
