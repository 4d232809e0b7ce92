"""Models side by side: medians, differences, and which of these can be told from chance. No torch.

The first model is the one that the others are compared with. "Retained" in Table 1 is the special
case of a student and its teacher.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from angels_share.errors import UserError
from angels_share.files import hash_of
from angels_share.names import nearest, short_name_of
from eval_harness.intervals.bootstrap import Interval
from eval_harness.intervals.differences import (
    Difference,
    Scores,
    difference,
    holm,
    mean_difference,
)
from eval_harness.results.store import InvalidResult
from eval_harness.rows.grouping import name_of_students
from eval_harness.rows.labels import footnotes_of, one_line
from eval_harness.rows.row import Row
from eval_harness.runs.models import folder_name
from eval_harness.tables.cells import mean_cell, score_cell, tasks_with_results, titles_of
from eval_harness.tables.comparison import (
    cached_interval,
    common_tasks,
    keep_task_scores,
    sum_of_medians,
    task_scores,
    why_not_comparable,
)
from eval_harness.tables.formats import to_markdown
from eval_harness.tables.notes import cell_notes
from eval_harness.tables.table import STAND_IN, Number, Table, Value
from eval_harness.tables.table0 import LEVEL, TOLD, details_of, difference_text

if TYPE_CHECKING:
    import pandas as pd

MEAN = "mean"
"""The key of the mean over all tasks, among the tasks."""
RESAMPLES = 4000
"""So many that chance in the drawing moves an interval by about a hundredth."""


@dataclass(frozen=True)
class Entry:
    """A row and the results folder that it is from; the label is unique among those compared.

    It is the row's short name, as tables print it.
    """

    label: str
    row: Row
    root: Path


@dataclass(frozen=True)
class Retained:
    """A model's share of the first one's mean over their GLUE tasks, in percent, as in Table 1."""

    label: str
    percent: float
    interval: Interval
    tasks: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Models side by side on the tasks that all of them have scores for.

    Attributes:
        entries: the models; the others are compared with the first.
        tasks: the tasks.
        scores: every model's score by seed, in percent, by task, then by label.
        without_interval: tasks whose predictions can't be resampled, and why.
        left_out: tasks that some model has and that can't be compared, and why.
    """

    entries: tuple[Entry, ...]
    tasks: tuple[str, ...]
    scores: Mapping[str, Mapping[str, Scores]]
    without_interval: Mapping[str, str]
    left_out: Mapping[str, str]

    @cached_property
    def titles(self) -> Mapping[str, str]:
        """The titles of all tasks that some of the models have."""
        return titles_of(entry.row for entry in self.entries)

    @property
    def reference(self) -> Entry:
        """The model that the others are compared with."""
        return self.entries[0]

    @cached_property
    def differences(self) -> Mapping[tuple[str, str], Difference]:
        """How much higher each other model scores than the first, by task or `MEAN`, and label."""
        found: dict[tuple[str, str], Difference | None] = {}
        for entry in self.entries[1:]:
            pairs = {
                task: (scores[entry.label], scores[self.reference.label])
                for task, scores in self.scores.items()
            }
            for task, pair in pairs.items():
                found[task, entry.label] = difference(*pair)
            if self.has_mean:
                found[MEAN, entry.label] = mean_difference(list(pairs.values()))
        return {key: change for key, change in found.items() if change is not None}

    @property
    def has_mean(self) -> bool:
        """Whether there are several tasks, and each can be resampled."""
        return len(self.tasks) > 1 and not self.without_interval

    @cached_property
    def adjusted(self) -> Mapping[tuple[str, str], float]:
        """The p-values of the differences that have one, adjusted for their number.

        The means are what is asked for first: they are adjusted among themselves, and the tasks
        among themselves, so that the number of tasks doesn't hide a difference of the means.
        """
        adjusted: dict[tuple[str, str], float] = {}
        for of_mean in (True, False):
            known = {
                key: each.p
                for key, each in self.differences.items()
                if each.p is not None and (key[0] == MEAN) == of_mean
            }
            adjusted.update(zip(known, holm(list(known.values())), strict=True))
        return adjusted

    def to_pandas(self) -> "pd.DataFrame":
        """Return a data frame with a line per task and model that is compared with the first.

        Columns: `task` (`mean`: over all of them), `model`, `median` and `median_of_first` in
        percent, `difference` of the means over seeds in points, `low` and `high` of its 95 %
        interval, `p`, `p_holm`, `significant`, and `why` there is no interval.
        """
        import pandas as pd  # here: the command needs none of it

        tasks = (*self.tasks, *([MEAN] if len(self.tasks) > 1 else []))
        return pd.DataFrame(
            [self._line(task, entry) for task in tasks for entry in self.entries[1:]]
        )

    def _line(self, task: str, entry: Entry) -> dict[str, Any]:
        change = self.differences.get((task, entry.label))
        half = None if change is None else change.half
        of = self.tasks if task == MEAN else (task,)
        return {
            "task": task,
            "model": entry.label,
            "median": 100 * sum_of_medians(entry.row, of) / len(of),
            "median_of_first": 100 * sum_of_medians(self.reference.row, of) / len(of),
            "difference": change.value if change else None,
            "low": change.value - half if change and half is not None else None,
            "high": change.value + half if change and half is not None else None,
            "p": change.p if change else None,
            "p_holm": self.adjusted.get((task, entry.label)),
            "significant": self.is_told(task, entry.label),
            "why": change.why if change else self.without_interval.get(task, ""),
        }

    def __repr__(self) -> str:
        """Return the comparison as a Markdown table with its notes."""
        return to_markdown(comparison_table(self))

    def _repr_markdown_(self) -> str:
        """Return the comparison as a notebook shows it."""
        return repr(self)

    def is_told(self, task: str, label: str) -> bool:
        """Return whether a difference can be told from chance, all of them considered."""
        return self.adjusted.get((task, label), 1.0) < LEVEL

    @cached_property
    def retained(self) -> tuple[Retained, ...]:
        """Every other model's share of the first one's mean, where both have tasks of GLUE."""
        return tuple(
            found for entry in self.entries[1:] if (found := self._retained(entry)) is not None
        )

    def _retained(self, entry: Entry) -> Retained | None:
        tasks = tuple(
            task for task in common_tasks(entry.row, self.reference.row) if task in self.tasks
        )
        base = sum_of_medians(self.reference.row, tasks)
        if base <= 0:
            return None
        interval = Interval(None, "results of two folders")
        if entry.root == self.reference.root:
            interval = cached_interval("shares", entry.row, self.reference.row, tasks, entry.root)
        percent = 100 * (sum_of_medians(entry.row, tasks) / base)
        return Retained(entry.label, percent, interval, tasks)


def entry_named(name: str, rows: Sequence[Row], root: Path, tasks: Sequence[str] = ()) -> Entry:
    """Return the row that a name means: a row's label, else the only row of a model.

    Args:
        name: a label as tables print it, a model's name, short name, Hub id or folder; of
            several students of one training, also what their names have in common.
        rows: all rows of the results folder.
        root: the results folder.
        tasks: tasks that the row must have, where several rows are of the model.

    Raises:
        UserError: no row is meant, or several; the error lists them.
    """
    for row in rows:
        if name in (row.label, row.short):
            return Entry(row.short, row, root)
    found = [row for row in rows if _is_meant(name, row)]
    place = str(Path(name).expanduser().resolve())
    # Folders of one name, such as those of saved models, are told apart by their place.
    found = [row for row in found if any(each.source == place for each in row.models)] or found
    if len(found) > 1:
        found = [row for row in found if row.cells.keys() >= set(tasks)] or found
    current = [row for row in found if not row.variant]
    if len(current) == 1:
        return Entry(current[0].short, current[0], root)
    if found:
        names = [f'"{row.short}"' for row in found]
        notes = [f"({note})" for note in footnotes_of(found)]
        said = " ".join([", ".join(names), *notes])
        raise UserError(f"{name!r} has {len(found)} rows of results: name one of {said}")
    known = [row.short for row in rows]
    quoted = ", ".join(f'"{each}"' for each in known)
    listed = f"known: {quoted}" if known else f"{root} holds no results"
    raise UserError(f"no results of {name!r} in {root}{nearest(name, known)} ({listed})")


def _is_meant(name: str, row: Row) -> bool:
    short, folder = short_name_of(name), Path(name).expanduser().resolve()
    return row.model.name == name_of_students(name, len(row.models)) or any(
        name in (model.name, model.key, model.source)
        or str(folder) == model.source
        or (folder.is_dir() and folder_name(folder) == model.name)
        or (short is not None and short is short_name_of(model.name))
        for model in (row.model, *row.models)
    )


def compare_rows(entries: Sequence[Entry], tasks: Sequence[str] | None = None) -> Comparison:
    """Compare models on the tasks that all of them have scores for.

    Args:
        entries: two models or more.
        tasks: names of the tasks to compare them on [all].

    Raises:
        UserError: fewer than two models, one of them twice, or no task that can be compared.
    """
    if len(entries) < 2:
        raise UserError("compare needs two models or more")
    for number, entry in enumerate(entries):
        if any(entry.row == other.row and entry.root == other.root for other in entries[:number]):
            raise UserError(
                f"{entry.label} is named twice: name two models or more"
                + (" (students of one training are one row)" if len(entry.row.models) > 1 else "")
            )
    reference, *others = _with_unique_labels(entries)
    _refuse_perplexities(entries, tasks)
    candidates = tasks_with_results([entry.row for entry in entries])
    for name in tasks or ():
        if name not in candidates:
            known = ", ".join(candidates)
            raise UserError(f"no results on {name!r}{nearest(name, candidates)} (known: {known})")
    comparable: list[str] = []
    left_out: dict[str, str] = {}
    for task in dict.fromkeys(candidates if tasks is None else tasks):
        reasons = (why_not_comparable(each.row, reference.row, task) for each in others)
        if (why := next(filter(None, reasons), None)) is None:
            comparable.append(task)
        else:
            left_out[task] = why
    if tasks is not None and not tasks:
        raise UserError("tasks: name one or more, or leave it out")
    if not comparable:
        titles = titles_of(entry.row for entry in entries)
        reasons_by_task = (f"{titles[task]}: {why}" for task, why in left_out.items())
        raise UserError(f"nothing to compare: {'; '.join(reasons_by_task)}")
    scores, without = _scores((reference, *others), comparable)
    return Comparison((reference, *others), tuple(comparable), scores, without, left_out)


def _refuse_perplexities(entries: Sequence[Entry], tasks: Sequence[str] | None) -> None:
    """Refuse to compare perplexities, alone or by name: they aren't shares, nor higher the better.

    Raises:
        UserError: says where they stand side by side.
    """
    known = {name for entry in entries for name in entry.row.perplexities}
    asked = known & set(tasks) if tasks is not None else known
    if asked and (tasks is not None or not any(entry.row.cells for entry in entries)):
        raise UserError(
            f"{min(asked)}: perplexities, the lower the better, aren't compared here: they stand "
            "side by side in table-perplexity (python -m eval_harness tables)"
        )


def _with_unique_labels(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries, those of one label told apart: each folder labels its own rows only."""
    unique = []
    for entry in entries:
        alike = [each for each in entries if each.label == entry.label]
        marks = next(
            marks
            for marks in (
                [each.root.resolve().name for each in alike],
                [each.row.model.digest for each in alike],
                [str(number) for number in range(1, len(alike) + 1)],
            )
            if len(set(marks)) == len(alike)
        )
        mark = marks[alike.index(entry)]
        label = entry.label if len(alike) == 1 else f"{entry.label} ({mark})"
        unique.append(Entry(label, entry.row, entry.root))
    assert len({entry.label for entry in unique}) == len(entries), "two models have one label"
    return unique


def keep_scores(rows: Sequence[Row], root: Path) -> None:
    """Keep what comparisons of these rows need, for when their predictions are withheld.

    Raises:
        InvalidResult: predictions are missing or damaged, and nothing was kept of them.
        RunFailed: it can't be kept: no room, say.
    """
    for row in rows:
        for task, cell in row.cells.items():
            if cell.counted_results:
                draws = _draws_of(task)
                keep_task_scores(row, task, root, number=draws, resamples=RESAMPLES)


def _draws_of(task: str) -> int:
    """Return the number of a task's draws: they depend on it alone, not on what is compared."""
    return int(hash_of(task), 16)


def _scores(
    entries: Sequence[Entry], tasks: Sequence[str]
) -> tuple[dict[str, dict[str, Scores]], dict[str, str]]:
    """Return the scores by task and label, and why those of other tasks can't be resampled."""
    scores: dict[str, dict[str, Scores]] = {}
    without: dict[str, str] = {}
    for task in tasks:
        number = _draws_of(task)
        try:
            found = [
                task_scores(entry.row, task, entry.root, number=number, resamples=RESAMPLES)
                for entry in entries
            ]
        except InvalidResult as error:
            without[task] = f"{error.path.name} {error.reason}"
            continue
        if len({examples for _, examples in found}) > 1:
            without[task] = "their predictions are of other examples"
            continue
        scores[task] = {entry.label: each for entry, (each, _) in zip(entries, found, strict=True)}
    return scores, without


def comparison_table(comparison: Comparison) -> Table:
    """Return a comparison as a table: a row per task, a column per model and per difference."""
    entries, reference = comparison.entries, comparison.reference
    columns = (
        "Task",
        *(entry.label for entry in entries),
        *(f"{entry.label} vs {reference.label}" for entry in entries[1:]),
    )
    rows: list[tuple[Value, ...]] = [
        (
            comparison.titles[task],
            *(score_cell(entry.row, task, always_count=True) for entry in entries),
            *(_difference(comparison, task, entry.label) for entry in entries[1:]),
        )
        for task in comparison.tasks
    ]
    if len(comparison.tasks) > 1:
        mean: list[Value] = [mean_cell(entry.row, comparison.tasks) for entry in entries]
        changes = [_difference(comparison, MEAN, entry.label) for entry in entries[1:]]
        rows.append((f"Mean of {len(comparison.tasks)} tasks", *mean, *changes))
    title = f"{', '.join(e.label for e in entries[1:])} compared with {reference.label}"
    # First of all that a score is of no real task, as in every table.
    notes = sorted(
        map(one_line, _notes(comparison)), key=lambda note: note[: len(STAND_IN)] != STAND_IN
    )
    return Table(
        "comparison", one_line(title), tuple(map(one_line, columns)), tuple(rows), tuple(notes)
    )


def _difference(comparison: Comparison, task: str, label: str) -> Value:
    change = comparison.differences.get((task, label))
    if change is None:
        return None
    return Number(
        difference_text(change, 1, told=comparison.is_told(task, label)),
        change.value,
        details_of(change, comparison.adjusted.get((task, label))),
    )


def sentences(comparison: Comparison) -> list[str]:
    """Return what a comparison found, a sentence per model that is compared with the first."""
    return [_sentence(comparison, entry.label) for entry in comparison.entries[1:]]


def _sentence(comparison: Comparison, label: str) -> str:
    """Return `b scores 2.5 ±0.6 higher than a (mean of 9 tasks): more than chance explains.`."""
    task = comparison.tasks[0] if len(comparison.tasks) == 1 else MEAN
    of = f"mean of {len(comparison.tasks)} tasks" if task == MEAN else comparison.titles[task]
    change = comparison.differences.get((task, label))
    base = comparison.reference.label
    if change is None:
        return f"{label} and {base}: no interval of the difference ({of})."
    if change.half == 0 and change.value == 0:
        return f"{label} and {base} score the same ({of})."
    direction = "higher" if change.value >= 0 else "lower"
    value = f"{abs(change.value):.1f}"
    if change.half is None:
        return f"{label} scores {value} {direction} than {base} ({of}); no interval: {change.why}."
    verdict = (
        "more than chance explains"
        if comparison.is_told(task, label)
        else "chance alone may explain that"
    )
    single = _of_single_runs(comparison, task, label)
    return (
        f"{label} scores {value} ±{change.half:.1f} {direction} than {base} ({of}): {verdict}"
        f"{single}."
    )


def _of_single_runs(comparison: Comparison, task: str, label: str) -> str:
    """Return the qualification of what is found of runs with one seed, "" if there are none."""
    tasks = comparison.tasks if task == MEAN else (task,)
    names = (label, comparison.reference.label)
    if all(len(comparison.scores[each][name].points) > 1 for each in tasks for name in names):
        return ""
    return ", for these runs; where there is one seed, another may give another answer"


def _notes(comparison: Comparison) -> Iterator[str]:
    yield from sentences(comparison)
    for kept in comparison.retained:
        of = (
            f"mean over {len(kept.tasks)} tasks"
            if len(kept.tasks) > 1
            else comparison.titles[kept.tasks[0]]
        )
        low_high = kept.interval.percent
        limits = (
            f" ({low_high[0]:.1f} to {low_high[1]:.1f}, over examples)"
            if low_high
            else f" (no interval: {kept.interval.why})"
        )
        yield (
            f"Retained: {kept.label} has {kept.percent:.1f} %{limits} of "
            f"{comparison.reference.label}'s {of}, of medians, as in Table 1."
        )
    yield (
        "Scores: the median over seeds (lowest to highest; seeds with a result / seeds asked for). "
        "Differences: of the means over seeds, ± half of the 95 % interval, over evaluation "
        "examples (bootstrap, paired) and over seeds (t, paired where both have the same seeds; "
        "two are too few). A model with a single seed is taken as it is: the interval is about "
        "that run alone."
    )
    if any(comparison.is_told(*key) for key in comparison.differences):
        yield (
            f"{TOLD}: significant: p below .05, after Holm's correction for the number of models' "
            "means, and for that of all differences on single tasks."
        )
    for task, why in comparison.without_interval.items():
        yield f"No interval for {comparison.titles[task]}: {why}."
    if len(comparison.tasks) > 1 and not comparison.has_mean:
        yield "No interval for the mean: a task has none."
    for task, why in comparison.left_out.items():
        yield f"Not compared: {comparison.titles[task]}: {why}."
    rows = [entry.row for entry in comparison.entries]
    yield from footnotes_of(rows)
    yield from cell_notes(rows, comparison.tasks)
