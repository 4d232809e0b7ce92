"""A row of the tables as facts for a model card, cell by cell. Imports no torch."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from angels_share.card.facts import CardData, CardResult, CardRetained, CardRow
from angels_share.names import REPO_ID
from eval_harness.intervals.bootstrap import RESAMPLES
from eval_harness.results.record import TaskResult, texts_added
from eval_harness.results.store import Found, Invalid
from eval_harness.rows.row import Cell, Row
from eval_harness.runs.run import Model
from eval_harness.tables.cells import (
    RETAINED,
    count_of,
    mean_cell,
    percent_text,
    score_cell,
    tasks_of_mean,
    title_of,
    to_percent,
)
from eval_harness.tables.notes import cell_notes
from eval_harness.tables.paper import load_paper
from eval_harness.tables.perplexity import perplexities_of
from eval_harness.tables.retained import ComparedRow
from eval_harness.tables.table import text_of
from eval_harness.tables.table1 import table1
from eval_harness.tables.table2 import columns_of_tasks
from eval_harness.tasks.entities import ENTITY_METRICS
from eval_harness.tasks.kinds import QUESTIONS
from eval_harness.tasks.registry import TASKS, Task

BUILT_IN = {task.name: task for task in TASKS}
_DIGITS = {column.cell: column.digits for column in columns_of_tasks(TASKS).values()}
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SCORE = "score"

_METRICS: Mapping[str, tuple[str, str | None, Mapping[str, Any]]] = {
    "accuracy": ("accuracy", "accuracy", {}),
    "f1": ("F1", "f1", {}),
    "f1_macro": ("F1 (macro)", "f1", {"average": "macro"}),
    "f1_micro": ("F1 (micro)", "f1", {"average": "micro"}),
    "matthews": ("Matthews correlation", "matthews_correlation", {}),
    "pearson": ("Pearson correlation", "pearsonr", {}),
    "spearman": ("Spearman correlation", "spearmanr", {}),
    "exact_match": ("exact match", "exact_match", {}),
    "entity_f1": ("entity F1", "f1", {}),
    "entity_precision": ("entity precision", "precision", {}),
    "entity_recall": ("entity recall", "recall", {}),
    "strict_f1": ("strict entity F1", None, {}),
    "strict_precision": ("strict entity precision", None, {}),
    "strict_recall": ("strict entity recall", None, {}),
}
"""Our metrics: their title, their id on the Hub, and the arguments that it needs there."""


def tasks_of(rows: Sequence[Row]) -> list[str]:
    """Return the tasks with scores: the built-in ones in the tables' order, then custom ones."""
    cells = [cell for row in rows for cell in row.cells.values()]
    present = {result.task for cell in cells for result in cell.results}
    return [*(name for name in BUILT_IN if name in present), *sorted(present - BUILT_IN.keys())]


def hub_id(model: Model) -> str | None:
    """Return the id of a model on the Hub; None for a folder."""
    is_there = model.revision is not None and _COMMIT.fullmatch(model.revision) is not None
    return model.source if is_there and REPO_ID.fullmatch(model.source) else None


def is_distilled(row: Row) -> bool:
    """Return whether a teacher was used on the task: (D)."""
    method = row.settings.get("method")
    return method is not None and method["name"] == "distil"


def machine_of(provenance: Mapping[str, Any]) -> str:
    """Return the device, the threads and the processor of a run."""
    threads, machine = provenance.get("threads"), provenance.get("machine")
    processor = machine.get("processor") if isinstance(machine, dict) else None
    parts = [str(provenance.get("device", "device not recorded"))]
    parts += [f"{threads} CPU thread{'s' if threads != 1 else ''}"] if threads else []
    parts += [processor] if isinstance(processor, str) and processor else []
    return ", ".join(parts)


def card_row(compared: ComparedRow, found: Found, own: TaskResult | None) -> CardRow:
    """Return a row with everything that its scores depend on.

    Args:
        compared: the row, compared with its teacher's.
        found: what it was made of, and the files that don't count.
        own: the result of the weights that the card comes with, if it is one of the row's.
    """
    row, tasks = compared.row, tasks_of([compared.row])
    records = [result.provenance for result in row.results]
    of_mean = tasks_of_mean(row)
    mean = mean_cell(row, of_mean) if len(of_mean) > 1 else None
    not_counted = (file for file in found.invalid if _would_be_in(file, row))
    return CardRow(
        label=row.label,
        results=tuple(each for task in tasks for each in _results(row, task, own)),
        distilled=is_distilled(row),
        transfer_texts=max(map(texts_added, row.results)),
        limit=row.settings.get("limit"),
        mean=text_of(mean),
        mean_of=tuple(map(title_of, of_mean)) if mean is not None else (),
        retained=_retained(compared),
        why_not_retained=compared.why_not,
        notes=(
            # Of one row at a time, so that no note names rows that the card does not show.
            *cell_notes([row], tasks),
            *perplexities_of(row),
            *(f"Not counted: {file}." for file in not_counted),
        ),
        code=_sorted(map(_code_of, records)),
        libraries=_libraries(records),
        machines=_sorted(map(machine_of, records)),
    )


def _would_be_in(file: Invalid, row: Row) -> bool:
    return not file.is_leftover and f"/{row.model.key}/" in file.path


def _results(row: Row, task: str, own: TaskResult | None) -> Iterator[CardResult]:
    """Yield every metric of a task on every evaluated split, each as a cell of the tables."""
    results, known = row.cells[task].results, BUILT_IN.get(task)
    pipeline = _pipeline(results, known)
    digits = _DIGITS.get(task, 1)
    for split in {split: None for result in results for split in result.scores}:
        data = _data(results, task, split)
        for metric in _metrics_on(results, split, known):
            scores = tuple(result.scores.get(split, {}).get(metric) for result in results)
            cell = Cell(results, scores, row.cells[task].expected_seeds)
            printed = score_cell(replace(row, cells={task: cell}), task, digits)
            title, hub, arguments = _METRICS.get(metric, (_title(metric, known), None, {}))
            here = next((score for each, score in _pairs(cell) if each is own), None)
            yield CardResult(
                task=task,
                pipeline=pipeline,
                data=data,
                title=title,
                metric=hub,
                arguments=arguments,
                count=count_of([cell]),
                seeds=len(cell.counted_scores),
                median=printed.number if printed is not None else None,
                highest=to_percent(max(cell.counted_scores)) if printed is not None else None,
                text=printed.text if printed is not None else "",
                here=None if here is None else to_percent(here),
                here_text="" if here is None else percent_text(here, digits),
            )


def _pipeline(results: Sequence[TaskResult], task: Task | None) -> str:
    """Return what the Hub calls the kind of a task; a custom one's metrics tell it."""
    if task is not None and task.kind is QUESTIONS:
        return "question-answering"
    measures = results[0].settings.task.get("measures", ())
    of_entities = any(name in measures for name in ENTITY_METRICS)
    return "token-classification" if of_entities else "text-classification"


def _pairs(cell: Cell) -> Iterable[tuple[TaskResult, float | None]]:
    return zip(cell.results, cell.scores, strict=True)


def _metrics_on(results: Sequence[TaskResult], split: str, task: Task | None) -> list[str]:
    """Return the metrics of a split, the task's first ones first.

    Args:
        results: one per seed.
        split: the split.
        task: the task, if it is a built-in one.

    Returns:
        Their names; the score is among them only where it is a mean of several.
    """
    scores = [result.scores.get(split, {}) for result in results]
    names = [name for name in {name: None for each in scores for name in each} if name != _SCORE]
    if task is not None and task.second is None:
        names.sort(key=lambda name: (name not in task.primary, name not in task.also))
    is_one = any(all(each.get(name) == each.get(_SCORE) for each in scores) for name in names)
    return names if is_one else [*names, _SCORE]


def _title(metric: str, task: Task | None) -> str:
    """Return the title of a metric that the Hub has no id for."""
    if metric != _SCORE:
        return metric.replace("_", " ")
    titles = [_METRICS[name][0] for name in task.primary] if task is not None else []
    return f"mean of {' and '.join(titles)}" if len(titles) > 1 else _SCORE


def _data(results: Sequence[TaskResult], task: str, split: str) -> CardData:
    """Return the data of a cell; the Hub's data set is named where the examples are its own."""
    records = [result.data for result in results]
    elsewhere, known = _elsewhere(records, task), BUILT_IN.get(task)
    hub = known if not elsewhere else None
    revision = _only({record.get("revision") for record in records})
    examples = _only({examples_of(record, split) for record in records})
    return CardData(
        title=title_of(task),
        split=split,
        hub=hub.hub if hub is not None else None,
        config=hub.config if hub is not None else None,
        revision=revision if hub is not None and _COMMIT.fullmatch(str(revision)) else None,
        elsewhere=elsewhere,
        content=str(records[0].get("content", ""))[:8] or None,
        examples=examples if type(examples) is int else None,
    )


def examples_of(record: Mapping[str, Any], split: str) -> Any:
    """Return the number of examples of a split; results may come from anybody."""
    counts = record.get("examples")
    count = counts.get(split) if isinstance(counts, dict) else None
    return count if type(count) is int else None


def _only(values: set[Any]) -> Any:
    return next(iter(values)) if len(values) == 1 else None


def _elsewhere(records: Sequence[Mapping[str, Any]], task: str) -> str:
    """Return what data are that are not the Hub's own for this task; '' for those that are."""
    if names := _sorted(record["name"] for record in records if record.get("name")):
        return f"stand-in data: {' and '.join(names)}"
    if (known := BUILT_IN.get(task)) is None:
        return "custom task"
    hub = {known.hub, f"hub:{known.hub}", f"hub:{known.hub}/{known.config}"}
    if all(record.get("revision") and record.get("source") in hub for record in records):
        return ""
    return "local files"


def _retained(compared: ComparedRow) -> CardRetained | None:
    retained = compared.retained
    if retained is None:
        return None
    teacher = retained.teacher
    shown = table1(load_paper(), [compared], ())
    cells = dict(zip(shown.columns, shown.cells[-1], strict=True))
    return CardRetained(
        text=text_of(cells.get(RETAINED)),
        teacher=teacher.label,
        hub=hub_id(teacher.model),
        revision=teacher.model.revision if hub_id(teacher.model) else None,
        tasks={
            title_of(task): text_of(score_cell(teacher, task, always_count=True))
            for task in retained.tasks
        },
        single=tuple(map(title_of, retained.tasks_of_one_seed)),
        resamples=RESAMPLES,
        why_no_interval=retained.why_no_interval,
    )


def _code_of(record: Mapping[str, Any]) -> str:
    """Return version and commit of this project."""
    commit = record.get("commit")
    known = f"commit {commit}" if commit else "commit not recorded"
    return f"{record.get('version', 'of an unknown version')} ({known})"


def _libraries(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the versions of the libraries that scores depend on most."""
    found = {}
    for name in ("torch", "transformers"):
        libraries = [record.get("libraries", {}) for record in records]
        if versions := _sorted(each[name] for each in libraries if name in each):
            found[name] = " and ".join(versions)
    return found


def _sorted(texts: Iterable[object]) -> tuple[str, ...]:
    return tuple(sorted(set(map(str, texts))))
