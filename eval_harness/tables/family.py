"""The table of the original's README: distilled models that people know, below their teachers."""

from collections.abc import Mapping, Sequence
from typing import Any

from angels_share.names import SHORT_NAMES, ShortName, known_as
from eval_harness.tables.cells import count_of, mean_over, tasks_of_mean, title_of
from eval_harness.tables.notes import notes
from eval_harness.tables.row import Row
from eval_harness.tables.table import Published, Table, Value, table_of
from eval_harness.tasks.registry import GLUE

_SECTION = "readme_glue"


def family_table(paper: Mapping[str, Any], rows: Sequence[Row]) -> Table | None:
    """The README's rows and ours of every family whose student was judged; None where none was."""
    judged = [row for row in rows if _known(row) and tasks_of_mean(row)]
    teachers = {known.teacher for row in judged if (known := _known(row)) and known.teacher}
    members = [name for name in _in_order() if {name.short, name.teacher} & teachers]
    ours = [row for name in members for row in judged if _known(row) is name]
    if not teachers:
        return None
    published = paper[_SECTION]["rows"]
    cells: list[list[Value]] = [
        [Published(f"{name} (README)"), row["score"], *(row[task] for task in GLUE)]
        for member in members
        for name, row in published.items()
        if known_as(name) is member
    ]
    cells += [_row(row) for row in ours]
    return table_of(
        paper,
        "family",
        "The family: GLUE, dev sets",
        ("Model", "Macro-score", *map(title_of, GLUE)),
        cells,
        notes=(*_notes(paper, members, ours), *notes(ours, GLUE)),
        section=_SECTION,
    )


def _known(row: Row) -> ShortName | None:
    """The published model that a row is of; a folder of that name is the user's own."""
    return known_as(row.model.name) if row.model.revision is not None else None


def _in_order() -> list[ShortName]:
    """Every teacher with its students below it."""
    teachers = [name for name in SHORT_NAMES if name.teacher is None]
    return [
        each
        for teacher in teachers
        for each in (teacher, *(name for name in SHORT_NAMES if name.teacher == teacher.short))
    ]


def _row(row: Row) -> list[Value]:
    there = tasks_of_mean(row)
    score = mean_over(row, there) if len(there) == len(GLUE) else None
    return [row.label, score, *(_median(row, task) for task in GLUE)]


def _median(row: Row, task: str) -> Value:
    """The bare number, as the README has it; spreads are Table 1's."""
    return mean_over(row, (task,)) if task in tasks_of_mean(row) else None


def _notes(
    paper: Mapping[str, Any], members: Sequence[ShortName], ours: Sequence[Row]
) -> list[str]:
    counts = (f"{row.label} {_count(row)}" for row in ours)
    without = {
        name: score
        for name, score in paper[_SECTION]["score_without_wnli"].items()
        if known_as(name) in members
    }
    said = [f"Ours are medians over seeds, spreads are in Table 1: {'; '.join(counts)}."]
    if any("mnli" in row.cells for row in ours):
        said.append("MNLI is the matched part.")
    if without:
        scores = ", ".join(f"{name} {score}" for name, score in without.items())
        said.append(f"The README's macro-scores without WNLI: {scores}.")
    return said


def _count(row: Row) -> str:
    return count_of([row.cells[task] for task in GLUE if task in row.cells])
