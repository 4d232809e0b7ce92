"""Result files as facts for a model card, by the tables' own functions. Imports no torch.

Medians, spreads, seeds, shares, intervals and caveats are those that the tables print: what has no
cell there has none here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from angels_share.card.facts import CardFineTuning, CardMeasured, CardTable
from angels_share.errors import UserError
from angels_share.names import nearest, short_name_of
from eval_harness.publish.card_rows import (
    BUILT_IN,
    card_row,
    examples_of,
    hub_id,
    is_distilled,
    machine_of,
    tasks_of,
)
from eval_harness.results.record import TaskResult, texts_added
from eval_harness.results.speed import Speeds, find_speeds
from eval_harness.results.store import Found, find
from eval_harness.results.verify import disagreement
from eval_harness.rows.grouping import rows_of
from eval_harness.rows.row import Row
from eval_harness.tables.cells import title_of
from eval_harness.tables.paper import load_paper
from eval_harness.tables.retained import ComparedRow, compare_with_teacher
from eval_harness.tables.table import Published, drop_empty_columns
from eval_harness.tables.table3 import table3

_MODELS = "models"


def card_results(
    root: Path | str, model: str, *, task: str | None = None, run: str | None = None
) -> CardMeasured:
    """Return what a results folder says of a model, for its card.

    Args:
        root: the results folder; an interval that is not cached yet is cached there.
        model: the model's key, such as `distilbert-0123abcd`, or its slug or name where only one
            model has it. For a fine-tuned model it is that of the model that was fine-tuned.
        task: the task to state results of [all]; for a fine-tuned model its own.
        run: the key of the run that a fine-tuned model's weights are from (`run_of`):
            `<model>/<task>/<settings>/seed-<n>`.

    Raises:
        UserError: no such results; a name that several models have; or a score that disagrees with
            its predictions.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; name one that has results")
    found = find(folder)
    key = _key_of(found, model)
    own = _result_of(found, run, key) if run is not None else None
    task = own.task if own is not None else task
    if task is not None:
        found = _of_task(found, task, key)
    rows = rows_of(found, pooled=False)  # a card is about one model
    chosen = [row for row in rows if _belongs(row, key, own)]
    compared = [compare_with_teacher(row, rows, folder) for row in chosen]
    _require_agreement(folder, compared)
    citations = {
        title_of(name): BUILT_IN[name].citation for name in tasks_of(chosen) if name in BUILT_IN
    }
    return CardMeasured(
        rows=tuple(card_row(each, found, own) for each in compared),
        speed=tuple(_speed(folder, key)),
        citations={title: text for title, text in citations.items() if text},
        fine_tuning=_fine_tuning(chosen, own, rows) if task is not None and chosen else None,
    )


def run_of(folder: Path | str, root: Path | str) -> str | None:
    """Return the run whose weights `--save_models` put into a folder; None for any other folder.

    Args:
        folder: the folder of the fine-tuned model.
        root: the results folder.
    """
    models = (Path(root).expanduser() / _MODELS).resolve()
    path = Path(folder).expanduser().resolve()
    if not path.is_relative_to(models):
        return None
    key = path.relative_to(models).as_posix()
    return key if re.fullmatch(r"[^/]+/[^/]+/[0-9a-f]+/seed-\d+", key) else None


def _key_of(found: Found, name: str) -> str:
    models = {result.model.key: result.model for result in found.results}
    if name in models:
        return name
    keys = sorted(key for key, model in models.items() if name in (model.slug, model.name))
    if len(keys) > 1:
        raise UserError(f"several models are called {name!r}: choose from {', '.join(keys)}")
    if not keys:
        raise UserError(f"no results of a model {name!r}{nearest(name, models)}")
    return keys[0]


def _result_of(found: Found, run: str, key: str) -> TaskResult:
    """Return the result of the run that made the weights."""
    result = found.by_key.get(run)
    if result is None:
        reasons = (f": {file.reason}" for file in found.invalid if f"/{run}." in file.path)
        raise UserError(f"no result of the run {run!r} counts{next(reasons, '')}")
    if result.model.key != key:
        raise UserError(f"the run {run!r} is not one of {key}")
    return result


def _of_task(found: Found, task: str, key: str) -> Found:
    """Return the results of one task, so that a share and its interval are over it alone."""
    evaluated = {result.task for result in found.results if result.model.key == key}
    if task not in evaluated:
        raise UserError(f"no results of {key} on {task!r}{nearest(task, evaluated)}")
    by_key = {name: result for name, result in found.by_key.items() if result.task == task}
    return Found(by_key, tuple(file for file in found.invalid if f"/{task}/" in file.path))


def _belongs(row: Row, key: str, own: TaskResult | None) -> bool:
    """Return whether a row is that of the weights, or any of the model that is not outdated."""
    if own is not None:
        return any(result is own for result in row.results)
    return row.model.key == key and not row.variant


def _require_agreement(root: Path, compared: Sequence[ComparedRow]) -> None:
    """Refuse a score that is not that of its predictions: a card must not spread it."""
    teachers = [each.retained.teacher for each in compared if each.retained is not None]
    results = {
        id(result): result
        for row in (*(each.row for each in compared), *teachers)
        for result in row.results
    }
    for result in results.values():
        if why := disagreement(root, result):
            raise UserError(
                f"{result.key}: {why}; `python -m eval_harness tables --verify` names all such "
                "results: rerun or remove them"
            )


def _fine_tuning(
    chosen: Sequence[Row], own: TaskResult | None, rows: Sequence[Row]
) -> CardFineTuning:
    """Return how the weights were made: by their own run, or as far as it can be told without.

    Args:
        chosen: the rows that the weights may be from, at least one.
        own: the result of their run, if it is known.
        rows: all rows, among them those of teachers.
    """
    row = chosen[0]
    result, model = own or row.results[0], row.model
    on_hub = hub_id(model)
    distillation = None if len(chosen) > 1 else _distillation(row, rows)
    return CardFineTuning(
        task=result.task,
        title=title_of(result.task),
        columns=tuple(map(str, result.settings.task.get("columns", ()))),
        scale=BUILT_IN[result.task].scale if result.task in BUILT_IN else None,
        examples=examples_of(result.data, "train"),
        settings=dict(result.settings.task.get("values", {})),
        base=model.name,
        base_hub=on_hub,
        base_revision=model.revision if on_hub else None,
        base_teacher=_known_name(model.teacher),
        distillation=distillation,
        transfer_texts=texts_added(result) if distillation else 0,
        seed=own.seed if own is not None else None,
        marks=tuple(own.marks) if own is not None else (),
        seconds=_seconds(own) if own is not None else None,
        machine=machine_of(own.provenance) if own is not None else None,
    )


def _seconds(own: TaskResult) -> float | None:
    seconds = own.times.get("train")
    return seconds if type(seconds) in (int, float) else None


def _known_name(name: str | None) -> str | None:
    """Return the Hub id of a short name, which is ours alone; any other name as it is."""
    known = short_name_of(name) if name is not None else None
    return known.repo_id if known is not None else name


def _distillation(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the options of a distillation on the task, with the teacher's name for its key."""
    if not is_distilled(row):
        return {}
    options = dict(row.settings["method"]["options"])
    key = str(options.get("teacher_model"))
    names = {each.model.key: each.model.name for each in rows}
    name = names.get(key, key.rpartition("-")[0])
    return {**options, "teacher_model": _known_name(name)}


def _speed(root: Path, key: str) -> Iterator[CardTable]:
    """Yield the timings of a model as Table 3 has them, beside the first model of its session."""
    paper = load_paper()
    for session in find_speeds(root).sessions:
        first = session.models[0]
        timed = [each for each in session.models if each.key == key and not each.random_weights]
        if not timed:
            continue
        models = tuple({each.key: each for each in (first, *timed)}.values())
        shown = table3(paper, Speeds((replace(session, models=models),)))
        rows = [
            dict(zip(shown.columns, cells, strict=True))
            for cells in shown.cells
            if not isinstance(cells[0], Published)
        ]
        columns, kept = drop_empty_columns(shown.columns, rows)
        ours = replace(shown, columns=tuple(columns), cells=tuple(map(tuple, kept)))
        yield CardTable(
            ours.columns, ours.rows, tuple(n for n in shown.notes if n.startswith("Measured"))
        )
