"""The record of a student's training, `distil.json`: its card and results' keys rest on it."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from angels_share import __version__
from angels_share.files import sha256_of_file
from angels_share.hardware import processor
from angels_share.hub.cache import COMMIT, repository_of
from angels_share.provenance import versions_of


def record_of(trainer: Any, status: str = "complete") -> dict[str, Any]:
    """Return what a trainer knows of its training: recipe, steps, times, versions, machine.

    Args:
        trainer: a `DistilTrainer`.
        status: "complete" or "interrupted".
    """
    return {
        "status": status,
        "step": trainer.state.global_step,
        "recipe": trainer.result_settings(),
        "validation_history": [
            entry for entry in trainer.state.log_history if "eval_loss" in entry
        ],
        "versions": _versions(),
        "threads": torch.get_num_threads(),
        "device": str(trainer.args.device),
        "machine": {"processor": processor()},
        "times": _times(trainer),
    }


def identity_of(teacher: PreTrainedModel) -> dict[str, str | None]:
    """Return what identifies a loaded teacher: its commit on the Hub, or its weights' hash."""
    source, revision = str(teacher.name_or_path), getattr(teacher.config, "_commit_hash", None)
    folder = Path(source)
    if folder.is_dir() and (found := repository_of(folder)) is not None:
        source, revision = found
    weights = folder / "model.safetensors"
    return {
        "name": source or type(teacher).__name__,
        "source": source,
        "revision": revision if revision and COMMIT.fullmatch(str(revision)) else None,
        "sha256": sha256_of_file(weights) if weights.is_file() else None,
    }


def _times(trainer: Any) -> Mapping[str, float]:
    """Return how long this process trained; a resumed one says from which step on."""
    if trainer.seconds_trained is None:
        return {}
    first = trainer.first_step
    stage = "training" if first == 0 else f"training from step {first} on"
    return {stage: round(trainer.seconds_trained, 1)}


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "accelerate", "tokenizers")
    return {
        "angels-share": __version__,
        "python": platform.python_version(),
        **versions_of(packages),
    }
