"""What each task asks and what its score is: a line each, for who has never seen them."""

from collections.abc import Mapping, Sequence

from eval_harness.rows.row import Row
from eval_harness.tables.cells import custom_tasks_of, titles_of
from eval_harness.tasks.kinds import QUESTIONS
from eval_harness.tasks.registry import GLUE, TASKS, Metric, Task

_MEASURES: Mapping[Metric, str] = {
    "accuracy": "% right",
    "f1": "F1 (how well those that do are found)",
    "f1_macro": "F1 of each class, averaged",
    "f1_micro": "% right",
    "matthews": "Matthews' correlation, 0 = chance",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's correlation, 0 = chance",
    "entity_f1": "F1 of whole names, counted as conlleval does",
    "strict_f1": "F1 of whole names, by IOB2's rules",
}
_OF_ANSWERS = "EM: % exactly right; F1: % of shared words"
_GLUE = "nine tasks on English sentences; its score is the mean of all nine, and 100 the best"


def explained_tasks(rows: Sequence[Row]) -> dict[str, str]:
    """Return a line for GLUE, for each of the tasks that tables show, and for custom ones."""
    present = {task for row in rows for task in row.cells}
    always = {*GLUE, "imdb", "squad"}  # the paper's rows have them
    # On made-up data the most frequent answer is another one.
    real = not any("name" in result.data for row in rows for result in row.results)
    lines = {"GLUE": _GLUE}
    for task in TASKS:
        if task.name in always or task.name in present:
            lines[task.title] = f"{task.about} {_score(task, with_guessing=real)}"
    titles = titles_of(rows)
    for name in custom_tasks_of(rows):
        lines[titles[name]] = f"a custom task: {_custom(name, rows)}"
    return lines


def _score(task: Task, *, with_guessing: bool) -> str:
    if task.kind is QUESTIONS:
        return _OF_ANSWERS
    measures = [_MEASURES[name] for name in task.primary]
    score = measures[0] if len(measures) == 1 else f"the mean of {' and '.join(measures)}"
    if with_guessing and task.majority:
        score += f"; always the commonest answer: {task.majority:.1f}"
    return score


def _custom(name: str, rows: Sequence[Row]) -> str:
    """Return what its results record of a task: its classes; old ones record nothing."""
    cells = [row.cells[name] for row in rows if name in row.cells]
    newest = max((each for cell in cells for each in cell.results), key=lambda each: each.finished)
    labels = newest.settings.task.get("labels")
    if not isinstance(labels, list):
        return "see its file"
    return f"one of {', '.join(map(str, labels))}" if labels else "a number"
