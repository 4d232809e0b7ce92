"""Our rows of Tables 1 and 2: medians over seeds, their spread, and all that a reader must know."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import eq
from typing import Any

from eval_harness.intervals import RESAMPLES
from eval_harness.paper import corrected
from eval_harness.results import TaskResult
from eval_harness.retained import Retained
from eval_harness.rows import MISMATCHED, SECOND_CELLS, Cell, Row, plain
from eval_harness.settings import FINE_TUNING
from eval_harness.tasks import GLUE, TASKS

MEAN_OF = "Mean of k"
RETAINED = "Retained"

_TITLES = {**{task.name: task.title for task in TASKS}, MISMATCHED: "MNLI-mm"}

Value = str | float | None


@dataclass(frozen=True)
class Line:
    """A row to show, and what it retained of its teacher."""

    row: Row
    kept: Retained | None = None


def title_of(task: str) -> str:
    """A column's name; a task of one's own is called what its results call it."""
    return _TITLES.get(task, task)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The tasks of Table 1: the nine, MNLI's second part beside the first, then one's own."""
    known = {*(task.name for task in TASKS), *(cell for cell, *_ in SECOND_CELLS.values())}
    own = sorted({task for row in rows for task in row.cells} - known)
    at = GLUE.index("mnli") + 1
    return [*GLUE[:at], MISMATCHED, *GLUE[at:], *own]


def glue_row(line: Line, tasks: Sequence[str]) -> dict[str, Value]:
    """A row of Table 1 by column."""
    row, there = line.row, tasks_of_mean(line.row)
    medians = [row.cells[task].median or 0.0 for task in there]
    mean = percent(sum(medians) / len(medians)) if medians else None
    whole = len(there) == len(GLUE)
    return {
        "Model": row.label,
        "n": _count([row.cells[task] for task in tasks if task in row.cells]),
        "Score": mean if whole else None,
        **{title_of(task): cell_text(row, task) for task in tasks},
        MEAN_OF: None if whole or not there else f"{mean} of {len(there)}",
        RETAINED: _share(line.kept) if line.kept else None,
    }


def paper_row(paper: Mapping[str, Any], name: str, rows: Sequence[Row]) -> dict[str, Value]:
    """A published row of Table 1 by column, its mean over the tasks that all of ours have."""
    published, right = paper["table1"]["rows"][name], corrected(paper, "table1", name)
    common = common_tasks(rows)
    mean = sum(right[task] for task in common) / len(common) if common else None
    return {
        "Model": published_name(name),
        "Score": published["score"],
        **{title_of(task): published[task] for task in GLUE},
        MEAN_OF: None if mean is None else f"{mean:.1f} of {len(common)}",
    }


def published_name(name: str) -> str:
    """What a row of the paper's is called beside ours."""
    return f"{name} (paper)"


def tasks_of_mean(row: Row) -> tuple[str, ...]:
    """GLUE's tasks that a row has a score of: its mean is theirs."""
    return tuple(task for task in GLUE if task in row.cells and row.cells[task].median is not None)


def common_tasks(rows: Sequence[Row]) -> tuple[str, ...]:
    """The tasks of our means where all of them are over the same, and not over all nine."""
    tasks = {tasks_of_mean(row) for row in rows} - {()}
    return tasks.pop() if len(tasks) == 1 and tasks != {GLUE} else ()


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, without its sign."""
    return f"{round(100 * share, digits) + 0.0:.{digits}f}"  # + 0.0: no -0.0


def cell_text(row: Row, task: str, digits: int = 1, *, always_count: bool = False) -> str | None:
    """`59.9 (57.0 to 61.4; 4/5)`: median, spread, and how many seeds where some are missing."""
    cell = row.cells.get(task)
    if cell is None or cell.median is None:
        return None
    low, high = (percent(each(cell.counted), digits) for each in (min, max))
    said = [f"{low} to {high}"] if len(cell.counted) > 1 else []
    if always_count or len(cell.counted) < len(cell.asked):
        said.append(f"{len(cell.counted)}/{len(cell.asked)}")
    return percent(cell.median, digits) + (f" ({'; '.join(said)})" if said else "")


def _count(cells: Sequence[Cell]) -> str:
    """How many seeds the cells have: `5`, `1-5`, or `3/5` where the poorest lacks two of five."""
    counts = sorted({len(cell.counted) for cell in cells})
    poorest = min(cells, key=lambda cell: len(cell.counted) / len(cell.asked))
    if len(poorest.counted) < len(poorest.asked):
        return f"{len(poorest.counted)}/{len(poorest.asked)}"
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _share(kept: Retained) -> str:
    limits = f" [{kept.interval[0]:.1f} to {kept.interval[1]:.1f}]" if kept.interval else ""
    return f"{kept.share:.1f}{limits}"


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
    """Data from elsewhere than the Hub may be anything: its content's hash says what."""
    facts = [
        (each, str(each.cell.data)[:8])
        for each in shown
        if any(result.data.get("revision") is None for result in each.cell.results)
    ]
    if facts:
        yield f"Read from files, not from the Hub: {_merged(facts, shown)}."


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
    _from_files,
    _overlap,
    _degenerate,
    _other_marks,
    _undefined,
    _versions,
    _machines,
)


def mean_notes(rows: Sequence[Row]) -> list[str]:
    """Which tasks the means are of."""
    by_tasks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in rows:
        if (tasks := tasks_of_mean(row)) and tasks != GLUE:
            by_tasks[tasks].append(row.label)
    said = []
    if common := common_tasks(rows):
        said.append(
            f"Mean of k: over {', '.join(map(title_of, common))}; the paper's is computed here "
            f"from its numbers{', its misprint corrected' if 'mnli' in common else ''}."
        )
    elif by_tasks:
        each = (f"{', '.join(map(title_of, tasks))} ({'; '.join(labels)})"
                for tasks, labels in by_tasks.items())  # fmt: skip
        said.append(f"Mean of k: over {'; '.join(each)}.")
    if any(MISMATCHED in row.cells for row in rows):
        said.append("Score and Mean of k take MNLI's matched part.")
    return said


def retained_notes(lines: Sequence[Line]) -> list[str]:
    """Against whom, over which tasks, and how the interval came about."""
    against: dict[str, list[str]] = defaultdict(list)
    without = []
    for line in lines:
        if (kept := line.kept) is not None:
            tasks = ", ".join(map(title_of, kept.tasks))
            against[f"{_teacher(kept)} over {tasks}"].append(line.row.label)
            if kept.why_no_interval:
                without.append(f"No interval for {line.row.label}: {kept.why_no_interval}.")
    if not against:
        return []
    return [
        "Retained: mean of the medians over the common tasks as a percentage of the teacher's; "
        f"in brackets a 95 % interval from resampling the evaluation examples {RESAMPLES:,} "
        "times, the same ones for both; it doesn't speak of other seeds.",
        *(f"Retained, of {teacher}: {'; '.join(labels)}." for teacher, labels in against.items()),
        *without,
    ]


def _teacher(kept: Retained) -> str:
    """A teacher, and where nobody knows how much its seed matters."""
    single = kept.tasks_of_one_seed
    if not single:
        return kept.teacher.label
    where = "" if single == kept.tasks else f" on {', '.join(map(title_of, single))}"
    return f"{kept.teacher.label} (one seed{where})"
