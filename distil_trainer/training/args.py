"""DistilTrainingArguments: TrainingArguments plus validated arguments for distillation."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from transformers import TrainingArguments

from angels_share.errors import UserError
from angels_share.flags import above_zero, not_negative
from angels_share.names import nearest
from distil_trainer.data.masking import Scope
from distil_trainer.recipe import (
    DEFAULTS,
    PRESETS,
    WEIGHTS,
    Divergence,
    Mode,
    check_used,
    check_weights,
    default_weights,
)
from distil_trainer.training.honoured import check_fields


def _number(value: object) -> str | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if is_number else f"{value!r} is not a number"


def _weight(value: Any) -> str | None:
    return _number(value) or not_negative(value)


def _positive(value: Any) -> str | None:
    return _number(value) or above_zero(value)


def _inner_share(value: Any) -> str | None:
    return _positive(value) or (None if value < 1 else "must be below 1")


def _positive_count(value: Any) -> str | None:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return above_zero(value) if is_integer else f"{value!r} is not an integer"


def _switch(value: object) -> str | None:
    return None if isinstance(value, bool) else f"{value!r} is neither True nor False"


def _layer(value: Any) -> str | None:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return not_negative(value) if is_integer else f"{value!r} is not an integer"


def _one_of(kind: Any) -> Callable[[object], str | None]:
    allowed = get_args(kind)

    def check(value: object) -> str | None:
        if value in allowed:
            return None
        return f"{value!r} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}"

    return check


# TrainingArguments accepts any type for any argument. Those that change the result are checked:
# each function returns what is wrong with a value, or None.
_CHECKS: Mapping[str, Callable[[Any], str | None]] = {
    **dict.fromkeys((*WEIGHTS, "alpha_task"), _weight),
    "learning_rate": _positive,
    "temperature": _positive,
    "restrict_ce_to_mask": _switch,
    "mlm_probability": _inner_share,
    "mlm_smoothing": _weight,
    "mask_scope": _one_of(Scope),
    "divergence": _one_of(Divergence),
    "relation_layer": _layer,
    "relation_heads": _positive_count,
    "kd_over_all_positions": _switch,
    "tokens_per_batch": _positive_count,
    "allow_inexact_resume": _switch,
    "shard_student": _switch,
}

_BY_ELEMENT = ("adamw_torch", "adamw_torch_fused", "sgd")
"""Optimizers that update each number of a weight by itself, and that were tried with parts."""


@dataclass
class DistilTrainingArguments(TrainingArguments):
    """TrainingArguments for a student.

    Defaults that differ from TrainingArguments: those of the published recipe (learning rate 5e-4,
    adam_beta2 .98, adam_epsilon 1e-6, no weight decay, gradients clipped at 5, 5 % warm-up),
    `remove_unused_columns=False` (it would drop columns that only the teacher reads) and
    `logging_nan_inf_filter=False` (it would hide NaN, and wait for the GPU). `seed` also seeds
    masks and data order.

    A weight left at None takes the default of the student's kind: 5·L_ce + 2·L_mlm + 1·L_cos for a
    masked language model, L_clm instead of L_mlm for a causal one, and .5·L_ce + .5·L_task for a
    student with a task head.

    Attributes:
        alpha_ce: weight of the teacher's soft targets.
        alpha_mlm: weight of masked language modelling.
        alpha_clm: weight of next-token prediction.
        alpha_mse: weight of the squared distance between logits.
        alpha_cos: weight of the cosine distance between last hidden states.
        alpha_rel: weight of the relations among queries, among keys and among values (MiniLMv2),
            which compare models of any width.
        alpha_task: weight of a task's true labels.
        temperature: softens teacher and student in L_ce.
        divergence: "kl" (from the teacher to the student) or "reverse_kl" in L_ce.
        relation_layer: the first teacher's layer whose relations are learned, counted from 0 [the
            last].
        relation_heads: into how many heads its queries, keys and values are split [as many as
            leave 8 dimensions to each].
        restrict_ce_to_mask: compute L_ce and L_mse at masked tokens only.
        kd_over_all_positions: question answering: answers may start and end at any position, also
            in the question and in the padding, as in the original code; for soft targets and true
            labels. All batches must be padded to one width.
        mlm_probability: share of tokens that are masked.
        mlm_smoothing: tokens are chosen with weight count^-mlm_smoothing; 0 is uniform masking.
        mask_scope: "example", "batch" or "token": the unit in which the share holds.
        tokens_per_batch: batch size in tokens, padding included, instead of in sequences.
        allow_inexact_resume: resume from a checkpoint that lacks a part or has other settings.
        shard_student: spread a language model's weights, gradients and optimizer state over the
            processes (FSDP2); teachers stay whole in each.
    """

    learning_rate: float = DEFAULTS["learning_rate"]
    adam_beta2: float = DEFAULTS["adam_beta2"]
    adam_epsilon: float = DEFAULTS["adam_epsilon"]
    weight_decay: float = DEFAULTS["weight_decay"]
    max_grad_norm: float = DEFAULTS["max_grad_norm"]
    warmup_steps: float = DEFAULTS["warmup_steps"]
    num_train_epochs: float = DEFAULTS["num_train_epochs"]
    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = False

    alpha_ce: float | None = None
    alpha_mlm: float | None = None
    alpha_clm: float | None = None
    alpha_mse: float | None = None
    alpha_cos: float | None = None
    alpha_rel: float | None = None
    alpha_task: float | None = None
    temperature: float = 2.0
    divergence: Divergence = "kl"
    relation_layer: int | None = None
    relation_heads: int | None = None
    restrict_ce_to_mask: bool = False
    kd_over_all_positions: bool = False
    mlm_probability: float = 0.15
    mlm_smoothing: float = 0.7
    mask_scope: Scope = "example"
    tokens_per_batch: int | None = None
    allow_inexact_resume: bool = False
    shard_student: bool = False

    def __post_init__(self) -> None:
        self._check_values()
        check_fields(self)
        super().__post_init__()
        if self.shard_student:
            self._check_sharding()

    @classmethod
    def preset(cls, name: str, **settings: Any) -> "DistilTrainingArguments":
        """Return the arguments of a preset (`paper`); settings given here take precedence.

        A preset's student settings are not training arguments and so not included: for `paper`
        make the student with `make_student(teacher, copy_head_transform=False,
        freeze_positions=True)`.

        Raises:
            UserError: the preset is unknown.
        """
        if name not in PRESETS:
            raise UserError(
                f"unknown preset {name!r}; presets: {', '.join(PRESETS)}{nearest(name, PRESETS)}"
            )
        known = {each.name for each in fields(cls)}
        recipe = {key: value for key, value in PRESETS[name].items() if key in known}
        return cls(**{**recipe, **settings})

    def _check_values(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            unset = value is None and each.default is None
            if each.name in _CHECKS and not unset and (wrong := _CHECKS[each.name](value)):
                raise UserError(f"{each.name}: {wrong}")

    def _check_sharding(self) -> None:
        """Refuse settings that a sharded student can't be trained with, before anything is read."""
        if self.world_size == 1:
            raise UserError(
                "--shard_student spreads a student over several processes: start them with "
                "`torchrun --nproc_per_node N ...`"
            )
        if self.torch_compile:
            raise UserError("shard_student with torch_compile was never tried; pass only one")
        if (name := str(getattr(self.optim, "value", self.optim))) not in _BY_ELEMENT:
            raise UserError(
                f"shard_student: the update of optim {name} may need more of a weight than a "
                f"process holds; use one of {', '.join(_BY_ELEMENT)}"
            )

    def weights(self, mode: Mode) -> dict[str, float]:
        """Return the weight of every term for a kind of student, with defaults filled in.

        Raises:
            UserError: a weight is set for a term that this kind doesn't have, or all are 0.
        """
        defaults = default_weights(mode)
        weights = {}
        for name in (*WEIGHTS, "alpha_task"):
            given = getattr(self, name)
            if given and name not in defaults:
                raise UserError(
                    f"{name} {given}: a {mode} student has no such term; it has "
                    f"{', '.join(defaults)}"
                )
            weights[name] = float(defaults.get(name, 0.0) if given is None else given)
        check_weights(weights)
        check_used(weights, vars(self))
        return weights

    def to_json(self) -> str:
        """Return the arguments as JSON, without tokens."""
        values = {
            name: value for name, value in self.to_dict().items() if not name.endswith("_token")
        }
        return json.dumps(values, indent=2, sort_keys=True, default=str)
