"""A Trainer of transformers with its own compute_loss: how distillation is usually shown.

KL of all logits at once, beside the loss that the student computes from its labels. Soft targets
are learned at every position, padding included.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Trainer, TrainingArguments

from benchmarks.setting import Batch, Pair, Recipe


class PlainDistillationTrainer(Trainer):
    """The usual subclass: a teacher beside the model, and a loss of both models' logits."""

    def __init__(self, *, teacher: nn.Module, recipe: Recipe, **settings: Any) -> None:
        super().__init__(**settings)
        self.teacher, self.recipe = teacher, recipe

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
        """Return the weighted sum of soft targets and the student's own loss."""
        student = model(**inputs)
        with torch.no_grad():
            teacher = self.teacher(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            )
        width, temperature = student.logits.shape[-1], self.recipe.temperature
        soft_targets = functional.kl_div(
            functional.log_softmax(student.logits.view(-1, width) / temperature, dim=-1),
            functional.softmax(teacher.logits.view(-1, width) / temperature, dim=-1),
            reduction="batchmean",
        )
        return self.recipe.ce * temperature**2 * soft_targets + self.recipe.mlm * student.loss


def make_objective(
    pair: Pair, recipe: Recipe, *, restrict: bool
) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """Return the student, and the function of a batch that gives its loss."""
    assert not restrict
    device = pair.student.device
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, report_to=[], use_cpu=device.type == "cpu")
        trainer = PlainDistillationTrainer(
            model=pair.student, args=arguments, teacher=pair.teacher, recipe=recipe
        )
    return pair.student, lambda batch: trainer.compute_loss(
        trainer.model, batch.to(device)._asdict()
    )
