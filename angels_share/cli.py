"""What every command shares: instant help, flags, errors in one line, exit statuses.

Status 0: done; 1: a run failed; 2: bad input; 130 or 143: interrupted by Ctrl-C or SIGTERM, with
all completed work on disk.
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
from angels_share.files import explain, is_path_error
from angels_share.flags import Flag, Options, parse
from angels_share.training_flags import training_flags

DONE, RUN_FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


@dataclass(frozen=True)
class Command:
    """A command: its name and summary, its flags, and the function that runs it.

    With `takes_training_flags`, flags of TrainingArguments are parsed as well; `run` decides which
    of them it accepts.
    """

    name: str
    summary: str
    flags: tuple[Flag, ...]
    run: Callable[[Options], int]
    examples: tuple[str, ...]
    takes_training_flags: bool = False


def run_command(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; nothing ends in a bare traceback."""
    words = sys.argv[1:] if argv is None else list(argv)
    wants_help = {"-h", "--help", "--help_all", "--help-all"} & set(words)
    try:
        if wants_help:
            print(help_text(command, everything=not {"-h", "--help"} & set(words)))  # noqa: T201
            return DONE
        _limit_spinning()
        with _terminable():
            options = parse(command.flags, words, takes_training_flags=command.takes_training_flags)
            return command.run(options)
    except KeyboardInterrupt as end:
        return _report(command, f"interrupted; {_saved(end)}", INTERRUPTED)
    except SystemExit as end:
        if end.code != TERMINATED:
            raise
        return _report(command, f"terminated; {_saved(end)}", TERMINATED)
    except BrokenPipeError:  # as with `| head`; Python's flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # noqa: BLE001  (the outermost handler: reports it, never swallows it)
        return _report(command, *_line_and_status(error))


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise SIGTERM as an exception within the block, as Python does with Ctrl-C.

    So `finally` clauses end child processes and remove temporary files. Only the main thread can
    handle signals; a SIGTERM that is ignored, or has a handler already, is left alone.
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


def _limit_spinning() -> None:
    """Make torch's threads spin less while they wait for one another, unless the user chose.

    They synchronize thousands of times in a step. GNU OpenMP spins for milliseconds at each
    barrier, which is free on an idle machine and ruinous on a shared one: with a busy neighbour on
    two cores a step's vocabulary head took 10 s, but 1.4 s with a spin count of 3,000 and 1.9 s
    with 8,000; on an idle machine it took 0.5 to 0.6 s with any of them.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # read when torch is imported


def _saved(end: BaseException) -> str:
    """Return what became of the work: what the command noted about it, if it did."""
    return "; ".join(getattr(end, "__notes__", ())) or "completed work is saved"


def _line_and_status(error: Exception) -> tuple[str, int]:
    """Return the line that reports an error, and the exit status."""
    if isinstance(error, UserError):
        return _message(error), BAD_INPUT
    if isinstance(error, OSError) and error.filename is not None and is_path_error(error):
        return f"{error.filename}: {explain(error)}", BAD_INPUT
    if os.environ.get("ANGELS_SHARE_TRACEBACK"):
        sys.stderr.write(without_secrets("".join(traceback.format_exception(error))))
    if isinstance(error, RunFailed):
        return _message(error), RUN_FAILED
    reason = ": ".join(filter(None, (type(error).__name__, _message(error))))
    if isinstance(error, OSError):
        reason = f"{error.filename or 'a file'}: {explain(error)}"
    hint = "" if os.environ.get("ANGELS_SHARE_TRACEBACK") else _TRACEBACK_HINT
    return f"failed: {reason} (at {_location(error)}{hint})", RUN_FAILED


def _message(error: Exception) -> str:
    """Return an error's message, without the traceback of a DataLoader's worker.

    torch re-raises a worker's error in the main process, with the whole traceback as its message.
    """
    message = str(error)
    if not _FROM_A_WORKER.match(message):
        return message
    return message.strip().splitlines()[-1].partition(": ")[2]


# A traceback follows, that of the error's cause first; so the last line is the error itself.
_FROM_A_WORKER = re.compile(r"Caught \w+ in .*\.\nOriginal ")
_TRACEBACK_HINT = "; set ANGELS_SHARE_TRACEBACK=1 for the traceback"


def _location(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"  # noqa: PTH119


def _report(command: Command, message: str, status: int) -> int:
    """Write one line to standard error and return the status."""
    line = " ".join(without_secrets(message).split())
    sys.stderr.write(f"{command.name}: {line}\n")
    return status


# How names such as HF_TOKEN, AWS_SECRET_ACCESS_KEY or PGPASSWORD end. A name that only contains
# such a word, HF_TOKEN_PATH for example, tells where a secret is.
_SECRET_ENDINGS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "_PAT")


def without_secrets(text: str) -> str:
    """Return a text with every secret of the environment replaced by ***."""
    for name, value in os.environ.items():
        if name.upper().endswith(_SECRET_ENDINGS) and len(value) >= 8:
            text = text.replace(value, "***")
    return text


def help_text(command: Command, *, everything: bool = False) -> str:
    """Return examples and flags with defaults; with `everything` also TrainingArguments' flags."""
    lines = [f"{command.name}: {command.summary}", "", "Examples:"]
    lines += [f"  {example}" for example in command.examples]
    lines += ["", "Flags:", *(_flag_help(flag) for flag in command.flags)]
    lines.append(
        _two_columns("--config FILE", "flags from a YAML or JSON file; the command line wins")
    )
    if command.takes_training_flags and not everything:
        lines += ["", *textwrap.wrap(_TRAINING_FLAGS, 97)]
    if command.takes_training_flags and everything:
        ours = {flag.name for flag in command.flags}
        lines += ["", "Flags of transformers' TrainingArguments, some of which are refused here:"]
        lines += [
            _two_columns(f"--{flag.name}", f"{flag.help} [{flag.default}]")
            for flag in training_flags().values()
            if flag.name not in ours
        ]
    return "\n".join(lines)


_TRAINING_FLAGS = (
    "TrainingArguments flags such as --learning_rate are accepted as well (--help_all lists all of "
    "them; some are refused here, with the reason)."
)


def _flag_help(flag: Flag) -> str:
    value = "|".join(flag.choices) or flag.metavar or flag.kind.__name__.upper()
    if flag.kind is bool:
        value = ""
    if flag.many:
        value = f"{value} [{value} ...]"
    default = ""
    if flag.default is not None and flag.default is not False:
        default = " ".join(map(str, flag.default)) if flag.many else str(flag.default)
        default = f" [{default}]"
    alias = f" (also --{flag.alias})" if flag.alias else ""
    name = f"[--{flag.name}]" if flag.first else f"--{flag.name}"
    required = " (required)" if flag.required else ""
    return _two_columns(f"{name} {value}".rstrip(), f"{flag.help}{required}{default}{alias}")


def _two_columns(left: str, right: str) -> str:
    wrapped = textwrap.wrap(right, 64) or [""]
    first = f"  {left:<30} {wrapped[0]}" if len(left) <= 30 else f"  {left}\n{'':33}{wrapped[0]}"
    return "\n".join([first, *(f"{'':33}{line}" for line in wrapped[1:])])
