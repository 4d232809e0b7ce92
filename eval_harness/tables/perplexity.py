"""The tables of perplexities: real ones, and pseudo-perplexities of masked language models.

The two measure different things, so they never stand in one table.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from eval_harness.rows.labels import footnotes_of, one_line
from eval_harness.rows.row import Cell, Row
from eval_harness.tables.cells import COUNT, MODEL, count_of, name_cell, titles_of
from eval_harness.tables.notes import cell_notes, count_notes
from eval_harness.tables.table import Number, Table, Value, stand_in_first
from eval_harness.tasks.perplexity import MASKED_TOKEN, NEXT_TOKEN, names_of
from eval_harness.tasks.registry import PERPLEXITY_TABLE, TASKS

PSEUDO_TABLE = "table-pseudo-perplexity"
_TEXT, _TRAINED, _WINDOW = "Text", "Tuned", "Window"
_MEASURES = ("By token", "By word", "Bits/byte")
_DIGITS = (2, 2, 4)
_COLUMNS = (MODEL, _TEXT, _TRAINED, _WINDOW, COUNT, *_MEASURES)
_LOWER = (
    "Lower is better. By token: of the model's tokenizer, so it compares models of one tokenizer "
    "alone; by word of the original text, split at white space, and in bits by its UTF-8 bytes, it "
    "compares any."
)
_WINDOWS = (
    "Tuned: whether on this text's train part. Window: its tokens, and those by which it moves; "
    "each token of a document is scored once."
)
_OF_MASKED = (
    "Pseudo-perplexity (Salazar et al. 2020, arXiv:1910.14659): of masked language models, each "
    "token hidden in turn; what follows it is seen, so it is no perplexity and compares with none."
)


class _Judged(NamedTuple):
    """A row's results on a split of a text."""

    row: Row
    task: str
    split: str
    cell: Cell

    @property
    def values(self) -> dict[str, Any]:
        """The settings."""
        values: dict[str, Any] = self.cell.results[0].settings.task.get("values", {})
        return values


def perplexity_tables(rows: Sequence[Row], not_counted: Sequence[str]) -> list[Table]:
    """Return the table of perplexities and that of pseudo-perplexities, as far as there are any.

    Args:
        rows: our rows.
        not_counted: notes on files that don't count.
    """
    tables = []
    for scoring, name, title in (
        (NEXT_TOKEN, PERPLEXITY_TABLE, "Perplexity"),
        (MASKED_TOKEN, PSEUDO_TABLE, "Pseudo-perplexity"),
    ):
        judged = [each for each in _all(rows) if each.values.get("scoring") == scoring]
        notes = not_counted if scoring == NEXT_TOKEN else ()
        if judged or notes:
            tables.append(_table(name, title, scoring, judged, notes))
    return tables


def median_by_token(row: Row, task: str, split: str) -> float | None:
    """Return the median over seeds of a row's perplexity by token; None without any."""
    cell = row.perplexities.get(task)
    if cell is None:
        return None
    found = _numbers(_Judged(row, task, split, cell), names_of(NEXT_TOKEN)[0])
    return statistics.median(found) if found else None


def perplexities_of(row: Row) -> list[str]:
    """Return a row's perplexities as sentences, one per text, each with all that it depends on."""
    said = []
    for table in perplexity_tables([row], ()):
        for cells in table.rows:
            numbers = dict(zip(table.columns, cells, strict=True))
            measures = ", ".join(f"{numbers[name]} {name.lower()}" for name in _MEASURES)
            tuned = "after fine-tuning on it" if numbers[_TRAINED] == "yes" else "not fine-tuned"
            said.append(
                f"{table.title} on {numbers[_TEXT]} (lower is better): {measures}; {tuned}; "
                f"window {numbers[_WINDOW]} tokens, n {numbers[COUNT]}."
            )
    return said


def _all(rows: Sequence[Row]) -> Iterator[_Judged]:
    """Yield what was judged, text by text: the built-in ones in their order, then the others."""
    known = [task.name for task in TASKS]
    present = {task for row in rows for task in row.perplexities}
    for task in [*(name for name in known if name in present), *sorted(present - set(known))]:
        of_task = [row for row in rows if task in row.perplexities]
        splits = dict.fromkeys(
            split
            for row in of_task
            for result in row.perplexities[task].results
            for split in result.scores
        )
        for split in splits:
            for row in of_task:
                yield _Judged(row, task, split, row.perplexities[task])


def _table(
    name: str, title: str, scoring: str, judged: Sequence[_Judged], not_counted: Sequence[str]
) -> Table:
    tasks = tuple(dict.fromkeys(each.task for each in judged))
    shown = list(
        {id(each.row): replace(each.row, cells=each.row.perplexities) for each in judged}.values()
    )
    titles = titles_of(shown)
    body = [_cells(each, titles[each.task], scoring) for each in judged]
    notes = [
        *([_OF_MASKED] if scoring == MASKED_TOKEN else []),
        _LOWER,
        _WINDOWS,
        *_begin_notes(judged),
        *footnotes_of(shown),
        *count_notes(shown, tasks),
        *cell_notes(shown, tasks),
        *not_counted,
    ]
    return Table(
        name,
        title,
        _COLUMNS,
        tuple(row for row in body if any(cell is not None for cell in row[-len(_MEASURES) :])),
        tuple(map(one_line, stand_in_first(notes))),
    )


def _cells(judged: _Judged, title: str, scoring: str) -> tuple[Value, ...]:
    values = judged.values
    return (
        name_cell(judged.row),
        f"{title} {judged.split}",
        "no" if judged.row.settings.get("eval_only") else "yes",
        f"{values.get('context')}/{values.get('stride')}",
        count_of([judged.cell]),
        *(
            _median(judged, name, digits)
            for name, digits in zip(names_of(scoring), _DIGITS, strict=True)
        ),
    )


def _median(judged: _Judged, name: str, digits: int) -> Number | None:
    """Return `21.10 (20.98 to 21.30)`: the median over seeds, and its spread."""
    numbers = _numbers(judged, name)
    if not numbers:
        return None
    said: Callable[[float], str] = f"{{:.{digits}f}}".format
    middle = statistics.median(numbers)
    spread = f" ({said(min(numbers))} to {said(max(numbers))})" if len(numbers) > 1 else ""
    seeds = {str(each.seed): _of(each, judged.split, name) for each in judged.cell.results}
    asked = sorted(judged.cell.expected_seeds)
    return Number(f"{said(middle)}{spread}", middle, {"seeds": seeds, "asked": asked})


def _numbers(judged: _Judged, name: str) -> list[float]:
    found = (_of(result, judged.split, name) for result in judged.cell.results)
    return [number for number in found if number is not None]


def _of(result: Any, split: str, name: str) -> float | None:
    number: float | None = result.scores.get(split, {}).get(name)
    return number


def _begin_notes(judged: Sequence[_Judged]) -> list[str]:
    """Return what stands before a document, where all rows have the same."""
    tokens = {each.values.get("begin_token") for each in judged} - {None}
    return [f"Before a document stands {token}." for token in sorted(map(str, tokens))]
