"""Conversion of a file's labels to class ids or numbers; unknown ones are refused. No torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angels_share.errors import UserError
from angels_share.readers.columns import Columns
from eval_harness.tasks.registry import Task


def labels_of(task: Task, columns: Columns) -> NDArray[Any]:
    """Return labels as int64 class ids, or as float64 numbers for a regression.

    Class ids in a file go by the class names in that file, whose order may differ, else by the
    task's. A regression's label becomes the shortest decimal of the same float32, so that 3.800 in
    a text file and the float32 3.79999995 are the same label.

    Raises:
        UserError: names the row of the first unknown label.
    """
    cells = columns.cells[task.label_column]
    places = [(row,) for row in range(len(cells))]
    if task.scale is not None:
        return _numbers(task.scale, columns, cells)
    return class_ids_of(task, columns, cells, places)


def class_ids_of(
    task: Task, columns: Columns, cells: Sequence[Any], places: Sequence[tuple[int, ...]]
) -> NDArray[np.int64]:
    """Return the task's ids of labels.

    Args:
        task: which classes there are.
        columns: the file that has the labels, which may number the classes otherwise.
        cells: the labels.
        places: where each is in the file, as `Columns.where` takes it.

    Raises:
        UserError: names the place of the first unknown label.
    """
    _require_kinds(columns, cells, (int, str), "a class's name or id", places)
    names = columns.class_names.get(task.label_column, task.labels)
    ids = {cell: _class_id(task, cell, names, numbered=columns.numbered) for cell in set(cells)}
    if None in ids.values():
        number = next(number for number, cell in enumerate(cells) if ids[cell] is None)
        cell, where = cells[number], columns.where(*places[number])
        known = ", ".join(task.labels)
        hint = _name_in_file(cell, names) if names != task.labels else ""
        raise UserError(f"{where}: unknown label {cell!r}{hint}; known: {known}")
    return np.array([ids[cell] for cell in cells], dtype=np.int64)


def _class_id(task: Task, cell: str | int, names: Sequence[str], *, numbered: bool) -> int | None:
    """Return the task's id of a label, or None if it has none."""
    name = cell
    if numbered and cell not in task.labels:
        name = {str(number): each for number, each in enumerate(names)}.get(str(cell), cell)
    return task.labels.index(name) if name in task.labels else None


def _name_in_file(cell: str | int, names: Sequence[str]) -> str:
    by_id = {str(number): name for number, name in enumerate(names)}
    return f" (the file calls it {by_id[str(cell)]!r})" if str(cell) in by_id else ""


def _numbers(
    scale: tuple[float, float], columns: Columns, cells: Sequence[Any]
) -> NDArray[np.float64]:
    rows = [(row,) for row in range(len(cells))]
    _require_kinds(columns, cells, (int, float, str), "a number", rows)
    low, high = scale
    numbers = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            numbers[row] = float(cell)
        except (ValueError, OverflowError) as error:
            raise UserError(f"{columns.where(row)}: label {cell!r} is not a number") from error
        if not low <= numbers[row] <= high:  # also false for NaN
            raise UserError(f"{columns.where(row)}: label {cell!r} is not in {low:g} .. {high:g}")
    # float32 first: the Hub holds such labels, and its str is the shortest decimal that means it.
    unique, places = np.unique(numbers.astype(np.float32), return_inverse=True)
    shortest: NDArray[np.float64] = np.array([float(str(each)) for each in unique])[places]
    return shortest


def _require_kinds(
    columns: Columns,
    cells: Sequence[Any],
    kinds: tuple[type, ...],
    expected: str,
    places: Sequence[tuple[int, ...]],
) -> None:
    for cell, place in zip(cells, places, strict=True):
        if type(cell) not in kinds:
            seen = "null" if cell is None else repr(cell)
            raise UserError(f"{columns.where(*place)}: the label is {seen}; expected {expected}")
