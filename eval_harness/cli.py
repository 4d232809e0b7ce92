"""Entry points of the harness; only the module of the chosen command is imported."""

from angels_share.cli import Command, run_command
from angels_share.program import Program

PROGRAM = Program(
    "eval_harness",
    (
        "tables",
        "report",
        "compare",
        "lineage",
        "speed",
        "probe",
        "tasks",
        "fetch",
        "push",
        "withhold",
        "page",
        "demo",
    ),
    scripts={
        "glue": "run_glue",
        "imdb": "run_glue",
        "squad": "run_squad_distill",
        "pretrain": "run_pretrain_distill",
        "distil": "run_pretrain_distill",
    },
    beside="Models are trained by run_glue.py, run_squad_distill.py, run_pretrain_distill.py.",
)


def command(name: str) -> Command:
    """Load a command by the name of its module."""
    return PROGRAM.command(name)


def run_glue() -> int:
    """Run `run_glue`."""
    return run_command(command("glue"))


def run_squad_distill() -> int:
    """Run `run_squad_distill`."""
    return run_command(command("squad"))


def eval_harness() -> int:
    """Run `python -m eval_harness COMMAND`."""
    return PROGRAM.run()
