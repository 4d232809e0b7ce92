"""Task distillation as a method of the harness, which knows it by this module's name alone."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from transformers import PreTrainedModel

from angels_share.errors import UserError
from distil_trainer.args import DistilTrainingArguments
from distil_trainer.loading import load_fine_tuned
from distil_trainer.trainer import DistilTrainer


def make_trainer(
    model: PreTrainedModel,
    arguments: Mapping[str, Any],
    *,
    options: Mapping[str, Any],
    folders: Mapping[str, str],
    **trainer_settings: Any,
) -> DistilTrainer:
    """A trainer that distils a fine-tuned teacher while it fine-tunes.

    Args:
        model: the student, trained in place.
        arguments: of TrainingArguments.
        options: `alpha_ce`, `alpha_task` and `temperature`.
        folders: `teacher`: where the fine-tuned teacher is.
        trainer_settings: what else the Trainer takes.
    """
    names = ("alpha_ce", "alpha_task", "temperature")
    weights = {name: options[name] for name in names}
    teacher = _teacher(folders["teacher"])
    _check_length(teacher, trainer_settings["train_dataset"].lengths)
    return DistilTrainer(
        model,
        DistilTrainingArguments(**arguments, **weights),
        teacher=teacher,
        **trainer_settings,
    )


@lru_cache(maxsize=1)
def _teacher(folder: str) -> PreTrainedModel:
    """Loaded once for all the seeds that learn from it."""
    return load_fine_tuned(folder)


def _check_length(teacher: PreTrainedModel, lengths: Any) -> None:
    """Refuses texts that are longer than a teacher's position table."""
    reads = getattr(teacher.config, "max_position_embeddings", None)
    if reads is not None and 0 < reads < int(max(lengths)):
        raise UserError(
            f"the teacher reads {reads} tokens and the longest text has {int(max(lengths))}: "
            f"--max_seq_length {reads}"
        )
