"""The flags of transformers' TrainingArguments, read from its source.

Importing it costs seconds; its source says the same in milliseconds. So `--help_all`, a mistyped
flag and the types of a `--config` file are always those of the version that is installed.
"""

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# A token in the arguments would stand in the process list and in every file that records them;
# a ParallelismConfig can't be written as text; Trainer's own checkpoints by signal would be saved
# before the optimizer's step, and ours are exact.
REFUSED = {
    "hub_token": "set HF_TOKEN or run `hf auth login`: a token must not stand on a command line",
    "parallelism_config": "it can't be given as text",
    "enable_jit_checkpoint": "interruptions are handled here already, at the end of a step",
    # Of the original's scripts; the nearest names would be the wrong ones.
    "teacher_name_or_path": "use --teacher",
    "teacher_name": "use --teacher",
    "predict_file": "use --validation_file",
}

_TYPES: dict[str, type] = {
    "str": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list,
}  # fmt: skip


@dataclass(frozen=True)
class TrainingFlag:
    """A field of TrainingArguments, as its source declares it."""

    name: str
    accepts: tuple[type, ...]
    optional: bool
    default: str
    help: str
    choices: tuple[str, ...] = ()


@cache
def training_flags() -> Mapping[str, TrainingFlag]:
    """The fields of the installed TrainingArguments by name, without those that are refused."""
    package = importlib.util.find_spec("transformers")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent
    classes = {
        node.name: node
        for file in ("trainer_utils.py", "training_args.py")
        for node in ast.parse((folder / file).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    fields = classes["TrainingArguments"].body
    flags = [_flag(node, classes) for node in fields if isinstance(node, ast.AnnAssign)]
    return {flag.name: flag for flag in flags if flag.name not in REFUSED}


def _flag(node: ast.AnnAssign, classes: Mapping[str, ast.ClassDef]) -> TrainingFlag:
    assert isinstance(node.target, ast.Name)
    default, text = "", ""
    for keyword in node.value.keywords if isinstance(node.value, ast.Call) else []:
        if keyword.arg == "default":
            default = ast.unparse(keyword.value)
        if keyword.arg == "metadata" and isinstance(keyword.value, ast.Dict):
            text = _help_in(keyword.value)
    kinds = _kinds(node.annotation)
    types = tuple(sorted({_TYPES.get(kind, str) for kind in kinds - {"None"}}, key=str))
    choices = tuple(word for kind in kinds if kind in classes for word in _members(classes[kind]))
    return TrainingFlag(node.target.id, types, "None" in kinds, default, text, choices)


def _members(enum: ast.ClassDef) -> list[str]:
    """The words that an enum stands for."""
    values = [node.value for node in enum.body if isinstance(node, ast.Assign)]
    return [str(value.value) for value in values if isinstance(value, ast.Constant)]


def _kinds(annotation: ast.expr) -> set[str]:
    """The members of a union such as `dict[str, Any] | str | None`; an enum is given as text."""
    return {part.strip().split("[")[0] for part in ast.unparse(annotation).split("|")}


def _help_in(metadata: ast.Dict) -> str:
    for key, value in zip(metadata.keys, metadata.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == "help":
            try:
                return " ".join(str(ast.literal_eval(value)).split())
            except ValueError:  # a text that is only put together when transformers is imported
                return ""
    return ""
