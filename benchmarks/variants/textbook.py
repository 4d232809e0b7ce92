"""The original algorithm of DistilBERT's pre-training step, written plainly: the baseline.

It follows the published method to the letter, and is neither optimized nor slowed down: eager
attention, the logits of all tokens from both models at once, rows selected with a mask expanded to
the full width, one loss function per term, AdamW one parameter at a time.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.setting import Batch, Pair, Recipe


def make_objective(
    pair: Pair, recipe: Recipe, *, restrict: bool
) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """Return the student, and the function of a batch that gives its loss."""
    return pair.student, lambda batch: loss(pair, batch, recipe, restrict=restrict)


def make_optimizer(student: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        student.parameters(),
        lr=5e-4,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.0,
        foreach=False,
        fused=False,
    )


def loss(pair: Pair, batch: Batch, recipe: Recipe, *, restrict: bool) -> Tensor:
    """Return the triple loss of one batch.

    Args:
        pair: the student in training mode, the teacher in evaluation mode.
        batch: the input of both.
        recipe: weights and temperature.
        restrict: whether soft targets count at masked positions only.
    """
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    ours = pair.student(**inputs, output_hidden_states=True)
    with torch.no_grad():
        theirs = pair.teacher(**inputs, output_hidden_states=True)
    attended = batch.attention_mask.bool()
    soft = batch.labels != -100 if restrict else attended
    soft_targets = _kl(_select(ours.logits, soft), _select(theirs.logits, soft), recipe.temperature)
    masked_lm = functional.cross_entropy(
        ours.logits.view(-1, ours.logits.shape[-1]), batch.labels.view(-1), ignore_index=-100
    )
    cosine = _cosine(
        _select(ours.hidden_states[-1], attended), _select(theirs.hidden_states[-1], attended)
    )
    return recipe.ce * soft_targets + recipe.mlm * masked_lm + recipe.cos * cosine


def _select(values: Tensor, mask: Tensor) -> Tensor:
    """Return the rows of [batch, length, width] where the mask [batch, length] is true."""
    expanded = mask.unsqueeze(-1).expand_as(values)
    return torch.masked_select(values, expanded).view(-1, values.shape[-1])


def _kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_student = functional.log_softmax(student / temperature, dim=-1)
    target = functional.softmax(teacher / temperature, dim=-1)
    return functional.kl_div(log_student, target, reduction="batchmean") * temperature**2


def _cosine(student: Tensor, teacher: Tensor) -> Tensor:
    same = student.new_ones(len(student))
    return functional.cosine_embedding_loss(student, teacher, same, reduction="mean")
