"""Table 1: GLUE, medians over seeds with their spread, means, and what was retained."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval_harness.tables.bootstrap import RESAMPLES
from eval_harness.tables.cells import (
    COUNT,
    MEAN_OF,
    MODEL,
    RETAINED,
    SCORE,
    columns_of,
    count_of,
    figure,
    mean_over,
    published_name,
    tasks_of_all,
    tasks_of_mean,
    title_of,
)
from eval_harness.tables.notes import notes
from eval_harness.tables.paper import corrected
from eval_harness.tables.retained import Retained
from eval_harness.tables.row import Row
from eval_harness.tables.table import Number, Table, Value, filled, table_of
from eval_harness.tasks.registry import GLUE, MISMATCHED


@dataclass(frozen=True)
class Line:
    """A row to show, and what it retained of its teacher, or why that can't be said."""

    row: Row
    kept: Retained | None = None
    why_not: str = ""


def table1(paper: Mapping[str, Any], lines: Sequence[Line], not_counted: Sequence[str]) -> Table:
    """Make Table 1: the paper's rows, then ours that have a column here.

    Args:
        paper: the published numbers.
        lines: our rows with what they retained.
        not_counted: what is to be said of files that don't count.
    """
    tasks = columns_of([line.row for line in lines])
    shown = [line for line in lines if line.row.cells.keys() & set(tasks)]
    ours_shown = [line.row for line in shown]
    rows = [paper_row(paper, name, ours_shown) for name in paper["table1"]["rows"]]
    rows += [glue_row(line, tasks) for line in shown]
    names = (MODEL, COUNT, SCORE, *map(title_of, tasks), MEAN_OF, RETAINED)
    columns, cells = filled(names, rows)
    said = (
        *mean_notes(ours_shown),
        *notes(ours_shown, tasks),
        *retained_notes(shown),
        *not_counted,
    )
    return table_of(paper, "table1", "Table 1: GLUE, dev sets", columns, cells, notes=said)


def glue_row(line: Line, tasks: Sequence[str]) -> dict[str, Value]:
    """A row of Table 1 by column."""
    row, there = line.row, tasks_of_mean(line.row)
    mean = mean_over(row, there)
    whole = len(there) == len(GLUE)
    return {
        MODEL: row.label,
        COUNT: count_of([row.cells[task] for task in tasks if task in row.cells]),
        SCORE: mean if whole else None,
        **{title_of(task): figure(row, task) for task in tasks},
        MEAN_OF: Number(f"{mean.text} of {len(there)}", mean.number, {"of": list(there)})
        if mean and not whole
        else None,
        RETAINED: _share(line.kept) if line.kept else None,
    }


def paper_row(paper: Mapping[str, Any], name: str, rows: Sequence[Row]) -> dict[str, Value]:
    """A published row of Table 1 by column, its mean over the tasks that all of ours have."""
    published, right = paper["table1"]["rows"][name], corrected(paper, "table1", name)
    common = tasks_of_all(rows)
    mean = sum(right[task] for task in common) / len(common) if common else None
    return {
        MODEL: published_name(name),
        SCORE: published["score"],
        **{title_of(task): published[task] for task in GLUE},
        MEAN_OF: None
        if mean is None
        else Number(f"{mean:.1f} of {len(common)}", round(mean, 10), {"of": list(common)}),
    }


def _share(kept: Retained) -> Number:
    limits = f" [{kept.interval[0]:.1f} to {kept.interval[1]:.1f}]" if kept.interval else ""
    more = {"interval": kept.interval, "teacher": kept.teacher.label, "of": list(kept.tasks)}
    return Number(f"{kept.share:.1f}{limits}", round(kept.share, 10), more)


def mean_notes(rows: Sequence[Row], *, beside_the_papers: bool = True) -> list[str]:
    """Which tasks the means are of."""
    by_tasks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in rows:
        if (tasks := tasks_of_mean(row)) and tasks != GLUE:
            by_tasks[tasks].append(row.label)
    said = []
    if common := tasks_of_all(rows):
        papers = (
            "; the paper's is computed here from its numbers"
            f"{', its misprint corrected' if 'mnli' in common else ''}"
        )
        titles = ", ".join(map(title_of, common))
        said.append(f"{MEAN_OF}: over {titles}{papers if beside_the_papers else ''}.")
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
    why_not = [f"Retained, not said of {line.row.label}: {line.why_not}."
               for line in lines if line.why_not]  # fmt: skip
    if not against:
        return why_not
    return [
        "Retained: mean of the medians over the common tasks as a percentage of the teacher's; "
        f"in brackets a 95 % interval from resampling the evaluation examples {RESAMPLES:,} "
        "times, the same ones for both; it doesn't speak of other seeds.",
        *(f"Retained, of {teacher}: {'; '.join(labels)}." for teacher, labels in against.items()),
        *without,
        *why_not,
    ]


def _teacher(kept: Retained) -> str:
    """A teacher, and where nobody knows how much its seed matters."""
    single = kept.tasks_of_one_seed
    if not single:
        return kept.teacher.label
    where = "" if single == kept.tasks else f" on {', '.join(map(title_of, single))}"
    return f"{kept.teacher.label} (one seed{where})"
