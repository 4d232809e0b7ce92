"""What tables 1, 2, 4 and the family's have in common: columns, medians, spreads, means."""

from collections.abc import Sequence

from eval_harness.tables.comparison import total
from eval_harness.tables.row import Cell, Row
from eval_harness.tables.table import Number, Published
from eval_harness.tasks.registry import GLUE, TASKS

MODEL = "Model"
COUNT = "n"
SCORE = "Score"
MEAN_OF = "Mean of k"
RETAINED = "Retained"


_TITLES = {
    **{task.name: task.title for task in TASKS},
    **{task.second.cell: task.second.title for task in TASKS if task.second},
}
_TAKEN = {MODEL, COUNT, SCORE, MEAN_OF, RETAINED, *_TITLES.values()}


def title_of(task: str) -> str:
    """A column's name; a task of one's own is called what its results call it.

    These may be anybody's, with a name that another column has.
    """
    if task in _TITLES:
        return _TITLES[task]
    return f"{task} (task)" if task in _TAKEN else task


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns of Table 1: the nine, others that have results, last the custom ones."""
    there = {cell for row in rows for cell in row.cells}
    columns: list[str] = []
    elsewhere: set[str] = set()
    for task in TASKS:
        cells = [task.name, *([task.second.cell] if task.second else [])]
        if task.table != "table1":
            elsewhere.update(cells)
        elif task.name in GLUE or there & set(cells):
            columns += cells
    return [*columns, *sorted(there - elsewhere - set(columns))]


def published_name(name: str) -> Published:
    """What a row of the paper's is called beside ours."""
    return Published(f"{name} (paper)")


def tasks_of_mean(row: Row) -> tuple[str, ...]:
    """GLUE's tasks that a row has a score of: its mean is theirs."""
    return tuple(task for task in GLUE if task in row.cells and row.cells[task].median is not None)


def tasks_of_all(rows: Sequence[Row]) -> tuple[str, ...]:
    """The tasks of our means where all of them are over the same, and not over all nine."""
    tasks = {tasks_of_mean(row) for row in rows} - {()}
    return tasks.pop() if len(tasks) == 1 and tasks != {GLUE} else ()


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, without its sign."""
    return f"{round(100 * share, digits) + 0.0:.{digits}f}"  # + 0.0: no -0.0


def figure(row: Row, task: str, digits: int = 1, *, always_count: bool = False) -> Number | None:
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
    return Number(text, exact(cell.median), {"seeds": seeds, "asked": sorted(cell.asked)})


def exact(share: float) -> float:
    """A share as a percentage for further computing; 0.57 is 57.0 and not 56.99999999999999."""
    return round(100 * share, 10) + 0.0


def mean_over(row: Row, tasks: Sequence[str]) -> Number | None:
    """The plain mean of a row's medians."""
    if not tasks:
        return None
    mean = total(row, tasks) / len(tasks)
    return Number(percent(mean), exact(mean))


def count_of(cells: Sequence[Cell]) -> str:
    """How many seeds the cells have: `5`, `1-5`, or `3/5` where the poorest lacks two of five."""
    counts = sorted({len(cell.counted) for cell in cells})
    poorest = min(cells, key=lambda cell: len(cell.counted) / len(cell.asked))
    if len(poorest.counted) < len(poorest.asked):
        return f"{len(poorest.counted)}/{len(poorest.asked)}"
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
