"""Our rows of Tables 1 and 2: medians over seeds, their spread, and all that a reader must know."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from eval_harness.results import TaskResult
from eval_harness.retained import Retained, retained
from eval_harness.rows import MISMATCHED, Cell, Row, plain
from eval_harness.tasks import GLUE, task_named

MEAN_OF = "Mean of k"
RETAINED = "Retained"


def title_of(task: str) -> str:
    """A column's name; a task of one's own is called what its results call it."""
    if task == MISMATCHED:
        return "MNLI-mm"
    return task_named(task).title if task in GLUE else task


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The tasks of Table 1: the nine, MNLI's second part beside the first, then one's own."""
    known = {*GLUE, MISMATCHED, "imdb"}
    own = sorted({task for row in rows for task in row.cells} - known)
    at = GLUE.index("mnli") + 1
    return [*GLUE[:at], MISMATCHED, *GLUE[at:], *own]


def glue_row(row: Row, tasks: Sequence[str], kept: Retained | None) -> dict[str, str | None]:
    """A row of Table 1 by column."""
    medians = [row.cells[task].median for task in GLUE if task in row.cells]
    there = [median for median in medians if median is not None]
    mean = percent(sum(there) / len(there)) if there else None
    whole = len(there) == len(GLUE)
    return {
        "Model": row.label,
        "n": _count(row, tasks),
        "Score": mean if whole else None,
        **{title_of(task): cell_text(row, task) for task in tasks},
        MEAN_OF: None if whole or not there else f"{mean} of {len(there)}",
        RETAINED: _share(kept) if kept else None,
    }


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, without its sign."""
    return f"{100 * share:.{digits}f}"


def cell_text(row: Row, task: str, digits: int = 1, *, always_count: bool = False) -> str | None:
    """`59.9 (57.0-61.4; 4/5)`: median, spread, and how many seeds where some are missing."""
    cell = row.cells.get(task)
    if cell is None or cell.median is None:
        return None
    low, high = min(cell.counted), max(cell.counted)
    said = [f"{percent(low, digits)}-{percent(high, digits)}"] if len(cell.counted) > 1 else []
    if always_count or len(cell.counted) < len(row.seeds):
        said.append(f"{len(cell.counted)}/{len(row.seeds)}")
    return percent(cell.median, digits) + (f" ({'; '.join(said)})" if said else "")


def _count(row: Row, tasks: Sequence[str]) -> str:
    """How many seeds the cells have: `5`, or `3/5` where the poorest has three of five."""
    fewest = min((len(row.cells[task].counted) for task in tasks if task in row.cells), default=0)
    return str(fewest) if fewest == len(row.seeds) else f"{fewest}/{len(row.seeds)}"


def _share(kept: Retained) -> str:
    limits = f" [{kept.interval[0]:.1f}-{kept.interval[1]:.1f}]" if kept.interval else ""
    return f"{kept.share:.1f}{limits}"


def notes(rows: Sequence[Row], tasks: Sequence[str]) -> list[str]:
    """What must be known of these rows' cells in these columns, equal notes said once."""
    shown = [task for task in tasks if task != MISMATCHED]
    said: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        cells = {task: row.cells[task] for task in shown if task in row.cells}
        for note in (note for make in _NOTES for note in make(row, cells) if cells):
            said[note].append(row.label)
    return [
        f"{note} Rows: {'all of ours' if len(labels) == len(rows) else '; '.join(labels)}."
        for note, labels in said.items()
    ]


_Cells = Mapping[str, Cell]


def _hyper_parameters(row: Row, cells: _Cells) -> Iterable[str]:
    """Whose they are and what they are: by task where the tasks differ."""
    values: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for task, cell in cells.items():
        for name, value in cell.results[0].settings.task.get("values", {}).items():
            values[name][plain(value)].append(title_of(task))
    said = [f"{name} {_by_task(by_value, len(cells))}" for name, by_value in sorted(values.items())]
    if said:
        yield (
            "Hyper-parameters are ours (the paper's were never published): " + ", ".join(said) + "."
        )


def _by_task(by_value: Mapping[str, Sequence[str]], tasks: int) -> str:
    """One value for all, or each with its tasks."""
    if len(by_value) == 1 and len(next(iter(by_value.values()))) == tasks:
        return next(iter(by_value))
    return " / ".join(f"{value} ({', '.join(names)})" for value, names in by_value.items())


def _limit(row: Row, cells: _Cells) -> Iterable[str]:
    limit = row.settings.get("limit")
    if limit is not None:
        yield f"Not the whole data: at most {limit} examples of each split (--limit)."


def _own_data(row: Row, cells: _Cells) -> Iterable[str]:
    """Data from elsewhere than the Hub may be anything: its content's hash says what."""
    for task, cell in cells.items():
        sources = {
            f"{result.data.get('source')}, content {result.data.get('content')}"
            for result in cell.results
            if result.data.get("revision") is None
        }
        for source in sorted(sources):
            yield f"{title_of(task)}: the data were not the Hub's: {source}."


def _marks(row: Row, cells: _Cells) -> Iterable[str]:
    """What runs were marked with: a degenerate one counts, and is named."""
    marked: dict[str, list[str]] = defaultdict(list)
    for task, cell in cells.items():
        for mark in sorted({mark for result in cell.results for mark in result.marks}):
            seeds = [str(result.seed) for result in cell.results if mark in result.marks]
            every = len(seeds) == len(cell.results)
            which = "" if every else f" (seed {', '.join(seeds)})"
            marked[mark].append(f"{title_of(task)}{which}")
    for mark, where in marked.items():
        yield f"Marked '{mark}', and counted: {', '.join(where)}."


def _undefined(row: Row, cells: _Cells) -> Iterable[str]:
    for task, cell in cells.items():
        pairs = zip(cell.results, cell.scores, strict=True)
        seeds = [str(result.seed) for result, score in pairs if score is None]
        if seeds:
            yield (
                f"{title_of(task)}: not counted, since the score is not defined "
                f"(constant predictions): seed {', '.join(seeds)}."
            )


def _versions(row: Row, cells: _Cells) -> Iterable[str]:
    """Code or libraries that differ within a row."""
    results = [result for cell in cells.values() for result in cell.results]
    if len(codes := sorted({_code(result) for result in results})) > 1:
        yield f"Made by several versions of the code: {', '.join(codes)}."
    libraries = [result.provenance.get("libraries", {}) for result in results]
    for name in sorted(set().union(*libraries)):
        if len(found := sorted({str(each.get(name)) for each in libraries})) > 1:
            yield f"Made with several versions of {name}: {', '.join(found)}."


def _code(result: TaskResult) -> str:
    """The version, and what tells changed files from it."""
    made = result.provenance
    more = [f"{name} {made[name]}" for name in ("commit", "sources") if made.get(name)]
    return f"{made.get('version')}" + (f" ({', '.join(more)})" if more else "")


_NOTES: tuple[Callable[[Row, _Cells], Iterable[str]], ...] = (
    _hyper_parameters,
    _limit,
    _own_data,
    _marks,
    _undefined,
    _versions,
)


def retained_notes(rows: Sequence[Row], kept: Mapping[str, Retained | None]) -> list[str]:
    """Against whom, over which tasks, and how the interval came about."""
    said = []
    for row in rows:
        if (one := kept.get(row.label)) is not None:
            tasks = ", ".join(title_of(task) for task in one.tasks)
            why = f"; no interval: {one.why_no_interval}" if one.why_no_interval else ""
            said.append(f"Retained, {row.label}: against {one.teacher.label}, over {tasks}{why}.")
    if said:
        said.insert(
            0,
            "Retained: mean of the medians over the common tasks as a percentage of the teacher's; "
            "in brackets a 95 % interval, from resampling the evaluation examples 1,000 times, "
            "the same ones for both; it doesn't speak of other seeds.",
        )
    return said


def shares(rows: Sequence[Row], root: Path) -> dict[str, Retained | None]:
    """What each row retained, by its label."""
    return {row.label: retained(row, rows, root) for row in rows}
