"""A student that is spread over the processes (FSDP2): each holds its part of every weight.

With a weight go its gradient and the optimizer's state. torch's `fully_shard` is called here, by
the trainer itself, and not through accelerate: that one has FSDP for some kinds of device only, and
on the others, CPUs among them, runs DDP without a word. So what the tests run on CPUs is what runs
on GPUs. Teachers stay whole in every process: the head reads their decoders outside of a forward.

What is saved is whole, and the same as of a run that isn't sharded: a checkpoint can be read by any
number of processes, by transformers, and without a pickle (torch's own sharded format has one).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from distil_trainer.objectives.language_model import LanguageModelObjective


def shard(objective: LanguageModelObjective, device: torch.device) -> None:
    """Spread a student over all processes; they begin with the first one's weights.

    A layer's weights are gathered while it computes. Those of the embeddings and the head stay
    gathered from the forward to the end of the backward, since the head reads them in between.

    Args:
        objective: what is trained; one that is sharded already is left as it is.
        device: this process's.
    """
    if isinstance(objective, FSDPModule):
        return
    for value in (*objective.parameters(), *objective.buffers()):
        torch.distributed.broadcast(value.detach(), src=0)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in objective.student.get_submodule(objective.family.paths.layers).children():
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def whole(value: Tensor) -> Tensor:
    """Return all of a tensor; every process must ask for it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_weights(objective: nn.Module, model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """Return a sharded model's weights, whole and on the CPU; every process must ask for them.

    Args:
        objective: the module that was sharded.
        model: the student in it.
        keep: whether this process needs them; the others get nothing.
    """
    _reshard(objective)
    # By identity, so that weights that are tied stay tied.
    gathered: dict[int, Tensor] = {}
    weights = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in gathered:
            everything = whole(value.detach())
            gathered[id(value)] = everything.cpu() if keep else everything.new_empty(0)
        weights[name] = gathered[id(value)]
    return weights if keep else {}


def load_weights(objective: nn.Module, model: nn.Module, file: Path) -> None:
    """Read a file of whole weights into a sharded model.

    Args:
        objective: the module that was sharded.
        model: the student in it.
        file: safetensors.
    """
    _reshard(objective)
    stored = safetensors.torch.load_file(file)
    with torch.no_grad():
        for name, value in model.state_dict(keep_vars=True).items():
            if name in stored:  # of weights that are tied, the file has one
                value.copy_(_like(stored[name], value))


def whole_state(optimizer: torch.optim.Optimizer, *, keep: bool) -> dict[str, Any]:
    """Return an optimizer's state, whole and on the CPU; every process must ask for it.

    Args:
        optimizer: the optimizer of a sharded model.
        keep: whether this process needs it; the others get nothing.
    """
    state = optimizer.state_dict()
    gathered: dict[int, dict[str, Any]] = {}
    for number, values in state["state"].items():
        gathered[number] = {}
        for name, value in values.items():
            everything = whole(value) if isinstance(value, Tensor) else value
            if keep:
                on_cpu = everything.cpu() if isinstance(everything, Tensor) else everything
                gathered[number][name] = on_cpu
    return {**state, "state": gathered} if keep else {}


def load_state(optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> None:
    """Give the optimizer of a sharded model its parts of a whole state.

    Args:
        optimizer: the optimizer.
        stored: what `whole_state` returned, or the state of an optimizer that isn't sharded.
    """
    weights = [each for group in optimizer.param_groups for each in group["params"]]
    parts = {
        number: {
            name: _like(value, weights[number]) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        for number, values in stored["state"].items()
    }
    optimizer.load_state_dict({**stored, "state": parts})


def _like(value: Tensor, weight: Tensor) -> Tensor:
    """Return this process's part of a whole tensor that belongs to a weight.

    One that isn't as large, such as the number of steps, belongs to no part of it.
    """
    if not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value
    # Every process has read all of it: nothing is sent.
    return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)


def _reshard(objective: nn.Module) -> None:
    """Let go of the weights that an evaluation has left gathered."""
    if isinstance(objective, FSDPModule):
        objective.reshard()
