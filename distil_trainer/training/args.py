"""DistilTrainingArguments: TrainingArguments and what distillation adds, all of it validated."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

from transformers import TrainingArguments

from angels_share.errors import UserError
from angels_share.flags import above_zero, not_negative
from angels_share.names import nearest
from distil_trainer.data.masking import MaskingOptions
from distil_trainer.recipe import DEFAULTS, PRESETS, WEIGHTS, Mode, check_weights, default_weights

# What Trainer would accept and then silently not do, or do wrongly, with this objective.
_UNSUPPORTED = {
    "fp16": "use bf16, or float32: half precision would overflow in the vocabulary's softmax",
    "fsdp": "FSDP is not supported yet; use DDP (torchrun)",
    "deepspeed": "DeepSpeed is not supported; use DDP (torchrun)",
    "use_liger_kernel": "the vocabulary head is fused here already",
    "label_smoothing_factor": "the teacher's soft targets are what smooths here",
    "auto_find_batch_size": "it would change the batches and so the result; set tokens_per_batch",
    "neftune_noise_alpha": "noise on the student's input would be no distillation",
    "ignore_data_skip": "a resumed run would see other batches than the one that it goes on with",
    "save_only_model": "without the optimizer and the rest no run could be resumed exactly",
    "bf16_full_eval": "evaluation is in float32, or under autocast with bf16",
    "fp16_full_eval": "evaluation is in float32, or under autocast with bf16",
}


def _number(value: object) -> str | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if is_number else f"{value!r} is no number"


def _weight(value: Any) -> str | None:
    return _number(value) or not_negative(value)


def _positive(value: Any) -> str | None:
    return _number(value) or above_zero(value)


def _inner_share(value: Any) -> str | None:
    return _positive(value) or (None if value < 1 else "must be below 1")


def _positive_count(value: Any) -> str | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return above_zero(value) if is_whole else f"{value!r} is no whole number"


def _switch(value: object) -> str | None:
    return None if isinstance(value, bool) else f"{value!r} is neither True nor False"


def _scope(value: object) -> str | None:
    scopes = get_args(get_type_hints(MaskingOptions)["scope"])
    if value in scopes:
        return None
    return f"{value!r} is none of {', '.join(scopes)}{nearest(str(value), scopes)}"


# TrainingArguments takes any type for anything. What changes the result is checked: each says what
# is wrong with a value, if something is.
_CHECKS: Mapping[str, Callable[[Any], str | None]] = {
    **dict.fromkeys((*WEIGHTS, "alpha_task"), _weight),
    "learning_rate": _positive,
    "temperature": _positive,
    "restrict_ce_to_mask": _switch,
    "mlm_probability": _inner_share,
    "mlm_smoothing": _weight,
    "mask_scope": _scope,
    "kd_over_all_positions": _switch,
    "tokens_per_batch": _positive_count,
    "allow_inexact_resume": _switch,
}


@dataclass
class DistilTrainingArguments(TrainingArguments):
    """TrainingArguments for a student.

    Other defaults than TrainingArguments': those of the published recipe (learning rate 5e-4,
    adam_beta2 .98, adam_epsilon 1e-6, no weight decay, gradients clipped at 5, 5 % warm-up),
    `remove_unused_columns=False` (it would drop what only the teacher reads),
    `logging_nan_inf_filter=False` (nothing is hidden, and nothing waits for a GPU) and
    `seed` also for masks and order.

    A weight left at None takes the default of what is being distilled: 5·L_ce + 2·L_mlm + 1·L_cos
    for a masked language model, L_clm in the place of L_mlm for a causal one, and .5·L_ce +
    .5·L_task where the student has a task's head.

    Attributes:
        alpha_ce: weight of the teacher's soft targets.
        alpha_mlm: weight of the masked words.
        alpha_clm: weight of the next word.
        alpha_mse: weight of the squared distance of logits.
        alpha_cos: weight of the angle between last hidden states.
        alpha_task: weight of a task's true labels.
        temperature: softens teacher and student in L_ce.
        restrict_ce_to_mask: L_ce and L_mse at the masked words only.
        kd_over_all_positions: in question answering an answer may begin and end anywhere, in the
            question and in the padding too, as in the original code: for soft targets and for true
            labels. All batches must be padded to one width.
        mlm_probability: share of tokens that are masked.
        mlm_smoothing: words are chosen with weight count^-this; 0 is plain masking.
        mask_scope: "example", "batch" or "token": where the share holds.
        tokens_per_batch: size of a batch in tokens, padding included, instead of in sequences.
        allow_inexact_resume: go on from a checkpoint that lacks a part, or from other settings.
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
    alpha_task: float | None = None
    temperature: float = 2.0
    restrict_ce_to_mask: bool = False
    kd_over_all_positions: bool = False
    mlm_probability: float = 0.15
    mlm_smoothing: float = 0.7
    mask_scope: str = "example"
    tokens_per_batch: int | None = None
    allow_inexact_resume: bool = False

    def __post_init__(self) -> None:
        self._check_values()
        for name, reason in _UNSUPPORTED.items():
            if getattr(self, name):
                raise UserError(f"--{name} is not supported here: {reason}")
        super().__post_init__()

    @classmethod
    def preset(cls, name: str, **settings: Any) -> "DistilTrainingArguments":
        """The arguments of a preset (`paper`); settings given here win.

        What a preset says of the student is no argument of training, so it is not in here: for
        `paper` make it with `make_student(teacher, copy_head_transform=False,
        freeze_positions=True)`.

        Raises:
            UserError: there is no such preset.
        """
        if name not in PRESETS:
            raise UserError(
                f"preset {name!r}: there is {', '.join(PRESETS)}{nearest(name, PRESETS)}"
            )
        known = {each.name for each in fields(cls)}
        recipe = {key: value for key, value in PRESETS[name].items() if key in known}
        return cls(**{**recipe, **settings})

    def _check_values(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            left_open = value is None and each.default is None
            if each.name in _CHECKS and not left_open and (wrong := _CHECKS[each.name](value)):
                raise UserError(f"{each.name}: {wrong}")

    def weights(self, mode: Mode) -> dict[str, float]:
        """The weight of every term for what is being distilled, defaults filled in.

        Raises:
            UserError: a weight for a term that this model doesn't have, or nothing left to learn.
        """
        defaults = default_weights(mode)
        chosen = {}
        for name in (*WEIGHTS, "alpha_task"):
            given = getattr(self, name)
            if given and name not in defaults:
                wanted = ", ".join(defaults)
                raise UserError(f"{name} {given}: a {mode} student has no such term; {wanted}")
            chosen[name] = float(defaults.get(name, 0.0) if given is None else given)
        check_weights(chosen)
        return chosen

    def to_json(self) -> str:
        """What can be written down: no token, no path to one."""
        values = {
            name: value for name, value in self.to_dict().items() if not name.endswith("_token")
        }
        return json.dumps(values, indent=2, sort_keys=True, default=str)
