"""The training recipe: hyper-parameters, presets and loss weights. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
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

Mode = Literal["masked", "causal", "task"]

Divergence = Literal["kl", "reverse_kl"]
"""How far soft targets are apart: KL(teacher ‖ student), or KL(student ‖ teacher)."""


@dataclass(frozen=True)
class Term:
    """One term of the loss.

    Attributes:
        weight: the argument, flag and record field that holds its weight.
        title: its symbol in the paper.
        subject: what it is computed on, for help texts.
        defaults: its default weight for each kind of student that has the term.
        needs_teacher: whether it compares the student with a teacher.
        needs_equal_width: whether it compares hidden states, which have no projection.
    """

    weight: str
    title: str
    subject: str
    defaults: Mapping[Mode, float]
    needs_teacher: bool = False
    needs_equal_width: bool = False


TERMS = (
    Term(
        "alpha_ce",
        "L_ce",
        "on the teacher's soft targets",
        {"masked": 5.0, "causal": 5.0, "task": 0.5},
        needs_teacher=True,
    ),
    Term("alpha_mlm", "L_mlm", "on masked tokens", {"masked": 2.0}),
    Term("alpha_clm", "L_clm", "on the next token", {"causal": 2.0}),
    Term(
        "alpha_mse",
        "L_mse",
        "the MSE of the logits",
        {"masked": 0.0, "causal": 0.0},
        needs_teacher=True,
    ),
    Term(
        "alpha_cos",
        "L_cos",
        "the cosine loss of the last hidden states",
        {"masked": 1.0, "causal": 1.0},
        needs_teacher=True,
        needs_equal_width=True,
    ),
    Term(
        "alpha_rel",
        "L_rel",
        "the relations among queries, among keys and among values, for students of any width",
        {"masked": 0.0, "causal": 0.0},
        needs_teacher=True,
    ),
    Term("alpha_task", "L_task", "on a task's labels", {"task": 0.5}),
)

WEIGHTS = tuple(term.weight for term in TERMS if term.defaults.keys() & {"masked", "causal"})
"""The weights of pre-training."""
OF_TEACHERS = tuple(term.weight for term in TERMS if term.needs_teacher)
"""The weights of the terms that need a teacher."""


def default_weights(mode: Mode) -> Mapping[str, float]:
    """Return the loss terms of a kind of student, with their default weights."""
    return {term.weight: term.defaults[mode] for term in TERMS if mode in term.defaults}


def needs_equal_width(weights: Mapping[str, float]) -> bool:
    """Return whether hidden states of student and teacher are compared."""
    return any(weights.get(term.weight) for term in TERMS if term.needs_equal_width)


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse a loss whose weights are all 0."""
    if not any(weights.values()):
        raise UserError(f"all weights are 0: one of {', '.join(weights)} must be above 0")


def check_used(weights: Mapping[str, float], settings: Mapping[str, Any]) -> None:
    """Refuse settings of a term that is off.

    Args:
        weights: the weight of every term.
        settings: the training settings by their names; those that are missing are not checked.
    """
    if not weights.get("alpha_ce") and settings.get("divergence", "kl") != "kl":
        raise UserError(f"divergence {settings['divergence']}: alpha_ce is 0, so it has no effect")
    for name in ("relation_layer", "relation_heads"):
        if settings.get(name) is not None and not weights.get("alpha_rel"):
            raise UserError(
                f"{name} {settings[name]}: relations are not compared; set alpha_rel above 0"
            )


def parse_layers(text: str) -> list[int]:
    """Parse a list of layers such as `0,2,4`."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--student_layers {text}: expected layer numbers such as 0,2,4") from None
