"""Tables 1-4, and the family's: a pure function of files. No torch, no scikit-learn, no scipy."""

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import write_atomically
from eval_harness.results.speed import SPEED, Speeds, find_speeds
from eval_harness.results.store import RUNS, Found, Invalid, find
from eval_harness.tables.family import family_table
from eval_harness.tables.formats import FORMATS, Format
from eval_harness.tables.paper import load_paper
from eval_harness.tables.retained import retained
from eval_harness.tables.row import Row
from eval_harness.tables.rows import rows_of
from eval_harness.tables.table import Table
from eval_harness.tables.table1 import Line, table1
from eval_harness.tables.table2 import TASKS_OF_TABLE2, table2
from eval_harness.tables.table3 import table3
from eval_harness.tables.table4 import Change, changes, table4

FAMILY = "family"


@dataclass(frozen=True)
class Ours:
    """What we measured: the rows to show, what each retained, and the files that don't count.

    Of students from which a part was left out also what that changed.
    """

    lines: Sequence[Line] = ()
    changes: Sequence[Change] = ()
    invalid: Sequence[Invalid] = ()
    speeds: Speeds = field(default_factory=Speeds)

    @property
    def rows(self) -> list[Row]:
        """The rows alone."""
        return [line.row for line in self.lines]

    def of(self, models: Collection[str]) -> "Ours":
        """What is of these models alone."""
        folders = tuple(f"{RUNS}/{model}/" for model in models)
        return Ours(
            [line for line in self.lines if line.row.model.key in models],
            [change for change in self.changes if change.row.model.key in models],
            [each for each in self.invalid if each.path.startswith(folders)],
            Speeds(self.speeds.sessions),
        )


def write_tables(
    root: Path | str, models: Collection[str] | None = None, form: str = "markdown"
) -> list[str]:
    """Makes the tables from a results folder's files and writes them there.

    Args:
        root: the results folder.
        models: keys of the models of which the answer speaks; the files speak of all.
        form: what they are written as, one of `FORMATS`.

    Returns:
        The texts of Tables 1-4, then the family's where there is one, then one line if there are
        files that don't count.

    Raises:
        UserError: there is no such folder.
    """
    return list(write_by_name(root, models, form).values())


def write_by_name(
    root: Path | str, models: Collection[str] | None = None, form: str = "markdown"
) -> dict[str, str]:
    """`write_tables` by name: `table1` ... `table4`, `family`, `not counted`."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"--results_dir {folder}: there is no such folder")
    with _without_collection():
        return _write(load_paper(), folder, models, FORMATS[form])


def _write(
    paper: Mapping[str, Any], folder: Path, models: Collection[str] | None, form: Format
) -> dict[str, str]:
    ours = measured(find(folder), folder)
    texts = {table.name: form.write(table) for table in tables(paper, ours)}
    for name, text in texts.items():
        write_atomically(folder / f"{name}{form.ending}", text)
    if FAMILY not in texts:  # of results that are gone
        for each in FORMATS.values():
            (folder / f"{FAMILY}{each.ending}").unlink(missing_ok=True)
    if models is not None:
        ours = ours.of(models)
        texts = {table.name: form.write(table) for table in tables(paper, ours)}
    if invalid := [*ours.invalid, *ours.speeds.invalid]:
        texts["not counted"] = _how_many(invalid, folder, form)
    return texts


@contextmanager
def _without_collection() -> Iterator[None]:
    """Results are trees, without cycles: looking for cycles costs a third of the time here."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _how_many(invalid: Sequence[Invalid], folder: Path, form: Format) -> str:
    """One line; each file stands in the notes of the table where it would count."""
    files = (f"{_table_of(each)}{form.ending}" for each in invalid)
    places = dict.fromkeys(str(folder / name) for name in files)
    count = f"{len(invalid)} file{'s' if len(invalid) > 1 else ''}"
    return f"not counted: {count}; which and why: the notes of {' and '.join(places)}"


def measured(found: Found, root: Path) -> Ours:
    """The rows of what was found; intervals that are new are made and kept under the root."""
    rows = rows_of(found)
    lines = [Line(row, *retained(row, rows, root)) for row in rows]
    lasting = [each for each in found.invalid if not each.is_passing]
    return Ours(lines, changes(rows, root), lasting, find_speeds(root))


def tables(paper: Mapping[str, Any], ours: Ours = Ours()) -> list[Table]:
    """The paper's four tables, its rows first and ours after them; last the family's, if any."""
    made = [
        table1(paper, ours.lines, _not_counted(ours.invalid, "table1")),
        table2(paper, ours.rows, _not_counted(ours.invalid, "table2")),
        table3(paper, ours.speeds),
        table4(paper, ours.changes),
    ]
    family = family_table(paper, ours.rows)
    return [*made, family] if family else made


def _not_counted(invalid: Sequence[Invalid], table: str) -> list[str]:
    """The files that don't count, each in the table where it would be."""
    return [f"Not counted: {each}." for each in invalid if _table_of(each) == table]


def _table_of(invalid: Invalid) -> str:
    folders = invalid.path.split("/")
    if folders[0] == SPEED:
        return "table3"
    return "table2" if any(task in folders for task in TASKS_OF_TABLE2) else "table1"
