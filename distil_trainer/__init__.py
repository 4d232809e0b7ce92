"""Making students: distils transformer language models, while they pre-train and on a task.

The names below are the public API; they are imported when they are first asked for, so that
`--help` doesn't wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil_trainer.args import DistilTrainingArguments
    from distil_trainer.corpus import Corpus, CorpusOptions, prepare_corpus
    from distil_trainer.loading import load_model, student_from_config
    from distil_trainer.student import make_student
    from distil_trainer.teacher_outputs import TaughtDataset, remember
    from distil_trainer.trainer import DistilTrainer

_HOMES = {
    "Corpus": "corpus",
    "CorpusOptions": "corpus",
    "DistilTrainer": "trainer",
    "DistilTrainingArguments": "args",
    "TaughtDataset": "teacher_outputs",
    "load_model": "loading",
    "make_student": "student",
    "prepare_corpus": "corpus",
    "remember": "teacher_outputs",
    "student_from_config": "loading",
}

__all__ = [
    "Corpus",
    "CorpusOptions",
    "DistilTrainer",
    "DistilTrainingArguments",
    "TaughtDataset",
    "load_model",
    "make_student",
    "prepare_corpus",
    "remember",
    "student_from_config",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"distil_trainer has no {name!r}")
    return getattr(import_module(f"distil_trainer.{_HOMES[name]}"), name)
