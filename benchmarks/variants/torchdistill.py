"""torchdistill's DistillationBox with its KDLoss: soft targets, and labels in the same term.

KDLoss takes a softmax over dimension 1, so that logits must be rows; its mean counts the rows of
padding, too. It has no cosine of hidden states.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torchdistill.core.distillation import get_distillation_box

from benchmarks.setting import Batch, Pair, Recipe


class TokensAsRows(nn.Module):
    """A language model whose logits are rows, the output of the module `rows`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.rows = model, nn.Flatten(0, 1)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits of all tokens as rows."""
        return self.rows(self.model(**inputs).logits)


def make_objective(
    pair: Pair, recipe: Recipe, *, restrict: bool
) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """Return the student, and the function of a batch that gives its loss."""
    assert not restrict
    device = pair.student.device
    box = get_distillation_box(
        TokensAsRows(pair.teacher),
        TokensAsRows(pair.student),
        dataset_dict={},
        train_config=_config(recipe),
        device=device,
        device_ids=None,
        distributed=False,
        lr_factor=1,
    )
    box.teacher_model.eval()
    box.student_model.train(pair.student.training)

    def loss(batch: Batch) -> Tensor:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        return box.forward_process(inputs, batch.labels.flatten())

    return box.student_model, loss


def _config(recipe: Recipe) -> dict[str, Any]:
    model = {
        "forward_proc": "forward_batch_only_as_kwargs",
        "forward_hook": {"output": ["rows"]},
    }
    settings = {
        "student_module_path": "rows",
        "student_module_io": "output",
        "teacher_module_path": "rows",
        "teacher_module_io": "output",
        "temperature": recipe.temperature,
        "alpha": recipe.mlm,
        "beta": recipe.ce,
        "reduction": "batchmean",
    }
    kd = {"criterion": {"key": "KDLoss", "kwargs": settings}, "weight": 1.0}
    return {
        "num_epochs": 1,
        "teacher": {**model, "requires_grad": False},
        "student": dict(model),
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": kd}}},
    }
