"""Three numbers that stand first on the page: what was kept, at which size, how fast."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval_harness.report.chart_data import session_to_compare, timed_in
from eval_harness.results.speed import ratio
from eval_harness.tables.cells import percent_text, tasks_of_mean, title_of
from eval_harness.tables.comparison import sum_of_medians
from eval_harness.tables.retained import Retained
from eval_harness.tables.row import Row
from eval_harness.tables.write import OurResults


@dataclass(frozen=True)
class Highlight:
    """A number, and what it is, in words that need no other."""

    number: str
    text: str


def highlights(ours: OurResults) -> list[Highlight]:
    """Return the numbers of the student that kept most of its teacher's score.

    Those that were timed beside their teacher come first. Without a student beside its teacher, the
    best model's score stands alone.
    """
    found = [
        (each.row, each.retained, list(_costs(ours, each.row, each.retained.teacher)))
        for each in ours.compared
        if each.retained is not None and not each.row.settings.get("method")
    ]
    if not found:
        return list(_best(ours.rows))
    student, retained, costs = max(found, key=lambda each: (bool(each[2]), each[1].share))
    return [_kept(student, retained), *costs]


def _kept(student: Row, retained: Retained) -> Highlight:
    tasks = " and ".join(map(title_of, retained.tasks))
    over = tasks if len(retained.tasks) < 3 else f"{len(retained.tasks)} tasks"
    interval = retained.interval
    limits = f"; 95 %: {interval[0]:.0f} to {interval[1]:.0f}" if interval else ""
    return Highlight(
        f"{retained.share:.0f} %",
        f"of the score of its teacher, {retained.teacher.label}, is kept by {student.label} "
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


def _best(rows: Sequence[Row]) -> Iterator[Highlight]:
    scored = [(sum_of_medians(row, tasks) / len(tasks), row, tasks) for row in rows
              if (tasks := tasks_of_mean(row))]  # fmt: skip
    if scored:
        score, row, tasks = max(scored, key=lambda each: (len(each[2]), each[0]))
        over = title_of(tasks[0]) if len(tasks) == 1 else f"the mean of {len(tasks)} GLUE tasks"
        yield Highlight(percent_text(score), f"{over} by {row.label}, the best here")
