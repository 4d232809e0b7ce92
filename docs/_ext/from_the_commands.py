"""Directives that print what the commands say of themselves, at build time: no copy can drift.

    ```{all-commands}
    ```
    ```{printed} tasks
    ```

The first makes a section of each command, with its help; the second shows what
`python -m eval_harness tasks` prints.
"""

import contextlib
import io
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from angels_share.cli import Command, help_text
from distil_trainer.cli import PRETRAIN
from distil_trainer.cli import PROGRAM as DISTIL_TRAINER
from eval_harness.cli import PROGRAM, command


def all_commands() -> list[Command]:
    """Return every command of the project: the three scripts', then the programs'."""
    of_training = map(DISTIL_TRAINER.command, DISTIL_TRAINER.commands)
    return [
        PRETRAIN,
        *map(command, ("glue", "squad")),
        *of_training,
        *map(command, PROGRAM.commands),
    ]


def typed(each: Command) -> str:
    """Return how a command is typed in a checkout."""
    harness, _, name = each.name.partition(" ")
    return f"python -m {harness} {name}" if name else f"python {harness}.py"


class AllCommands(Directive):
    """A section for each command: its title is what one types, its text is what `--help` says."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return [_section(each) for each in all_commands()]


def _section(each: Command) -> nodes.section:
    section = nodes.section(ids=[nodes.make_id(each.name)], names=[each.name])
    section += nodes.title("", "", nodes.literal("", typed(each)))
    section += nodes.literal_block("", help_text(each), language="text")
    return section


class Printed(Directive):
    """What a command of the harness prints, given its words."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Run the command and return its output as it is."""
        words = self.arguments[0].split()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            status = PROGRAM.run(words)
        if status:
            raise self.error(f"python -m eval_harness {self.arguments[0]}: status {status}")
        return [nodes.literal_block("", printed.getvalue(), language="text")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("all-commands", AllCommands)
    app.add_directive("printed", Printed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
