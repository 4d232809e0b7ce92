"""A command's flags as data, and one parser for them: command line, `--config` file, defaults."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from angels_share.config import LARGEST_INTEGER, Setting, read_config, shown, typed
from angels_share.errors import UserError
from angels_share.names import nearest
from angels_share.training_flags import REFUSED, TrainingFlag, training_flags


@dataclass(frozen=True)
class Flag:
    """One flag of a command; its name is also its key in a `--config` file.

    `many` flags take several values; `bare` is the value of a flag that is given without one;
    `first` makes a word before all flags its value; `check` returns what is wrong with a value.
    """

    name: str
    help: str
    kind: type = str
    default: Any = None
    many: bool = False
    required: bool = False
    bare: Any = None
    choices: tuple[str, ...] = ()
    alias: str | None = None
    metavar: str | None = None
    first: bool = False
    check: Callable[[Any], str | None] | None = None

    @property
    def accepts(self) -> tuple[type, ...]:
        """The types that a value from a file may have."""
        return (list,) if self.many else (self.kind,)

    @property
    def optional(self) -> bool:
        """True if a file may say `null`."""
        return self.default is None and not self.required


@dataclass(frozen=True)
class Options:
    """Parsed flags.

    Attributes:
        values: our flags, with defaults filled in.
        training: the flags of TrainingArguments that were given.
        given: names of all flags that were given, on the command line or in a file.
    """

    values: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        """Return `options.values["alpha_ce"]` for `options.alpha_ce`."""
        if name.startswith("_") or name not in self.values:
            raise AttributeError(name)
        return self.values[name]


def above_zero(value: float) -> str | None:
    """Check a temperature, a count or a size: return what is wrong with it."""
    if not math.isfinite(value):
        return "must be finite"
    return None if value > 0 else "must be above 0"


def not_negative(value: float) -> str | None:
    """Check a weight: return what is wrong with it."""
    if not math.isfinite(value):
        return "must be finite"
    return None if value >= 0 else "must be 0 or more"


def is_seed(value: int) -> str | None:
    """Check that numpy accepts a number as a seed: return what is wrong with it."""
    return None if 0 <= value < 2**32 else "must be from 0 to 4294967295"


def is_fraction(value: float) -> str | None:
    """Check a probability or a fraction: return what is wrong with it."""
    return None if 0 <= value <= 1 else "must be between 0 and 1"


def yes_or_no(text: str) -> bool:
    """Return the value of a switch; unlike `bool`, read `--flag False` as False."""
    answers = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in answers:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return answers[text.lower()]


_READERS: dict[type, Callable[[str], Any]] = {
    bool: yes_or_no,
    int: int,
    float: float,
    str: str,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message.replace("argument --", "--"))


def parse(
    flags: Sequence[Flag],
    argv: Sequence[str],
    *,
    takes_training_flags: bool,
    refusal: Callable[[str], str | None] = REFUSED.get,
) -> Options:
    """Parse a command line and the `--config` file that it names, if any.

    Args:
        flags: our flags; one of them hides a flag of TrainingArguments of the same name.
        argv: the words of the command line.
        takes_training_flags: also accept the flags of TrainingArguments.
        refusal: returns what to use instead of a flag that is known not to be accepted, or None.

    Raises:
        UserError: names the flag and what would have been right.
    """
    ours = {flag.name: flag for flag in flags}
    training = _accepted(ours, refusal) if takes_training_flags else {}
    aliases = {flag.alias: flag for flag in flags if flag.alias}
    if argv and not argv[0].startswith("-"):
        argv = [*(f"--{flag.name}" for flag in flags if flag.first), *argv]
    parser = _build_parser(flags, training)
    known, unknown = parser.parse_known_args([_with_underscores(word) for word in argv])
    if unknown:
        _refuse_unknown(unknown[0], {**training, **ours, **aliases}, refusal)
    given = {name: value for name, value in vars(known).items() if value is not None}
    config = given.pop("config", None)
    if config is not None:
        given = read_config(config, {**training, **ours, **aliases}, refusal) | given
    return _fill_in_defaults(flags, training, given)


def _accepted(
    ours: Mapping[str, Flag], refusal: Callable[[str], str | None]
) -> dict[str, TrainingFlag]:
    """Return the flags of TrainingArguments that are neither hidden by ours nor refused."""
    return {
        name: flag
        for name, flag in training_flags().items()
        if name not in ours and refusal(name) is None
    }


def options_of(
    flags: Sequence[Flag],
    given: Mapping[str, Any],
    *,
    takes_training_flags: bool,
    refusal: Callable[[str], str | None] = REFUSED.get,
) -> Options:
    """Return the options of a call from Python, checked like those of a command line.

    Args:
        flags: our flags; one of them hides a flag of TrainingArguments of the same name.
        given: their values by name, as a `--config` file would have them.
        takes_training_flags: also accept the flags of TrainingArguments.
        refusal: returns what to use instead of a flag that is known not to be accepted, or None.

    Raises:
        UserError: names the keyword and what would have been right.
    """
    ours = {flag.name: flag for flag in flags}
    training = _accepted(ours, refusal) if takes_training_flags else {}
    known: dict[str, Setting] = {**training, **ours}
    chosen = {}
    for name, value in given.items():
        if name not in known:
            _refuse_unknown(f"--{name}", known, refusal)
        chosen[name] = typed(value, known[name], f"--{name}")
    return _fill_in_defaults(flags, training, chosen)


def _with_underscores(word: str) -> str:
    """Turn `--alpha-ce` into `--alpha_ce`; leave what follows an equals sign as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _refuse_unknown(
    word: str, known: Mapping[str, object], refusal: Callable[[str], str | None]
) -> NoReturn:
    if not word.startswith("--"):
        raise UserError(f"unexpected argument {word!r}; --help lists the flags")
    name = word[2:].partition("=")[0]
    if reason := refusal(name) or refusal(name.removeprefix("no_")):
        raise UserError(f"--{name} is not accepted: {reason}")
    # A flag that shares only half of its letters does another thing.
    near = nearest(name, known, closeness=0.75).replace("'", "").replace("mean ", "mean --")
    longer = [each for each in known if each.startswith(name)]
    if len(longer) == 1:
        near = f"; did you mean --{longer[0]}?"
    raise UserError(f"unknown flag --{name}{near or '; --help lists the flags'}")


def _build_parser(flags: Sequence[Flag], training: Mapping[str, TrainingFlag]) -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    for flag in flags:
        names = [f"--{name}" for name in (flag.name, flag.alias) if name]
        arity = _arity(flag.kind, many=flag.many, bare=flag.bare)
        parser.add_argument(*names, dest=flag.name, type=_READERS[flag.kind], **arity)
    for option in training.values():
        arity = _arity(option.kind, many=list in option.accepts, bare=None)
        parser.add_argument(f"--{option.name}", type=_READERS[option.kind], **arity)
        if option.default == "True":
            negated = f"--no_{option.name}"
            parser.add_argument(negated, dest=option.name, action="store_const", const=False)
    return parser


def _arity(kind: type, *, many: bool, bare: Any) -> dict[str, Any]:
    """Return argparse's settings for the number of values that a flag takes."""
    if many:
        return {"nargs": "+"}
    if kind is bool:
        return {"nargs": "?", "const": True}
    return {} if bare is None else {"nargs": "?", "const": bare}


def _fill_in_defaults(
    flags: Sequence[Flag], training: Mapping[str, TrainingFlag], chosen: Mapping[str, Any]
) -> Options:
    """Check what was given, and add the defaults of our own flags."""
    for name, value in chosen.items():
        _check_size(name, value)
    values: dict[str, Any] = {}
    for flag in flags:
        if flag.required and flag.name not in chosen:
            raise UserError(f"--{flag.name} is missing: {flag.help}")
        default = False if flag.kind is bool and flag.default is None else flag.default
        values[flag.name] = chosen.get(flag.name, default)
        if chosen.get(flag.name) is not None:
            _check(flag, chosen[flag.name])
            if flag.kind is float:  # so that 2 in a file equals 2.0 from the command line
                value = values[flag.name]
                values[flag.name] = [*map(float, value)] if flag.many else float(value)
    passed = {name: value for name, value in chosen.items() if name in training}
    for name, value in passed.items():
        _check_choice(name, value, training[name].choices)
    return Options(values, passed, frozenset(chosen))


def _check_size(name: str, value: Any) -> None:
    """Refuse integers that neither numpy nor torch can hold: they fail late, and differently."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, int) and abs(item) >= LARGEST_INTEGER:
            raise UserError(f"--{name} {shown(item)}: an integer of more than 64 bits")


def _check(flag: Flag, value: Any) -> None:
    if value in ("", []):  # as of an unset variable in a shell
        raise UserError(f"--{flag.name} is empty: give a value, or leave it out")
    for item in value if flag.many else [value]:
        accepted = (int, float) if flag.kind is float else flag.kind
        is_stray_bool = isinstance(item, bool) and flag.kind is not bool
        if not isinstance(item, accepted) or is_stray_bool or item == "":
            raise UserError(f"--{flag.name} {item!r}: expected {flag.kind.__name__}")
        _check_choice(flag.name, item, flag.choices)
        if flag.check and (complaint := flag.check(item)):
            raise UserError(f"--{flag.name} {item}: {complaint}")


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if choices and value not in choices:
        allowed = ", ".join(choices)
        near = nearest(str(value), choices)
        raise UserError(f"--{name} {value}: expected one of {allowed}{near}")
