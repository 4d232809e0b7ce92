"""`python -m eval_harness tables`: Tables 0-4 from the files of a results folder."""

from angels_share.cli import DONE, RUN_FAILED, Command
from angels_share.flags import Flag, Options
from eval_harness.tables.formats import FORMATS
from eval_harness.tables.write import DISAGREEING, write_by_name


def run(options: Options) -> int:
    """Write the tables into the results folder and print them; fail if verifying finds a fault."""
    texts = write_by_name(options.results_dir, form=options.format, verify=options.verify)
    for text in texts.values():
        print(text)  # noqa: T201
    return RUN_FAILED if DISAGREEING in texts else DONE


COMMAND = Command(
    name="eval_harness tables",
    summary="writes Tables 0-4 into the results folder, and prints them",
    flags=(
        Flag("results_dir", "folder of results", default="results"),
        Flag("format", "output format", default="markdown", choices=tuple(FORMATS)),
        Flag(
            "verify",
            "compute every score again from its predictions: what disagrees, or is damaged, "
            "is named and doesn't count, and the status is 1",
            bool,
        ),
    ),
    run=run,
    examples=(
        "python -m eval_harness tables",
        "python -m eval_harness tables --format latex",
        "python -m eval_harness tables --verify",
    ),
)
