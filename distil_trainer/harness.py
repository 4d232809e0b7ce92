"""Task distillation as a method of the evaluation harness, which imports it by name only."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, PreTrainedModel, Trainer

from angels_share.errors import UserError
from angels_share.inputs import positions_of
from angels_share.names import nearest
from distil_trainer.models.loading import fine_tuned_config, load_fine_tuned
from distil_trainer.objectives.teacher_outputs import TaughtDataset, cache_teacher_outputs, files_of
from distil_trainer.training.args import DistilTrainingArguments
from distil_trainer.training.trainer import DistilTrainer

_OPTIONS = ("alpha_ce", "alpha_task", "temperature", "kd_over_all_positions")
# The teacher's name and the transfer set's hash are for the tables.
_NAMES = (*_OPTIONS, "teacher_model", "transfer_set")

Version = tuple[str, *tuple[tuple[str, int, int, int], ...]]
"""A folder, and the size, time stamp and inode of each of its files: changes if they do."""


def make_trainer(
    model: PreTrainedModel,
    arguments: Mapping[str, Any],
    *,
    options: Mapping[str, Any],
    folders: Mapping[str, str],
    **trainer_settings: Any,
) -> DistilTrainer:
    """Return a trainer that fine-tunes a student and distils a fine-tuned teacher into it.

    Args:
        model: the student, trained in place.
        arguments: those of TrainingArguments.
        options: `alpha_ce`, `alpha_task`, `temperature` and `kd_over_all_positions`, each optional.
            The teacher's name, `teacher_model`, and the hash of the texts without labels among
            the examples, `transfer_set`, are ignored.
        folders: `teacher` is the fine-tuned teacher; `outputs`, the cache of its logits, which all
            seeds share. Without `outputs` the teacher runs a forward pass at every step.
        trainer_settings: other arguments of the Trainer.

    Raises:
        UserError: an option is unknown, or examples are too long for the teacher.
    """
    for name in sorted(options.keys() - _NAMES):
        expected = ", ".join(_NAMES)
        raise UserError(
            f"unknown option {name!r}; expected one of {expected}{nearest(name, _NAMES)}"
        )
    settings = {name: options[name] for name in _OPTIONS if name in options}
    args = DistilTrainingArguments(**arguments, **settings)
    dataset = trainer_settings.pop("train_dataset")
    collator = trainer_settings.get("data_collator")
    version = _version(folders["teacher"])
    _check_length(_max_length(version), dataset.lengths, getattr(collator, "width", None))
    if "outputs" in folders:
        teacher = None
        dataset = _with_teacher_outputs(args, version, folders["outputs"], dataset, collator)
    else:
        teacher = _load_teacher(version)
    return _SweepTrainer(model, args, teacher=teacher, train_dataset=dataset, **trainer_settings)


class _SweepTrainer(DistilTrainer):
    """A trainer of a run that is repeated rather than resumed: its order is plain fine-tuning's.

    So a seed sees the same batches with a teacher as without.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return Trainer._get_train_sampler(self, train_dataset)


def _version(folder: str) -> Version:
    stats = ((path.name, path.stat()) for path in files_of(folder))
    return (folder, *((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats))


@lru_cache(maxsize=1)
def _load_teacher(version: Version) -> PreTrainedModel:
    """Load a teacher, once for all seeds that learn from it."""
    return load_fine_tuned(version[0])


# The last data set with teacher outputs, and its key. One is enough, since a sweep groups runs that
# share it; lru_cache can't hold it, since a data set has no hash.
_last: tuple[Any, TaughtDataset] | None = None


def _with_teacher_outputs(
    args: DistilTrainingArguments, version: Version, outputs: str, dataset: Any, collator: Any
) -> TaughtDataset:
    """Return the data with the teacher's outputs, opened or computed once for all seeds."""
    global _last
    key = (version, outputs, args.bf16, args.kd_over_all_positions, collator)
    if _last is None or _last[0] != key or _last[1].dataset is not dataset:
        _last = None  # free it before the next one is loaded
        taught = cache_teacher_outputs(
            version[0],
            dataset,
            collator,
            outputs,
            bf16=args.bf16,
            over_all_positions=args.kd_over_all_positions,
            device=args.device,
        )
        _last = key, taught
    return _last[1]


@lru_cache(maxsize=1)
def _max_length(version: Version) -> int | None:
    """Return the longest text in tokens that a teacher can read, found without its weights."""
    config = fine_tuned_config(version[0])
    with torch.device("meta"):  # allocates no weights
        model = AutoModel.from_config(config)
    in_config: int | None = getattr(config, "max_position_embeddings", None)
    return positions_of(model) or in_config


def _check_length(max_length: int | None, lengths: Any, width: int | None) -> None:
    """Refuse batches that are wider than a teacher's position table."""
    longest = int(np.max(lengths, initial=0))
    if max_length is None or not 0 < max_length < max(longest, width or 0):
        return
    reason = f"the longest text has {longest}"
    if longest <= max_length:
        reason = f"all are padded to {width}"
    raise UserError(
        f"the teacher takes at most {max_length} tokens and {reason}: "
        f"set --max_seq_length {max_length}"
    )
