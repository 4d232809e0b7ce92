"""Make the tables, pages and charts of published results again: `python examples/published.py`.

Each folder below results/ that has runs or probes is a study. What stands in it beside its records
is made from these alone, and is the same to the byte with the versions of constraints.txt: tables
in markdown, a comparison of its fine-tuned models, the page, and the chart that it begins with.
"""

import sys
from pathlib import Path

from angels_share.ablations import FULL
from angels_share.cli import DONE, Command, run_command
from angels_share.errors import UserError
from angels_share.files import write_atomically
from angels_share.flags import Flag, Options
from eval_harness.report.write import write_report
from eval_harness.results.probes import PROBES
from eval_harness.results.store import RUNS, find
from eval_harness.rows.row import Row
from eval_harness.tables.compared import Entry, compare_rows, comparison_table
from eval_harness.tables.formats import FORMATS
from eval_harness.tables.write import load_results, write_by_name

CHARTS = ("before-fine-tuning.svg",)
"""What is kept of the page's charts, which hold the same numbers as the tables."""
RECORDS = (RUNS, PROBES)
"""What makes a folder a study."""
GENERATED = ("*.md", "*.html", "figures/*")


def make(root: Path) -> list[Path]:
    """Write what is generated of a study, and return the files."""
    before = set(generated(root))
    write_by_name(root)
    rows = [row for row in load_results(find(root), root).rows if len(row.models) > 1]
    rows.sort(key=_differs_from_plain)
    if len(rows) > 1:
        table = comparison_table(compare_rows([Entry(row.short, row, root) for row in rows]))
        write_atomically(root / "comparison.md", FORMATS["markdown"].write(table))
    write_report(root)
    for path in set(generated(root)) - before:
        if path.parent.name == "figures" and path.name not in CHARTS:
            path.unlink()
    return sorted(generated(root))


def _differs_from_plain(row: Row) -> tuple[bool, bool]:
    """Return what puts the row that all others are compared with first."""
    distilled = row.model.distilled
    return distilled is None or distilled.ablation != FULL, bool(row.settings.get("method"))


def generated(root: Path) -> list[Path]:
    """Return the files of a study that are made from its records."""
    return [path for pattern in GENERATED for path in root.glob(pattern)]


def run(options: Options) -> int:
    """Make what is generated of every study in a folder."""
    folder = Path(options.folder).expanduser()
    studies = sorted({path.parent for kind in RECORDS for path in folder.glob(f"*/{kind}")})
    if not studies:
        kinds = " or ".join(f"{kind}/" for kind in RECORDS)
        raise UserError(f"{folder}: no folder in it has {kinds}: name one with published results")
    for study in studies:
        for path in make(study):
            print(path)
    return DONE


COMMAND = Command(
    name="published",
    summary="makes the tables, pages and charts of published results again",
    flags=(Flag("folder", "folder of studies", default="results", first=True, metavar="DIR"),),
    run=run,
    examples=("python examples/published.py results",),
)


if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
