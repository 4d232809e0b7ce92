"""`python -m eval_harness tables`: Tables 1-4 from the files of a results folder."""

from angels_share.cli import DONE, Command
from angels_share.flags import Flag, Options
from eval_harness.tables.formats import FORMATS
from eval_harness.tables.write import write_tables


def run(options: Options) -> int:
    """Write the tables into the results folder and print them."""
    for text in write_tables(options.results_dir, form=options.format):
        print(text)  # noqa: T201
    return DONE


COMMAND = Command(
    name="eval_harness tables",
    summary="writes Tables 1-4 into the results folder, and prints them",
    flags=(
        Flag("results_dir", "folder of results", default="results"),
        Flag("format", "output format", default="markdown", choices=tuple(FORMATS)),
    ),
    run=run,
    examples=("python -m eval_harness tables", "python -m eval_harness tables --format latex"),
)
