"""NVIDIA Model Optimizer's distillation: a converted student with a loss between its logits.

`mtd.convert` rather than its KDTrainer, which shifts labels as a causal model's and so can't learn
masked words. The balancer's weights sum to 1, so the objective is multiplied by what ours sum to.
"""

from collections.abc import Callable

import modelopt.torch.distill as mtd
from torch import Tensor, nn

from benchmarks.setting import IGNORED, Batch, Pair, Recipe


def make_objective(
    pair: Pair, recipe: Recipe, *, restrict: bool
) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """Return the student, and the function of a batch that gives its loss."""
    total = recipe.ce + recipe.mlm
    criterion = mtd.LogitsDistillationLoss(temperature=recipe.temperature, reduction="none")
    config = {
        "teacher_model": pair.teacher,
        "criterion": {("vocab_projector", "cls.predictions.decoder"): criterion},
        "loss_balancer": mtd.StaticLossBalancer(kd_loss_weight=recipe.ce / total),
    }
    student = mtd.convert(pair.student, mode=[("kd_loss", config)])

    def loss(batch: Batch) -> Tensor:
        soft = batch.labels != IGNORED if restrict else batch.attention_mask.bool()
        output = student(**batch._asdict())
        balanced = student.compute_kd_loss(
            student_loss=output.loss,
            loss_reduction_fn=lambda per_token: (per_token * soft).sum() / soft.sum(),
        )
        return total * balanced

    return student, loss
