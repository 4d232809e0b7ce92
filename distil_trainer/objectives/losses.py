"""The terms of the distillation objective, each a pure function of tensors and a mask.

Every function returns a sum and a count, never a mean: a mean over a micro-batch is the wrong
number as soon as micro-batches hold different numbers of tokens, so the caller divides once, by the
count of the whole accumulated batch. Sums are taken in float32 (float64 for float64 input),
whatever the precision of the logits. Positions outside the mask are overwritten before anything is
computed from them, so that nothing that stands there, not even a NaN, reaches a value or a
gradient.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of a position without a target, as everywhere in PyTorch."""


class Term(NamedTuple):
    """One part of an objective: a sum over positions, and over how many it was taken."""

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


def soft_target_kl(
    student_logits: Tensor, teacher_logits: Sequence[Tensor], mask: Tensor, temperature: float
) -> Term:
    """Divergence of the student's softened distribution from the teachers' (L_ce).

    T² · Σ KL(p ‖ softmax(z_s / T)), p being the average of the teachers' softmax(z_t / T). T² keeps
    the gradient's size independent of T.

    Args:
        student_logits: [..., V].
        teacher_logits: For each teacher [..., V]. No gradient flows into them.
        mask: Boolean [...], true where the position counts.
        temperature: T, above 0.
    """
    student = _only(student_logits, mask)
    with torch.no_grad():
        softened = [(_only(logits, mask) / temperature).softmax(-1) for logits in teacher_logits]
        target = torch.stack(softened).mean(0)
    log_student = (student / temperature).log_softmax(-1)
    # A class that no teacher gives any mass adds nothing, even where log p is -inf: 0 · log 0 = 0.
    counted = (target > 0) & mask.unsqueeze(-1)
    divergence = torch.where(counted, target * (target.log() - log_student), 0.0).sum()
    return Term(temperature**2 * divergence, mask.sum())


def cross_entropy(logits: Tensor, labels: Tensor) -> Term:
    """Cross-entropy against true classes (L_mlm, L_clm, and classification).

    Args:
        logits: [..., V].
        labels: Integers [...], -100 where there is no target.
    """
    flat = _wide(logits).reshape(-1, logits.shape[-1])
    labels = labels.reshape(-1)
    total = functional.cross_entropy(flat, labels, ignore_index=IGNORED, reduction="sum")
    return Term(total, (labels != IGNORED).sum())


def squared_error(logits: Tensor, labels: Tensor) -> Term:
    """Squared distance from a real-valued label (regression, as in STS-B).

    Args:
        logits: [N] or [N, 1].
        labels: [N].
    """
    difference = _wide(logits).reshape(-1) - labels.reshape(-1)
    return Term(difference.square().sum(), torch.tensor(labels.numel(), device=labels.device))


def logit_mse(student_logits: Tensor, teacher_logits: Sequence[Tensor], mask: Tensor) -> Term:
    """Squared distance of the raw logits, summed over classes (L_mse: Bucila's logit matching).

    Args:
        student_logits: [..., V].
        teacher_logits: For each teacher [..., V]; the student is held against their mean.
        mask: Boolean [...], true where the position counts.
    """
    student = _only(student_logits, mask)
    with torch.no_grad():
        target = torch.stack([_only(logits, mask) for logits in teacher_logits]).mean(0)
    # A class ruled out for both (-inf) is agreement, where -inf - -inf would be NaN.
    difference = torch.where(student == target, 0.0, student - target)
    return Term(difference.square().sum(), mask.sum())


def hidden_cosine(student_hidden: Tensor, teacher_hidden: Tensor, mask: Tensor) -> Term:
    """1 - cos between the hidden states of student and teacher (L_cos).

    Args:
        student_hidden: [..., H].
        teacher_hidden: [..., H], of the same width. No gradient flows into it.
        mask: Boolean [...], true where the position counts.
    """
    student, teacher = _only(student_hidden, mask), _only(teacher_hidden.detach(), mask)
    cosine = functional.cosine_similarity(student, teacher, dim=-1)
    return Term(torch.where(mask, 1 - cosine, 0.0).sum(), mask.sum())


def _only(values: Tensor, mask: Tensor) -> Tensor:
    """Wide values with zeros where the mask is false.

    Filling rather than selecting keeps every shape known on the host, so a GPU is never waited for.
    """
    return _wide(values).masked_fill(~mask.unsqueeze(-1), 0.0)


def _wide(values: Tensor) -> Tensor:
    """Values in the precision that sums are taken in."""
    return values if values.dtype == torch.float64 else values.float()
