"""The step as DistilTrainer does it: its own objective, and its own batches of similar length."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from benchmarks.setting import Batch, Pair, Recipe, Size
from distil_trainer.data.batches import BatchPlan
from distil_trainer.objectives.language_model import LanguageModelObjective


def make_objective(
    pair: Pair, recipe: Recipe, *, restrict: bool
) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """Return the student, and the function of a batch that gives its loss."""
    objective = LanguageModelObjective(
        pair.student, temperature=recipe.temperature, restrict_to_mask=restrict, soft=recipe.ce > 0
    )
    alphas = {"alpha_ce": recipe.ce, "alpha_mlm": recipe.mlm, "alpha_cos": recipe.cos}

    def loss(batch: Batch) -> Tensor:
        prepared = objective.prepare(batch._asdict())  # on the CPU, as the Trainer does
        weights = [
            alphas.get(name, 0.0) / max(int(count), 1)
            for name, count in zip(objective.weight_names, objective.counts(prepared), strict=True)
        ]
        moved = {name: value.to(pair.student.device) for name, value in prepared.items()}
        states = objective.run_teacher(pair.teacher, moved)
        return objective(moved, [states], weights).objective

    return pair.student, loss


def token_batches(size: Size, lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the batches of `tokens_per_batch`."""
    plan = BatchPlan(lengths, tokens_per_batch=size.tokens, seed=2)
    yield from plan.epoch_batches(0, 0)
