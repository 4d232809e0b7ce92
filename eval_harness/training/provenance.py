"""Provenance of a result including what only torch knows: threads and device."""

from typing import Any

import torch

from angels_share.provenance import provenance


def provenance_on(device: torch.device) -> dict[str, Any]:
    """Return the versions of code and libraries, the machine, its threads and the device."""
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else device.type
    return provenance(threads=torch.get_num_threads(), device=name)
