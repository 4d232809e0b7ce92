"""Lets torchvision be imported where its compiled operators don't fit this build of torch.

torchdistill imports torchvision, and so does transformers wherever it is installed. No model here
uses it, but without its operators (a torch for CPUs beside a torchvision for GPUs) it can't even be
imported. Their names are declared then; a call would fail.
"""

from importlib.util import find_spec

import torch

if find_spec("torchvision") is not None:
    try:
        import torchvision
    except RuntimeError:
        _declared = torch.library.Library("torchvision", "DEF")  # for as long as the process
        for name in ("nms", "qnms"):
            _declared.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        import torchvision  # noqa: F401
