"""Cells that tables 1, 2, 4 and the family table share: column titles, medians, spreads, means."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from eval_harness.rows.row import Cell, Row
from eval_harness.tables.comparison import sum_of_medians
from eval_harness.tables.table import Named, Number, Published
from eval_harness.tasks.registry import GLUE, TASKS

MODEL = "Model"
COUNT = "n"
SCORE = "Score"
MEAN_OF = "Mean of tasks"
RETAINED = "Retained"


_TITLES = {
    **{task.name: task.title for task in TASKS},
    **{task.second.cell: task.second.title for task in TASKS if task.second},
}
_TAKEN = {MODEL, COUNT, SCORE, MEAN_OF, RETAINED, *_TITLES.values()}


def title_of(task: str) -> str:
    """Return a task's column title; of a custom task its name, all that old results record.

    Results may come from anybody, with a name that another column has: that one is marked.
    """
    return _TITLES.get(task) or _marked(task)


def _marked(title: str) -> str:
    return f"{title} (task)" if title in _TAKEN else title


def titles_of(rows: Iterable[Row]) -> dict[str, str]:
    """Return the column title of every cell of these rows; of a custom task its newest title."""
    custom: dict[str, list[Cell]] = defaultdict(list)
    titles = dict(_TITLES)
    for row in rows:
        for task, cell in row.cells.items():
            if task not in titles:
                custom[task].append(cell)
    for task in sorted(custom):
        newest = max((each for cell in custom[task] for each in cell.results),
                     key=lambda result: (result.finished, result.key))  # fmt: skip
        title = _marked(str(newest.data.get("title", task)))
        # Nothing keeps two tasks from having one title: their names differ.
        titles[task] = f"{title} ({task})" if title in titles.values() else title
    return titles


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns of Table 1: the nine, then others of that table that have results."""
    present = {cell for row in rows for cell in row.cells}
    columns: list[str] = []
    for task in TASKS:
        cells = [task.name, *([task.second.cell] if task.second else [])]
        if task.table == "table1" and (task.name in GLUE or present & set(cells)):
            columns += cells
    return columns


def custom_tasks_of(rows: Iterable[Row]) -> list[str]:
    """Return the custom tasks that have results: whatever task is not a built-in one."""
    return sorted({cell for row in rows for cell in row.cells} - _TITLES.keys())


def name_cell(row: Row, text: str = "") -> Named:
    """Return the first cell of one of our rows; JSON has its whole label and its settings, too.

    Args:
        row: the row.
        text: what to print [its short name].
    """
    return Named(text or row.short, {"label": row.label, "settings": dict(row.settings)})


def tasks_with_results(rows: Sequence[Row]) -> list[str]:
    """Return the tasks that some row has a score of, in the tables' order, custom ones last."""
    cells = [cell for row in rows for cell in row.cells.values()]
    present = {result.task for cell in cells for result in cell.results}
    known = [task.name for task in TASKS]
    return [*(name for name in known if name in present), *sorted(present - set(known))]


def published_name(name: str) -> Published:
    """Return the label of one of the paper's rows."""
    return Published(f"{name} (paper)")


def tasks_of_mean(row: Row, among: Sequence[str] = GLUE) -> tuple[str, ...]:
    """Return the tasks that a row has a score for, of GLUE or of others: its mean is over these."""
    return tuple(task for task in among if task in row.cells and row.cells[task].median is not None)


def tasks_of_every_mean(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the tasks that every row's mean is over; empty if these differ, or are all nine."""
    tasks = {tasks_of_mean(row) for row in rows} - {()}
    return tasks.pop() if len(tasks) == 1 and tasks != {GLUE} else ()


def score_cell(
    row: Row, task: str, digits: int = 1, *, always_count: bool = False
) -> Number | None:
    """Return `59.9 (57.0 to 61.4; 4/5)`: median, spread, and the seeds if some are missing.

    Args:
        row: one of our rows.
        task: the name of its cell.
        digits: decimals to print.
        always_count: print the number of seeds even if none is missing.
    """
    cell = row.cells.get(task)
    if cell is None or cell.median is None:
        return None
    scores, expected = cell.counted_scores, cell.expected_seeds
    low, high = (percent_text(end(scores), digits) for end in (min, max))
    details = [f"{low} to {high}"] if len(scores) > 1 else []
    if always_count or len(scores) < len(expected):
        details.append(f"{len(scores)}/{len(expected)}")
    text = percent_text(cell.median, digits) + (f" ({'; '.join(details)})" if details else "")
    seeds = {
        str(result.seed): None if score is None else to_percent(score)
        for result, score in zip(cell.results, cell.scores, strict=True)
    }
    return Number(text, to_percent(cell.median), {"seeds": seeds, "asked": sorted(expected)})


def mean_cell(row: Row, tasks: Sequence[str]) -> Number | None:
    """Return the plain mean of a row's medians."""
    if not tasks:
        return None
    mean = sum_of_medians(row, tasks) / len(tasks)
    return Number(percent_text(mean), to_percent(mean))


def mean_of_cell(
    row: Row, among: Sequence[str], titles: Mapping[str, str], *, shared: bool
) -> Number | None:
    """Return `68.4 (5 tasks)`, or `68.4 (CoLA, RTE)` where rows' means are over different tasks.

    Args:
        row: one of our rows.
        among: the tasks that count.
        titles: the tasks' titles.
        shared: whether the means of all rows are over the same tasks.
    """
    tasks = tasks_of_mean(row, among)
    mean = mean_cell(row, tasks)
    if mean is None:
        return None
    which = count_of_tasks(len(tasks)) if shared else _named_tasks(tasks, among, titles)
    return Number(f"{mean.text} ({which})", mean.number, {"of": list(tasks)})


def count_of_tasks(count: int) -> str:
    """Return `5 tasks`."""
    return f"{count} task{'s' if count > 1 else ''}"


def _named_tasks(tasks: Sequence[str], among: Sequence[str], titles: Mapping[str, str]) -> str:
    """Return the tasks, or if these are fewer, those that are missing."""
    missing = [task for task in among if task not in tasks]
    if not missing:
        return f"all {len(tasks)}"
    if len(missing) < len(tasks):
        return f"without {', '.join(titles[task] for task in missing)}"
    return ", ".join(titles[task] for task in tasks)


def percent_text(share: float, digits: int = 1) -> str:
    """Return a share as a percentage to print, without the sign."""
    return f"{round(100 * share, digits) + 0.0:.{digits}f}"  # + 0.0: no -0.0


def to_percent(share: float) -> float:
    """Return a share as a percentage; 0.57 gives 57.0 and not 56.99999999999999."""
    return round(100 * share, 10) + 0.0


def count_of(cells: Sequence[Cell]) -> str:
    """Return the number of seeds: `5`, `1-5`, or `3/5` where the worst cell lacks two of five."""
    counts = sorted({len(cell.counted_scores) for cell in cells})
    worst = min(cells, key=lambda cell: len(cell.counted_scores) / len(cell.expected_seeds))
    if len(worst.counted_scores) < len(worst.expected_seeds):
        return f"{len(worst.counted_scores)}/{len(worst.expected_seeds)}"
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
