"""Rows of Table 1: medians over seeds, their spread, means, what was retained."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval_harness.tables.bootstrap import RESAMPLES
from eval_harness.tables.comparison import total
from eval_harness.tables.paper import corrected
from eval_harness.tables.retained import Retained
from eval_harness.tables.rows import MISMATCHED, SECOND_CELLS, Cell, Row
from eval_harness.tables.table import Figure, Published, Value
from eval_harness.tasks.registry import GLUE, TASKS

MODEL = "Model"
COUNT = "n"
SCORE = "Score"
MEAN_OF = "Mean of k"
RETAINED = "Retained"


_TITLES = {**{task.name: task.title for task in TASKS}, MISMATCHED: "MNLI-mm"}
_TAKEN = {MODEL, COUNT, SCORE, MEAN_OF, RETAINED, *_TITLES.values()}


@dataclass(frozen=True)
class Line:
    """A row to show, and what it retained of its teacher, or why that can't be said."""

    row: Row
    kept: Retained | None = None
    why_not: str = ""


def title_of(task: str) -> str:
    """A column's name; a task of one's own is called what its results call it.

    These may be anybody's, with a name that another column has.
    """
    if task in _TITLES:
        return _TITLES[task]
    return f"{task} (task)" if task in _TAKEN else task


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The tasks of Table 1: the nine, MNLI's second part beside the first, then one's own."""
    known = {*(task.name for task in TASKS), *(cell for cell, *_ in SECOND_CELLS.values())}
    own = sorted({task for row in rows for task in row.cells} - known)
    at = GLUE.index("mnli") + 1
    return [*GLUE[:at], MISMATCHED, *GLUE[at:], *own]


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
        MEAN_OF: Figure(f"{mean.text} of {len(there)}", mean.number, {"of": list(there)})
        if mean and not whole
        else None,
        RETAINED: _share(line.kept) if line.kept else None,
    }


def paper_row(paper: Mapping[str, Any], name: str, rows: Sequence[Row]) -> dict[str, Value]:
    """A published row of Table 1 by column, its mean over the tasks that all of ours have."""
    published, right = paper["table1"]["rows"][name], corrected(paper, "table1", name)
    common = common_tasks(rows)
    mean = sum(right[task] for task in common) / len(common) if common else None
    return {
        MODEL: published_name(name),
        SCORE: published["score"],
        **{title_of(task): published[task] for task in GLUE},
        MEAN_OF: None
        if mean is None
        else Figure(f"{mean:.1f} of {len(common)}", round(mean, 10), {"of": list(common)}),
    }


def published_name(name: str) -> Published:
    """What a row of the paper's is called beside ours."""
    return Published(f"{name} (paper)")


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


def figure(row: Row, task: str, digits: int = 1, *, always_count: bool = False) -> Figure | None:
    """`59.9 (57.0 to 61.4; 4/5)`: median, spread, and how many seeds where some are missing."""
    cell = row.cells.get(task)
    if cell is None or cell.median is None:
        return None
    low, high = (percent(each(cell.counted), digits) for each in (min, max))
    said = [f"{low} to {high}"] if len(cell.counted) > 1 else []
    if always_count or len(cell.counted) < len(cell.asked):
        said.append(f"{len(cell.counted)}/{len(cell.asked)}")
    text = percent(cell.median, digits) + (f" ({'; '.join(said)})" if said else "")
    seeds = {
        str(result.seed): None if score is None else exact(score)
        for result, score in zip(cell.results, cell.scores, strict=True)
    }
    return Figure(text, exact(cell.median), {"seeds": seeds, "asked": sorted(cell.asked)})


def exact(share: float) -> float:
    """A share as a percentage for further computing; 0.57 is 57.0 and not 56.99999999999999."""
    return round(100 * share, 10) + 0.0


def mean_over(row: Row, tasks: Sequence[str]) -> Figure | None:
    """The plain mean of a row's medians."""
    if not tasks:
        return None
    mean = total(row, tasks) / len(tasks)
    return Figure(percent(mean), exact(mean))


def count_of(cells: Sequence[Cell]) -> str:
    """How many seeds the cells have: `5`, `1-5`, or `3/5` where the poorest lacks two of five."""
    counts = sorted({len(cell.counted) for cell in cells})
    poorest = min(cells, key=lambda cell: len(cell.counted) / len(cell.asked))
    if len(poorest.counted) < len(poorest.asked):
        return f"{len(poorest.counted)}/{len(poorest.asked)}"
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _share(kept: Retained) -> Figure:
    limits = f" [{kept.interval[0]:.1f} to {kept.interval[1]:.1f}]" if kept.interval else ""
    more = {"interval": kept.interval, "teacher": kept.teacher.label, "of": list(kept.tasks)}
    return Figure(f"{kept.share:.1f}{limits}", round(kept.share, 10), more)


def mean_notes(rows: Sequence[Row], *, beside_the_papers: bool = True) -> list[str]:
    """Which tasks the means are of."""
    by_tasks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in rows:
        if (tasks := tasks_of_mean(row)) and tasks != GLUE:
            by_tasks[tasks].append(row.label)
    said = []
    if common := common_tasks(rows):
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
