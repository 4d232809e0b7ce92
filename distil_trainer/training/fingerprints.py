"""Short fingerprints of models and data, so that a resumed run can tell that it is the same."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from distil_trainer.data.batches import TextStream
from distil_trainer.objectives.teacher_outputs import TaughtDataset
from distil_trainer.recipe import Mode

_STRIDE = 97
_SAMPLES = 1000


def of_run(
    student: PreTrainedModel, teachers: Sequence[PreTrainedModel], dataset: Any, mode: Mode
) -> dict[str, Any]:
    """Of all that a run starts from; a task's data have one where a teacher's outputs do."""
    data = None if mode == "task" else of_data(dataset)
    asked: list[Any] = [of_model(each) for each in teachers]
    if isinstance(dataset, TaughtDataset):
        asked, data = [dict(dataset.source)], dataset.source["data"]
    return {"student": of_model(student), "teachers": asked, "data": data}


def of_model(model: PreTrainedModel) -> str:
    """Of every 97th number of each weight, and of which of them are trained.

    Taken from the numbers' own bytes, so that it doesn't depend on threads as a sum would.
    """
    digest = hashlib.sha256(model.config.model_type.encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.requires_grad}".encode())
        sample = weight.detach().flatten()[::_STRIDE].to("cpu", torch.float32)
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def of_data(dataset: Any) -> str | None:
    """Of a language model's data: all lengths and a sample of sequences; of a stream its names."""
    if isinstance(dataset, TextStream):
        return hashlib.sha256(" ".join(s.name for s in dataset.sources).encode()).hexdigest()[:16]
    if not hasattr(dataset, "lengths"):
        return None
    digest = hashlib.sha256(np.asarray(dataset.lengths, dtype=np.int64).tobytes())
    for index in range(0, len(dataset), max(len(dataset) // _SAMPLES, 1)):
        digest.update(np.asarray(dataset[index], dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]
