"""The door of `report`: its flags."""

from angels_share.cli import DONE, Door
from angels_share.flags import Flag, Options


def _report(options: Options) -> int:
    from eval_harness.report.write import write_report

    for line in write_report(options.results_dir, options.students or ()):
        print(line)  # noqa: T201
    return DONE


REPORT_DOOR = Door(
    name="eval_harness report",
    summary="writes the results as one HTML page, and its figures as SVG and PNG",
    flags=(
        Flag("results_dir", "where results are", default="results"),
        Flag("students", "folders of students, or of a study: their training curves", many=True),
    ),
    run=_report,
    examples=(
        "python -m eval_harness report",
        "python -m eval_harness report --students my-distil my-study",
    ),
)
