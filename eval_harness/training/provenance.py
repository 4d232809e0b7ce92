"""The part of a number's provenance that only torch knows: threads and device."""

from typing import Any

import torch

from angels_share.provenance import provenance


def provenance_on(device: torch.device) -> dict[str, Any]:
    """Return code, libraries, machine, and this process's threads and device."""
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else device.type
    return provenance(threads=torch.get_num_threads(), device=name)
