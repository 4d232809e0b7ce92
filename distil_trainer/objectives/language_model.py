"""What the student is trained on: its body, its head and the losses in one forward.

The module that DDP or torch.compile wraps must hold all of it, since a gradient that is made
outside is not reduced among processes. So `LanguageModelObjective` is what the Trainer calls its
model; it holds the student and nothing else, and its forward gives the weighted objective with
the sums of its terms. Teachers stay outside: they are no part of what is trained or saved.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_trainer.models.families import Family, family_of
from distil_trainer.objectives.losses import IGNORED, hidden_cosine
from distil_trainer.objectives.vocab_head import (
    Decoder,
    HeadLosses,
    HeadWeights,
    head_losses,
    order_rows,
)
from distil_trainer.recipe import Mode

Batch = dict[str, Any]


class Outcome(NamedTuple):
    """What a forward gives: the objective to descend, and what it is made of, for the record."""

    objective: Tensor
    sums: Tensor
    """Of each of the objective's terms."""
    agreement: Tensor
    """At how many labelled rows both put the same token first; 0 where nobody asked."""
    logits: Any = None
    """What a task's metrics are computed from; a language model's logits never exist."""


class TeacherStates(NamedTuple):
    """What a student needs of a teacher for one batch."""

    hidden: Tensor
    """[B, S, H], the last hidden state."""
    rows: Tensor
    """[N, H], what its head hands to its decoder, for the rows that have soft targets."""
    decoder: Decoder


class Objective(nn.Module):
    """A student and its losses in one module, with the little that the Trainer asks of a model."""

    weight_names: tuple[str, ...]
    """The argument that weighs each term, in the order of every vector of sums and counts.

    Soft targets come first, true labels second.
    """
    mode: Mode

    def __init__(self, student: PreTrainedModel) -> None:
        super().__init__()
        self.student = student

    def prepare(self, batch: Batch) -> Batch:
        """Adds to a batch on the CPU what would make a GPU wait."""
        return batch

    def counts(self, batch: Batch) -> Tensor:
        """Over how many positions each term is summed in a prepared batch."""
        raise NotImplementedError

    def ask(self, teacher: PreTrainedModel, batch: Batch) -> Any:
        """What the objective needs of a teacher for a batch; without gradient."""
        raise NotImplementedError

    @property
    def config(self) -> Any:
        """The student's."""
        return self.student.config

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Lets the student recompute its layers' states instead of keeping them."""
        self.student.gradient_checkpointing_enable(**settings)

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        """The newer name of the same."""
        self.student.activation_checkpointing_enable(**settings)


class LanguageModelObjective(Objective):
    """Masked or causal language modelling under teachers."""

    def __init__(
        self, student: PreTrainedModel, *, temperature: float, restrict_to_mask: bool, soft: bool
    ) -> None:
        """Holds the student.

        Args:
            student: a language model of one of our families.
            temperature: T of the soft targets.
            restrict_to_mask: whether logits are compared with a teacher's at labelled rows only.
            soft: whether any term compares them at all.
        """
        super().__init__(student)
        self.family: Family = family_of(student)
        self.temperature = temperature
        self.mode: Mode = "causal" if self.family.causal else "masked"
        hard = "alpha_clm" if self.family.causal else "alpha_mlm"
        self.weight_names = ("alpha_ce", hard, "alpha_mse", "alpha_cos")
        self._everywhere = soft and not restrict_to_mask

    def prepare(self, batch: Batch) -> Batch:
        """Adds the rows that the head works on."""
        labels = batch["labels"]
        if self.family.causal:  # a row predicts the token after it
            labels = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        attended = batch["attention_mask"].bool()
        labels = labels.masked_fill(~attended, IGNORED)  # padding on the left predicts nothing
        wanted = attended if self._everywhere else labels != IGNORED
        rows = order_rows(labels, wanted)
        return {**batch, "head_rows": rows.positions, "head_labels": rows.labels}

    def counts(self, batch: Batch) -> Tensor:
        """Rows with soft targets, with labels, with soft targets again, and attended ones."""
        soft, attended = len(batch["head_rows"]), len(batch["attended_rows"])
        return torch.tensor([soft, len(batch["head_labels"]), soft, attended])

    @torch.no_grad()
    def ask(self, teacher: PreTrainedModel, batch: Batch) -> TeacherStates:
        """A teacher's view of a batch, with its own inputs and in its own precision."""
        family = family_of(teacher)
        hidden = last_hidden_state(teacher, family, batch)
        rows = hidden.flatten(0, 1).index_select(0, batch["head_rows"])
        decoder = Decoder(*family.decoder(teacher))
        return TeacherStates(hidden, family.transform(teacher, rows), decoder)

    def forward(
        self,
        batch: Batch,
        teachers: Sequence[TeacherStates],
        weights: Sequence[float | Tensor],
        *,
        want_agreement: bool = False,
    ) -> Outcome:
        """The objective of one micro-batch and the sums of its terms.

        Args:
            batch: prepared by `prepare`.
            teachers: their states; empty where no term looks at a teacher.
            weights: of each term, its alpha over its count in the whole accumulated batch;
                the number 0.0 switches a term off.
            want_agreement: also count where student and teacher put the same token first.
        """
        *head_weights, cos = weights
        hidden = last_hidden_state(self.student, self.family, batch).flatten(0, 1)
        head = self._head(hidden, teachers, batch, HeadWeights(*head_weights), agree=want_agreement)
        objective, cosine = head.objective, head.objective.new_zeros(())
        if not _is_off(cos):
            attended = batch["attended_rows"]
            ours = hidden.index_select(0, attended)
            theirs = teachers[0].hidden.flatten(0, 1).index_select(0, attended)
            everywhere = torch.ones_like(attended, dtype=torch.bool)
            term = hidden_cosine(ours, theirs, everywhere)
            objective = objective + cos * term.total
            cosine = term.total.detach()
        sums = torch.stack([head.ce.total, head.hard.total, head.mse.total, cosine])
        return Outcome(objective, sums, head.agreement.total)

    def _head(
        self,
        hidden: Tensor,
        teachers: Sequence[TeacherStates],
        batch: Batch,
        weights: HeadWeights,
        *,
        agree: bool,
    ) -> HeadLosses:
        positions, labels = batch["head_rows"], batch["head_labels"]
        if not agree and all(map(_is_off, weights)):
            # No logit is wanted, yet DDP wants a gradient, if only of zeros, for every parameter.
            positions, labels, teachers = positions[:0], labels[:0], ()
        losses: HeadLosses = head_losses(
            self.family.transform(self.student, hidden.index_select(0, positions)),
            Decoder(*self.family.decoder(self.student)),
            [(teacher.rows, teacher.decoder) for teacher in teachers],
            labels,
            weights=weights,
            temperature=self.temperature,
            want_agreement=agree,
        )
        return losses


def attended(batch: Batch) -> int:
    """How many of a batch's tokens are no padding."""
    if "attended_rows" in batch:
        return len(batch["attended_rows"])
    mask = batch.get("attention_mask")
    return int(mask.sum()) if mask is not None else batch["input_ids"].numel()


def _is_off(weight: float | Tensor) -> bool:
    return not isinstance(weight, Tensor) and weight == 0


def last_hidden_state(model: PreTrainedModel, family: Family, batch: Mapping[str, Any]) -> Tensor:
    """The body's output [B, S, H]; the head is left out."""
    hidden: Tensor = family.body(model)(**family.model_inputs(batch)).last_hidden_state
    return hidden
