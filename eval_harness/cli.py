"""Entry points of the harness; only the module of the chosen command is imported."""

import sys
from importlib import import_module

from angels_share.cli import HELP, Command, help_text, print_out, run_command, version
from angels_share.errors import UserError
from angels_share.flags import Options
from angels_share.names import nearest

COMMANDS = (
    "tables", "report", "compare", "speed", "probe", "tasks", "fetch", "push", "demo"
)  # fmt: skip
"""The commands of `python -m eval_harness`, each a module of `eval_harness.commands`."""

_SCRIPTS = {
    "glue": "run_glue",
    "imdb": "run_glue",
    "squad": "run_squad_distill",
    "pretrain": "run_pretrain_distill",
    "distil": "run_pretrain_distill",
}
"""What is looked for among the commands, and the script that does it."""


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


def eval_harness() -> int:
    """Run `python -m eval_harness COMMAND`."""
    return run_named(sys.argv[1:])


def run_named(argv: list[str]) -> int:
    """Run the command named by the first word; list the commands if there is none."""
    if argv and argv[0] in COMMANDS:
        return run_command(command(argv[0]), argv[1:])

    def answer(_options: Options) -> int:
        if argv and argv[0] not in (*HELP, "--version"):
            raise _unknown(argv[0])
        if argv and argv[0] == "--version":
            return print_out(version())
        return print_out(_listing(everything=bool(argv) and HELP[argv[0]]))

    return run_command(Command("eval_harness", "", (), answer, ()), [])


def _listing(*, everything: bool) -> str:
    """Return a line for each command; with `everything`, each one's flags as well."""
    commands = [command(name) for name in COMMANDS]
    lines = [f"  {name:8} {each.summary}" for name, each in zip(COMMANDS, commands, strict=True)]
    scripts = ", ".join(f"{name}.py" for name in dict.fromkeys(_SCRIPTS.values()))
    parts = [
        "python -m eval_harness COMMAND [flags]",
        "\n".join(lines),
        f"Models are trained by {scripts}.",
        *(help_text(each, everything=True) for each in commands if everything),
    ]
    return "\n\n".join(parts)


def _unknown(word: str) -> UserError:
    """Return the error about a word that is no command: what was meant, or what there is."""
    script = _SCRIPTS.get(word.lower(), word.removesuffix(".py"))
    if script in _SCRIPTS.values():
        return UserError(f"{word} is a script of its own: python {script}.py --help")
    near = nearest(word, COMMANDS) or f"; commands: {', '.join(COMMANDS)}"
    return UserError(f"unknown command {word!r}{near}")
