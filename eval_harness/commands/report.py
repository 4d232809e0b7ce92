"""`python -m eval_harness report`: the results as one HTML page, and its charts as files."""

from angels_share.cli import DONE, Command
from angels_share.flags import Flag, Options
from eval_harness.report.write import write_report


def run(options: Options) -> int:
    """Write the page and the charts, and print their paths."""
    for line in write_report(options.results_dir, options.students or ()):
        print(line)  # noqa: T201
    return DONE


COMMAND = Command(
    name="eval_harness report",
    summary="writes the results as one HTML page, and its charts as SVG and PNG",
    flags=(
        Flag("results_dir", "folder of results", default="results"),
        Flag("students", "folders of students or of a study, for their training curves", many=True),
    ),
    run=run,
    examples=(
        "python -m eval_harness report",
        "python -m eval_harness report --students my-distil my-study",
    ),
)
