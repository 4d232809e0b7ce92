"""Table 4: what each part of the triple loss is worth, as far as students were judged."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angels_share.ablations import ABLATIONS, FULL
from eval_harness.runs.run import Distilled
from eval_harness.tables.bootstrap import RESAMPLES
from eval_harness.tables.cells import MEAN_OF, SCORE, published_name, tasks_of_mean, title_of
from eval_harness.tables.comparison import common_tasks, kept_interval, total
from eval_harness.tables.notes import notes
from eval_harness.tables.row import Row
from eval_harness.tables.table import Number, Table, Value, filled, table_of
from eval_harness.tables.table1 import Line, glue_row, mean_notes
from eval_harness.tasks.registry import GLUE

CHANGE, OVER = "Change of score", "Tasks"


@dataclass(frozen=True)
class Change:
    """A student from which something was left out, against the one from which nothing was.

    `full` is None where that one isn't among the results, and `points`, of GLUE's mean score over
    the `tasks` that both have, then too.
    """

    row: Row
    full: Row | None = None
    tasks: tuple[str, ...] = ()
    points: float | None = None
    interval: tuple[float, float] | None = None
    why_no_interval: str = ""

    @property
    def left_out(self) -> str:
        """The name of what was."""
        assert self.row.model.distilled is not None
        return self.row.model.distilled.ablation


def changes(rows: Sequence[Row], root: Path) -> list[Change]:
    """Of every row of a student from which something was left out and that GLUE has judged.

    New intervals are made and kept under the root.
    """
    full: dict[str, list[Row]] = defaultdict(list)
    ablated = []
    for row in rows:
        if (made := row.model.distilled) is not None and tasks_of_mean(row):
            if made.ablation == FULL:
                full[made.rest].append(row)
            else:
                ablated.append((row, made))
    return [_change(row, made, full[made.rest], root) for row, made in ablated]


def _change(row: Row, made: Distilled, candidates: Sequence[Row], root: Path) -> Change:
    """Against the row of the full loss that has most of its tasks."""
    alike = [each for each in candidates if _is_full_of(each, row, made) and _tasks(row, each)]
    best = max(alike, key=lambda each: (len(_tasks(row, each)), len(each.results)), default=None)
    if best is None:
        return Change(row)
    tasks = _tasks(row, best)
    points = 100 * (total(row, tasks) - total(best, tasks)) / len(tasks)
    interval = kept_interval("changes", row, best, tasks, root)
    return Change(row, best, tasks, points, interval.percent, interval.why)


def _is_full_of(full: Row, row: Row, made: Distilled) -> bool:
    """Whether two students differ in what was left out alone, and were judged alike."""
    other = full.model.distilled
    if other is None or made.ablation not in ABLATIONS or full.settings != row.settings:
        return False
    ours, theirs = ({**each.loss, "init": each.init} for each in (made, other))
    names = (ours.keys() | theirs.keys()) - set(ABLATIONS[made.ablation].left_out)
    return all(ours.get(name) == theirs.get(name) for name in names)


def _tasks(row: Row, full: Row) -> tuple[str, ...]:
    """The tasks that both have, of the same data and fine-tuned under the same settings."""
    return tuple(
        task for task in common_tasks(row, full) if _values(row, task) == _values(full, task)
    )


def _values(row: Row, task: str) -> Any:
    return row.cells[task].results[0].settings.task.get("values")


def table4(paper: Mapping[str, Any], found: Sequence[Change]) -> Table:
    """The paper's changes, then ours: each full loss, and below it what was left out of it."""
    ordered = _ordered(found)
    rows = [_published(name, change) for name, change in paper["table4"]["rows"].items()]
    said = []
    for full, below in ordered:
        rows += [_row(full, FULL)] if full is not None else []
        rows += [_row(each.row, each.left_out, each) for each in below]
        said += _against(full, below)
    shown = [row for full, below in ordered for row in (full, *(each.row for each in below)) if row]
    columns, cells = filled(("Left out", "n", SCORE, MEAN_OF, CHANGE, OVER), rows)
    every = (
        *mean_notes(shown, beside_the_papers=False),
        *notes(shown, GLUE),
        *_meaning(found),
        *said,
    )
    title = "Table 4: what each part is worth"
    return table_of(paper, "table4", title, columns, cells, notes=every)


def _ordered(found: Sequence[Change]) -> list[tuple[Row | None, list[Change]]]:
    """Each full loss with its changes in the paper's order; last those without one."""
    places = list(ABLATIONS)
    by_full: dict[str, list[Change]] = defaultdict(list)
    for each in found:
        by_full[each.full.label if each.full else ""].append(each)
    for those in by_full.values():
        those.sort(key=lambda each: (
            places.index(each.left_out) if each.left_out in places else len(places), each.row.label
        ))  # fmt: skip
    labels = sorted(by_full, key=lambda label: (not label, label))
    return [(by_full[label][0].full, by_full[label]) for label in labels]


def _published(name: str, change: float) -> dict[str, Value]:
    return {
        "Left out": published_name(ABLATIONS[name].title),
        CHANGE: Number(f"{change:+.2f}", change),
    }


def _row(row: Row, left_out: str, change: Change | None = None) -> dict[str, Value]:
    measured = glue_row(Line(row), GLUE)
    name = ABLATIONS[left_out].title if left_out in ABLATIONS else left_out
    return {
        "Left out": f"{name} ({row.label})",
        **{column: measured[column] for column in ("n", SCORE, MEAN_OF)},
        CHANGE: _points(change) if change else None,
        OVER: f"{len(change.tasks)} of {len(GLUE)}" if change and change.tasks else None,
    }


def _points(change: Change) -> Number | None:
    if change.points is None:
        return None
    limits = ""
    if change.interval is not None:
        limits = f" [{' to '.join(map(_signed, change.interval))}]"
    more = {
        "interval": change.interval,
        "against": change.full.label if change.full else None,
        "of": list(change.tasks),
    }
    return Number(f"{_signed(change.points)}{limits}", round(change.points, 10), more)


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}"  # + 0.0: no -0.00


def _meaning(found: Sequence[Change]) -> list[str]:
    if not any(each.full for each in found):
        return []
    return [
        f"{CHANGE}: mean over the common tasks of the differences of the medians, in points; in "
        f"brackets a 95 % interval from resampling the evaluation examples {RESAMPLES:,} times, "
        "the same ones for both; it doesn't speak of other seeds, of pre-training or fine-tuning."
    ]


def _against(full: Row | None, below: Sequence[Change]) -> list[str]:
    """Which rows belong together, over which tasks, and where there is nothing to compare."""
    if full is None:
        labels = "; ".join(each.row.label for each in below)
        return [
            f"Judged alike there is no triple loss of the same teacher and recipe for {labels}."
        ]
    by_tasks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for each in below:
        by_tasks[each.tasks].append(each.row.label)
    return [
        *(
            f"Changes over {', '.join(map(title_of, tasks))} from {full.label}: "
            f"{'; '.join(labels)}."
            for tasks, labels in by_tasks.items()
        ),
        *(
            f"No interval for {each.row.label}: {each.why_no_interval}."
            for each in below
            if each.why_no_interval
        ),
    ]
