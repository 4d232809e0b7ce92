"""A program of several commands, `python -m PROGRAM COMMAND`: which is meant, or what there is."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module

from angels_share.cli import HELP, Command, help_text, print_out, run_command, version
from angels_share.errors import UserError
from angels_share.flags import Options
from angels_share.names import nearest


@dataclass(frozen=True)
class Program:
    """A program whose commands are modules of one package; only the chosen one is imported.

    Attributes:
        name: the program's name, also its package's.
        commands: names of the modules in its package `commands`, each with a `COMMAND`.
        scripts: what is looked for among the commands, and the script that does it.
        beside: the line about those scripts.
    """

    name: str
    commands: tuple[str, ...]
    scripts: Mapping[str, str] = field(default_factory=dict)
    beside: str = ""

    def command(self, name: str) -> Command:
        """Load a command by the name of its module."""
        found: Command = import_module(f"{self.name}.commands.{name}").COMMAND
        return found

    def run(self, argv: Sequence[str] | None = None) -> int:
        """Run the command named by the first word; list the commands if there is none."""
        words = sys.argv[1:] if argv is None else list(argv)
        if words and words[0] in self.commands:
            return run_command(self.command(words[0]), words[1:])

        def answer(_options: Options) -> int:
            if words and words[0] not in (*HELP, "--version"):
                raise self._unknown(words[0])
            if words and words[0] == "--version":
                return print_out(version())
            return print_out(self._listing(everything=bool(words) and HELP[words[0]]))

        return run_command(Command(self.name, "", (), answer, ()), [])

    def _listing(self, *, everything: bool) -> str:
        """Return a line for each command; with `everything`, each one's flags as well."""
        commands = [self.command(name) for name in self.commands]
        lines = [
            f"  {name:8} {each.summary}" for name, each in zip(self.commands, commands, strict=True)
        ]
        parts = [
            f"python -m {self.name} COMMAND [flags]",
            "\n".join(lines),
            self.beside,
            *(help_text(each, everything=True) for each in commands if everything),
        ]
        return "\n\n".join(filter(None, parts))

    def _unknown(self, word: str) -> UserError:
        """Return the error about a word that is no command: what was meant, or what there is."""
        script = self.scripts.get(word.lower(), word.removesuffix(".py"))
        if script in self.scripts.values():
            return UserError(f"{word} is a script of its own: python {script}.py --help")
        near = nearest(word, self.commands) or f"; commands: {', '.join(self.commands)}"
        return UserError(f"unknown command {word!r}{near}")
