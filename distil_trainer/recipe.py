"""The training recipe: hyper-parameters, presets and loss weights. Imports no torch."""

from collections.abc import Mapping
from typing import Any, Literal

from angels_share.errors import UserError

# The published recipe. Part of it also replaces TrainingArguments' defaults, see DEFAULTS.
PAPER: Mapping[str, Any] = {
    "learning_rate": 5e-4,
    "adam_beta1": 0.9,
    "adam_beta2": 0.98,
    "adam_epsilon": 1e-6,
    "weight_decay": 0.0,
    "max_grad_norm": 5.0,
    "warmup_steps": 0.05,
    "lr_scheduler_type": "linear",
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 5,
    "gradient_accumulation_steps": 50,
    "mask_scope": "batch",
    "copy_head_transform": False,
    "freeze_pos_embs": True,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {"paper": PAPER}

# In place of TrainingArguments' own defaults, which are for fine-tuning a trained model.
DEFAULTS: Mapping[str, Any] = {
    name: PAPER[name]
    for name in (
        "learning_rate",
        "adam_beta2",
        "adam_epsilon",
        "weight_decay",
        "max_grad_norm",
        "warmup_steps",
        "num_train_epochs",
    )
}

WEIGHTS = ("alpha_ce", "alpha_mlm", "alpha_clm", "alpha_mse", "alpha_cos")

Mode = Literal["masked", "causal", "task"]

_WEIGHTS: Mapping[Mode, Mapping[str, float]] = {
    "masked": {"alpha_ce": 5.0, "alpha_mlm": 2.0, "alpha_mse": 0.0, "alpha_cos": 1.0},
    "causal": {"alpha_ce": 5.0, "alpha_clm": 2.0, "alpha_mse": 0.0, "alpha_cos": 1.0},
    "task": {"alpha_ce": 0.5, "alpha_task": 0.5},
}


def default_weights(mode: Mode) -> Mapping[str, float]:
    """Return the loss terms of a kind of student, with their default weights."""
    return _WEIGHTS[mode]


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse a loss whose weights are all 0."""
    if not any(weights.values()):
        raise UserError(f"all weights are 0: one of {', '.join(weights)} must be above 0")


def parse_layers(text: str) -> list[int]:
    """Parse a list of layers such as `0,2,4`."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--student_layers {text}: expected layer numbers such as 0,2,4") from None
