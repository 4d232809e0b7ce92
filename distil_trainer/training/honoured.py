"""What becomes of every argument of the Trainer and every field of TrainingArguments.

Each is honoured, refused in one line, or of no effect for a reason; which of the three can depend
on whether the student is a language model ("text" below) or has a task head. Nothing is dropped in
silence. A test walks through all that the installed version has; what a newer version adds is
passed on with a warning when it is set. Importing it imports no torch, since `--help_all` reads it.
"""

import logging
import operator
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from angels_share.errors import UserError
from distil_trainer.recipe import Mode

if TYPE_CHECKING:
    from transformers import TrainingArguments

_logger = logging.getLogger(__name__)

Treatment = Literal["honoured", "refused", "no effect"]


@dataclass(frozen=True)
class Refusal:
    """Why values are refused, and which are."""

    reason: str
    applies: Callable[[Any], bool] = bool


def _other_than(*values: Any) -> Callable[[Any], bool]:
    return lambda value: getattr(value, "value", value) not in values


def _bypasses_the_step(optimizer: Any) -> bool:
    name = str(getattr(optimizer, "value", optimizer))
    return name.startswith(("galore", "apollo", "lomo", "adalomo"))


def _is_unseeded(config: Any) -> bool:
    given = config.to_dict() if hasattr(config, "to_dict") else (config or {})
    return not given.get("use_seedable_sampler", True)


def is_not_default(config: Any) -> bool:
    """Return whether an `accelerator_config` differs from the one that a run has without it."""
    from transformers.trainer_pt_utils import AcceleratorConfig

    given = config.to_dict() if hasattr(config, "to_dict") else (config or {})
    default = AcceleratorConfig().to_dict()
    return any(value != default.get(name) for name, value in given.items())


HONOURED = frozenset((
    "output_dir", "per_device_train_batch_size", "per_device_eval_batch_size",
    "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type",
    "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args", "weight_decay", "adam_beta1",
    "adam_beta2", "adam_epsilon", "gradient_accumulation_steps", "max_grad_norm", "bf16",
    "tf32", "activation_checkpointing", "activation_checkpointing_kwargs",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_compile",
    "torch_compile_backend", "torch_compile_mode", "use_cache", "torch_empty_cache_steps",
    "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node",
    "include_num_input_tokens_seen", "log_level", "log_level_replica", "disable_tqdm",
    "report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id",
    "trackio_static_space_id", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start",
    "do_eval", "save_strategy", "save_steps", "save_on_each_node", "save_total_limit",
    "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
    "restore_callback_states_from_checkpoint", "full_determinism", "seed", "data_seed",
    "use_cpu", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_persistent_workers", "dataloader_prefetch_factor", "ddp_find_unused_parameters",
    "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend",
    "ddp_timeout", "skip_memory_metrics", "accelerator_config", "train_sampling_strategy",
    "length_column_name", "dataloader_drop_last", "dataloader_multiprocessing_context",
    "include_for_metrics", "batch_eval_metrics", "prediction_loss_only",
    "eval_do_concat_batches", "eval_use_gather_object", "eval_accumulation_steps",
    "hub_model_id", "hub_private_repo", "hub_revision",
))  # fmt: skip
"""Fields that do what transformers says, except as listed below for text."""

REFUSED: Mapping[str, Refusal] = {
    "fp16": Refusal(
        "use bf16, or float32: half precision would overflow in the vocabulary's softmax"
    ),
    "fsdp": Refusal(
        "use --shard_student, under torchrun: FSDP2 without accelerate, which would run DDP on CPUs"
    ),
    "fsdp_config": Refusal("use --shard_student, under torchrun; it has no settings"),
    "deepspeed": Refusal("use torchrun, which runs DDP, or --shard_student as well"),
    "parallelism_config": Refusal("use torchrun, which runs DDP, or --shard_student as well"),
    "use_liger_kernel": Refusal("the vocabulary head is already fused"),
    "liger_kernel_config": Refusal("the vocabulary head is already fused"),
    "label_smoothing_factor": Refusal("the teacher's soft targets already smooth the labels"),
    "auto_find_batch_size": Refusal(
        "it would change the batches and so the result; set tokens_per_batch"
    ),
    "neftune_noise_alpha": Refusal(
        "it would add noise to the student's input but not to the teacher's"
    ),
    "ignore_data_skip": Refusal(
        "a resumed run would train on other batches than an uninterrupted one"
    ),
    "save_only_model": Refusal("without the optimizer's state a run could not be resumed exactly"),
    "bf16_full_eval": Refusal("evaluation is in float32, or under autocast with bf16"),
    "fp16_full_eval": Refusal("evaluation is in float32, or under autocast with bf16"),
    "optim": Refusal(
        "GaLore, APOLLO and LOMO update outside of the step that is checked and saved; "
        "use another optimizer",
        _bypasses_the_step,
    ),
    "optim_target_modules": Refusal("only GaLore and APOLLO read it, and neither is supported"),
    "average_tokens_across_devices": Refusal(
        "every term is normalised by its count over all processes; leave it at True",
        operator.not_,
    ),
    "enable_jit_checkpoint": Refusal("interruptions are already handled, at the end of a step"),
    "remove_unused_columns": Refusal(
        "student and teacher each take the columns that they know; leave it at False"
    ),
    "label_names": Refusal(
        "the labels' names follow from the student's head; leave it out",
        lambda names: (
            list(names or []) not in ([], ["labels"], ["start_positions", "end_positions"])
        ),
    ),
    "dataloader_in_order": Refusal(
        "batches in another order could not be resumed exactly; leave it at True",
        operator.not_,
    ),
    "accelerator_config": Refusal(
        "without use_seedable_sampler a resumed run would train on other batches; leave it at True",
        _is_unseeded,
    ),
    "debug": Refusal(
        "transformers' debugger fails on the boolean masks of attention; use "
        "torch.autograd.set_detect_anomaly(True)"
    ),
    "push_to_hub": Refusal(
        "checkpoints are not published: call push_to_hub() when training is over, or give the "
        "command the flag"
    ),
    "hub_token": Refusal("set HF_TOKEN or run `hf auth login`: a token must not lie in a file"),
}
"""Fields that are refused, whatever the student is. Checked when the arguments are made."""

OF_OUR_LOADER: Mapping[str, Refusal] = {
    "dataloader_drop_last": Refusal("every sequence is in one batch of each epoch, none is left"),
    "train_sampling_strategy": Refusal(
        "batches already hold sequences of similar length, in random order", _other_than("random")
    ),
    "length_column_name": Refusal(
        "lengths are counted from the tokens", _other_than("length", None)
    ),
    "dataloader_multiprocessing_context": Refusal(
        "workers are started in the system's own way", _other_than(None, "fork")
    ),
    "accelerator_config": Refusal(
        "batches are planned for all processes beforehand", is_not_default
    ),
}
"""Fields that the Trainer's loader reads: it serves a task, or a `data_collator` of the user's."""

REFUSED_FOR_TEXT: Mapping[str, Refusal] = {
    **OF_OUR_LOADER,
    "include_for_metrics": Refusal("compute_metrics, which would get it, is for tasks"),
    "batch_eval_metrics": Refusal("compute_metrics, which would be called, is for tasks"),
}
"""Fields that only a student with a task head honours; a language model's run refuses them."""

_MASKS = ("mlm_probability", "mlm_smoothing", "mask_scope")

OURS_OF_NO_EFFECT: Mapping[Mode, Mapping[str, str]] = {
    "masked": {},
    "causal": dict.fromkeys(_MASKS, "a causal student's tokens are not masked"),
    "task": dict.fromkeys((*_MASKS, "restrict_ce_to_mask"), "a task's tokens are not masked"),
}
"""Our own fields that change nothing for a kind of student; a preset sets some for every kind."""

_NO_LOGITS = "a language model's evaluation adds up sums and keeps no logits"

NO_EFFECT_ON_TEXT: Mapping[str, str] = {
    "prediction_loss_only": _NO_LOGITS,
    "eval_do_concat_batches": _NO_LOGITS,
    "eval_use_gather_object": _NO_LOGITS,
    "eval_accumulation_steps": _NO_LOGITS,
}
"""Fields that a language model's run has no use for; its numbers are the same with any value."""

_FOR_SCRIPTS = "it is for scripts, which decide by it which methods to call; no Trainer reads it"
_OF_THE_HUB = "push_to_hub() pushes the finished student once, and no checkpoints"

NO_EFFECT: Mapping[str, str] = {
    "logging_nan_inf_filter": "a run stops at the first loss that is not finite",
    "do_train": _FOR_SCRIPTS,
    "do_predict": _FOR_SCRIPTS,
    "resume_from_checkpoint": "pass it to train(), as no Trainer reads this one",
    "local_rank": "the launcher says it in LOCAL_RANK, as no Trainer reads this one",
    "hub_strategy": _OF_THE_HUB,
    "hub_always_push": _OF_THE_HUB,
}
"""Fields that change nothing, whatever the student is."""

ARGUMENTS_HONOURED = frozenset((
    "model", "args", "data_collator", "train_dataset", "eval_dataset", "processing_class",
    "compute_metrics", "callbacks", "optimizers", "optimizer_cls_and_kwargs",
    "preprocess_logits_for_metrics",
))  # fmt: skip
"""Arguments of the Trainer that do what transformers says, except as listed below for text."""

ARGUMENTS_REFUSED: Mapping[str, str] = {
    "model_init": "pass the student itself",
    "compute_loss_func": (
        "the loss is the weighted sum of the distillation terms; to add a term, override "
        "compute_loss"
    ),
}

ARGUMENTS_REFUSED_FOR_TEXT: Mapping[str, str] = {
    "compute_metrics": (
        f"{_NO_LOGITS}; read eval_loss, eval_perplexity and eval_agreement, or override evaluate"
    ),
    "preprocess_logits_for_metrics": _NO_LOGITS,
}


_PARTLY = frozenset(("optim", "accelerator_config"))
"""Fields of which only some values are refused; the others are honoured."""


def treatment(name: str, mode: Mode) -> Treatment | None:
    """Return what becomes of a field, at the values that are not its default; None if unknown."""
    text = mode != "task"
    if name in NO_EFFECT or (text and name in NO_EFFECT_ON_TEXT):
        return "no effect"
    if (name in REFUSED and name not in _PARTLY) or (text and name in REFUSED_FOR_TEXT):
        return "refused"
    return "honoured" if name in HONOURED else None


def refusal_for_text(name: str) -> str | None:
    """Return why a language model's run refuses a field at other values than its default."""
    if treatment(name, "masked") != "refused":
        return None
    return {**REFUSED, **REFUSED_FOR_TEXT}[name].reason


def argument_treatment(name: str, mode: Mode) -> Treatment | None:
    """Return what becomes of an argument of the Trainer; None if it is unknown."""
    if name in ARGUMENTS_REFUSED or (mode != "task" and name in ARGUMENTS_REFUSED_FOR_TEXT):
        return "refused"
    return "honoured" if name in ARGUMENTS_HONOURED else None


def check_fields(args: "TrainingArguments") -> None:
    """Refuse fields that would be ignored or break a promise, and name those of no effect.

    Called before TrainingArguments fills in and converts values, so that what is seen was given.

    Raises:
        UserError: the error names the field and what to do.
    """
    from transformers import TrainingArguments

    for name, refusal in REFUSED.items():
        if refusal.applies(getattr(args, name, None)):
            raise UserError(f"--{name} is not supported here: {refusal.reason}")
    _warn_of(NO_EFFECT, args)
    for field in fields(TrainingArguments):
        if treatment(field.name, "task") is None and _is_set(args, field.name):
            _logger.warning(
                "--%s is newer than what was tried here: it is passed on to the Trainer, but may "
                "have no effect",
                field.name,
            )


def check_fields_for(mode: Mode, args: "TrainingArguments", *, own_collator: bool = False) -> None:
    """Refuse or name the fields that a kind of student has no use for.

    Args:
        mode: the kind of student.
        args: the training arguments.
        own_collator: whether the user's `data_collator` makes a language model's batches.

    Raises:
        UserError: the error names the field and why.
    """
    _warn_of(OURS_OF_NO_EFFECT[mode], args)
    if mode == "task" and getattr(args, "tokens_per_batch", None):
        raise UserError(
            "--tokens_per_batch is for language models: a task's batches are counted in examples; "
            "set per_device_train_batch_size"
        )
    if mode == "task":
        return
    for name, refusal in REFUSED_FOR_TEXT.items():
        if own_collator and name in OF_OUR_LOADER:
            continue
        if refusal.applies(getattr(args, name, None)):
            raise UserError(
                f"--{name} would be ignored with a language model: {refusal.reason}; leave it out"
            )
    _warn_of(NO_EFFECT_ON_TEXT, args)


def check_arguments(mode: Mode, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of the Trainer that would be ignored.

    Raises:
        UserError: the error names the argument and what to do.
    """
    for name, value in arguments.items():
        if value is None:
            continue
        if name in ARGUMENTS_REFUSED:
            raise UserError(f"{name} is not supported here: {ARGUMENTS_REFUSED[name]}")
        if mode != "task" and name in ARGUMENTS_REFUSED_FOR_TEXT:
            raise UserError(
                f"{name} would be ignored with a language model: {ARGUMENTS_REFUSED_FOR_TEXT[name]}"
            )
        if argument_treatment(name, mode) is None:
            _logger.warning(
                "%s is newer than what was tried here: it is passed on to the Trainer, but may "
                "have no effect",
                name,
            )


def _warn_of(reasons: Mapping[str, str], args: "TrainingArguments") -> None:
    for name, reason in reasons.items():
        if _is_set(args, name):
            _logger.warning("--%s has no effect here: %s", name, reason)


def _is_set(args: "TrainingArguments", name: str) -> bool:
    """Return whether a field has another value than its default."""
    return any(
        getattr(args, name) != _default(field) for field in fields(args) if field.name == name
    )


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
