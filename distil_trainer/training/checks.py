"""Checks that DistilTrainer runs before training: models, settings, data and launcher."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from angels_share.errors import RunFailed, UserError
from distil_trainer.data.batches import Sequences
from distil_trainer.models.families import family_of
from distil_trainer.models.student import check_pair
from distil_trainer.objectives.task import (
    TEACHER_OUTPUTS,
    answers_questions,
    check_task_pair,
    has_task_head,
    task_head,
)
from distil_trainer.objectives.teacher_outputs import TaughtDataset
from distil_trainer.recipe import OF_TEACHERS, Mode, needs_equal_width
from distil_trainer.training.args import DistilTrainingArguments

_IGNORED = {
    "data_collator": "DistilTrainer pads and masks a language model's batches itself",
    "compute_loss_func": "the loss is the weighted sum of the distillation terms",
}


def mode_of(student: PreTrainedModel) -> Mode:
    """Return the kind of objective, which follows from the student's head."""
    if has_task_head(student):
        return "task"
    return "causal" if family_of(student).causal else "masked"


def max_length(model: PreTrainedModel) -> int:
    """Return the maximum sequence length of a model in tokens."""
    return family_of(model).shape(model.config).max_length


def freeze(teacher: PreTrainedModel | Sequence[PreTrainedModel] | None) -> list[PreTrainedModel]:
    """Freeze the teachers and put them into evaluation mode; return them as a list.

    Raises:
        UserError: a teacher's weight is not finite.
    """
    if teacher is None:
        return []
    teachers = [teacher] if isinstance(teacher, PreTrainedModel) else list(teacher)
    for each in teachers:
        each.requires_grad_(requires_grad=False)
        each.eval()
        for name, weight in each.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise UserError(
                    f"the teacher's {name} contains NaN or infinity; check the model's weights"
                )
    return teachers


def check_teachers(
    student: PreTrainedModel,
    teachers: Sequence[PreTrainedModel],
    weights: Mapping[str, float],
    mode: Mode,
    taught: TaughtDataset | None = None,
) -> None:
    """Refuse terms that need a teacher if there is none, and teachers that don't fit the student.

    Args:
        student: the model to train.
        teachers: frozen teachers; empty if there are none.
        weights: the weight of every term.
        mode: the kind of objective.
        taught: training data with cached outputs, whose teacher is checked instead.

    Raises:
        UserError: a teacher is missing, superfluous, or doesn't fit the student.
    """
    needing = [name for name in OF_TEACHERS if weights[name]]
    if needing and not teachers and taught is None:
        raise UserError(f"{needing[0]} {weights[needing[0]]} needs a teacher; set it to 0")
    if taught is not None:
        if teachers:
            raise UserError("train_dataset has cached teacher outputs, so pass no teacher")
        check_task_pair(task_head(student), taught.head)
    for number, teacher in enumerate(teachers):
        if mode == "task":
            check_task_pair(task_head(student), task_head(teacher))
            continue
        # Only the first teacher's hidden states are compared.
        compared = number == 0 and needs_equal_width(weights)
        # Sequences that are too long for either are refused once the data is known.
        shortest = min(max_length(student), max_length(teacher))
        check_pair(student, teacher, needs_equal_width=compared, max_length=shortest)


def require_teacher_outputs(batch: Mapping[str, Any], teachers: Sequence[PreTrainedModel]) -> None:
    """Refuse a batch without cached outputs if there is no teacher.

    Raises:
        RunFailed: the collator dropped the outputs.
    """
    if not teachers and TEACHER_OUTPUTS not in batch:
        raise RunFailed(
            f"batch has no `{TEACHER_OUTPUTS}`; keep the trainer's own data_collator, which adds "
            "them"
        )


def check_positions(
    student: PreTrainedModel, args: DistilTrainingArguments, taught: TaughtDataset | None
) -> None:
    """Refuse `kd_over_all_positions` for other tasks, and cached outputs over other positions.

    Args:
        student: the model to train.
        args: the training arguments.
        taught: training data with cached outputs, if any.

    Raises:
        UserError: the setting doesn't fit the student or the cached outputs.
    """
    everywhere = args.kd_over_all_positions
    if everywhere and not answers_questions(student):
        raise UserError(
            f"kd_over_all_positions is for question answering, the student is a "
            f"{type(student).__name__}"
        )
    if taught is not None and taught.over_all_positions != everywhere:
        raise UserError(
            f"kd_over_all_positions is {everywhere}, but the cached outputs were computed with "
            f"over_all_positions={taught.over_all_positions}; use the same value for both"
        )


def check_settings(args: DistilTrainingArguments, settings: Mapping[str, Any], mode: Mode) -> None:
    """Refuse settings and launches that would silently be ignored or do something else.

    Args:
        args: the training arguments.
        settings: further keyword arguments of the Trainer.
        mode: the kind of objective.

    Raises:
        UserError: the error names the setting and what to do.
    """
    if args.n_gpu > 1:
        raise UserError(
            f"{args.n_gpu} GPUs are visible to one process: start one each with "
            f"`torchrun --nproc_per_node {args.n_gpu} ...`, or choose one with CUDA_VISIBLE_DEVICES"
        )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != args.world_size:  # each would train on all data and write to the same folder
        raise UserError(
            f"{started} processes were started, but each sees a world size of {args.world_size}; "
            "without a GPU add --use_cpu"
        )
    if args.push_to_hub:
        raise UserError(
            "--push_to_hub is not supported yet; push the finished folder with `hf upload`"
        )
    if settings.get("model_init") is not None:
        raise UserError("model_init is not supported; pass the student itself")
    for name, reason in _IGNORED.items():
        if mode != "task" and settings.get(name) is not None:
            raise UserError(f"{name} would be ignored: {reason}")


def require_readable(sequences: Sequences, models: Sequence[PreTrainedModel]) -> None:
    """Refuse sequences that are longer than a model's position table.

    Raises:
        UserError: the longest sequence is too long for a model.
    """
    longest = int(np.max(sequences.lengths)) if len(sequences) else 0
    for model in models:
        if longest > max_length(model):
            raise UserError(
                f"the longest sequence has {longest} tokens, but the {model.config.model_type} "
                f"reads {max_length(model)} at most; prepare the corpus with a smaller max_length"
            )


def check_accelerator(accelerator: Any) -> None:
    """Refuse unsupported settings that come from a launcher instead of the arguments.

    Raises:
        UserError: the launcher asks for fp16, FSDP or DeepSpeed.
    """
    if accelerator.mixed_precision == "fp16":
        raise UserError("mixed precision fp16 is not supported here; use bf16, or float32")
    plugins = {"FSDP": "fsdp_plugin", "DeepSpeed": "deepspeed_plugin"}
    for title, plugin in plugins.items():
        if getattr(accelerator.state, plugin, None) is not None:
            raise UserError(f"{title} is not supported yet; launch with DDP (torchrun)")
