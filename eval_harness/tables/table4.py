"""Table 4: what each part of the triple loss is worth, for the students that were evaluated."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angels_share.ablations import ABLATIONS, FULL
from eval_harness.intervals.bootstrap import RESAMPLES
from eval_harness.rows.labels import footnotes_of
from eval_harness.rows.row import Row
from eval_harness.runs.run import Distilled
from eval_harness.tables.cells import (
    MEAN_OF,
    SCORE,
    name_cell,
    published_name,
    tasks_of_every_mean,
    tasks_of_mean,
    title_of,
)
from eval_harness.tables.comparison import cached_interval, common_tasks, sum_of_medians
from eval_harness.tables.notes import cell_notes, count_notes
from eval_harness.tables.table import Number, Table, Value, drop_empty_columns, make_table
from eval_harness.tables.table1 import glue_row, mean_notes
from eval_harness.tasks.registry import GLUE

CHANGE, OVER = "Change of score", "Tasks"


@dataclass(frozen=True)
class Change:
    """A student from which something was left out, compared with one of the full loss.

    Attributes:
        row: the student's row.
        full: the row of the full loss; None where there is none to compare with.
        tasks: the tasks that both have.
        points: the change of the mean over these tasks; None without `full`.
        interval: the interval of `points`.
        why_no_interval: the reason where it is None.
    """

    row: Row
    full: Row | None = None
    tasks: tuple[str, ...] = ()
    points: float | None = None
    interval: tuple[float, float] | None = None
    why_no_interval: str = ""

    @property
    def left_out(self) -> str:
        """The name of the student's ablation."""
        assert self.row.model.distilled is not None
        return self.row.model.distilled.ablation


def find_changes(rows: Sequence[Row], root: Path) -> list[Change]:
    """Return the change of every row of an ablated student with a GLUE score.

    New intervals are cached under the root.
    """
    full_rows: dict[str, list[Row]] = defaultdict(list)
    ablated = []
    for row in rows:
        if (distilled := row.model.distilled) is not None and tasks_of_mean(row):
            if distilled.ablation == FULL:
                full_rows[distilled.rest].append(row)
            else:
                ablated.append((row, distilled))
    return [_change(row, distilled, full_rows[distilled.rest], root) for row, distilled in ablated]


def _change(row: Row, distilled: Distilled, candidates: Sequence[Row], root: Path) -> Change:
    """Compare a row with the row of the full loss that has most of its tasks."""
    comparable = [
        full
        for full in candidates
        if _differs_in_ablation_alone(row, distilled, full) and _tasks(row, full)
    ]
    best = max(
        comparable, key=lambda full: (len(_tasks(row, full)), len(full.results)), default=None
    )
    if best is None:
        return Change(row)
    tasks = _tasks(row, best)
    points = 100 * (sum_of_medians(row, tasks) - sum_of_medians(best, tasks)) / len(tasks)
    interval = cached_interval("changes", row, best, tasks, root)
    return Change(row, best, tasks, points, interval.percent, interval.why)


def _differs_in_ablation_alone(row: Row, distilled: Distilled, full: Row) -> bool:
    """Return whether nothing but the ablation differs, in the loss and in the evaluation."""
    other = full.model.distilled
    if other is None or distilled.ablation not in ABLATIONS or full.settings != row.settings:
        return False
    ours, theirs = ({**one.loss, "init": one.init} for one in (distilled, other))
    names = (ours.keys() | theirs.keys()) - set(ABLATIONS[distilled.ablation].left_out)
    # A term that was added since weighs nothing in a record that doesn't name it.
    return all(ours.get(name, 0.0) == theirs.get(name, 0.0) for name in names)


def _tasks(row: Row, full: Row) -> tuple[str, ...]:
    """Return the tasks that both have, with the same data and hyper-parameters."""
    return tuple(
        task for task in common_tasks(row, full) if _values(row, task) == _values(full, task)
    )


def _values(row: Row, task: str) -> Any:
    return row.cells[task].results[0].settings.task.get("values")


def table4(paper: Mapping[str, Any], changes: Sequence[Change]) -> Table:
    """Make Table 4: the paper's changes, then each full loss of ours with its ablations below."""
    grouped = _by_full_loss(changes)
    shown = [row for full, ablated in grouped for row in _rows_of(full, ablated)]
    shared = bool(tasks_of_every_mean(shown))
    rows: list[dict[str, Value]] = [
        {
            "Left out": published_name(ABLATIONS[name].title),
            CHANGE: Number(f"{points:+.2f}", points),
        }
        for name, points in paper["table4"]["rows"].items()
    ]
    comparison_notes: list[str] = []
    for full, ablated in grouped:
        if full is not None:
            rows.append(_row(full, FULL, shared=shared))
        rows += [_row(each.row, each.left_out, each, shared=shared) for each in ablated]
        comparison_notes += _comparison_notes(full, ablated)
    columns, cells = drop_empty_columns(("Left out", "n", SCORE, MEAN_OF, CHANGE, OVER), rows)
    notes = (
        *footnotes_of(shown),
        *count_notes(shown, GLUE),
        *mean_notes(shown, beside_the_papers=False),
        *cell_notes(shown, GLUE),
        *_meaning(changes),
        *comparison_notes,
    )
    title = "Table 4: what each part is worth"
    return make_table(paper, "table4", title, columns, cells, notes=notes)


def _by_full_loss(changes: Sequence[Change]) -> list[tuple[Row | None, list[Change]]]:
    """Return each full loss with its changes in the paper's order; last those without one."""
    order = {name: index for index, name in enumerate(ABLATIONS)}
    by_full: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        by_full[change.full.label if change.full else ""].append(change)
    for of_full in by_full.values():
        # Ablations that only a later version knows come last.
        of_full.sort(key=lambda change: (order.get(change.left_out, len(order)), change.row.label))
    labels = sorted(by_full, key=lambda label: (not label, label))
    return [(by_full[label][0].full, by_full[label]) for label in labels]


def _rows_of(full: Row | None, ablated: Sequence[Change]) -> list[Row]:
    return [*([full] if full else []), *(change.row for change in ablated)]


def _row(
    row: Row, left_out: str, change: Change | None = None, *, shared: bool
) -> dict[str, Value]:
    cells = glue_row(row, GLUE, shared=shared)
    name = ABLATIONS[left_out].title if left_out in ABLATIONS else left_out
    return {
        "Left out": name_cell(row, f"{name} ({row.short})"),
        **{column: cells.get(column) for column in ("n", SCORE, MEAN_OF)},
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


def _meaning(changes: Sequence[Change]) -> list[str]:
    if not any(change.full for change in changes):
        return []
    return [
        f"{CHANGE}: mean over the common tasks of the differences of the medians, in points; in "
        f"brackets a 95 % interval from resampling the evaluation examples {RESAMPLES:,} times, "
        "the same ones for both; it does not cover variation over pre-training or fine-tuning "
        "seeds."
    ]


def _comparison_notes(full: Row | None, ablated: Sequence[Change]) -> list[str]:
    """Return which rows are compared over which tasks, and which have nothing to compare with."""
    if full is None:
        labels = "; ".join(change.row.short for change in ablated)
        return [
            f"No change for {labels}: no full triple loss of the same teacher and recipe was "
            "evaluated in the same way."
        ]
    by_tasks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for change in ablated:
        by_tasks[change.tasks].append(change.row.short)
    return [
        *(
            f"Changes over {', '.join(map(title_of, tasks))} from {full.short}: "
            f"{'; '.join(labels)}."
            for tasks, labels in by_tasks.items()
        ),
        *(
            f"No interval for {change.row.short}: {change.why_no_interval}."
            for change in ablated
            if change.why_no_interval
        ),
    ]
