"""What tells every Trainer of transformers that the loss is normalised already; imports no torch.

Both packages' trainers divide by a count over the whole accumulated batch, so the Trainer must not
divide by the number of micro-batches again.
"""

from typing import Any


class ScaledLoss:
    """A base, before Trainer, of trainers whose `compute_loss` normalises over the update."""

    loss_is_scaled_for_ga = True

    def training_step(self, *inputs: Any, **named: Any) -> Any:
        """Compute a micro-batch's loss and gradient, which nothing divides any more."""
        # transformers 5.17 and 5.18 know no `loss_is_scaled_for_ga`: they divide by this number,
        # which they set before each update and use for nothing else. Their other way to switch the
        # division off, `model_accepts_loss_kwargs`, would hand evaluation a count of labels, too.
        # This method can go with the last version that lacks the attribute.
        self.current_gradient_accumulation_steps = 1
        trainer: Any = super()
        return trainer.training_step(*inputs, **named)
