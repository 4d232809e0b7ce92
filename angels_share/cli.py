"""What all commands have in common: flags, help at once, errors in one line, honest statuses.

Status 0 done, 1 a run failed, 2 bad input, 130 and 143 interrupted with what was complete kept.
"""

import os
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, is_refusal
from angels_share.flags import Flag, Options, parse
from angels_share.training_flags import training_flags

DONE, RUN_FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


@dataclass(frozen=True)
class Command:
    """A command: its name, what it is for, its flags, and the function behind it."""

    name: str
    summary: str
    flags: tuple[Flag, ...]
    run: Callable[[Options], int]
    examples: tuple[str, ...]
    takes_training_flags: bool = False


def run_command(command: Command, argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its status; nothing ends in a bare traceback."""
    words = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help", "--help_all", "--help-all"} & set(words):
        print(help_text(command, everything=not {"-h", "--help"} & set(words)))  # noqa: T201
        return DONE
    _share_the_cores()
    try:
        with _terminable():
            options = parse(command.flags, words, takes_training_flags=command.takes_training_flags)
            return command.run(options)
    except KeyboardInterrupt:
        return _say(command, "interrupted; what was complete is still there", INTERRUPTED)
    except SystemExit as end:
        if end.code != TERMINATED:
            raise
        return _say(command, "terminated; what was complete is still there", TERMINATED)
    except BrokenPipeError:  # `| head` has seen enough; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # noqa: BLE001  (the last one to hear of it: told, never swallowed)
        return _say(command, *_line_and_status(error))


@contextmanager
def _terminable() -> Iterator[None]:
    """While the `with` lasts SIGTERM is raised where it falls, as Ctrl-C is.

    So whoever started a process ends it, and whoever wrote a draft removes it. Only the main thread
    handles signals; one that is ignored stays so.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


def _share_the_cores() -> None:
    """Lets torch's threads wait for one another asleep rather than awake, unless the user chose.

    They meet thousands of times in a step. GNU OpenMP makes them spin for milliseconds at each
    meeting, which is free on an idle machine and ruinous on a shared one: with a busy neighbour on
    two cores a step's vocabulary head took 10 s so, 1.4 s with 3,000 rounds of spinning and 1.9 s
    with 8,000; on an idle one 0.5 to 0.6 s with any. It is read when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _line_and_status(error: Exception) -> tuple[str, int]:
    if isinstance(error, UserError):
        return _message(error), BAD_INPUT
    if isinstance(error, OSError) and error.filename is not None and is_refusal(error):
        return f"{error.filename}: {explain(error)}", BAD_INPUT
    if os.environ.get("ANGELS_SHARE_TRACEBACK"):
        sys.stderr.write(without_secrets("".join(traceback.format_exception(error))))
    if isinstance(error, RunFailed):
        return _message(error), RUN_FAILED
    what = ": ".join(filter(None, (type(error).__name__, _message(error))))
    if isinstance(error, OSError):
        what = f"{error.filename or 'a file'}: {explain(error)}"
    hint = "" if os.environ.get("ANGELS_SHARE_TRACEBACK") else _TRACEBACK_HINT
    return f"failed: {what} (at {_place(error)}{hint})", RUN_FAILED


def _message(error: Exception) -> str:
    """What an error says, also where it was raised in a worker of a DataLoader.

    torch raises it again in the main process, with the worker's whole traceback as its message.
    """
    said = str(error)
    if not _FROM_A_WORKER.match(said):
        return said
    return said.strip().splitlines()[-1].partition(": ")[2]


# What follows is the traceback, of the error's cause first where it has one.
_FROM_A_WORKER = re.compile(r"Caught \w+ in .*\.\nOriginal ")
_TRACEBACK_HINT = "; ANGELS_SHARE_TRACEBACK=1 shows all of it"


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"  # noqa: PTH119


def _say(command: Command, message: str, status: int) -> int:
    line = " ".join(without_secrets(message).split())
    sys.stderr.write(f"{command.name}: {line}\n")
    return status


# How the names of HF_TOKEN, AWS_SECRET_ACCESS_KEY or PGPASSWORD end. One that only holds such a
# word, HF_TOKEN_PATH for example, says where a secret is.
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "_PAT")


def without_secrets(text: str) -> str:
    """The text with every secret that the environment holds struck out."""
    for name, value in os.environ.items():
        if name.upper().endswith(_SECRET) and len(value) >= 8:
            text = text.replace(value, "***")
    return text


def help_text(command: Command, *, everything: bool = False) -> str:
    """Examples, our flags with their defaults; with `everything` TrainingArguments' flags too."""
    lines = [f"{command.name}: {command.summary}", "", "Examples:"]
    lines += [f"  {example}" for example in command.examples]
    lines += ["", "Flags:", *(_flag_help(flag) for flag in command.flags)]
    lines.append(_described("--config FILE", "flags from a YAML or JSON file; flags here win"))
    if command.takes_training_flags and not everything:
        lines += ["", "Every flag of TrainingArguments is taken too; --help_all lists them."]
    if command.takes_training_flags and everything:
        ours = {flag.name for flag in command.flags}
        lines += ["", "Flags of transformers' TrainingArguments:"]
        lines += [
            _described(f"--{flag.name}", f"{flag.help} [{flag.default}]")
            for flag in training_flags().values()
            if flag.name not in ours
        ]
    return "\n".join(lines)


def _flag_help(flag: Flag) -> str:
    value = "|".join(flag.choices) or flag.metavar or flag.kind.__name__.upper()
    if flag.kind is bool:
        value = ""
    if flag.many:
        value = f"{value} [{value} ...]"
    default = "" if flag.default is None or flag.default is False else f" [{_shown(flag.default)}]"
    alias = f" (also --{flag.alias})" if flag.alias else ""
    return _described(f"--{flag.name} {value}".rstrip(), f"{flag.help}{default}{alias}")


def _shown(default: object) -> str:
    return " ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)


def _described(left: str, right: str) -> str:
    wrapped = textwrap.wrap(right, 64) or [""]
    first = f"  {left:<30} {wrapped[0]}" if len(left) <= 30 else f"  {left}\n{'':33}{wrapped[0]}"
    return "\n".join([first, *(f"{'':33}{line}" for line in wrapped[1:])])
