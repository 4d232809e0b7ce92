"""Loss terms of distillation, each a pure function of tensors and a mask.

Every function returns a sum and a count, never a mean: a mean over a micro-batch is the wrong
number as soon as micro-batches hold different numbers of tokens, so the caller divides once, by the
count of the whole accumulated batch. Sums are taken in float32 (float64 for float64 input),
whatever the precision of the logits. Positions outside the mask are overwritten before anything is
computed from them, so that their content, even a NaN, reaches no value and no gradient.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from distil_trainer.recipe import Divergence

IGNORED = -100
"""The label of a position without a target, as everywhere in PyTorch."""


FLAT_TEMPERATURE = 4.0
"""From this temperature on, distributions are so flat that their divergence needs `flat_kl`.

Both logarithms are near log V and their difference shrinks with T: at T = 1000 a divergence in
float32 is all rounding. Below it the usual formula is cheaper and loses one or two digits at most.
"""


class Term(NamedTuple):
    """One term of an objective: the sum over its positions and their number."""

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which is not used here


def soft_target_kl(
    student_logits: Tensor, teacher_logits: Sequence[Tensor], mask: Tensor, temperature: float
) -> Term:
    """Return the KL divergence of the student's softened distribution from the teachers' (L_ce).

    T² · Σ KL(p ‖ softmax(z_s / T)), where p is the mean of the teachers' softmax(z_t / T). T² keeps
    the gradient's size independent of T.

    Args:
        student_logits: [..., V].
        teacher_logits: One [..., V] per teacher. No gradient flows into them.
        mask: Boolean [...], true where the position counts.
        temperature: T, above 0.
    """
    student = _only(student_logits, mask)
    with torch.no_grad():
        softened = [(_only(logits, mask) / temperature).softmax(-1) for logits in teacher_logits]
        target = torch.stack(softened).mean(0)
    log_student = (student / temperature).log_softmax(-1)
    # A class to which no teacher gives any mass adds nothing, though its log p is -inf:
    # 0 · log 0 = 0.
    counted = (target > 0) & mask.unsqueeze(-1)
    divergence = torch.where(counted, target * (target.log() - log_student), 0.0)
    if temperature < FLAT_TEMPERATURE:
        return Term(temperature**2 * divergence.sum(), mask.sum())
    frozen = [_only(logits.detach(), mask) / temperature for logits in teacher_logits]
    difference = difference_from_mean(student / temperature, frozen)
    flat = flat_kl(target, difference, log_student > -torch.inf)
    rows = torch.where(flat.applies, flat.divergence, divergence.sum(-1))
    return Term(temperature**2 * rows.sum(), mask.sum())


def soft_target_reverse_kl(
    student_logits: Tensor, teacher_logits: Sequence[Tensor], mask: Tensor, temperature: float
) -> Term:
    """Return the KL divergence of the teachers' softened distribution from the student's.

    T² · Σ KL(softmax(z_s / T) ‖ p), p as in `soft_target_kl`, with the arguments swapped: the
    student is drawn to one of the teacher's likely classes and pays little for leaving out the
    others. It is infinite where the student gives mass to a class that every teacher rules out.

    Args:
        student_logits: [..., V].
        teacher_logits: One [..., V] per teacher. No gradient flows into them.
        mask: Boolean [...], true where the position counts.
        temperature: T, above 0.
    """
    student = _only(student_logits, mask) / temperature
    with torch.no_grad():
        frozen = [_only(logits, mask) / temperature for logits in teacher_logits]
        log_target = log_of_mean(frozen)
    log_student = student.log_softmax(-1)
    probabilities = log_student.exp()
    # A class to which the student gives no mass adds nothing: 0 · log 0 = 0.
    difference = torch.where(probabilities > 0, log_student - log_target, 0.0)
    divergence = (probabilities * difference).sum(-1)
    if temperature >= FLAT_TEMPERATURE:
        difference = -difference_from_mean(student, frozen)
        flat = flat_kl(probabilities, difference, log_target > -torch.inf)
        divergence = torch.where(flat.applies, flat.divergence, divergence)
    return Term(temperature**2 * torch.where(mask, divergence, 0.0).sum(), mask.sum())


SOFT_TARGETS: Mapping[Divergence, Callable[[Tensor, Sequence[Tensor], Tensor, float], Term]] = {
    "kl": soft_target_kl,
    "reverse_kl": soft_target_reverse_kl,
}
"""L_ce by the name of its divergence."""


class FlatKL(NamedTuple):
    """The divergence of rows of logits, and its slope."""

    applies: Tensor
    """[...], whether the row could be computed in this way; otherwise the rest is 0."""
    divergence: Tensor
    """[...]."""
    slope: Tensor
    """[..., V], its gradient with respect to the student's logits: q - p."""


def flat_kl(target: Tensor, difference: Tensor, possible: Tensor) -> FlatKL:
    """Return KL(p ‖ q), however small, from p and the difference of the logits.

    q is p·exp(d), normalised. With d centred, Σ p d = 0, the divergence is
    log(1 + Σ p (exp(d) - 1 - d)): no term is negative, so nothing cancels, and an error of the
    centre changes it only in second order.

    Args:
        target: [..., V], p.
        difference: [..., V], d, the student's logits minus log p, up to a constant in each row.
        possible: Boolean [..., V], true where q isn't 0.
    """
    difference = torch.where(target > 0, difference, 0.0)
    centred = difference - (target * difference).sum(-1, keepdim=True)
    # Where p is 0 and q is not, or where exp would overflow, another formula is wanted; a NaN
    # is in no order and so doesn't pass either.
    applies = (centred.amax(-1) <= _LARGEST) & ~((target == 0) & possible).any(-1)
    centred = torch.where(applies.unsqueeze(-1), centred, 0.0)
    growth = centred.expm1()
    small = centred.clamp(-_SMALL, _SMALL)
    series = torch.full_like(small, _SERIES[0])
    for coefficient in _SERIES[1:]:
        series = series * small + coefficient
    excess = torch.where(centred.abs() < _SMALL, small.square() * series, growth - centred)
    total = (target * excess).sum(-1)
    slope = target * (growth - total.unsqueeze(-1)) / (1 + total.unsqueeze(-1))
    return FlatKL(applies, total.log1p(), slope.masked_fill(~applies.unsqueeze(-1), 0.0))


def difference_from_mean(student: Tensor, teachers: Sequence[Tensor]) -> Tensor:
    """Return the student's logits minus those of the teachers' mean distribution.

    Up to a constant in each row. The logarithm of the mean itself would be rounded like a number
    near log V; here only what the teachers differ by is rounded.
    """
    first, *others = teachers
    if not others:
        return student - first
    normaliser = first.logsumexp(-1, keepdim=True)
    growth = [
        (each - first - (each.logsumexp(-1, keepdim=True) - normaliser)).expm1() for each in others
    ]
    return student - first - torch.stack(growth).sum(0).div(len(teachers)).log1p()


def log_of_mean(teachers: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the teachers' mean distribution, from their logits."""
    logs = torch.stack([logits.log_softmax(-1) for logits in teachers])
    return logs[0] if len(logs) == 1 else logs.logsumexp(0) - math.log(len(logs))


_LARGEST = 30.0
_SMALL = 0.125
# exp(x) - 1 - x = x² · Σ xⁿ / (n + 2)!, exact in float64 up to _SMALL; the highest power first.
_SERIES = [1 / math.factorial(n + 2) for n in reversed(range(9))]


def cross_entropy(logits: Tensor, labels: Tensor) -> Term:
    """Return the cross-entropy against true classes (L_mlm, L_clm, and classification).

    Args:
        logits: [..., V].
        labels: Integers [...], -100 at positions without a target.
    """
    flat = _wide(logits).reshape(-1, logits.shape[-1])
    labels = labels.reshape(-1)
    total = functional.cross_entropy(flat, labels, ignore_index=IGNORED, reduction="sum")
    return Term(total, (labels != IGNORED).sum())


def squared_error(logits: Tensor, labels: Tensor) -> Term:
    """Return the squared error against a real-valued label (regression, as in STS-B).

    Args:
        logits: [N] or [N, 1].
        labels: [N].
    """
    difference = _wide(logits).reshape(-1) - labels.reshape(-1)
    return Term(difference.square().sum(), torch.full((), labels.numel(), device=labels.device))


def logit_mse(student_logits: Tensor, teacher_logits: Sequence[Tensor], mask: Tensor) -> Term:
    """Return the squared distance of raw logits, summed over classes (L_mse: logit matching).

    Args:
        student_logits: [..., V].
        teacher_logits: One [..., V] per teacher; the student is compared with their mean.
        mask: Boolean [...], true where the position counts.
    """
    student = _only(student_logits, mask)
    with torch.no_grad():
        target = torch.stack([_only(logits, mask) for logits in teacher_logits]).mean(0)
    # Where both rule a class out (-inf) they agree, but -inf - -inf would be NaN.
    difference = torch.where(student == target, 0.0, student - target)
    return Term(difference.square().sum(), mask.sum())


def hidden_cosine(student_hidden: Tensor, teacher_hidden: Tensor, mask: Tensor) -> Term:
    """Return 1 - cos between the hidden states of student and teacher (L_cos).

    Args:
        student_hidden: [..., H].
        teacher_hidden: [..., H], the same width. No gradient flows into it.
        mask: Boolean [...], true where the position counts.
    """
    student, teacher = _only(student_hidden, mask), _only(teacher_hidden.detach(), mask)
    cosine = functional.cosine_similarity(student, teacher, dim=-1)
    return Term(torch.where(mask, 1 - cosine, 0.0).sum(), mask.sum())


def _only(values: Tensor, mask: Tensor) -> Tensor:
    """Return the values in the precision of sums, zero where the mask is false.

    Filling instead of selecting keeps every shape known to the host, which so never waits for a
    GPU.
    """
    return _wide(values).masked_fill(~mask.unsqueeze(-1), 0.0)


def _wide(values: Tensor) -> Tensor:
    """Return the values in the precision in which sums are taken."""
    return values if values.dtype == torch.float64 else values.float()
