"""Three numbers that stand first on the page: what was kept, at which size, how fast."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from angels_share.ablations import FULL
from eval_harness.report.chart_data import (
    FURTHER_TASKS,
    is_degenerate,
    newest_timed,
    session_to_compare,
    timed_in,
)
from eval_harness.results.speed import ratio
from eval_harness.rows.row import Row
from eval_harness.tables.cells import (
    custom_tasks_of,
    percent_text,
    tasks_of_mean,
    title_of,
    titles_of,
)
from eval_harness.tables.comparison import sum_of_medians
from eval_harness.tables.retained import Retained
from eval_harness.tables.table2 import TASKS_OF_TABLE2
from eval_harness.tables.write import OurResults
from eval_harness.tasks.registry import GLUE, TASKS


@dataclass(frozen=True)
class Highlight:
    """A number, and what it is, in words that need no other."""

    number: str
    text: str


def highlights(ours: OurResults) -> list[Highlight]:
    """Return three numbers of the student that kept most of its teacher's score.

    Those that lack a part of the loss are no candidates where one has all: the best of several
    ablations would be chosen by chance. Those that were timed beside their teacher come first.
    Without a student beside its teacher, they are about the model with the best score: on GLUE,
    else on IMDb or SQuAD, else on custom tasks. None without results.
    """
    found = [
        (each.row, each.retained, list(_costs(ours, each.row, each.retained.teacher)))
        for each in ours.compared
        if each.retained is not None
        and not each.row.settings.get("method")
        and not _learned_nothing(each.row, each.retained)
    ]
    if not found:
        return list(_best(ours))[:_COUNT]
    found = [each for each in found if not _is_ablation(each[0])] or found
    student, retained, costs = max(found, key=lambda each: (bool(each[2]), each[1].share))
    others = costs or [_score_beside_teacher(student, retained), *_runs(ours.rows)]
    return [_kept(student, retained), *others]


def _is_ablation(row: Row) -> bool:
    return row.model.distilled is not None and row.model.distilled.ablation != FULL


def _learned_nothing(student: Row, retained: Retained) -> bool:
    """Return whether student or teacher gave one answer to everything, on every task and seed.

    Then a share, however near 100 %, says nothing of what was kept.
    """
    return any(
        all(is_degenerate(result) for task in retained.tasks for result in row.cells[task].results)
        for row in (student, retained.teacher)
    )


_COUNT = 3


def _score_beside_teacher(student: Row, retained: Retained) -> Highlight:
    own, its = (
        percent_text(sum_of_medians(row, retained.tasks) / len(retained.tasks))
        for row in (student, retained.teacher)
    )
    return Highlight(own, f"of 100 is its score {_over(retained.tasks)}; its teacher's is {its}")


def _kept(student: Row, retained: Retained) -> Highlight:
    tasks = " and ".join(map(title_of, retained.tasks))
    over = tasks if len(retained.tasks) < 3 else f"{len(retained.tasks)} tasks"
    interval = retained.interval
    limits = f"; 95 %: {interval[0]:.0f} to {interval[1]:.0f}" if interval else ""
    return Highlight(
        f"{retained.share:.0f} %",
        f"of the score of its teacher, {retained.teacher.short}, is kept by {student.short} "
        f"({over}{limits})",
    )


def _costs(ours: OurResults, student: Row, teacher: Row) -> Iterator[Highlight]:
    session = session_to_compare([student, teacher], ours.speeds)
    if session is None:
        return
    small, large = timed_in(student, session), timed_in(teacher, session)
    if small is None or large is None:
        return
    millions = " of ".join(f"{model.parameters / 1e6:.3g}" for model in (small, large))
    yield Highlight(
        f"{100 * small.parameters / large.parameters:.0f} %",
        f"of its parameters ({millions} million)",
    )
    threads = session.setup.threads[0]
    found = ratio(large.timing(threads), small.timing(threads))
    cores = f"{threads} thread{'s' if threads > 1 else ''}"
    yield Highlight(
        f"{found.value:.1f} x",
        f"as fast ({cores}, one pair of sentences at a time; {found.low:.1f} to {found.high:.1f})",
    )


def _best(ours: OurResults) -> Iterator[Highlight]:
    """Yield what is known of the best model, the most telling first."""
    single = (*TASKS_OF_TABLE2, *FURTHER_TASKS)
    groups = (GLUE, *((task,) for task in single), custom_tasks_of(ours.rows))
    for group in groups:
        scored = [(sum_of_medians(row, tasks) / len(tasks), row, tasks) for row in ours.rows
                  if (tasks := tasks_of_mean(row, group))]  # fmt: skip
        if scored:
            break
    else:
        return
    score, row, tasks = max(scored, key=lambda each: (len(each[2]), each[0]))
    titles = {**titles_of(ours.rows), "squad": "SQuAD (F1)", "squad_v2": "SQuAD 2.0 (F1)"}
    rivals = sum(each[2] == tasks for each in scored)
    best = f", the best of {rivals} here" if rivals > 1 else ""
    what = _over([titles[task] for task in tasks], named=True)
    yield Highlight(percent_text(score), f"of 100 is the score of {row.short} {what}{best}")
    yield from _guessing(row, tasks)
    if others := [each for each in scored if each[2] == tasks and each[1] is not row]:
        second, other, _ = max(others, key=lambda each: each[0])
        yield Highlight(percent_text(second), f"is the next best score, by {other.short}")
    yield from _own_costs(ours, row)
    yield from _spread(row, tasks)
    yield from _runs(ours.rows)


def _over(tasks: Sequence[str], *, named: bool = False) -> str:
    """Return `on RTE`, or `over 5 tasks`: names of tasks, or titles where they are `named`."""
    if len(tasks) > 1:
        return f"over {len(tasks)} tasks"
    return f"on {tasks[0] if named else title_of(tasks[0])}"


def _guessing(row: Row, tasks: Sequence[str]) -> Iterator[Highlight]:
    """Yield what a model would score that always gives the most frequent answer, if it is known."""
    majority = {task.name: task.majority for task in TASKS if task.majority is not None}
    on_real_data = not any("name" in result.data for result in row.results)
    if on_real_data and row.settings.get("limit") is None and set(tasks) <= majority.keys():
        guessed = sum(majority[task] for task in tasks) / len(tasks)
        yield Highlight(f"{guessed:.1f}", "is what always giving the commonest answer scores there")


def _own_costs(ours: OurResults, row: Row) -> Iterator[Highlight]:
    timed = newest_timed(row, ours.speeds)
    if timed is not None:
        yield Highlight(f"{timed.parameters / 1e6:.3g} M", f"parameters (millions) has {row.short}")


def _spread(row: Row, tasks: Sequence[str]) -> Iterator[Highlight]:
    """Yield how far apart the seeds of one task are."""
    scores = row.cells[tasks[0]].counted_scores
    if len(tasks) == 1 and len(scores) > 1:
        points = percent_text(max(scores) - min(scores))
        yield Highlight(points, f"points lie between the best and the worst of {len(scores)} seeds")


def _runs(rows: Sequence[Row]) -> Iterator[Highlight]:
    """Yield how much evidence there is."""
    results = {result.key: result for row in rows for result in row.results}.values()
    counts = (
        (len({result.model.key for result in results}), "model"),
        (len({result.task for result in results}), "task"),
        (len({result.seed for result in results}), "seed"),
    )
    listed = ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for count, noun in counts)
    runs = "runs are" if len(results) > 1 else "run is"
    yield Highlight(str(len(results)), f"fine-tuning {runs} behind this page: {listed}")
