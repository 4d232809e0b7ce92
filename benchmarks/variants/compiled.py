"""Our step with the bodies of student and teacher compiled by torch."""

from collections.abc import Callable

from torch import Tensor, nn

from benchmarks.setting import Batch, Pair, Recipe
from benchmarks.variants import ours
from benchmarks.variants.ours import token_batches

__all__ = ["make_objective", "token_batches"]


def make_objective(
    pair: Pair, recipe: Recipe, *, restrict: bool
) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """Return the student, and the function of a batch that gives its loss."""
    for model in pair:
        model.base_model.compile()
    return ours.make_objective(pair, recipe, restrict=restrict)
