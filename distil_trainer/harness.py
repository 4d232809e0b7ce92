"""Task distillation as a method of the harness, which knows it by this module's name alone."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from transformers import PreTrainedModel

from distil_trainer.args import DistilTrainingArguments
from distil_trainer.loading import load_model
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
    return DistilTrainer(
        model,
        DistilTrainingArguments(**arguments, **weights),
        teacher=_teacher(folders["teacher"]),
        **trainer_settings,
    )


@lru_cache(maxsize=1)
def _teacher(folder: str) -> PreTrainedModel:
    """Loaded once for all the seeds that learn from it."""
    return load_model(folder, task="classification")
