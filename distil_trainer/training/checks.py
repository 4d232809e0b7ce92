"""What DistilTrainer refuses before it starts: pairs, settings and launches that aren't right."""

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
from distil_trainer.recipe import Mode
from distil_trainer.training.args import DistilTrainingArguments

OF_TEACHERS = ("alpha_ce", "alpha_mse", "alpha_cos")
"""The weights of the terms that need a teacher."""

_IGNORED = {
    "data_collator": "batches of a language model are padded and masked here",
    "compute_loss_func": "the loss is what the weights say",
}


def mode_of(student: PreTrainedModel) -> Mode:
    """What is distilled follows from the student's head."""
    if has_task_head(student):
        return "task"
    return "causal" if family_of(student).causal else "masked"


def max_length(model: PreTrainedModel) -> int:
    """Tokens of the longest sequence that a model reads."""
    return family_of(model).shape(model.config).max_length


def frozen(teacher: PreTrainedModel | Sequence[PreTrainedModel] | None) -> list[PreTrainedModel]:
    """Teachers that will not be trained, by nobody and by no accident."""
    if teacher is None:
        return []
    teachers = [teacher] if isinstance(teacher, PreTrainedModel) else list(teacher)
    for each in teachers:
        each.requires_grad_(requires_grad=False)
        each.eval()
        for name, weight in each.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise UserError(
                    f"the teacher's {name} holds NaN or infinity: nothing can be learned from it"
                )
    return teachers


def check_teachers(
    student: PreTrainedModel,
    teachers: Sequence[PreTrainedModel],
    weights: Mapping[str, float],
    mode: Mode,
    taught: TaughtDataset | None = None,
) -> None:
    """Refuses terms that want a teacher where there is none, and teachers that don't fit.

    Where the data bear a teacher's outputs, that teacher is looked at.
    """
    wanted = [name for name in OF_TEACHERS if weights[name]]
    if wanted and not teachers and taught is None:
        raise UserError(f"{wanted[0]} {weights[wanted[0]]} wants a teacher; set it to 0")
    if taught is not None:
        if teachers:
            raise UserError("train_dataset bears a teacher's outputs: leave teacher out")
        check_task_pair(task_head(student), taught.head)
    for number, teacher in enumerate(teachers):
        if mode == "task":
            check_task_pair(task_head(student), task_head(teacher))
            continue
        compared = number == 0 and weights["alpha_cos"] > 0
        # Sequences that are too long for either are refused once the data is known.
        shortest = min(max_length(student), max_length(teacher))
        check_pair(student, teacher, needs_equal_width=compared, max_length=shortest)


def require_answer(batch: Mapping[str, Any], teachers: Sequence[PreTrainedModel]) -> None:
    """Refuses a batch that bears no teacher's outputs where there is no teacher to ask."""
    if not teachers and TEACHER_OUTPUTS not in batch:
        raise RunFailed(
            f"a batch bears no {TEACHER_OUTPUTS}, which train_dataset's examples do, and there is "
            "no teacher to ask: let the trainer's data_collator be, it batches them"
        )


def check_positions(
    student: PreTrainedModel, args: DistilTrainingArguments, taught: TaughtDataset | None
) -> None:
    """Refuses positions of an answer where there is none, and outputs over other positions."""
    everywhere = args.kd_over_all_positions
    if everywhere and not answers_questions(student):
        raise UserError(
            f"kd_over_all_positions is for question answering, the student is a "
            f"{type(student).__name__}"
        )
    if taught is not None and taught.over_all_positions != everywhere:
        raise UserError(
            f"kd_over_all_positions is {everywhere}, and the kept outputs were made with "
            f"over_all_positions={taught.over_all_positions}: say the same to both"
        )


def check_settings(args: DistilTrainingArguments, settings: Mapping[str, Any], mode: Mode) -> None:
    """Refuses what would silently be ignored, or silently do something else."""
    if args.n_gpu > 1:
        raise UserError(
            f"{args.n_gpu} GPUs are visible to one process: start one each with "
            f"`torchrun --nproc_per_node {args.n_gpu} ...`, or choose one with CUDA_VISIBLE_DEVICES"
        )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != args.world_size:  # each would train all of it, and write to the same folder
        raise UserError(
            f"{started} processes were started, and each takes itself for one of "
            f"{args.world_size}: without a GPU add --use_cpu"
        )
    if args.push_to_hub:
        raise UserError(
            "--push_to_hub is not supported yet: push the finished folder with `hf upload`"
        )
    if settings.get("model_init") is not None:
        raise UserError("model_init is not supported: give the student itself")
    for name, reason in _IGNORED.items():
        if mode != "task" and settings.get(name) is not None:
            raise UserError(f"{name} would be ignored: {reason}")


def require_readable(sequences: Sequences, models: Sequence[PreTrainedModel]) -> None:
    """Refuses sequences that are longer than a model's position table."""
    longest = int(np.max(sequences.lengths)) if len(sequences) else 0
    for model in models:
        if longest > max_length(model):
            raise UserError(
                f"the longest sequence has {longest} tokens and a {model.config.model_type} "
                f"here reads {max_length(model)}: prepare the corpus with a smaller max_length"
            )


def check_accelerator(accelerator: Any) -> None:
    """Refuses what a launcher asked for behind the arguments' back."""
    if accelerator.mixed_precision == "fp16":
        raise UserError("mixed precision fp16 is not supported here: use bf16, or float32")
    plugins = {"FSDP": "fsdp_plugin", "DeepSpeed": "deepspeed_plugin"}
    for title, plugin in plugins.items():
        if getattr(accelerator.state, plugin, None) is not None:
            raise UserError(f"{title} is not supported yet: launch with DDP (torchrun)")
