"""Checks that DistilTrainer runs before training: models, settings, data and launcher."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from angels_share.errors import RunFailed, UserError
from angels_share.tokenizing import check_vocabularies, load_tokenizer
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
from distil_trainer.training.honoured import check_arguments, check_fields_for

_logger = logging.getLogger(__name__)


def mode_of(student: PreTrainedModel) -> Mode:
    """Return the kind of objective, which follows from the student's head."""
    if has_task_head(student):
        return "task"
    return "causal" if family_of(student).causal else "masked"


def max_length(model: PreTrainedModel) -> int:
    """Return the maximum sequence length of a model in tokens."""
    return family_of(model).shape(model.config).max_length


def check_models(
    student: PreTrainedModel, teacher: PreTrainedModel | Sequence[PreTrainedModel] | None
) -> None:
    """Refuse students that would not be trained as they look; called before anything is frozen.

    Raises:
        UserError: a model has adapters, the student is in float16, has a weight that is not
            finite, or shares parameters with a teacher.
    """
    teachers = _as_list(teacher)
    for whose, model in [("student", student), *(("teacher", each) for each in teachers)]:
        if _has_adapters(model):
            raise UserError(
                f"the {whose} has peft adapters, which are not supported: the vocabulary head "
                f"would bypass them; pass {whose}.merge_and_unload()"
            )
    dtypes = {parameter.dtype for parameter in student.parameters()}
    if torch.float16 in dtypes:
        raise UserError(
            "the student's weights are float16, in which gradients underflow: load it with "
            "dtype=torch.float32, and train with bf16=True to save time"
        )
    if torch.bfloat16 in dtypes:
        _logger.warning(
            "the student's weights are bfloat16, so updates below 1/256 of a weight are lost: load "
            "it with dtype=torch.float32, and train with bf16=True to save time"
        )
    _require_finite("student", student)
    for each in teachers:
        _refuse_shared(student, each)


def _has_adapters(model: Any) -> bool:
    modules = (type(module).__module__ for module in model.modules())
    return any(module.split(".")[0] == "peft" for module in modules)


def _refuse_shared(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Refuse parameters that freezing the teacher would freeze, or training the student change."""
    ours = dict(student.named_parameters())
    # Two parameters can also be views of one memory.
    theirs = {each.untyped_storage().data_ptr() for each in teacher.parameters()} - {0}
    shared = [name for name, each in ours.items() if each.untyped_storage().data_ptr() in theirs]
    if shared:
        raise UserError(
            f"student and teacher share {len(shared)} of the student's {len(ours)} parameters, "
            f"e.g. {shared[0]}: they would be frozen with the teacher; copy them "
            "(copy.deepcopy), or use make_student"
        )


def _as_list(
    teacher: PreTrainedModel | Sequence[PreTrainedModel] | None,
) -> list[PreTrainedModel]:
    if teacher is None:
        return []
    return [teacher] if isinstance(teacher, nn.Module) else list(teacher)


def check_tokenizers(
    tokenizer: Any, teachers: Sequence[PreTrainedModel], teacher_tokenizer: Any = None
) -> None:
    """Refuse a teacher whose tokenizer gives tokens other ids than the student's.

    Args:
        tokenizer: the student's tokenizer.
        teachers: the teachers; one that was loaded from a folder with a tokenizer is compared by
            it.
        teacher_tokenizer: a tokenizer or its folder, for all teachers, or a list of one for each.

    Raises:
        UserError: two vocabularies differ, or nothing can be compared with `teacher_tokenizer`.
    """
    known = hasattr(tokenizer, "get_vocab")
    if teacher_tokenizer is None:
        given = [_folder_of_tokenizer(each) for each in teachers] if known else []
    elif not known:
        raise UserError("teacher_tokenizer is compared with processing_class: pass that as well")
    elif isinstance(teacher_tokenizer, (list, tuple)):
        given = list(teacher_tokenizer)
        if len(given) != len(teachers):
            raise UserError(f"{len(given)} teacher_tokenizer for {len(teachers)} teachers")
    else:
        given = [teacher_tokenizer]
    for each in given:
        if each is not None:
            loaded = each if hasattr(each, "get_vocab") else load_tokenizer(str(each))
            check_vocabularies(tokenizer.get_vocab(), loaded.get_vocab())


def _folder_of_tokenizer(model: PreTrainedModel) -> str | None:
    """Return the folder that a model was loaded from, if it holds a fast tokenizer."""
    folder = Path(model.name_or_path or "")
    return str(folder) if model.name_or_path and (folder / "tokenizer.json").is_file() else None


def check_token_counts(token_counts: Any, vocabulary: int, mode: Mode) -> None:
    """Refuse counts of another vocabulary: they would also decide which random tokens are drawn.

    Raises:
        UserError: there isn't one count for each token, one is no count, or nothing is masked.
    """
    if token_counts is None:
        return
    if mode != "masked":
        raise UserError("token_counts would be ignored: only a masked language model has masks")
    if len(token_counts) != vocabulary:
        raise UserError(
            f"token_counts has {len(token_counts)} numbers, but the student's vocabulary has "
            f"{vocabulary} tokens; give one for each, 0 for a token that doesn't occur"
        )
    counts = np.asarray(token_counts)
    if counts.dtype.kind not in "iuf" or not bool(np.all((counts >= 0) & np.isfinite(counts))):
        raise UserError("token_counts has values other than finite numbers of 0 and more")


def freeze(teacher: PreTrainedModel | Sequence[PreTrainedModel] | None) -> list[PreTrainedModel]:
    """Freeze the teachers and put them into evaluation mode; return them as a list.

    Raises:
        UserError: a teacher's weight is not finite.
    """
    teachers = _as_list(teacher)
    for each in teachers:
        each.requires_grad_(requires_grad=False)
        each.eval()
        _require_finite("teacher", each)
    return teachers


def _require_finite(whose: str, model: PreTrainedModel) -> None:
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise UserError(
                f"the {whose}'s {name} contains NaN or infinity; check the model's weights"
            )


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
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS") or 0)
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and args.should_log:
        # Seen with torch 2.13: the group that was started again read where the dead one listened.
        _logger.warning(
            "torchrun keeps one store for all of its --max_restarts: processes that are started "
            "again may look for the dead ones in it, and fail; before torchrun, "
            "`export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`"
        )
    check_fields_for(mode, args, own_collator=settings.get("data_collator") is not None)
    check_arguments(mode, settings)
    if args.shard_student:
        _check_sharding(settings, mode)


def _check_sharding(settings: Mapping[str, Any], mode: Mode) -> None:
    """Refuse what a sharded student can't be trained with; of the arguments they say it."""
    if mode == "task":
        raise UserError("shard_student is for language models; a task's student is trained by DDP")
    own = [*(settings.get("optimizers") or ()), settings.get("optimizer_cls_and_kwargs")]
    if any(each is not None for each in own):
        raise UserError(
            "shard_student: an optimizer of your own holds weights from before they are sharded; "
            "choose one by optim"
        )


def require_readable(sequences: Sequences, models: Sequence[PreTrainedModel]) -> None:
    """Refuse sequences that are longer than a model's position table.

    Raises:
        UserError: the longest sequence is too long for a model.
    """
    require_length(int(np.max(sequences.lengths)) if len(sequences) else 0, models)


def require_length(longest: int, models: Sequence[PreTrainedModel]) -> None:
    """Refuse a sequence that is longer than a model's position table.

    Raises:
        UserError: it is too long for a model.
    """
    for model in models:
        if longest > max_length(model):
            raise UserError(
                f"the longest sequence has {longest} tokens, but the {model.config.model_type} "
                f"reads {max_length(model)} at most; prepare the corpus with a smaller max_length"
            )


def require_types(lowest: int, highest: int, models: Sequence[PreTrainedModel]) -> None:
    """Refuse token types that a model doesn't have.

    Args:
        lowest: the lowest type in the data.
        highest: the highest.
        models: the student and the teachers.

    Raises:
        UserError: a model that takes types has too few.
    """
    for model in models:
        if not family_of(model).token_types:
            continue
        types = model.config.type_vocab_size
        if lowest < 0 or highest >= types:
            raise UserError(
                f"a batch has token_type_ids {lowest if lowest < 0 else highest}, but the "
                f"{model.config.model_type} has {types} types, from 0 on"
            )


def check_accelerator(accelerator: Any) -> None:
    """Refuse unsupported settings that come from a launcher instead of the arguments.

    Raises:
        UserError: the launcher asks for fp16, FSDP or DeepSpeed.
    """
    if accelerator.mixed_precision == "fp16":
        raise UserError("mixed precision fp16 is not supported here; use bf16, or float32")
    plugins = {
        "fsdp_plugin": "FSDP through accelerate is not supported: launch with torchrun, and pass "
        "--shard_student",
        "deepspeed_plugin": "DeepSpeed is not supported: launch with torchrun",
    }
    for plugin, instead in plugins.items():
        if getattr(accelerator.state, plugin, None) is not None:
            raise UserError(instead)
