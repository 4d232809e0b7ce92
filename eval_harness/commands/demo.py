"""`python -m eval_harness demo DIR`: a small made-up world in the real data's file formats."""

from pathlib import Path

from angels_share.cli import DONE, Command
from angels_share.flags import Flag, Options
from eval_harness.demo.world import write_world


def run(options: Options) -> int:
    """Write the world, unless just this one is there."""
    folder = Path(options.folder).expanduser()
    said = "is written" if write_world(folder, options.seed) else "is there already"
    print(f"{folder}: the demo world of seed {options.seed} {said}")  # noqa: T201
    return DONE


COMMAND = Command(
    name="eval_harness demo",
    summary="writes a small made-up world: a text, and tasks in GLUE's, IMDb's and SQuAD's formats",
    flags=(
        Flag(
            "folder",
            "where the world goes: new, or empty",
            required=True,
            metavar="DIR",
            first=True,
        ),
        Flag("seed", "another one makes another world", int, 11),
    ),
    run=run,
    examples=("python -m eval_harness demo DIR",),
)
