"""The table of the original's README: well-known distilled models, each below its teacher."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from angels_share.names import SHORT_NAMES, ShortName, short_name_of
from eval_harness.rows.labels import footnotes_of, one_line
from eval_harness.rows.row import Row
from eval_harness.tables.cells import count_of, mean_cell, name_cell, tasks_of_mean, title_of
from eval_harness.tables.further_tasks import OF_XNLI, languages_of
from eval_harness.tables.notes import cell_notes
from eval_harness.tables.paper import footnotes
from eval_harness.tables.perplexity import median_by_token
from eval_harness.tables.table import Number, Published, Table, Value, stand_in_first
from eval_harness.tasks.registry import GLUE, LANGUAGES, TASKS

_GLUE = "readme_glue"
_GERMAN = "german_ner_f1"
_PERPLEXITY = "wikitext103_test_perplexity"
_WIKITEXT = "wikitext-103"
_MODEL, _SCORE = "Model", "Macro-score"
_READMES_NAMES = {
    "mBERT base cased (computed)": "bert-base-multilingual-cased",
    "DistilmBERT": "distilbert-base-multilingual-cased",
    "GPT2": "gpt2",
    "DistilGPT2": "distilgpt2",
}
"""What models are called that the README's tables don't name by their repository."""
_ON_TEST = {
    task.name: task.second.cell
    for task in TASKS
    if task.second is not None and task.name in ("conll2003-de", "germeval2014")
}


@dataclass(frozen=True)
class _Part:
    """Columns with published numbers of their own.

    Attributes:
        section: the key of the published numbers.
        tasks: the tasks that they show.
        title: the title of the column that a published number is in.
        ours: our row's cells, by title.
        columns: the titles in order.
        are_whole: whether all columns are shown where any has a number.
    """

    section: str
    tasks: tuple[str, ...]
    title: Callable[[str], str]
    ours: Callable[[Row], Mapping[str, Value]]
    columns: tuple[str, ...]
    are_whole: bool = False


def family_table(paper: Mapping[str, Any], rows: Sequence[Row]) -> Table | None:
    """Return all of the README's rows, and ours; None where no published student is evaluated."""
    evaluated = [row for row in rows if _published_model(row) and _is_shown(row)]
    if not any(known.teacher for row in evaluated if (known := _published_model(row))):
        return None
    teachers = {name.teacher for name in SHORT_NAMES if name.teacher}
    members = [name for name in _in_order() if {name.short, name.teacher} & teachers]
    ours = [row for name in members for row in evaluated if _published_model(row) is name]
    body = [cells for member in members for cells in _published_rows(paper, member)]
    body += [_row(row) for row in ours]
    shown = {part.section: columns for part in _PARTS if (columns := _shown_columns(part, body))}
    titles = (_MODEL, *(title for columns in shown.values() for title in columns))
    notes = [
        *(
            note
            for section in shown
            for note in (paper[section]["what"], *footnotes(paper, section))
        ),
        *footnotes_of(ours),
        *_notes(paper, members, ours),
        *cell_notes(ours, _FAMILY_TASKS),
    ]
    return Table(
        "family",
        "The family",
        titles,
        tuple(tuple(cells.get(title) for title in titles) for cells in body),
        tuple(map(one_line, stand_in_first(notes))),
    )


def _is_shown(row: Row) -> bool:
    return bool(tasks_of_mean(row, _FAMILY_TASKS) or _of_perplexity(row))


def _shown_columns(part: _Part, body: Sequence[Mapping[str, Value]]) -> tuple[str, ...]:
    filled = [title for title in part.columns if any(row.get(title) is not None for row in body)]
    return part.columns if filled and part.are_whole else tuple(filled)


def _published_model(row: Row) -> ShortName | None:
    """Return the published model of a row; None for a local folder, even if it has that name."""
    return short_name_of(row.model.name) if row.model.revision is not None else None


def _in_order() -> list[ShortName]:
    """Return every teacher followed by its students."""
    teachers = [name for name in SHORT_NAMES if name.teacher is None]
    return [
        member
        for teacher in teachers
        for member in (teacher, *(name for name in SHORT_NAMES if name.teacher == teacher.short))
    ]


def _published_rows(paper: Mapping[str, Any], member: ShortName) -> list[dict[str, Value]]:
    """Return the README's rows of a model, one for each name that it has there."""
    rows: dict[str, dict[str, Value]] = {}
    for part in _PARTS:
        for printed, numbers in paper[part.section]["rows"].items():
            name = _READMES_NAMES.get(printed, printed)
            if short_name_of(name) is member:
                row = rows.setdefault(name, {_MODEL: Published(f"{name} (README)")})
                row.update({part.title(key): number for key, number in numbers.items()})
    return list(rows.values())


def _row(row: Row) -> dict[str, Value]:
    cells: dict[str, Value] = {_MODEL: name_cell(row)}
    for part in _PARTS:
        cells.update(part.ours(row))
    return cells


def _of_glue(row: Row) -> dict[str, Value]:
    # Bare medians, as in the README; spreads are in Table 1.
    tasks = tasks_of_mean(row)
    score = mean_cell(row, tasks) if len(tasks) == len(GLUE) else None
    return {_SCORE: score, **{title_of(task): mean_cell(row, (task,)) for task in tasks}}


def _of_xnli(row: Row) -> dict[str, Value]:
    found = {name: cell for name, cell in languages_of(row).items() if name in LANGUAGES}
    alone = replace(row, cells=found)
    medians = {_language(name): mean_cell(alone, (name,)) for name in found}
    return {_XNLI_MEAN: mean_cell(alone, tuple(found)), **medians}


def _of_entities(row: Row) -> dict[str, Value]:
    tasks = tasks_of_mean(row, tuple(_ON_TEST.values()))
    return {title_of(cell): mean_cell(row, (cell,)) for cell in tasks}


def _of_perplexity(row: Row) -> Mapping[str, Value]:
    """Return the perplexity by token after fine-tuning, as the README's is."""
    if row.settings.get("eval_only"):
        return {}
    found = median_by_token(row, _WIKITEXT, "test")
    return {} if found is None else {_PERPLEXITY_TITLE: Number(f"{found:.1f}", found)}


def _language(name: str) -> str:
    return f"XNLI {name}"


_XNLI_MEAN = "XNLI mean"
_PERPLEXITY_TITLE = f"{title_of(_WIKITEXT)} test perplexity (lower is better)"
_PARTS = (
    _Part(
        _GLUE,
        GLUE,
        lambda key: _SCORE if key == "score" else title_of(key),
        _of_glue,
        (_SCORE, *map(title_of, GLUE)),
        are_whole=True,
    ),
    _Part(OF_XNLI, ("xnli",), _language, _of_xnli, (_XNLI_MEAN, *map(_language, LANGUAGES))),
    _Part(
        _GERMAN,
        tuple(_ON_TEST),
        lambda key: title_of(_ON_TEST[key]),
        _of_entities,
        tuple(map(title_of, _ON_TEST.values())),
    ),
    _Part(
        _PERPLEXITY,
        (),
        lambda _key: _PERPLEXITY_TITLE,
        _of_perplexity,
        (_PERPLEXITY_TITLE,),
    ),
)
_FAMILY_TASKS = tuple(task for part in _PARTS for task in part.tasks)


def _notes(
    paper: Mapping[str, Any], members: Sequence[ShortName], ours: Sequence[Row]
) -> list[str]:
    counts = "; ".join(
        f"{row.short} {count_of(cells)}"
        for row in ours
        if (cells := [row.cells[task] for task in _FAMILY_TASKS if task in row.cells])
        or (cells := [row.perplexities[_WIKITEXT]])
    )
    without_wnli = {
        name: score
        for name, score in paper[_GLUE]["score_without_wnli"].items()
        if short_name_of(name) in members
    }
    notes = [f"Ours are medians over seeds (spreads: Table 1); number of seeds: {counts}."]
    if any("mnli" in row.cells for row in ours):
        notes.append("MNLI is the matched part.")
    if without_wnli:
        scores = ", ".join(f"{name} {score}" for name, score in without_wnli.items())
        notes.append(f"The README's macro-scores without WNLI: {scores}.")
    if any("xnli" in row.cells for row in ours):
        notes.append(
            f"{_XNLI_MEAN}: of the medians, over those of the six languages that are there."
        )
    return notes
