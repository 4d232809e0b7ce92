"""Task distillation as a method of the harness, which knows it by this module's name alone."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from angels_share.errors import UserError
from distil_trainer.args import DistilTrainingArguments
from distil_trainer.loading import fine_tuned_config, load_fine_tuned
from distil_trainer.teacher_outputs import TaughtDataset, remember
from distil_trainer.trainer import DistilTrainer

_OPTIONS = ("alpha_ce", "alpha_task", "temperature", "kd_over_all_positions")


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
        options: `alpha_ce`, `alpha_task` and `temperature`; perhaps `kd_over_all_positions`.
        folders: `teacher`: where the fine-tuned teacher is; `outputs`: where what it says of the
            data is kept, for all seeds; without that it is asked at every step.
        trainer_settings: what else the Trainer takes.
    """
    settings = {name: options[name] for name in _OPTIONS if name in options}
    args = DistilTrainingArguments(**arguments, **settings)
    dataset = trainer_settings.pop("train_dataset")
    _check_length(folders["teacher"], dataset.lengths)
    if "outputs" in folders:
        dataset, teacher = _taught(args, folders, dataset, trainer_settings["data_collator"]), None
    else:
        teacher = _teacher(folders["teacher"])
    return DistilTrainer(model, args, teacher=teacher, train_dataset=dataset, **trainer_settings)


@lru_cache(maxsize=1)
def _teacher(folder: str) -> PreTrainedModel:
    """Loaded once for all the seeds that learn from it."""
    return load_fine_tuned(folder)


# The last data set that was taught, and by whom: a sweep keeps like runs together, and a data set
# has no hash by which lru_cache could find it.
_last: tuple[Any, TaughtDataset] | None = None


def _taught(
    args: DistilTrainingArguments, folders: Mapping[str, str], dataset: Any, collator: Any
) -> TaughtDataset:
    """The data with what the teacher says of them: looked up once for all the seeds."""
    global _last
    of = (folders["teacher"], folders["outputs"], args.bf16, args.kd_over_all_positions, collator)
    if _last is None or _last[0] != of or _last[1].dataset is not dataset:
        _last = None  # before there are two of them
        taught = remember(
            folders["teacher"],
            dataset,
            collator,
            folders["outputs"],
            bf16=args.bf16,
            over_all_positions=args.kd_over_all_positions,
            device=args.device,
        )
        _last = of, taught
    return _last[1]


def _check_length(teacher: str, lengths: Any) -> None:
    """Refuses texts that are longer than a teacher's position table."""
    reads = getattr(fine_tuned_config(teacher), "max_position_embeddings", None)
    longest = int(np.max(lengths))
    if reads is not None and 0 < reads < longest:
        raise UserError(
            f"the teacher reads {reads} tokens and the longest text has {longest}: "
            f"--max_seq_length {reads}"
        )
