"""Relations among a layer's queries, keys and values, for students of any width (MiniLMv2).

A relation says how alike a sequence's tokens are: softmax(X · Xᵀ / √d) for X the queries, the keys
or the values of one head, so [length, length] whatever the width of X. Concatenated over the
model's own heads and split again into a common number of relation heads, those of student and
teacher can be compared without a projection.

X is taken as the projections give it, before rotary positions and norms of single heads. A relation
covers the tokens that its model attends to: all that aren't padding, in a causal model the earlier
ones. As with the vocabulary's logits, relations are computed a block at a time, with their
gradients, and never exist all at once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import PreTrainedConfig, PreTrainedModel

from angels_share.errors import UserError
from distil_trainer.models.families import config_of, family_of
from distil_trainer.objectives.losses import Term

LEAST_HEAD_SIZE = 8
"""Unless told otherwise, as many relation heads as leave this many dimensions to each."""

_BLOCK = 2**20
"""Entries of a block of relations; about six tensors of this size exist at a time."""


class Relations(NamedTuple):
    """Which relations are compared."""

    student_layer: int
    teacher_layer: int
    heads: int


def plan_relations(
    student: PreTrainedModel | PreTrainedConfig,
    teacher: PreTrainedModel | PreTrainedConfig,
    *,
    layer: int | None = None,
    heads: int | None = None,
) -> Relations:
    """Return which relations of a student and a teacher are compared.

    Args:
        student: the student or its config; it is its last layer that learns.
        teacher: the teacher or its config.
        layer: the teacher's layer, counted from 0 [the last].
        heads: the number of relation heads [as many as leave 8 dimensions to each].

    Raises:
        UserError: the teacher has no such layer, or the number doesn't divide all widths.
    """
    depths = [family_of(each).shape(config_of(each)).depth for each in (student, teacher)]
    if layer is not None and not 0 <= layer < depths[1]:
        raise UserError(
            f"relation_layer {layer}: the teacher has {depths[1]} layers, counted from 0: "
            f"use 0 to {depths[1] - 1}"
        )
    widths = sorted({*_widths(student), *_widths(teacher)})
    possible = [n for n in range(1, widths[0] + 1) if all(width % n == 0 for width in widths)]
    if heads is None:
        most = max(widths[0] // LEAST_HEAD_SIZE, 1)
        heads = max(n for n in possible if n <= most)
    elif heads not in possible:
        raise UserError(
            f"relation_heads {heads}: queries, keys and values are {_listed(widths)} wide in "
            f"student and teacher, so use one of {_listed(possible)}"
        )
    return Relations(depths[0] - 1, depths[1] - 1 if layer is None else layer, heads)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _widths(model_or_config: PreTrainedModel | PreTrainedConfig) -> list[int]:
    """Return how wide queries, keys and values are, all heads together."""
    family, config = family_of(model_or_config), config_of(model_or_config)
    size = family.head_size(config)
    heads, groups = family.shape(config).heads, family.key_value_heads(config)
    return [heads * size, groups * size]


@contextmanager
def captured_states(model: PreTrainedModel, layer: int) -> Iterator[list[Tensor]]:
    """Collect a layer's queries, keys and values [B, S, width] while a model runs.

    The list is empty before the model has run. Gradients flow through what is in it.
    """
    family = family_of(model)
    states: list[Tensor] = []
    names = family.layer.queries_keys_values
    parts: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Tensor) -> None:
            parts[name] = output
            if len(parts) == len(names):
                together = [parts[each] for each in names]
                states[:] = together if len(names) == 3 else together[0].chunk(3, dim=-1)

        return hook

    block = family.layers(model)[layer]
    handles = [block.get_submodule(name).register_forward_hook(note(name)) for name in names]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


# As the vocabulary head: torch.compile would unroll its loops.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def relation_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    mask: Tensor,
    *,
    heads: int,
    causal: bool = False,
) -> Term:
    """Return the KL divergence of the student's relations from the teacher's (L_rel).

    Summed over tokens and over queries, keys and values; the mean over relation heads.

    Args:
        student: its queries, keys and values, each [B, S, width].
        teacher: likewise, of any widths. No gradient flows into them.
        mask: Boolean [B, S], true where the token counts.
        heads: the number of relation heads, which divides all widths.
        causal: whether a relation covers only a token itself and the earlier ones.
    """
    frozen = [states.detach() for states in teacher]
    total = _RelationLoss.apply(  # type: ignore[no-untyped-call]  # apply has no types
        *student, frozen, mask, heads, causal, torch.is_grad_enabled()
    )
    return Term(total, mask.sum())


class _RelationLoss(torch.autograd.Function):
    """The loss as one autograd node, whose forward computes value and gradients together."""

    @staticmethod
    def forward(  # noqa: PLR0917  (apply takes no keywords)
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        teacher: Sequence[Tensor],
        mask: Tensor,
        heads: int,
        causal: bool,  # noqa: FBT001  (as above)
        grad_enabled: bool,  # noqa: FBT001
    ) -> Tensor:
        total, gradients = torch.zeros((), device=mask.device), []
        with torch.autocast(mask.device.type, enabled=False):
            for index, states in enumerate((queries, keys, values)):
                needed = grad_enabled and ctx.needs_input_grad[index]
                ours, theirs = (_by_head(each, mask, heads) for each in (states, teacher[index]))
                gradient = torch.zeros_like(ours) if needed else None
                total = total + _add_blocks(ours, theirs, mask, heads, gradient, causal=causal)
                gradients.append(None if gradient is None else _joined(gradient, states))
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [g if g is None else g.mul_(grad_total) for g in ctx.saved_tensors]
        return *scaled, None, None, None, None, None


def _by_head(states: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Return states [B, S, width] as [B · heads, S, d], wide, zero where the mask is false."""
    batch, length, width = states.shape
    wide = states.detach() if states.dtype == torch.float64 else states.detach().float()
    wide = wide.masked_fill(~mask.unsqueeze(-1), 0.0)
    split = wide.view(batch, length, heads, width // heads).transpose(1, 2)
    return split.reshape(batch * heads, length, width // heads)


def _joined(gradient: Tensor, like: Tensor) -> Tensor:
    """Undo `_by_head`, in the shape and precision of the states."""
    batch, length, width = like.shape
    heads = len(gradient) // batch
    split = gradient.view(batch, heads, length, width // heads).transpose(1, 2)
    return split.reshape(batch, length, width).to(like.dtype)


def _add_blocks(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    heads: int,
    gradient: Tensor | None,
    *,
    causal: bool,
) -> Tensor:
    """Return one kind of relation's sum, block by block; add to the student's gradient."""
    groups, length, size = student.shape
    total = student.new_zeros(())
    at_once = max(_BLOCK // max(length * length, 1), 1)
    rows_at_once = max(min(length, _BLOCK // max(length, 1)), 1)
    positions = torch.arange(length, device=mask.device)
    batch_of = torch.arange(groups, device=mask.device) // heads
    lowest = torch.finfo(student.dtype).min
    for first in range(0, groups, at_once):
        part = slice(first, first + at_once)
        attended = mask[batch_of[part]]
        for start in range(0, length, rows_at_once):
            rows = slice(start, start + rows_at_once)
            hidden = ~attended[:, None, :]
            if causal:
                hidden = hidden | (positions[None, None, :] > positions[rows][None, :, None])
            logs = [
                # Lowest, not -inf: what both can't see adds 0 · 0 and not 0 · NaN.
                torch.bmm(states[part, rows], states[part].transpose(1, 2))
                .mul_(states.shape[-1] ** -0.5)
                .masked_fill_(hidden, lowest)
                .log_softmax(-1)
                for states in (student, teacher)
            ]
            counted = attended[:, rows]
            target, excess = logs[1].exp(), logs[1].sub_(logs[0])
            divergence = excess.mul_(target).sum(-1)
            total += torch.where(counted, divergence, 0.0).sum() / heads
            if gradient is None:
                continue
            slope = logs[0].exp_().sub_(target)
            slope.mul_(counted.unsqueeze(-1)).mul_(size**-0.5 / heads)
            gradient[part, rows] += torch.bmm(slope, student[part])
            gradient[part] += torch.bmm(slope.transpose(1, 2), student[part, rows])
    return total
