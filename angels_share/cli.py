"""What every command shares: instant help, flags, errors in one line, exit statuses.

Status 0: done; 1: a run failed; 2: bad input; 130 or 143: interrupted by Ctrl-C or SIGTERM, with
all completed work on disk; 141: the reader of the output has gone, as with `| head`.
"""

import os
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from angels_share import __version__
from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, is_path_error
from angels_share.flags import Flag, Options, options_of, parse
from angels_share.hardware import limit_spinning
from angels_share.start import lacking, not_installed
from angels_share.training_flags import (
    REFUSED,
    SYNONYMS,
    TrainingFlag,
    TrainingUse,
    training_flags,
)

DONE, RUN_FAILED, BAD_INPUT, INTERRUPTED, READER_GONE, TERMINATED = 0, 1, 2, 130, 141, 143

HELP = {"-h": False, "--help": False, "--help_all": True, "--help-all": True}
"""The flags that ask for help; true for those that ask for all of it."""


@dataclass(frozen=True)
class Command:
    """A command: its name and summary, its flags, and the function that runs it.

    Attributes:
        name: the command's name.
        summary: what it does, in a line.
        flags: its own flags.
        run: does the work and returns the status.
        examples: command lines for the help text.
        training: what it does with the flags of TrainingArguments; None if it takes none.
        instead: flags of similar scripts that it doesn't have, and what to use.
    """

    name: str
    summary: str
    flags: tuple[Flag, ...]
    run: Callable[[Options], int]
    examples: tuple[str, ...]
    training: TrainingUse | None = None
    instead: Mapping[str, str] = field(default_factory=dict)

    @property
    def takes_training_flags(self) -> bool:
        """Whether flags of TrainingArguments are parsed as well."""
        return self.training is not None

    def refusal(self, name: str) -> str | None:
        """Return why a flag is not accepted and what to use instead; None if nothing is known."""
        if name in self.instead or name in REFUSED:
            return self.instead.get(name) or REFUSED[name]
        ours = {flag.name for flag in self.flags}
        theirs = training_flags() if self.training else {}
        for synonym in SYNONYMS.get(name, ()):
            if synonym in ours or (synonym in theirs and self.refusal(synonym) is None):
                return f"use --{synonym}"
        if name in ours or self.training is None:
            return None
        return self.training.refusal(name) if name in theirs else None

    def parse(self, words: Sequence[str]) -> Options:
        """Return the options that a command line gives.

        Raises:
            UserError: names the flag and what would have been right.
        """
        takes = self.takes_training_flags
        return parse(self.flags, words, takes_training_flags=takes, refusal=self.refusal)

    def options(self, given: Mapping[str, Any]) -> Options:
        """Return the options of a call from Python, by the names of the flags.

        Raises:
            UserError: names the keyword and what would have been right.
        """
        takes = self.takes_training_flags
        return options_of(self.flags, given, takes_training_flags=takes, refusal=self.refusal)


def run_command(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; nothing ends in a bare traceback."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        if text := _text_asked_for(command, words):
            return print_out(text)
        limit_spinning()
        with _terminable():
            options = command.parse(words)
            _require_packages(command)
            status = command.run(options)
            sys.stdout.flush()  # a reader that has gone must show here, not at Python's exit
            return status
    except KeyboardInterrupt as end:
        return _report(command, f"interrupted; {_saved(end)}", INTERRUPTED)
    except SystemExit as end:
        if end.code != TERMINATED:
            raise
        return _report(command, f"terminated; {_saved(end)}", TERMINATED)
    except BrokenPipeError:
        _discard_output()
        return READER_GONE
    except Exception as error:  # noqa: BLE001  (the outermost handler: reports it, never swallows it)
        return _report(command, *_line_and_status(error))


def _text_asked_for(command: Command, words: Sequence[str]) -> str:
    """Return the help or the version, if the words ask for it, else ""."""
    if wanted := [HELP[word] for word in words if word in HELP]:
        return help_text(command, everything=all(wanted))
    return version() if "--version" in words else ""


def _require_packages(command: Command) -> None:
    """Refuse to begin a training without its packages; other commands need only some of them."""
    if command.training and (fault := lacking()):
        raise UserError(fault)


def version() -> str:
    """Return the project's name and version, as `--version` prints them."""
    return f"angels-share {__version__}"


def print_out(text: str) -> int:
    """Print a text that may be read only in part, as with `| head`, and return status 0."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        _discard_output()
    return DONE


def _discard_output() -> None:
    """Send what is still to be written nowhere, so that Python's flush at exit doesn't fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def _saved(end: BaseException) -> str:
    """Return what became of the work: what the command noted about it, if it did."""
    return "; ".join(getattr(end, "__notes__", ())) or "completed work is saved"


def _line_and_status(error: Exception) -> tuple[str, int]:
    """Return the line that reports an error, and the exit status."""
    if isinstance(error, UserError):
        return _message(error), BAD_INPUT
    if isinstance(error, OSError) and error.filename is not None and is_path_error(error):
        return f"{error.filename}: {explain(error)}", BAD_INPUT
    if isinstance(error, ModuleNotFoundError) and (fault := not_installed(error)):
        return fault, BAD_INPUT
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
    asks, text = "--help, -h", "this text"
    if command.training:
        asks, text = "--help, --help_all", "this text; with the flags of TrainingArguments"
    lines += [
        _two_columns("--config FILE", "flags from a YAML or JSON file; the command line wins"),
        _two_columns(asks, text),
        _two_columns("--version", "the version of angels-share"),
    ]
    if command.training and not everything:
        defaults = command.training.defaults  # all others would have to be read from the source
        shown = ", ".join(f"--{name} [{defaults[name]}]" for name in _USUAL if name in defaults)
        lines += ["", *_wrapped(f"{_TRAINING_FLAGS} {shown}.", 97)]
    if command.training and everything:
        lines += _training_help(command, command.training)
    return "\n".join(lines)


_USUAL = ("learning_rate", "num_train_epochs", "per_device_train_batch_size")
_TRAINING_FLAGS = (
    "TrainingArguments flags are accepted as well: --help_all lists them, and those that are not. "
    "Some of them:"
)


def _training_help(command: Command, use: TrainingUse) -> list[str]:
    """Return the lines about the flags of TrainingArguments: taken, without effect, refused."""
    ours = {flag.name for flag in command.flags}
    names = [name for name in (*training_flags(), *REFUSED) if name not in ours]
    refused = {name: reason for name in names if (reason := command.refusal(name))}
    taken = [name for name in names if name not in refused and name not in use.no_effect]
    lines = ["", "Flags of transformers' TrainingArguments:"]
    lines += [_training_flag_help(training_flags()[name], use) for name in taken]
    for title, reasons in (
        ("Accepted, but of no effect here:", use.no_effect),
        ("Not accepted:", refused),
    ):
        shown = [name for name in names if name in reasons]
        if shown:
            lines += ["", title]
        for reason in dict.fromkeys(reasons[name] for name in shown):
            flags = [f"--{name}" for name in shown if reasons[name] == reason]
            lines.append(_two_columns("\n  ".join(_wrapped(", ".join(flags), 95)), reason))
    return lines


def _training_flag_help(flag: TrainingFlag, use: TrainingUse) -> str:
    """Return the help of a flag of TrainingArguments, in the form of our own flags' help."""
    value = "JSON" if dict in flag.accepts else flag.kind.__name__.upper()
    text = use.help.get(flag.name) or _help_with_choices(flag)
    if flag.kind is bool:
        value = ""
    if list in flag.accepts:
        value = f"{value} [{value} ...]"
    off = f" (--no_{flag.name} switches it off)" if flag.default == "True" else ""
    default = use.defaults.get(flag.name, flag.shown_default)
    default = f" [{default}]" if default else ""
    return _two_columns(f"--{flag.name} {value}".rstrip(), f"{text.rstrip('.')}{off}{default}")


def _help_with_choices(flag: TrainingFlag) -> str:
    """Return TrainingArguments' own words about a flag, with its choices if they lack them."""
    text = _SEE_ENUM.sub("", flag.help)
    if all(choice in text for choice in flag.choices):
        return text
    return f"{text.rstrip('.')}: {', '.join(flag.choices)}"


_SEE_ENUM = re.compile(r"\s*See `\w+` for [^.]*\.")


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
    wrapped = _wrapped(right, 64) or [""]
    first = f"  {left:<30} {wrapped[0]}" if len(left) < 30 else f"  {left}\n{'':33}{wrapped[0]}"
    return "\n".join([first, *(f"{'':33}{line}" for line in wrapped[1:])])


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text; a flag's or a value's name is never broken at its hyphen."""
    return textwrap.wrap(text, width, break_on_hyphens=False)
