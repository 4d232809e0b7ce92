"""How much a model's loss depends on each attention head, feed-forward neuron and hidden unit.

The sensitivity of a part is E |∂L/∂g · g| with a gate g = 1 on what the part puts out: how far the
loss of one example moves, to first order, if the part is taken away (Molchanov et al.; Michel et
al. for heads). A gate on an output is one number for all of the part's weights, and needs no
gradient of weights, so a few hundred examples take seconds to minutes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from angels_share.errors import RunFailed
from distil_trainer.models.families import family_of


class Importance(NamedTuple):
    """Sensitivities in float64, larger where the loss depends more on a part."""

    heads: Tensor
    """[layers, heads]."""
    neurons: Tensor
    """[layers, feed-forward width]."""
    units: Tensor
    """[width]: of the hidden state that all layers read and write."""


@dataclass
class _Gates:
    """Gates of one part of the model, made anew for each batch: one per example."""

    shape: tuple[int, ...]
    values: Tensor | None = None

    def applied(self, states: Tensor) -> Tensor:
        """Return states [B, S, K] times gates of one, from which a gradient can be asked."""
        self.values = states.new_ones((len(states), *self.shape)).requires_grad_()
        split = states.view(*states.shape[:2], *self.shape)
        gated: Tensor = split * self.values.unsqueeze(1)
        return gated.flatten(2)


def measure_importance(
    model: PreTrainedModel,
    batches: Iterable[Any],
    loss: Callable[[Any], Tensor],
    *,
    squared: bool = False,
) -> Importance:
    """Return how much a loss depends on each part of a model.

    Args:
        model: a model of a supported family, with any head; it is left unchanged.
        batches: batches of examples, in any form.
        loss: runs the model on a batch and returns a scalar, a sum over its examples. No example's
            term may depend on the others of its batch.
        squared: average the slopes' squares instead of their sizes.

    Raises:
        RunFailed: a sensitivity is not finite.
    """
    with _gates_on(model) as (heads, neurons, units):
        parts = (*heads, *neurons, *units)
        totals: list[Tensor] = []
        examples = 0
        for batch in batches:
            value = loss(batch)
            gates = [part.values for part in parts]
            found = torch.autograd.grad(value, [gate for gate in gates if gate is not None])
            examples += len(found[0])
            for index, gradient in enumerate(found):
                by_part = gradient.flatten(2).sum(-1) if gradient.dim() > 2 else gradient
                sizes = by_part.detach().float().abs()
                score = (sizes.square() if squared else sizes).sum(0).cpu().double()
                if index == len(totals):
                    totals.append(score)
                else:
                    totals[index] += score
    layers, means = len(heads), [total / examples for total in totals]
    if not all(bool(mean.isfinite().all()) for mean in means):
        raise RunFailed(
            "a part's importance is not finite: the model's outputs, or its loss, are not"
        )
    return Importance(
        torch.stack(means[:layers]),
        torch.stack(means[layers : 2 * layers]),
        torch.stack(means[2 * layers :]).sum(0),
    )


@contextmanager
def _gates_on(model: PreTrainedModel) -> Iterator[tuple[list[_Gates], list[_Gates], list[_Gates]]]:
    """Gate heads, neurons, and the norms' outputs, through which every layer reads its input."""
    family, config = family_of(model), model.config
    shape, size = family.shape(config), family.head_size(config)
    heads: list[_Gates] = []
    neurons: list[_Gates] = []
    units: list[_Gates] = []
    handles = []
    for layer in family.layers(model):
        for gates, name, parts in (
            (heads, family.layer.attention_output, (shape.heads, size)),
            (neurons, family.layer.feed_forward_output, (shape.ffn,)),
        ):
            gate = _Gates(parts)
            gates.append(gate)
            module = layer.get_submodule(name)
            handles.append(module.register_forward_pre_hook(_before(gate)))
    for norm in norms_of_width(family.body(model), shape.width):
        gate = _Gates((shape.width,))
        units.append(gate)
        handles.append(norm.register_forward_hook(_after(gate)))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    was_training = model.training
    model.requires_grad_(requires_grad=False).eval()
    try:
        yield heads, neurons, units
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.requires_grad_()
        model.train(was_training)


def _before(gate: _Gates) -> Any:
    def hook(_module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return gate.applied(inputs[0]), *inputs[1:]

    return hook


def _after(gate: _Gates) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return gate.applied(output)

    return hook


def norms_of_width(body: nn.Module, width: int) -> list[nn.Module]:
    """Return the norms of hidden states in a model; norms of single heads are not among them."""
    return [
        module
        for name, module in body.named_modules()
        if "Norm" in type(module).__name__
        and not name.endswith(("q_norm", "k_norm"))
        and getattr(module, "weight", torch.empty(0)).shape == (width,)
    ]
