"""Task distillation as a method of the harness, which knows it by this module's name alone."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, PreTrainedModel

from angels_share.errors import UserError
from angels_share.inputs import positions_of
from angels_share.names import nearest
from distil_trainer.models.loading import fine_tuned_config, load_fine_tuned
from distil_trainer.objectives.teacher_outputs import TaughtDataset, cache_teacher_outputs, files_of
from distil_trainer.training.args import DistilTrainingArguments
from distil_trainer.training.trainer import DistilTrainer

_OPTIONS = ("alpha_ce", "alpha_task", "temperature", "kd_over_all_positions")
_NAMES = (*_OPTIONS, "teacher_model")  # the teacher's name is for the tables

Version = tuple[str, *tuple[tuple[str, int, int, int], ...]]
"""A folder, and what tells its files from those that take their place."""


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
        options: `alpha_ce`, `alpha_task` and `temperature`; perhaps `kd_over_all_positions`. The
            teacher's name, `teacher_model`, is passed by.
        folders: `teacher`: where the fine-tuned teacher is; `outputs`: where what it says of the
            data is kept, for all seeds; without that it is asked at every step.
        trainer_settings: what else the Trainer takes.

    Raises:
        UserError: an option that there isn't, or examples that the teacher can't read.
    """
    for name in sorted(options.keys() - _NAMES):
        raise UserError(f"option {name!r} is none of {', '.join(_NAMES)}{nearest(name, _NAMES)}")
    settings = {name: options[name] for name in _OPTIONS if name in options}
    args = DistilTrainingArguments(**arguments, **settings)
    dataset = trainer_settings.pop("train_dataset")
    collator = trainer_settings.get("data_collator")
    version = _version(folders["teacher"])
    _check_length(_reads(version), dataset.lengths, getattr(collator, "width", None))
    if "outputs" in folders:
        dataset, teacher = _taught(args, version, folders["outputs"], dataset, collator), None
    else:
        teacher = _teacher(version)
    return DistilTrainer(model, args, teacher=teacher, train_dataset=dataset, **trainer_settings)


def _version(folder: str) -> Version:
    files = ((path.name, path.stat()) for path in files_of(folder))
    return (folder, *((name, at.st_size, at.st_mtime_ns, at.st_ino) for name, at in files))


@lru_cache(maxsize=1)
def _teacher(version: Version) -> PreTrainedModel:
    """Loaded once for all the seeds that learn from it."""
    return load_fine_tuned(version[0])


# The last data set that was taught, and by whom: a sweep keeps like runs together, and a data set
# has no hash by which lru_cache could find it.
_last: tuple[Any, TaughtDataset] | None = None


def _taught(
    args: DistilTrainingArguments, version: Version, outputs: str, dataset: Any, collator: Any
) -> TaughtDataset:
    """The data with what the teacher says of them: looked up once for all the seeds."""
    global _last
    of = (version, outputs, args.bf16, args.kd_over_all_positions, collator)
    if _last is None or _last[0] != of or _last[1].dataset is not dataset:
        _last = None  # before there are two of them
        taught = cache_teacher_outputs(
            version[0],
            dataset,
            collator,
            outputs,
            bf16=args.bf16,
            over_all_positions=args.kd_over_all_positions,
            device=args.device,
        )
        _last = of, taught
    return _last[1]


@lru_cache(maxsize=1)
def _reads(version: Version) -> int | None:
    """Tokens of the longest text that a teacher has positions for, by its config alone."""
    config = fine_tuned_config(version[0])
    with torch.device("meta"):  # its modules, without a number in them
        model = AutoModel.from_config(config)
    counted: int | None = getattr(config, "max_position_embeddings", None)
    return positions_of(model) or counted


def _check_length(reads: int | None, lengths: Any, width: int | None) -> None:
    """Refuses batches that are wider than a teacher's position table."""
    longest = int(np.max(lengths, initial=0))
    if reads is None or not 0 < reads < max(longest, width or 0):
        return
    wide = f"the longest text has {longest}"
    if longest <= reads:
        wide = f"all are padded to {width}"
    raise UserError(f"the teacher reads {reads} tokens and {wide}: --max_seq_length {reads}")
