"""The flags of transformers' TrainingArguments, read from its source.

Importing it takes seconds, parsing its source milliseconds. So `--help_all`, "did you mean" and the
types in a `--config` file always match the installed version.
"""

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# A token in the arguments would show in the process list and in every file that records them; a
# ParallelismConfig can't be written as text; on a signal Trainer's own checkpoint would be saved
# before the optimizer's step, while ours is exact.
REFUSED = {
    "hub_token": "set HF_TOKEN or run `hf auth login`: a token must not appear on a command line",
    "parallelism_config": "it can't be given as text",
    "enable_jit_checkpoint": "interruptions are already handled, at the end of a step",
    # Flags of the original scripts, for which "did you mean" would suggest the wrong ones.
    "teacher_name_or_path": "use --teacher",
    "teacher_name": "use --teacher",
    "predict_file": "use --validation_file",
}

_TYPES: dict[str, type] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "dict": dict,
    "list": list,
}


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
    """Return the fields of the installed TrainingArguments by name, without `REFUSED`."""
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
    """Parse one field, such as `learning_rate: float = field(default=5e-5, metadata={...})`."""
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
    """Return the values of an enum of strings."""
    values = [node.value for node in enum.body if isinstance(node, ast.Assign)]
    return [str(value.value) for value in values if isinstance(value, ast.Constant)]


def _kinds(annotation: ast.expr) -> set[str]:
    """Return the names in a union: dict, str and None for `dict[str, Any] | str | None`."""
    return {part.strip().split("[")[0] for part in ast.unparse(annotation).split("|")}


def _help_in(metadata: ast.Dict) -> str:
    for key, value in zip(metadata.keys, metadata.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == "help":
            try:
                return " ".join(str(ast.literal_eval(value)).split())
            except ValueError:  # an expression, evaluated only when transformers is imported
                return ""
    return ""
