"""Distillation of transformer language models, in pre-training and on tasks.

The names below are the public API. They are imported on first access, so that `--help` doesn't
wait for torch.
"""

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil_trainer.data.corpus import Corpus, prepare_corpus
    from distil_trainer.data.sequence_maker import CorpusOptions
    from distil_trainer.models.loading import load_model, student_from_config
    from distil_trainer.models.student import make_student
    from distil_trainer.objectives.teacher_outputs import TaughtDataset, cache_teacher_outputs
    from distil_trainer.training.args import DistilTrainingArguments
    from distil_trainer.training.trainer import DistilTrainer

# The package index has another `distil_trainer`; `angels_share.start` knows ours by this line.
PROJECT = "angels-share"

_MODULES = {
    "Corpus": "data.corpus",
    "CorpusOptions": "data.sequence_maker",
    "DistilTrainer": "training.trainer",
    "DistilTrainingArguments": "training.args",
    "TaughtDataset": "objectives.teacher_outputs",
    "load_model": "models.loading",
    "make_student": "models.student",
    "prepare_corpus": "data.corpus",
    "cache_teacher_outputs": "objectives.teacher_outputs",
    "student_from_config": "models.loading",
}

__all__ = [
    "Corpus",
    "CorpusOptions",
    "DistilTrainer",
    "DistilTrainingArguments",
    "TaughtDataset",
    "cache_teacher_outputs",
    "load_model",
    "make_student",
    "prepare_corpus",
    "student_from_config",
]


_RENAMED = {"remember": "cache_teacher_outputs"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        message = f"distil_trainer.{name} was renamed to {_RENAMED[name]}"
        warnings.warn(message, FutureWarning, stacklevel=2)
        name = _RENAMED[name]
    if name not in _MODULES:
        raise AttributeError(f"module 'distil_trainer' has no attribute {name!r}")
    if "torch" not in sys.modules:  # what reads the setting once, when it is imported
        import_module("angels_share.hardware").limit_spinning()
    return getattr(import_module(f"distil_trainer.{_MODULES[name]}"), name)
