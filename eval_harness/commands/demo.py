"""`python -m eval_harness demo DIR`: a small synthetic world in the real data's file formats."""

from pathlib import Path

from angels_share.cli import DONE, Command
from angels_share.flags import Flag, Options
from eval_harness.demo.world import write_world


def run(options: Options) -> int:
    """Write the demo world, unless the folder holds exactly it already."""
    folder = Path(options.folder).expanduser()
    state = "written" if write_world(folder, options.seed) else "up to date"
    print(f"{folder}: demo world of seed {options.seed}: {state}")  # noqa: T201
    return DONE


COMMAND = Command(
    name="eval_harness demo",
    summary="writes a small synthetic text corpus, and tasks in GLUE's, IMDb's and SQuAD's formats",
    flags=(
        Flag(
            "folder",
            "output folder: new or empty",
            required=True,
            metavar="DIR",
            first=True,
        ),
        Flag("seed", "random seed of the generated data", int, 11),
    ),
    run=run,
    examples=("python -m eval_harness demo DIR",),
)
