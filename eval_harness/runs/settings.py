"""How models are fine-tuned, and which settings make two numbers two numbers. Imports no torch.

The hyper-parameters behind the paper's Tables 1 and 2 were never published. These are ours: the
middle of the grid that BERT's authors searched, the same for every task and model.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from angels_share.errors import UserError
from angels_share.names import nearest
from angels_share.training_flags import training_flags
from eval_harness.runs.run import Method, Settings
from eval_harness.tasks.registry import Task

RECIPE = 1
"""The version of the harness's arithmetic: raise it when equal settings give another number."""

FINE_TUNING: Mapping[str, Any] = {
    "learning_rate": 3e-5,
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "max_seq_length": 128,
    "warmup_steps": 0.1,
    "lr_scheduler_type": "linear",
    "optim": "adamw_torch_fused",
    "weight_decay": 0.01,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "bf16": False,
    "train_sampling_strategy": "group_by_length",
}

# What else of TrainingArguments changes the number of a run.
_ALSO = frozenset({
    "max_steps", "lr_scheduler_kwargs", "optim_args", "optim_target_modules", "tf32",
    "label_smoothing_factor", "neftune_noise_alpha", "full_determinism", "dataloader_drop_last",
    "torch_compile", "torch_compile_backend", "torch_compile_mode",
})  # fmt: skip

NEUTRAL = frozenset({
    "per_device_eval_batch_size", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_prefetch_factor", "use_cpu", "torch_empty_cache_steps", "log_level",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_checkpointing",
    "activation_checkpointing_kwargs",
})  # fmt: skip
"""Flags of TrainingArguments that are passed on and change no number."""

_ONE_LOOK = "dev is looked at once, at the end; --choose best looks after every epoch"
_NO_CHECKPOINTS = "a run of the harness writes no checkpoints: what was killed is run again"
_ONE_PROCESS = "a run is one process: --workers shares runs out"
_REFUSED = {
    "output_dir": "results go to --results_dir",
    "seed": "use --seeds or --num_seeds",
    "data_seed": "use --seeds: the data's order follows the run's seed",
    "do_predict": "use --predict_test",
    "eval_strategy": _ONE_LOOK,
    "eval_steps": _ONE_LOOK,
    "load_best_model_at_end": "use --choose best",
    "metric_for_best_model": "--choose best goes by the task's own score",
    "save_strategy": _NO_CHECKPOINTS,
    "save_steps": _NO_CHECKPOINTS,
    "save_total_limit": _NO_CHECKPOINTS,
    "resume_from_checkpoint": "run the same command again: what has a result is not run twice",
    "push_to_hub": "push a finished folder with `hf upload`",
    "fp16": "use --bf16, or float32",
    "fsdp": _ONE_PROCESS,
    "deepspeed": _ONE_PROCESS,
    "report_to": "results are files; a run reports to nobody else",
    "logging_steps": "the loss is recorded twenty times a run",
}
_ABOVE_ZERO = (
    "learning_rate", "num_train_epochs", "max_seq_length", "per_device_train_batch_size",
    "per_device_eval_batch_size", "gradient_accumulation_steps", "max_steps",
)  # fmt: skip
_NOT_BELOW_ZERO = ("warmup_steps", "weight_decay", "max_grad_norm", "label_smoothing_factor")
_SAMPLING = ("group_by_length", "random", "sequential")


def check_overrides(given: Mapping[str, Any], own: Iterable[str] = ()) -> None:
    """Refuses flags of TrainingArguments that a run here doesn't have, and impossible values.

    Args:
        given: what the user set.
        own: names that the task itself knows.

    Raises:
        UserError: names the flag and what to use instead.
    """
    taken = {*FINE_TUNING, *_ALSO, *NEUTRAL, *own}
    for name, value in given.items():
        if name not in taken:
            reason = _REFUSED.get(name, "it means nothing here, or the harness sees to it itself")
            raise UserError(f"--{name} is not taken here: {reason}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name} {value}: a finite number is wanted")
        if name in _ABOVE_ZERO and value <= 0:
            raise UserError(f"--{name} {value}: must be above 0")
        if name in _NOT_BELOW_ZERO and value < 0:
            raise UserError(f"--{name} {value}: must be 0 or more")
    sampling = given.get("train_sampling_strategy", _SAMPLING[0])
    if sampling not in _SAMPLING:
        raise UserError(
            f"--train_sampling_strategy {sampling}: one of {', '.join(_SAMPLING)} is wanted"
            f"{nearest(sampling, _SAMPLING)}"
        )


def neutral(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the user set that is passed on and changes no number."""
    return {name: value for name, value in given.items() if name in NEUTRAL}


def _typed(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What the user set that changes the number; 3 and 3.0 epochs are the same setting."""
    return {
        name: float(value) if isinstance(defaults.get(name), float) else value
        for name, value in sorted(given.items())
        if name not in NEUTRAL and not _is_spelt_out(name, value, defaults)
    }


def _is_spelt_out(name: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    """Whether a flag that isn't among ours was given with its default."""
    return name not in defaults and repr(value) == training_flags()[name].default


def settings_of(
    task: Task,
    given: Mapping[str, Any],
    *,
    content: str,
    limit: int | None,
    choose: str = "last",
    method: Method | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Settings:
    """Every setting that changes the number of a run.

    Args:
        task: whose own defaults apply below what the user gave.
        given: flags of TrainingArguments, and `max_seq_length`.
        content: the hash of what the data says.
        limit: how many examples there are at most.
        choose: "last" or "best": which epoch's predictions count.
        method: another way to train than plain fine-tuning.
        inputs: what the method reads that differs from task to task: the run of a teacher.
    """
    defaults = {**FINE_TUNING, **task.fine_tuning}
    chosen = _typed(given, defaults)
    values = {**defaults, **chosen}
    how = None
    if method is not None:
        how = {
            "name": method.name, "factory": method.factory, "options": dict(method.options),
        }  # fmt: skip
    row = {
        "recipe": RECIPE,
        # What all tasks have by default isn't one, unless this task has another default.
        "overrides": {
            name: value
            for name, value in chosen.items()
            if value != defaults.get(name) or value != FINE_TUNING.get(name, value)
        },
        "limit": limit,
        "dtype": "bfloat16" if values["bf16"] else "float32",
        "choose": choose,
        "method": how,
    }
    own = {
        "version": task.version,
        "labels": list(task.labels),
        "measures": [*task.primary, *task.also],
        "columns": list(task.columns),
        "data": content,
        "values": values,
        "inputs": dict(inputs or {}),
    }
    return Settings(row, own)
