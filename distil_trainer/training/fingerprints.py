"""Short fingerprints of models and data, by which a resumed run recognises its inputs."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from distil_trainer.data.batches import TextStream
from distil_trainer.data.pretokenized import TokenTaker
from distil_trainer.objectives.teacher_outputs import TaughtDataset
from distil_trainer.recipe import Mode

_STRIDE = 97
_SAMPLES = 1000


def of_run(
    student: PreTrainedModel, teachers: Sequence[PreTrainedModel], dataset: Any, mode: Mode
) -> dict[str, Any]:
    """Return the fingerprints of a run's student, teachers and training data.

    Args:
        student: the model to train.
        teachers: the teachers; empty where their outputs are cached.
        dataset: the training data. A task's data have a fingerprint only with cached outputs.
        mode: the kind of objective.
    """
    data = None if mode == "task" else of_data(dataset)
    sources: list[Any] = [of_model(teacher) for teacher in teachers]
    if isinstance(dataset, TaughtDataset):
        sources, data = [dict(dataset.source)], dataset.source["data"]
    return {"student": of_model(student), "teachers": sources, "data": data}


def of_model(model: PreTrainedModel) -> str:
    """Return a fingerprint of every 97th value of each weight, and of which weights are trained.

    It hashes the values' bytes, since a sum would depend on the number of threads.
    """
    digest = hashlib.sha256(model.config.model_type.encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.requires_grad}".encode())
        sample = weight.detach().flatten()[::_STRIDE].to("cpu", torch.float32)
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def of_data(dataset: Any) -> str | None:
    """Return a fingerprint of a language model's data, or None for data of an unknown type.

    It covers all lengths and a sample of the sequences; for a stream, the names of its sources.
    """
    if isinstance(dataset, TextStream):
        names = [source.name for source in dataset.sources]
        frame = dataset.maker.added_frame
        parts = names if frame is None else [*names, str(frame)]
        if isinstance(dataset.maker, TokenTaker):
            parts = [*parts, "pretokenized"]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
    if not hasattr(dataset, "lengths"):
        return None
    digest = hashlib.sha256(np.asarray(dataset.lengths, dtype=np.int64).tobytes())
    for index in range(0, len(dataset), max(len(dataset) // _SAMPLES, 1)):
        digest.update(np.asarray(dataset[index], dtype=np.int64).tobytes())
        if hasattr(dataset, "row"):
            for name, values in sorted(dataset.row(index).columns.items()):
                digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()[:16]
