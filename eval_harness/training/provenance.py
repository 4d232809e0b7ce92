"""Provenance of a result including what only torch knows: threads and device."""

from typing import Any

import torch

from angels_share.provenance import provenance, versions_of


def provenance_on(device: torch.device, *, onnx: bool = False) -> dict[str, Any]:
    """Return the versions of code and libraries, the machine, its threads and the device.

    Args:
        device: where it was computed.
        onnx: whether onnxruntime computed it, so that its version matters, too.
    """
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else device.type
    found = provenance(threads=torch.get_num_threads(), device=name)
    if onnx:
        found["libraries"] = {**found["libraries"], **versions_of(("onnxruntime",))}
    return found
