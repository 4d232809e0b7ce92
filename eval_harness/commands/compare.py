"""`python -m eval_harness compare`: which of two models is better, and how certain that is.

python -m eval_harness compare bert distilbert
"""

import sys
from pathlib import Path

from angels_share.cli import DONE, Command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options
from angels_share.imports import require_extra
from eval_harness.report.palette import CHART_ENDINGS
from eval_harness.results.store import RUNS, Found, find
from eval_harness.rows.grouping import rows_of
from eval_harness.tables.compared import (
    Comparison,
    compare_rows,
    comparison_table,
    entry_named,
)
from eval_harness.tables.formats import FORMATS


def run(options: Options) -> int:
    """Compare the models' results, print the table and write the chart that is asked for."""
    root = Path(options.results_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"--results_dir {root}: not a folder; name one that has results")
    chart = Path(options.chart).expanduser() if options.chart else None
    if chart is not None and chart.suffix not in CHART_ENDINGS:
        raise UserError(f"--chart {chart}: must end in {' or '.join(CHART_ENDINGS)}")
    found = find(root)
    rows = rows_of(found)
    entries = [entry_named(name, rows, root, options.tasks or ()) for name in options.models]
    comparison = compare_rows(entries, options.tasks)
    _name_uncounted(found, comparison)
    print(FORMATS[options.format].write(comparison_table(comparison)), end="")  # noqa: T201
    if chart is not None:
        _write_chart(chart, comparison)
    return DONE


def _write_chart(path: Path, comparison: Comparison) -> None:
    require_extra("matplotlib", "report", "--chart")
    from eval_harness.report.comparison_chart import comparison_chart

    sys.stderr.write(f"chart: {comparison_chart(comparison).save(path)}\n")


def _name_uncounted(found: Found, comparison: Comparison) -> None:
    """Name the files of the compared models that don't count: a mean may rest on fewer seeds."""
    folders = tuple(f"{RUNS}/{key}/" for entry in comparison.entries for key in entry.row.keys)
    for file in found.invalid:
        if file.path.startswith(folders) and not file.is_leftover:
            sys.stderr.write(f"eval_harness compare: not counted: {file}\n")


COMMAND = Command(
    name="eval_harness compare",
    summary="compares models' results: medians, differences with intervals, what chance explains",
    flags=(
        Flag(
            "models",
            "models with results, as tables name their rows, or by short name, Hub id or folder; "
            "the others are compared with the first",
            many=True,
            required=True,
            first=True,
        ),
        Flag("tasks", "tasks to compare on [all that every model has results of]", many=True),
        Flag("results_dir", "folder that results are read from", default="results"),
        Flag("format", "output format", default="markdown", choices=tuple(FORMATS)),
        Flag("chart", "also draw the differences into this file: .svg or .png", metavar="FILE"),
    ),
    run=run,
    examples=(
        "python -m eval_harness compare bert distilbert",
        "python -m eval_harness compare bert distilbert my-distil --tasks rte mrpc",
        "python -m eval_harness compare bert distilbert --format json",
        "python -m eval_harness compare bert distilbert --chart difference.svg",
    ),
)
