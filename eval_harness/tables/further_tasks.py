"""The tables of named entities and of XNLI: tasks that are in no table of the paper's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eval_harness.rows.labels import footnotes_of, one_line
from eval_harness.rows.row import Cell, Row
from eval_harness.tables.cells import COUNT, MODEL, count_of, name_cell, score_cell, title_of
from eval_harness.tables.notes import cell_notes, count_notes
from eval_harness.tables.table import (
    Number,
    Published,
    Table,
    Value,
    drop_empty_columns,
    make_table,
    stand_in_first,
)
from eval_harness.tasks.registry import ENTITIES, TASKS, XNLI

TASKS_OF_ENTITIES = tuple(task.name for task in TASKS if task.table == ENTITIES)
_CELLS = {
    task.name: (task.name, *([task.second.cell] if task.second else ()))
    for task in TASKS
    if task.table == ENTITIES
}
_COUNTING = (
    "F1 of entities, in percent, on dev sets, or on test sets where a column says so; by "
    "conlleval's counting: type and both ends must be right, and an I- that continues nothing "
    "begins an entity. Precision, recall and the same by IOB2's strict rules are in each result."
)
_OF_GERMEVAL = (
    "GermEval 2014: the outer of its two levels, with all twelve types, -deriv and -part included."
)


def entities_table(rows: Sequence[Row], not_counted: Sequence[str]) -> Table | None:
    """Return the table of named entities; None where no such task has results.

    Args:
        rows: our rows.
        not_counted: notes on files that don't count.
    """
    shown = [row for row in rows if row.cells.keys() & set(TASKS_OF_ENTITIES)]
    if not shown and not not_counted:
        return None
    columns = {title_of(cell): cell for cells in _CELLS.values() for cell in cells}
    body: list[dict[str, Value]] = [
        {
            MODEL: name_cell(row),
            COUNT: count_of([row.cells[task] for task in TASKS_OF_ENTITIES if task in row.cells]),
            **{title: score_cell(row, cell) for title, cell in columns.items()},
        }
        for row in shown
    ]
    titles, cells = drop_empty_columns((MODEL, COUNT, *columns), body)
    notes = [
        _COUNTING,
        *([_OF_GERMEVAL] if any("germeval2014" in row.cells for row in shown) else []),
        *footnotes_of(shown),
        *count_notes(shown, TASKS_OF_ENTITIES),
        *cell_notes(shown, TASKS_OF_ENTITIES),
        *not_counted,
    ]
    return Table(
        ENTITIES,
        "Named entities",
        tuple(titles or (MODEL,)),
        tuple(map(tuple, cells)),
        tuple(map(one_line, stand_in_first(notes))),
    )


OF_XNLI = "xnli_zero_shot"
"""The key of the published numbers."""
TASKS_OF_XNLI = tuple(task.name for task in TASKS if task.table == XNLI)
_ZERO_SHOT = "xnli"
_SPLIT = "test."
_LANGUAGES = tuple(
    split.removeprefix(_SPLIT)
    for task in TASKS
    if task.name == _ZERO_SHOT
    for split in task.evaluation
)
_MEAN = "Mean"
_TRANSLATED = {
    f"{task.config} (translate-train)": task.name
    for task in TASKS
    if task.table == XNLI and not task.averages
}
_MEANING = "Mean: over the languages that a row has; the published rows' is computed here."
_TRANSLATE_TRAIN = "translate-train: trained on the pairs translated into that language, instead."


def xnli_table(
    paper: Mapping[str, Any], rows: Sequence[Row], not_counted: Sequence[str]
) -> Table | None:
    """Return XNLI's table, the published rows first; None where there are no results.

    Args:
        paper: the published numbers.
        rows: our rows.
        not_counted: notes on files that don't count.
    """
    shown = [row for row in rows if row.cells.keys() & set(TASKS_OF_XNLI)]
    if not shown and not not_counted:
        return None
    published = paper[OF_XNLI]["rows"]
    counts = {len(row) for row in published.values()} | {len(languages_of(row)) for row in shown}
    is_shared = len(counts - {0}) == 1
    body: list[dict[str, Value]] = [
        {
            MODEL: Published(f"{name} (README)"),
            _MEAN: _mean_of_published(row, is_shared=is_shared),
            **row,
        }
        for name, row in published.items()
    ]
    body += [_row(row, is_shared=is_shared) for row in shown]
    columns, cells = drop_empty_columns((MODEL, COUNT, _MEAN, *_LANGUAGES, *_TRANSLATED), body)
    notes = [
        _MEANING,
        *([_TRANSLATE_TRAIN] if set(columns) & set(_TRANSLATED) else []),
        *footnotes_of(shown),
        *count_notes(shown, TASKS_OF_XNLI),
        *cell_notes(shown, TASKS_OF_XNLI),
        *not_counted,
    ]
    return make_table(
        paper, XNLI, "XNLI: accuracy, test sets", columns, cells, notes=notes, section=OF_XNLI
    )


def languages_of(row: Row) -> dict[str, Cell]:
    """Return a row's cell for each language that it was judged in, trained on English."""
    whole = row.cells.get(_ZERO_SHOT)
    if whole is None:
        return {}
    scores = {
        language: tuple(
            result.scores.get(f"{_SPLIT}{language}", {}).get("score") for result in whole.results
        )
        for language in _LANGUAGES
    }
    return {
        language: replace(whole, scores=of_language)
        for language, of_language in scores.items()
        if any(score is not None for score in of_language)
    }


def _row(row: Row, *, is_shared: bool) -> dict[str, Value]:
    found = languages_of(row)
    mean = score_cell(row, _ZERO_SHOT)
    if mean is not None and not is_shared:
        mean = replace(mean, text=f"{mean.text} ({len(found)} languages)")
    return {
        MODEL: name_cell(row),
        COUNT: count_of([row.cells[task] for task in TASKS_OF_XNLI if task in row.cells]),
        _MEAN: mean,
        **{
            language: score_cell(replace(row, cells={language: cell}), language)
            for language, cell in found.items()
        },
        **{title: score_cell(row, task) for title, task in _TRANSLATED.items()},
    }


def _mean_of_published(row: Mapping[str, float], *, is_shared: bool) -> Number:
    mean = sum(row.values()) / len(row)
    count = "" if is_shared else f" ({len(row)} languages)"
    return Number(f"{mean:.1f}{count}", round(mean, 10))
