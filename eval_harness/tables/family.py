"""The table of the original's README: well-known distilled models, each below its teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

from angels_share.names import SHORT_NAMES, ShortName, short_name_of
from eval_harness.tables.cells import count_of, mean_cell, name_cell, tasks_of_mean, title_of
from eval_harness.tables.notes import cell_notes
from eval_harness.tables.row import Row
from eval_harness.tables.row_labels import footnotes_of
from eval_harness.tables.table import Published, Table, Value, make_table
from eval_harness.tasks.registry import GLUE

_SECTION = "readme_glue"


def family_table(paper: Mapping[str, Any], rows: Sequence[Row]) -> Table | None:
    """Return the README's rows and ours of each family with an evaluated student; None if none."""
    evaluated = [row for row in rows if _published_model(row) and tasks_of_mean(row)]
    teachers = {
        known.teacher for row in evaluated if (known := _published_model(row)) and known.teacher
    }
    members = [name for name in _in_order() if {name.short, name.teacher} & teachers]
    ours = [row for name in members for row in evaluated if _published_model(row) is name]
    if not teachers:
        return None
    published = paper[_SECTION]["rows"]
    cells: list[list[Value]] = [
        [Published(f"{name} (README)"), row["score"], *(row[task] for task in GLUE)]
        for member in members
        for name, row in published.items()
        if short_name_of(name) is member
    ]
    cells += [_row(row) for row in ours]
    return make_table(
        paper,
        "family",
        "The family: GLUE, dev sets",
        ("Model", "Macro-score", *map(title_of, GLUE)),
        cells,
        notes=(*footnotes_of(ours), *_notes(paper, members, ours), *cell_notes(ours, GLUE)),
        section=_SECTION,
    )


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


def _row(row: Row) -> list[Value]:
    # Bare medians, as in the README; spreads are in Table 1.
    tasks = tasks_of_mean(row)
    score = mean_cell(row, tasks) if len(tasks) == len(GLUE) else None
    medians = (mean_cell(row, (task,)) if task in tasks else None for task in GLUE)
    return [name_cell(row), score, *medians]


def _notes(
    paper: Mapping[str, Any], members: Sequence[ShortName], ours: Sequence[Row]
) -> list[str]:
    counts = "; ".join(
        f"{row.short} {count_of([row.cells[task] for task in GLUE if task in row.cells])}"
        for row in ours
    )
    without_wnli = {
        name: score
        for name, score in paper[_SECTION]["score_without_wnli"].items()
        if short_name_of(name) in members
    }
    notes = [f"Ours are medians over seeds (spreads: Table 1); number of seeds: {counts}."]
    if any("mnli" in row.cells for row in ours):
        notes.append("MNLI is the matched part.")
    if without_wnli:
        scores = ", ".join(f"{name} {score}" for name, score in without_wnli.items())
        notes.append(f"The README's macro-scores without WNLI: {scores}.")
    return notes
