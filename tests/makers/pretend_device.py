"""A device that computes on the CPU, but has no float64 and shares no memory with the CPU.

Run as a script it trains and evaluates there and on the CPU, and prints as JSON what each logged:
`python tests/makers/pretend_device.py OUT_DIR masked rte`. A process of its own, since torch never
forgets such a device.
"""

import importlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
import updates
import worlds
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"


class Module:
    """What torch asks of `torch.pretend`."""

    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16])
    get_rng_state = staticmethod(lambda device=None: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, device=None: torch.set_rng_state(state))


class OnDevice(torch.Tensor):
    """A tensor of the device; `held`, on the CPU, is its content."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=f"{NAME}:0",
        )

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"OnDevice({self.held})"

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func, args, kwargs):
    """Run an operation on what the tensors hold; its result is on the device if they are."""
    if func._schema.name in ("aten::pin_memory", "aten::_pin_memory"):
        return args[0]  # all its memory is reached alike
    known = {}

    def inside(value):
        if isinstance(value, OnDevice):
            known[id(value.held)] = value
            return value.held
        # As on a GPU, only a number may come from the CPU; a copy is the exception.
        if isinstance(value, torch.Tensor) and value.ndim:
            strangers.append(value)
        return value

    def outside(value):
        if not isinstance(value, torch.Tensor) or isinstance(value, OnDevice):
            return value
        if value.dtype == torch.float64:
            raise TypeError(f"{func}: {NAME} has no float64")
        return known.get(id(value)) if id(value) in known else OnDevice(value)

    strangers = []
    device = kwargs.get("device")
    args, kwargs = tree_map(inside, (args, kwargs))
    copies = func._schema.name in ("aten::copy_", "aten::_to_copy")
    if known and strangers and not copies:
        raise RuntimeError(f"{func}: tensors of {NAME} and of the CPU")
    if device is not None:
        kwargs["device"] = "cpu"
    result = func(*args, **kwargs)
    there = bool(known) if device is None else torch.device(device).type == NAME
    number = func is torch.ops.aten._local_scalar_dense.default
    into_cpu = func._schema.name == "aten::copy_" and id(args[0]) not in known
    return tree_map(outside, result) if there and not number and not into_cpu else result


class Dispatch(TorchDispatchMode):
    """Also catches what makes tensors from nothing."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class FromNumbers(TorchFunctionMode):
    """Makes tensors from numbers on the CPU first: torch does it where no dispatch mode sees it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            made = func(*args, **kwargs)
            return made if device is None else made.to(device)
        if func is torch.Tensor.new_tensor and isinstance(args[0], OnDevice):
            made = torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype))
            return made.to(args[0].device)
        return func(*args, **kwargs)


@contextmanager
def in_use():
    """Let accelerate choose the device, and the harness think that it is on a Mac."""
    mac = mock.patch.object(torch.backends.mps, "is_available", return_value=True)
    device = mock.patch.dict(os.environ, {"ACCELERATE_TORCH_DEVICE": f"{NAME}:0"})
    with device, mac, Dispatch(), FromNumbers():
        yield


def distilled(kind, folder, **settings):
    """Train one update and evaluate; return the device and what was logged."""
    held_out = updates.pair(kind)[2]
    trainer = updates.trainer_for(kind, folder, eval_data=held_out, logging_steps=1, **settings)
    trainer.train()
    trainer.evaluate()
    logged = {}
    for entry in trainer.state.log_history:
        logged |= entry
    timed = ("runtime", "per_second", "wait_share", "flos")
    logged = {name: value for name, value in logged.items() if not name.endswith(timed)}
    return {"device": trainer.student.device.type, **logged}


def fine_tuned(world, task, **rest):
    """Fine-tune and evaluate in the harness; return the device and what was recorded."""
    if task == "squad":
        run = worlds.run_on_questions(world / "squad", world / "bert", **rest)
    else:
        run = worlds.run_on(world / "glue", world / "bert", task, **rest)
    runner = importlib.import_module("eval_harness.training.runner")
    result, _ = runner.run_task(run, lambda share: None)
    losses = {f"loss_{entry['step']}": entry["loss"] for entry in result.history}
    return {"device": result.provenance["device"], "score": result.score, **losses}


def both(folder, *names):
    """Return what each kind of objective or task logs on the CPU and there, from a new process."""
    command = [sys.executable, __file__, str(folder), *names]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def main(folder, *names):
    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    # Before the harness is imported: tensors that are objects of Python have no views under it.
    torch.inference_mode = torch.no_grad
    # A parameter stays the same object when it is moved, so tied weights stay tied.
    torch.__future__.set_swap_module_params_on_conversion(True)
    found = {}
    for name in names:
        if name in updates.KINDS:
            found[name] = {"cpu": distilled(name, folder, use_cpu=True)}
            with in_use():
                found[name][NAME] = distilled(name, folder, use_cpu=False)
            continue
        world = folder / "world"
        if not world.exists():
            worlds.make(world)
        found[name] = {"cpu": fine_tuned(world, name, given={"num_train_epochs": 1})}
        with in_use():
            found[name][NAME] = fine_tuned(world, name, given={"num_train_epochs": 1})
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
