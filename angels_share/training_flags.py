"""The flags of transformers' TrainingArguments, read from its source.

Importing it takes seconds, parsing its source milliseconds. So `--help_all`, "did you mean" and the
types in a `--config` file always match the installed version.
"""

import ast
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

# A token in the arguments would show in the process list and in every file that records them; a
# ParallelismConfig can't be written as text; on a signal Trainer's own checkpoint would be saved
# before the optimizer's step, while ours is exact.
REFUSED: Mapping[str, str] = {
    "hub_token": "set HF_TOKEN or run `hf auth login`: a token must not appear on a command line",
    "parallelism_config": "it can't be given as text",
    "enable_jit_checkpoint": "interruptions are already handled, at the end of a step",
}
"""Flags of TrainingArguments that no command takes."""

# Flags of transformers' scripts, of the original's, and short forms that people type.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "output_dir": ("results_dir",),
    "out_dir": ("output_dir", "results_dir"),
    "dump_path": ("output_dir", "results_dir"),
    "results_dir": ("output_dir",),
    "model_name_or_path": ("teacher",),
    "student_name_or_path": ("model", "student"),
    "teacher_name_or_path": ("teacher",),
    "teacher_name": ("teacher",),
    "teacher_model": ("teacher",),
    "student_model": ("student", "model"),
    "tokenizer_name": ("tokenizer",),
    "data_file": ("corpus",),
    "data_dir": ("corpus",),
    "train_file": ("corpus", "data_dir"),
    "validation_file": ("data_dir",),
    "dataset_name": ("corpus", "tasks"),
    "dev_file": ("validation_file",),
    "predict_file": ("validation_file",),
    "task": ("tasks",),
    "max_train_samples": ("limit",),
    "max_eval_samples": ("limit",),
    "max_val_samples": ("limit",),
    "max_predict_samples": ("limit",),
    "max_test_samples": ("limit",),
    "max_samples": ("limit",),
    "max_length": ("max_seq_length",),
    "max_seq_len": ("max_seq_length",),
    "block_size": ("max_seq_length",),
    "epochs": ("num_train_epochs",),
    "n_epoch": ("num_train_epochs",),
    "num_epochs": ("num_train_epochs",),
    "num_steps": ("max_steps",),
    "lr": ("learning_rate",),
    "lr_scheduler": ("lr_scheduler_type",),
    "warmup_ratio": ("warmup_steps",),
    "warmup_prop": ("warmup_steps",),
    "warmup_proportion": ("warmup_steps",),
    "batch_size": ("per_device_train_batch_size",),
    "train_batch_size": ("per_device_train_batch_size",),
    "eval_batch_size": ("per_device_eval_batch_size",),
    "per_gpu_train_batch_size": ("per_device_train_batch_size",),
    "per_gpu_eval_batch_size": ("per_device_eval_batch_size",),
    "grad_accum": ("gradient_accumulation_steps",),
    "fp16_opt_level": ("bf16",),
    "mixed_precision": ("bf16",),
    "no_cuda": ("use_cpu",),
    "num_workers": ("workers", "dataloader_num_workers"),
    "preprocessing_num_workers": ("workers",),
    "n_gpu": ("workers",),
    "evaluation_strategy": ("choose", "eval_strategy"),
    "log_interval": ("logging_steps",),
    "checkpoint_interval": ("save_steps",),
    "mlm_prob": ("mlm_probability",),
    "mlm_mask_prop": ("mlm_probability",),
    "vocab_transform": ("copy_head_transform",),
    "student_type": ("architecture",),
    "student_config": ("student",),
    "student_pretrained_weights": ("student",),
    "num_hidden_layers": ("num_layers",),
    "resume": ("resume_from_checkpoint",),
    "repo_id": ("hub_model_id",),
    "private": ("hub_private_repo",),
}
"""What a flag is called elsewhere, and here: of several, the first that a command has."""

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

    @property
    def kind(self) -> type:
        """The type that a word of the command line is read as.

        A field of several types, such as a scheduler's JSON or dict, is passed on as text.
        """
        return self.accepts[0] if self.accepts in ((int,), (float,), (bool,)) else str

    @property
    def shown_default(self) -> str:
        """Its default as a help text shows it; "" where nothing or `False` is."""
        try:
            value = ast.literal_eval(self.default)
        except (ValueError, SyntaxError):  # made by a factory: an empty list
            return ""
        return "" if value is None or value is False else str(value)


@dataclass(frozen=True)
class TrainingUse:
    """What a command does with the flags of TrainingArguments.

    Attributes:
        refusal: `refusal(name)` returns why a flag is not accepted and what to use instead, or
            None if it is.
        defaults: the defaults in force, as text, where they are not TrainingArguments' own.
        no_effect: flags that are accepted although they change nothing, each with the reason.
        help: what a flag does, where TrainingArguments' own words are wrong here.
    """

    refusal: Callable[[str], str | None]
    defaults: Mapping[str, str] = field(default_factory=dict)
    no_effect: Mapping[str, str] = field(default_factory=dict)
    help: Mapping[str, str] = field(default_factory=dict)


@cache
def training_flags() -> Mapping[str, TrainingFlag]:
    """Return the fields of the installed TrainingArguments by name, without `REFUSED`."""
    package = importlib.util.find_spec("transformers")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
    folder = Path(package.origin).parent
    classes = {
        node.name: node
        for file in ("trainer_utils.py", "training_args.py")
        for node in ast.parse((folder / file).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    body = classes["TrainingArguments"]
    constants = _constants(body)
    flags = [
        _flag(node, classes, constants) for node in body.body if isinstance(node, ast.AnnAssign)
    ]
    return {flag.name: flag for flag in flags if flag.name not in REFUSED}


def _constants(body: ast.ClassDef) -> Mapping[str, str]:
    """Return what the names in a class's body stand for, such as `default_optim`.

    Its value depends on whether torch is installed; the last one is that with torch.
    """
    return {
        target.id: ast.unparse(node.value)
        for node in ast.walk(body)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _flag(
    node: ast.AnnAssign, classes: Mapping[str, ast.ClassDef], constants: Mapping[str, str]
) -> TrainingFlag:
    """Parse one field, such as `learning_rate: float = field(default=5e-5, metadata={...})`."""
    assert isinstance(node.target, ast.Name)
    default, text = "", ""
    for keyword in node.value.keywords if isinstance(node.value, ast.Call) else []:
        if keyword.arg == "default":
            default = ast.unparse(keyword.value)
            default = constants.get(default, default)
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
                # argparse, for which it is written, reads %% as %.
                return " ".join(str(ast.literal_eval(value)).replace("%%", "%").split())
            except ValueError:  # an expression, evaluated only when transformers is imported
                return ""
    return ""
