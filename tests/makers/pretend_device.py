"""A device that computes on the CPU, but has no float64 and shares no memory with the CPU.

Run as a script it trains and evaluates there and on the CPU, and prints as JSON what each logged:
`python tests/makers/pretend_device.py OUT_DIR masked rte`. `waits:masked` prints instead, for each
time that the host would wait for a GPU in one update, the operation and the lines that ask.
A process of its own, since torch never forgets such a device.
"""

import importlib
import json
import os
import subprocess
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
import transformers
import updates
import worlds
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import distil_trainer.training.trainer

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


# The result's size depends on values, so a GPU's host has to know these before it can go on.
ASKS = {
    "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::unique",
    "aten::_unique2", "aten::masked_select", "aten::repeat_interleave", "aten::bincount",
}  # fmt: skip
waits = []
"""What the host waited for: the operation, and the lines that led to it."""


def _waits(func, args, kwargs):
    """Return whether a GPU's host would wait at an operation until the GPU has got there."""
    name = func._schema.name
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    there = [isinstance(each, OnDevice) for each in tensors]
    if name in ("aten::copy_", "aten::_to_copy"):
        if name == "aten::copy_":
            target, source, *blocking = args
            crosses = isinstance(target, OnDevice) != isinstance(source, OnDevice)
            asynchronous = bool(blocking and blocking[0]) or kwargs.get("non_blocking", False)
        else:
            source, device = args[0], kwargs.get("device")
            crosses = device is not None and (
                isinstance(source, OnDevice) != (torch.device(device).type == NAME)
            )
            asynchronous = kwargs.get("non_blocking", False)
        pageable = not isinstance(source, OnDevice) and not hasattr(source, "pinned")
        return crosses and (not asynchronous or pageable)
    if not any(there):
        return False
    if name in ("aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"):
        indices = [each for each in args[1] if each is not None]
        by_mask = any(each.dtype in (torch.bool, torch.uint8) for each in indices)
        return by_mask or not all(isinstance(each, OnDevice) for each in indices)
    # where() copies a number from the CPU first.
    return name in ASKS or (name == "aten::where" and not all(there))


def compute(func, args, kwargs):
    """Run an operation on what the tensors hold; its result is on the device if they are."""
    if func._schema.name in ("aten::pin_memory", "aten::_pin_memory"):
        pinned = args[0].clone()
        pinned.pinned = True
        return pinned
    if func._schema.name == "aten::is_pinned":
        return hasattr(args[0], "pinned")
    if _waits(func, args, kwargs):
        waits.append((func._schema.name, _lines()))
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


def _lines():
    """Return the innermost lines of code that isn't torch's or this file's."""
    frames = [
        f"{Path(frame.filename).name}:{frame.name}: {frame.line}"
        for frame in traceback.extract_stack()
        if "/torch/" not in frame.filename and frame.filename != __file__
    ]
    return frames[-3:]


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


class OfAnUpdate(transformers.TrainerCallback):
    """Keeps what the host waited for in each update, from the end of the one before."""

    def __init__(self):
        self.updates = []

    def on_step_end(self, args, state, control, **_):
        self.updates.append(list(waits))
        waits.clear()


def waits_of(kind, folder, **settings):
    """Return what the host waits for in an update: the second, of two micro-batches."""
    seen = OfAnUpdate()
    settings = {
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "use_cpu": False,
    } | settings
    trainer_module = distil_trainer.training.trainer
    as_cuda = mock.patch.object(trainer_module, "ASYNCHRONOUS", {NAME})  # it copies as CUDA does
    with in_use(), as_cuda:
        trainer = updates.trainer_for(kind, folder, **settings)
        trainer.add_callback(seen)
        trainer.train()
    return seen.updates[1]


def asking():
    """Return how often each of these makes the host wait."""
    with in_use():
        there = torch.arange(3).to(f"{NAME}:0")
        mask, here = there > 1, torch.arange(3)
        ways = {
            "item": lambda: there[0].item(),
            "bool": lambda: bool(mask.all()),
            "tolist": lambda: there.tolist(),
            "nonzero": lambda: mask.nonzero(),
            "by mask": lambda: there[mask],
            "set by mask": lambda: there.clone().index_put_((mask,), there[:1]),
            "cpu": lambda: there.cpu(),
            "blocking copy": lambda: here.pin_memory().to(there.device),
            "pageable copy": lambda: here.to(there.device, non_blocking=True),
            "copied into": lambda: there.clone().copy_(here),
            "made there": lambda: torch.tensor([1.0], device=there.device),
            "pinned copy": lambda: here.pin_memory().to(there.device, non_blocking=True),
            "copy back": lambda: there.to("cpu", non_blocking=True),
            "filled there": lambda: torch.full((2,), 1.0, device=there.device),
            "by index": lambda: there[there],
            "where": lambda: torch.where(mask, there, 0),
        }
        found = {}
        for name, way in ways.items():
            waits.clear()
            way()
            found[name] = len(waits)
    waits.clear()
    return found


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
        if name.startswith("waits:"):
            found[name] = waits_of(name.removeprefix("waits:"), folder)
            continue
        if name == "asking":
            found[name] = asking()
            continue
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
