"""TextBrewer's GeneralDistiller: adaptors, a loss on logits, a match of hidden states.

Its loss on logits is a cross-entropy, not multiplied by T²: the weight makes up for the factor, and
the value exceeds the divergence by the teacher's entropy, of which no gradient comes.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.setting import MASK, Batch, Pair, Recipe


def make_objective(
    pair: Pair, recipe: Recipe, *, restrict: bool
) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """Return the student, and the function of a batch that gives its loss."""
    match = {"feature": "hidden", "loss": "cos", "weight": recipe.cos, "layer_T": 0, "layer_S": 0}
    config = DistillationConfig(
        temperature=recipe.temperature,
        kd_loss_type="ce",
        kd_loss_weight=recipe.ce * recipe.temperature**2,
        hard_label_weight=recipe.mlm,
        intermediate_matches=[match],
    )
    adaptor = _adaptor(restrict=restrict)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingConfig(device=str(pair.student.device), output_dir=folder, log_dir=None)
        distiller = GeneralDistiller(
            arguments, config, pair.teacher, pair.student, adaptor, adaptor
        )

    def loss(batch: Batch) -> Tensor:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        both = {"teacher": inputs, "student": {**inputs, "labels": batch.labels}}
        objective, _ = distiller.train_on_batch(both, {"output_hidden_states": True})
        return objective

    return pair.student, loss


def _adaptor(*, restrict: bool) -> Callable[[dict[str, Tensor], Any], dict[str, Any]]:
    """Return the function that tells TextBrewer what a model's output holds."""

    def adapt(batch: dict[str, Tensor], output: Any) -> dict[str, Any]:
        attended = batch["attention_mask"]
        parts = {
            "logits": output.logits,
            "logits_mask": batch["input_ids"] == MASK if restrict else attended,
            "hidden": output.hidden_states[-1:],
            "inputs_mask": attended,
        }
        return parts if output.loss is None else {**parts, "losses": output.loss}

    return adapt


def surplus(pair: Pair, batch: Batch, recipe: Recipe, *, restrict: bool) -> Tensor:
    """Return by how much the loss exceeds the divergence's: the teacher's weighted entropy."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    soft = batch.input_ids == MASK if restrict else batch.attention_mask.bool()
    with torch.no_grad():
        logits = pair.teacher(**inputs).logits[soft] / recipe.temperature
    entropy = -(functional.softmax(logits, -1) * functional.log_softmax(logits, -1)).sum(-1)
    return recipe.ce * recipe.temperature**2 * entropy.mean()
