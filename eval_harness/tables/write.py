"""Writes all tables: a pure function of files. No torch, sklearn or scipy."""

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import write_atomically
from eval_harness.results.lineages import LINEAGES, find_lines
from eval_harness.results.probes import PROBES
from eval_harness.results.speed import SPEED, Speeds, find_speeds
from eval_harness.results.store import RUNS, Found, Invalid, find
from eval_harness.results.verify import agreeing
from eval_harness.rows.grouping import rows_of
from eval_harness.rows.row import Row
from eval_harness.tables.edge import EDGE, Edge, edge_tables, find_edges
from eval_harness.tables.family import family_table
from eval_harness.tables.formats import FORMATS, Format
from eval_harness.tables.further_tasks import entities_table, xnli_table
from eval_harness.tables.paper import load_paper
from eval_harness.tables.perplexity import PSEUDO_TABLE, perplexity_tables
from eval_harness.tables.probed import Probed, load_probed
from eval_harness.tables.retained import ComparedRow, compare_with_teacher
from eval_harness.tables.table import Table
from eval_harness.tables.table0 import table0
from eval_harness.tables.table1 import custom_table, table1
from eval_harness.tables.table2 import table2
from eval_harness.tables.table3 import table3
from eval_harness.tables.table4 import Change, find_changes, table4
from eval_harness.tasks.registry import CUSTOM, ENTITIES, PERPLEXITY_TABLE, TASKS, XNLI

FAMILY = "family"
_OPTIONAL = (
    "table0", "table0-differences", ENTITIES, XNLI, PERPLEXITY_TABLE, PSEUDO_TABLE, CUSTOM, FAMILY,
    EDGE,
)  # fmt: skip
"""Tables that are written only where there is something to show."""
VERIFIED, DISAGREEING = "verified", "disagreeing"


@dataclass(frozen=True)
class OurResults:
    """What we measured, as far as tables and the report show it.

    Attributes:
        compared: our rows, each with what it retained of its teacher's score.
        changes: the rows of ablated students, each with what the ablation changed.
        invalid: the files of results that don't count.
        speeds: the sessions of `speed`.
        probed: what the last `probe` compared.
        edges: lines of models that were made from one another.
    """

    compared: Sequence[ComparedRow] = ()
    changes: Sequence[Change] = ()
    invalid: Sequence[Invalid] = ()
    speeds: Speeds = field(default_factory=Speeds)
    probed: Probed = field(default_factory=Probed)
    edges: Sequence[Edge] = ()

    @property
    def rows(self) -> list[Row]:
        """The rows alone."""
        return [each.row for each in self.compared]

    def of_models(self, keys: Collection[str]) -> "OurResults":
        """Return the part about these models, and all valid sessions."""
        folders = tuple(f"{RUNS}/{key}/" for key in keys)
        return OurResults(
            [each for each in self.compared if not each.row.keys.isdisjoint(keys)],
            [change for change in self.changes if not change.row.keys.isdisjoint(keys)],
            [file for file in self.invalid if file.path.startswith(folders)],
            Speeds(self.speeds.sessions),
            self.probed,
        )


def write_tables(
    root: Path | str, models: Collection[str] | None = None, form: str = "markdown"
) -> list[str]:
    """Write the tables of a results folder into it and return their texts.

    Args:
        root: the results folder.
        models: keys of the models to return rows of [all]; the files have all rows.
        form: output format, one of `FORMATS`.

    Returns:
        The texts of Tables 0-4, as far as there is something to show, of named entities, XNLI,
        perplexities, custom tasks, the family and lines of models; then one line if there are files
        that don't count.

    Raises:
        UserError: the results folder does not exist.
    """
    return list(write_by_name(root, models, form).values())


def write_by_name(
    root: Path | str,
    models: Collection[str] | None = None,
    form: str = "markdown",
    *,
    verify: bool = False,
) -> dict[str, str]:
    """Do what `write_tables` does, and return the texts by name.

    Args:
        root: the results folder.
        models: keys of the models to return rows of [all]; the files have all rows.
        form: output format, one of `FORMATS`.
        verify: whether to compute every score again from its predictions, which are hashed; what
            disagrees doesn't count.

    Returns:
        The texts by `table1` ... `table4`, `table-entities`, `table-xnli`, `table-perplexity`,
        `table-pseudo-perplexity`, `table-custom`, `family`, `table-edge`, `not counted`; if
        verified, also by `verified` and, a line for each, `disagreeing`.

    Raises:
        UserError: the results folder does not exist.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"--results_dir {folder}: not a folder; name one that has results")
    with _without_garbage_collection():
        found = find(folder)
        agree = agreeing(folder, found) if verify else found
        texts = _write(load_paper(), agree, folder, models, FORMATS[form])
        return {**texts, **_verified_lines(agree)} if verify else texts


def texts_by_name(root: Path) -> dict[str, str]:
    """Return the tables of a results folder as Markdown, by name, and write none of them."""
    with _without_garbage_collection():
        ours = load_results(find(root), root)
        tables = make_tables(load_paper(), ours)
        return {table.name: FORMATS["markdown"].write(table) for table in tables}


def _verified_lines(agree: Found) -> dict[str, str]:
    """Return how many results agree with their predictions, and all that don't count."""
    withheld = sum(result.predictions is None for result in agree.results)
    disagree = [file for file in agree.invalid if not file.is_leftover]
    without = f"; {withheld} without published predictions" if withheld else ""
    lines = {
        VERIFIED: f"verified: {len(agree.by_key) - withheld} of "
        f"{len(agree.by_key) + len(disagree)} results agree "
        f"with their predictions{without}"
    }
    if disagree:
        lines[DISAGREEING] = "\n".join(f"not counted: {file}" for file in disagree)
    return lines


def _write(
    paper: Mapping[str, Any],
    found: Found,
    folder: Path,
    models: Collection[str] | None,
    form: Format,
) -> dict[str, str]:
    ours = load_results(found, folder)
    texts = {table.name: form.write(table) for table in make_tables(paper, ours)}
    for name, text in texts.items():
        write_atomically(folder / f"{name}{form.suffix}", text)
    for name in set(_OPTIONAL) - texts.keys():  # files of results that were deleted since
        for each in FORMATS.values():
            (folder / f"{name}{each.suffix}").unlink(missing_ok=True)
    for path in folder.glob(f"{EDGE}-*"):  # of the second line on, however many there were
        if path.stem not in texts:
            path.unlink()
    if models is not None:
        ours = ours.of_models(models)
        texts = {table.name: form.write(table) for table in make_tables(paper, ours)}
    if invalid := [*ours.invalid, *ours.speeds.invalid, *ours.probed.invalid]:
        texts["not counted"] = _not_counted_line(invalid, folder, form)
    return texts


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Turn the cycle collector off: results have no cycles, and it costs a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _not_counted_line(invalid: Sequence[Invalid], folder: Path, form: Format) -> str:
    """Return the number of files that don't count and the tables whose notes list them."""
    files = (f"{_table_of(file)}{form.suffix}" for file in invalid)
    tables = dict.fromkeys(str(folder / name) for name in files)
    count = f"{len(invalid)} file{'s' if len(invalid) > 1 else ''}"
    return f"not counted: {count}; which and why: see the notes of {' and '.join(tables)}"


def load_results(found: Found, root: Path) -> OurResults:
    """Return the rows of a results folder, compared; new intervals are cached there."""
    rows = rows_of(found)
    compared = [compare_with_teacher(row, rows, root) for row in rows]
    speeds, lines = find_speeds(root), find_lines(root)
    lasting = [file for file in (*found.invalid, *lines.invalid) if not file.is_leftover]
    return OurResults(
        compared,
        find_changes(rows, root),
        lasting,
        speeds,
        load_probed(root),
        find_edges(lines, rows, speeds.sessions, root),
    )


def make_tables(paper: Mapping[str, Any], ours: OurResults = OurResults()) -> list[Table]:
    """Return Tables 0 to 4, the paper's rows first, then those of further tasks and the family."""
    tables = [
        *table0(ours.probed),
        table1(paper, ours.compared, _not_counted(ours.invalid, "table1")),
        table2(paper, ours.rows, _not_counted(ours.invalid, "table2")),
        table3(paper, ours.speeds),
        table4(paper, ours.changes),
    ]
    others = (
        entities_table(ours.rows, _not_counted(ours.invalid, ENTITIES)),
        xnli_table(paper, ours.rows, _not_counted(ours.invalid, XNLI)),
        *perplexity_tables(ours.rows, _not_counted(ours.invalid, PERPLEXITY_TABLE)),
        custom_table(ours.rows, _not_counted(ours.invalid, CUSTOM)),
        family_table(paper, ours.rows),
        *edge_tables(ours.edges, [file for file in ours.invalid if _table_of(file) == EDGE]),
    )
    return [*tables, *(table for table in others if table)]


def _not_counted(invalid: Sequence[Invalid], table: str) -> list[str]:
    """Return a note for each file that would count in this table."""
    return [f"Not counted: {file}." for file in invalid if _table_of(file) == table]


def _table_of(invalid: Invalid) -> str:
    folders = invalid.path.split("/")
    if folders[0] == SPEED:
        return "table3"
    if folders[0] == PROBES:
        return "table0"
    if folders[0] == LINEAGES:
        return EDGE
    if table := next((_TABLES[name] for name in folders if name in _TABLES), None):
        return table
    is_of_run = len(folders) == _DEPTH and folders[0] == RUNS
    return CUSTOM if is_of_run else "table1"


_DEPTH = len(("runs", "model", "task", "settings", "seed-1.json"))
_TABLES: dict[str, str] = {task.name: task.table for task in TASKS}
