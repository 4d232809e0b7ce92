"""Losses by which the parts of a model are scored before some are cut.

Each is a sum over the examples of a batch, of a model whose parts have gates (see
`models.importance`). Three of the four need no labels:

- `labels`: cross-entropy with true labels; for a masked language model, with hidden words.
- `output`: KL(q ‖ p), q the model's own output and p its output with dropout.
- `fisher`: cross-entropy with labels that are drawn from the model's own output; its squared
  slopes are the diagonal of Fisher's matrix, the second-order term of KL.
- `kl`: KL(q ‖ p), q the output of the model before any cut. At the first cut p is q, where KL has
  its minimum and so no slope: what would be ranked is rounding.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from angels_share.inputs import chosen, inputs_of
from distil_trainer.objectives.losses import IGNORED

Batch = Mapping[str, Tensor]


class Scorer(NamedTuple):
    """A loss, and what is averaged over examples: slopes' sizes or their squares."""

    loss: Callable[[Batch], Tensor]
    is_squared: bool = False


def scorer(
    name: str, model: PreTrainedModel, original: PreTrainedModel, generator: torch.Generator
) -> Scorer:
    """Return the loss of a name.

    Args:
        name: one of those above.
        model: the model to be cut.
        original: the model before any cut.
        generator: draws labels; dropout draws from the global generator.
    """

    def by_labels(batch: Batch) -> Tensor:
        return _cross_entropy(_logits(model, batch), batch["labels"])

    def by_output(batch: Batch) -> Tensor:
        with torch.no_grad():
            targets = _logits(model, batch)
        model.train()
        try:
            return _divergence(targets, _logits(model, batch))
        finally:
            model.eval()

    def by_fisher(batch: Batch) -> Tensor:
        logits = _logits(model, batch)
        if _is_regression(model):
            # Of a normal distribution of variance 1 around the output.
            noise = torch.randn(logits.shape, generator=generator).to(logits)
            return 0.5 * (logits - (logits.detach() + noise)).square().sum()
        drawn = _draw(logits.detach(), generator)
        return _cross_entropy(logits, drawn)

    def by_divergence(batch: Batch) -> Tensor:
        with torch.no_grad():
            targets = _logits(original, batch)
        return _divergence(targets, _logits(model, batch))

    return {
        "labels": Scorer(by_labels),
        "output": Scorer(by_output),
        "fisher": Scorer(by_fisher, is_squared=True),
        "kl": Scorer(by_divergence),
    }[name]


def _is_regression(model: PreTrainedModel) -> bool:
    sequence = type(model).__name__.endswith("ForSequenceClassification")
    return sequence and model.config.num_labels == 1


def _logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return a model's logits [rows, classes], without those of padding.

    Question answering is two classifications over a text's positions, padding ruled out.
    """
    output = model(**chosen(batch, inputs_of(model)))
    attended = batch["attention_mask"].bool()
    if "start_logits" in output:
        both = torch.cat([output.start_logits, output.end_logits])
        return both.masked_fill(~attended.repeat(2, 1), torch.finfo(both.dtype).min)
    logits: Tensor = output.logits
    if logits.dim() == 3:
        # Rows of padding stay, since examples' gates are told apart by the batch; they have no
        # label and, all alike, no divergence.
        logits = logits * attended.unsqueeze(-1)
    return logits.flatten(0, -2)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.is_floating_point():
        return (logits.flatten() - labels.flatten()).square().sum()
    return torch.nn.functional.cross_entropy(
        logits, labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def _divergence(targets: Tensor, logits: Tensor) -> Tensor:
    if targets.shape[-1] == 1:
        return (targets - logits).square().sum()
    log_target, log_found = targets.log_softmax(-1), logits.log_softmax(-1)
    return (log_target.exp() * (log_target - log_found)).sum()


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return a class of each row, drawn with the model's own probabilities."""
    probabilities = logits.softmax(-1).cpu()
    return torch.multinomial(probabilities, 1, generator=generator).flatten().to(logits.device)
