"""A command's flags as plain data, and one way to read them: command line, `--config`, defaults."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from angels_share.config import read_config
from angels_share.errors import UserError
from angels_share.names import nearest
from angels_share.training_flags import REFUSED, TrainingFlag, training_flags


@dataclass(frozen=True)
class Flag:
    """One flag of a command; its name is also its key in a `--config` file.

    `bare` is what the flag means when it stands alone, without a value; `first` says that a word at
    the beginning that belongs to no flag is its value.
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
        """Whether a file may say `null`."""
        return self.default is None and not self.required


@dataclass(frozen=True)
class Options:
    """What the user asked for: our flags with defaults filled in, TrainingArguments' as given."""

    values: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        """`options.alpha_ce` reads better than `options.values["alpha_ce"]`."""
        if name.startswith("_") or name not in self.values:
            raise AttributeError(name)
        return self.values[name]


def above_zero(value: float) -> str | None:
    """A check: for temperatures, counts, budgets."""
    if not math.isfinite(value):
        return "a finite number is wanted"
    return None if value > 0 else "must be above 0"


def not_negative(value: float) -> str | None:
    """A check: for weights."""
    if not math.isfinite(value):
        return "a finite number is wanted"
    return None if value >= 0 else "must be 0 or more"


def is_seed(value: int) -> str | None:
    """A check: what numpy takes for one."""
    return None if 0 <= value < 2**32 else "must be from 0 to 4294967295"


def is_share(value: float) -> str | None:
    """A check: for probabilities and shares."""
    return None if 0 <= value <= 1 else "must be between 0 and 1"


def yes_or_no(text: str) -> bool:
    """The value of a switch; `--flag False` means False, which not every parser honours."""
    answers = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in answers:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return answers[text.lower()]


_READERS: dict[type, Callable[[str], Any]] = {
    bool: yes_or_no, int: int, float: float, str: str,
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message.replace("argument --", "--"))


def parse(flags: Sequence[Flag], argv: Sequence[str], *, takes_training_flags: bool) -> Options:
    """Reads a command line; every mistake is a UserError that says what would have been right."""
    ours = {flag.name: flag for flag in flags}
    every_training_flag = training_flags() if takes_training_flags else {}
    training = {name: each for name, each in every_training_flag.items() if name not in ours}
    aliases = {flag.alias: flag for flag in flags if flag.alias}
    if argv and not argv[0].startswith("-"):
        argv = [*(f"--{flag.name}" for flag in flags if flag.first), *argv]
    parser = _parser(flags, training)
    known, unknown = parser.parse_known_args([_with_underscores(word) for word in argv])
    if unknown:
        _refuse(unknown[0], {**training, **ours, **aliases})
    given = {name: value for name, value in vars(known).items() if value is not None}
    config = given.pop("config", None)
    if config is not None:
        given = read_config(config, {**training, **ours, **aliases}) | given
    return _options(flags, training, given)


def _with_underscores(word: str) -> str:
    """`--alpha-ce` is `--alpha_ce`; what stands behind an equals sign is left as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _refuse(word: str, known: Mapping[str, object]) -> NoReturn:
    if not word.startswith("--"):
        raise UserError(f"what is {word!r}? It belongs to no flag; --help lists the flags")
    name = word[2:].partition("=")[0]
    if name in REFUSED:
        raise UserError(f"--{name} is not taken: {REFUSED[name]}")
    near = nearest(name, known).replace("'", "").replace("mean ", "mean --")
    raise UserError(f"unknown flag --{name}{near or '; --help lists the flags'}")


def _parser(flags: Sequence[Flag], training: Mapping[str, TrainingFlag]) -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    for flag in flags:
        names = [f"--{name}" for name in (flag.name, flag.alias) if name]
        how = _how_many(flag.kind, many=flag.many, bare=flag.bare)
        parser.add_argument(*names, dest=flag.name, type=_READERS[flag.kind], **how)
    for each in training.values():
        # What several types may be, a scheduler's JSON for one, arrives as text.
        kind = each.accepts[0] if each.accepts[0] in _READERS and len(each.accepts) == 1 else str
        how = _how_many(kind, many=list in each.accepts, bare=None)
        parser.add_argument(f"--{each.name}", type=_READERS[kind], **how)
        if each.default == "True":
            no = f"--no_{each.name}"
            parser.add_argument(no, dest=each.name, action="store_const", const=False)
    return parser


def _how_many(kind: type, *, many: bool, bare: Any) -> dict[str, Any]:
    if many:
        return {"nargs": "+"}
    if kind is bool:
        return {"nargs": "?", "const": True}
    return {} if bare is None else {"nargs": "?", "const": bare}


def _options(
    flags: Sequence[Flag], training: Mapping[str, TrainingFlag], chosen: Mapping[str, Any]
) -> Options:
    values: dict[str, Any] = {}
    for flag in flags:
        if flag.required and flag.name not in chosen:
            raise UserError(f"--{flag.name} is missing: {flag.help}")
        unsaid = False if flag.kind is bool and flag.default is None else flag.default
        values[flag.name] = chosen.get(flag.name, unsaid)
        if chosen.get(flag.name) is not None:
            _check(flag, chosen[flag.name])
            if flag.kind is float:  # 2 in a file is the 2.0 of the command line
                value = values[flag.name]
                values[flag.name] = [*map(float, value)] if flag.many else float(value)
    passed = {name: value for name, value in chosen.items() if name in training}
    for name, value in passed.items():
        _check_choice(name, value, training[name].choices)
    return Options(values, passed, frozenset(chosen))


def _check(flag: Flag, value: Any) -> None:
    for item in value if flag.many else [value]:
        accepted = (int, float) if flag.kind is float else flag.kind
        if not isinstance(item, accepted):
            raise UserError(f"--{flag.name} {item!r}: {flag.kind.__name__} is wanted")
        _check_choice(flag.name, item, flag.choices)
        if flag.check and (complaint := flag.check(item)):
            raise UserError(f"--{flag.name} {item}: {complaint}")


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if choices and value not in choices:
        allowed = ", ".join(choices)
        near = nearest(str(value), choices)
        raise UserError(f"--{name} {value}: one of {allowed} is wanted{near}")
