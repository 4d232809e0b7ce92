"""Masks of padding in the form that models take without a question to the device.

transformers looks whether a mask [B, S] hides anything, once in every forward of a body: a GPU's
host waits for the answer. It asks nothing where there is no mask, and passes on one of
[B, 1, S, S] as it is. Whether a batch has padding is known on the CPU, before it is moved.
"""

from typing import Any

from torch import Tensor
from transformers import Cache, PreTrainedModel

from distil_trainer.models.families import FAMILIES


def hides_nothing(mask: Tensor, *, causal: bool = False) -> bool:
    """Return whether models may go without a mask of padding [B, S], which is on the CPU.

    Without one, attention can use the fastest kernels. In a causal model no token sees the padding
    on its right, so that needs no mask either.

    Args:
        mask: 1 at tokens, 0 at padding.
        causal: whether the models are causal.
    """
    if causal:
        return bool((mask[:, :-1] >= mask[:, 1:]).all()) and bool(mask[:, :1].all())
    return bool(mask.all())


def takes_whole_mask(model: PreTrainedModel) -> bool:
    """Return whether a model, whatever its head, gives every layer a mask [B, 1, S, S] as it is."""
    family = FAMILIES.get(model.config.model_type)
    decoder = getattr(model.config, "is_decoder", False)
    return family is not None and family.one_mask and not decoder


def whole_mask(model: PreTrainedModel, mask: Tensor) -> Tensor:
    """Return a mask of padding [B, S] as one that a model's attention takes unread, if it does.

    Other models, and other implementations of attention than sdpa, want [B, S] itself.
    """
    if mask.dim() != 2 or model.config._attn_implementation != "sdpa":
        return mask
    if not takes_whole_mask(model):
        return mask
    return mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1)


class NothingCached(Cache):
    """Keys and values of no earlier tokens, and none are kept.

    Without a cache and a mask transformers asks the device whether its own position numbers begin
    anew within a sequence, as if several were packed into one.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Return what is given."""
        return key_states, value_states

    def get_seq_length(self, *_: Any) -> int:
        """Return the number of earlier tokens."""
        return 0

    def get_query_offset(self, *_: Any) -> int:
        """Return where the new tokens begin."""
        return 0

    def get_mask_sizes(self, query_length: int, *_: Any) -> tuple[int, int]:
        """Return how many keys there are, and where they begin."""
        return query_length, 0
