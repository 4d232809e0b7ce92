"""Entry points of the harness; only the module of the chosen command is imported."""

import sys
from importlib import import_module

from angels_share.cli import DONE, Command, run_command
from angels_share.errors import UserError
from angels_share.flags import Options
from angels_share.names import nearest

COMMANDS = (
    "tables", "report", "compare", "speed", "probe", "tasks", "fetch", "push", "demo"
)  # fmt: skip
"""The commands of `python -m eval_harness`, each a module of `eval_harness.commands`."""


def command(name: str) -> Command:
    """Load a command by the name of its module."""
    found: Command = import_module(f"eval_harness.commands.{name}").COMMAND
    return found


def run_glue() -> int:
    """Run `run_glue`."""
    return run_command(command("glue"))


def run_squad_distill() -> int:
    """Run `run_squad_distill`."""
    return run_command(command("squad"))


def main() -> int:
    """Run `python -m eval_harness COMMAND`."""
    return run_named(sys.argv[1:])


def run_named(argv: list[str]) -> int:
    """Run the command named by the first word; list the commands if there is none."""
    if argv and argv[0] in COMMANDS:
        return run_command(command(argv[0]), argv[1:])
    if not argv or argv[0] in ("-h", "--help"):
        listing = "\n".join(f"  {name:8} {command(name).summary}" for name in COMMANDS)
        print(f"python -m eval_harness COMMAND [flags]\n\n{listing}")  # noqa: T201
        return DONE
    return run_command(_unknown(argv[0]), [])


def _unknown(word: str) -> Command:
    """Return a command that refuses the word: `run_command` then reports it like any error."""

    def run(_options: Options) -> int:
        known = ", ".join(COMMANDS)
        raise UserError(f"unknown command {word!r}{nearest(word, COMMANDS)} (known: {known})")

    return Command("eval_harness", "", (), run, ())
