"""From a file's labels to class ids or numbers: by name, and only what the task knows. No torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angels_share.errors import UserError
from eval_harness.data.columns import Columns
from eval_harness.tasks.registry import Task


def labels_of(task: Task, columns: Columns) -> NDArray[Any]:
    """int64 class ids, or float64 numbers for a regression.

    Names decide. A number is a class id: by the names that the file itself gives its ids (their
    order may be another one), else by the task's. A number on a scale is the shortest decimal that
    means the same float32, so that 3.800 in a text file and float32's 3.79999995 are one label.

    Raises:
        UserError: names the row of the first label that the task doesn't know.
    """
    cells = columns.cells[task.label_column]
    if task.scale is not None:
        return _numbers(task.scale, columns, cells)
    return _class_ids(task, columns, cells)


def _class_ids(task: Task, columns: Columns, cells: Sequence[Any]) -> NDArray[np.int64]:
    _require_kinds(columns, cells, (int, str), "a class's name or id")
    given = columns.class_names.get(task.label_column, task.labels)
    ids = {cell: _class_id(task, cell, given, numbered=columns.numbered) for cell in set(cells)}
    if None in ids.values():
        row = next(row for row, cell in enumerate(cells) if ids[cell] is None)
        known = ", ".join(task.labels)
        meant = _meant(cells[row], given) if given != task.labels else ""
        raise UserError(
            f"{columns.where(row)}: unknown label {cells[row]!r}{meant}; known: {known}"
        )
    return np.array([ids[cell] for cell in cells], dtype=np.int64)


def _class_id(task: Task, cell: str | int, given: Sequence[str], *, numbered: bool) -> int | None:
    """The task's id of a label, or None where it has none."""
    name = cell
    if numbered and cell not in task.labels:
        name = {str(number): each for number, each in enumerate(given)}.get(str(cell), cell)
    return task.labels.index(name) if name in task.labels else None


def _meant(cell: str | int, given: Sequence[str]) -> str:
    names = {str(number): each for number, each in enumerate(given)}
    return f" (the file calls it {names[str(cell)]!r})" if str(cell) in names else ""


def _numbers(
    scale: tuple[float, float], columns: Columns, cells: Sequence[Any]
) -> NDArray[np.float64]:
    _require_kinds(columns, cells, (int, float, str), "a number")
    low, high = scale
    numbers = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            numbers[row] = float(cell)
        except ValueError as error:
            raise UserError(f"{columns.where(row)}: label {cell!r} is no number") from error
        if not low <= numbers[row] <= high:  # nor is NaN
            raise UserError(f"{columns.where(row)}: label {cell!r} is not in {low:g} .. {high:g}")
    unique, places = np.unique(numbers.astype(np.float32), return_inverse=True)
    shortest: NDArray[np.float64] = np.array([float(str(each)) for each in unique])[places]
    return shortest


def _require_kinds(
    columns: Columns, cells: Sequence[Any], kinds: tuple[type, ...], wanted: str
) -> None:
    for row, cell in enumerate(cells):
        if type(cell) not in kinds:
            seen = "nothing" if cell is None else repr(cell)
            raise UserError(f"{columns.where(row)}: the label is {seen}, {wanted} is wanted")
