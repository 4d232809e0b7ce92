"""The language-model objective: student body, vocabulary head and losses in one forward pass.

The module that DDP or torch.compile wraps must contain all of these, because gradients that are
computed outside of it are not reduced across processes. The Trainer's model is therefore the
`Objective`: it holds only the student, and its forward pass returns the weighted objective with the
sums of its terms. Teachers stay outside, since they are neither trained nor saved.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from angels_share.errors import UserError
from distil_trainer.data.rows import NOT_PASSED_ON
from distil_trainer.models.families import Family, config_of, family_of
from distil_trainer.models.padding import NothingCached, hides_nothing, whole_mask
from distil_trainer.objectives.losses import IGNORED, hidden_cosine
from distil_trainer.objectives.relations import Relations, captured_states, relation_loss
from distil_trainer.objectives.vocab_head import (
    Decoder,
    HeadLosses,
    HeadWeights,
    head_losses,
    order_rows,
)
from distil_trainer.recipe import Divergence, Mode

Batch = dict[str, Any]


class ObjectiveOutput(NamedTuple):
    """The result of a forward pass: the objective to minimise, and its parts for the log."""

    objective: Tensor
    sums: Tensor
    """One sum per term of the objective."""
    agreement: Tensor
    """Labelled rows where student and teacher rank the same token first; 0 if not counted."""
    logits: Any = None
    """Input of a task's metrics; None for language models, whose full logits are never built."""


class TeacherStates(NamedTuple):
    """A teacher's states for one batch, from which its soft targets are computed."""

    hidden: Tensor
    """[B, S, H], the last hidden state."""
    rows: Tensor
    """[N, H], the input of its decoder at the rows with soft targets."""
    decoder: Decoder
    attention: Sequence[Tensor] = ()
    """[B, S, width] of a layer's queries, keys and values, if relations are compared."""


class Objective(nn.Module):
    """A student and its losses in one module, with the methods that the Trainer needs."""

    weight_names: tuple[str, ...]
    """The training argument that weights each term, in the order of all sums and counts.

    Soft targets come first, true labels second.
    """
    mode: Mode

    def __init__(self, student: PreTrainedModel) -> None:
        super().__init__()
        self.student = student

    def prepare(self, batch: Batch) -> Batch:
        """Add to a batch, while it is on the CPU, what depends on its content.

        Computed on a GPU, these shapes would make the host wait for it.
        """
        return batch

    def counts(self, batch: Batch) -> Tensor:
        """Return the number of positions over which each term is summed in a prepared batch."""
        raise NotImplementedError

    def run_teacher(self, teacher: PreTrainedModel, batch: Batch, *, first: bool = True) -> Any:
        """Run a teacher on a batch without gradients; return what `forward` needs of it.

        Args:
            teacher: one of the teachers.
            batch: a prepared batch.
            first: whether it is the one whose states are compared, beside its soft targets.
        """
        raise NotImplementedError

    @property
    def config(self) -> Any:
        """The student's config."""
        return self.student.config

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Make the student recompute activations in the backward pass instead of storing them."""
        self.student.gradient_checkpointing_enable(**settings)

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        """Do the same under the newer name that transformers gives it."""
        self.student.activation_checkpointing_enable(**settings)


class LanguageModelObjective(Objective):
    """Masked or causal language modelling with soft targets from teachers."""

    def __init__(
        self,
        student: PreTrainedModel,
        *,
        temperature: float,
        restrict_to_mask: bool,
        soft: bool,
        divergence: Divergence = "kl",
        relations: Relations | None = None,
    ) -> None:
        """Wrap a student.

        Args:
            student: a language model of a supported family.
            temperature: T of the soft targets.
            restrict_to_mask: compare logits with a teacher's at labelled positions only.
            soft: whether any term compares logits with a teacher's.
            divergence: how L_ce measures the distance from the soft targets.
            relations: which relations are compared with the first teacher's, if any are.
        """
        super().__init__(student)
        self.family: Family = family_of(student)
        self.temperature = temperature
        self.divergence = divergence
        self.relations = relations
        self.mode: Mode = "causal" if self.family.causal else "masked"
        hard = "alpha_clm" if self.family.causal else "alpha_mlm"
        self.weight_names = ("alpha_ce", hard, "alpha_mse", "alpha_cos", "alpha_rel")
        self._soft_everywhere = soft and not restrict_to_mask
        if self.family.causal:
            # Where a text's end also pads (Qwen, SmolLM2), its embedding would get no gradient;
            # padding proper has none in any case, since no token attends to it.
            student.get_submodule(self.family.paths.word_embeddings).padding_idx = None

    def prepare(self, batch: Batch) -> Batch:
        """Add the rows on which the vocabulary head works, and their labels; drop an idle mask.

        The batch may be of any collator; one that has been prepared is returned unchanged.

        Raises:
            UserError: it has no labels, or a field that can't be honoured.
        """
        if "head_rows" in batch:
            return batch
        batch = {name: value for name, value in batch.items() if value is not None}
        _check_fields(batch)
        vocabulary = self.family.shape(self.student.config).vocabulary
        require_known_ids(batch["input_ids"], vocabulary)
        require_known_ids(batch["labels"], vocabulary, lowest=IGNORED)
        labels = batch["labels"]
        if self.family.causal:  # a row predicts the token after it
            labels = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        attended = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
        if "attended_rows" not in batch:
            batch["attended_rows"] = attended.reshape(-1).nonzero().squeeze(1)
        # After the shift, the last padding position on the left would predict the first token.
        labels = labels.masked_fill(~attended, IGNORED)
        rows = order_rows(labels, attended if self._soft_everywhere else labels != IGNORED)
        if hides_nothing(attended, causal=self.family.causal):
            batch.pop("attention_mask", None)
        return {**batch, "head_rows": rows.positions, "head_labels": rows.labels}

    def counts(self, batch: Batch) -> Tensor:
        """Return the positions of L_ce, of the labels, of L_mse, of L_cos and of L_rel."""
        soft, attended = len(batch["head_rows"]), len(batch["attended_rows"])
        return torch.tensor([soft, len(batch["head_labels"]), soft, attended, attended])

    @torch.no_grad()
    def run_teacher(
        self, teacher: PreTrainedModel, batch: Batch, *, first: bool = True
    ) -> TeacherStates:
        """Return a teacher's states for a batch, from the teacher's own inputs and precision."""
        family = family_of(teacher)
        layer = self.relations.teacher_layer if self.relations and first else None
        hidden, attention = _states(teacher, family, batch, layer)
        rows = hidden.flatten(0, 1).index_select(0, batch["head_rows"])
        decoder = Decoder(*family.decoder(teacher))
        return TeacherStates(hidden, family.transform(teacher, rows), decoder, attention)

    def forward(
        self,
        batch: Batch,
        teachers: Sequence[TeacherStates],
        weights: Sequence[float | Tensor],
        *,
        count_agreement: bool = False,
    ) -> ObjectiveOutput:
        """Return the objective of one micro-batch and the sums of its terms.

        Args:
            batch: a batch that went through `prepare`.
            teachers: the teachers' states; empty if no term needs them.
            weights: for each term its alpha divided by its count in the whole accumulated batch;
                the number 0.0 switches a term off.
            count_agreement: also count where student and teacher rank the same token first.
        """
        *head_weights, cos, rel = weights
        layer = None if _is_off(rel) or self.relations is None else self.relations.student_layer
        states, attention = _states(self.student, self.family, batch, layer)
        hidden = states.flatten(0, 1)
        head = self._head(
            hidden,
            teachers,
            batch,
            HeadWeights(*head_weights),
            count_agreement=count_agreement,
        )
        objective = head.objective
        cosine = related = objective.new_zeros(())
        if not _is_off(cos):
            attended = batch["attended_rows"]
            student_rows = hidden.index_select(0, attended)
            teacher_rows = teachers[0].hidden.flatten(0, 1).index_select(0, attended)
            everywhere = torch.ones_like(attended, dtype=torch.bool)
            term = hidden_cosine(student_rows, teacher_rows, everywhere)
            objective = objective + cos * term.total
            cosine = term.total.detach()
        if self.relations is not None and attention:
            nobody = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
            term = relation_loss(
                attention,
                teachers[0].attention,
                nobody.view(-1).index_fill(0, batch["attended_rows"], value=True).view_as(nobody),
                heads=self.relations.heads,
                causal=self.family.causal,
            )
            objective = objective + rel * term.total
            related = term.total.detach()
        sums = torch.stack([head.ce.total, head.hard.total, head.mse.total, cosine, related])
        return ObjectiveOutput(objective, sums, head.agreement.total)

    def _head(
        self,
        hidden: Tensor,
        teachers: Sequence[TeacherStates],
        batch: Batch,
        weights: HeadWeights,
        *,
        count_agreement: bool,
    ) -> HeadLosses:
        positions, labels = batch["head_rows"], batch["head_labels"]
        if not count_agreement and all(map(_is_off, weights)):
            # No term needs logits, but DDP needs a gradient, if only zeros, for every parameter.
            positions, labels, teachers = positions[:0], labels[:0], ()
        losses: HeadLosses = head_losses(
            self.family.transform(self.student, hidden.index_select(0, positions)),
            Decoder(*self.family.decoder(self.student)),
            [(teacher.rows, teacher.decoder) for teacher in teachers],
            labels,
            weights=weights,
            temperature=self.temperature,
            divergence=self.divergence,
            count_agreement=count_agreement,
        )
        return losses


# What a batch may hold; a special_tokens_mask has done its part where masks were made.
_KNOWN = (
    "input_ids", "labels", "attention_mask", "token_type_ids", "special_tokens_mask",
    "attended_rows",
)  # fmt: skip


def _check_fields(batch: Batch) -> None:
    for name in ("input_ids", "labels"):
        if name not in batch:
            raise UserError(f"a batch has {', '.join(batch)}, but no {name}")
    if refused := [name for name in NOT_PASSED_ON if name in batch]:
        raise UserError(f"a batch has {refused[0]}, which is not supported for a language model")
    if unknown := [name for name in batch if name not in _KNOWN]:
        raise UserError(
            f"a batch has {unknown[0]}, of which a language model makes no use; leave it out of "
            "the data set, or of what the data_collator returns"
        )
    shape = batch["input_ids"].shape
    for name in ("attention_mask", "labels", "token_type_ids"):
        if name in batch and batch[name].dim() != 2:
            raise UserError(
                f"a batch has {name} of {batch[name].dim()} dimensions, which is not supported"
            )
        if name in batch and batch[name].shape != shape:
            raise UserError(
                f"a batch has {name} of shape {tuple(batch[name].shape)} and input_ids of "
                f"{tuple(shape)}"
            )
    mask = batch.get("attention_mask")
    if mask is not None and not bool(((mask == 0) | (mask == 1)).all()):
        raise UserError("a batch has an attention_mask of other values than 0 and 1")


def require_known_ids(ids: Tensor, vocabulary: int, *, lowest: int = 0) -> None:
    """Refuse ids that no embedding or logit belongs to; a GPU would abort without saying which.

    Args:
        ids: token ids, on the CPU if the host is not to wait.
        vocabulary: the number of tokens.
        lowest: -100 for labels, where it means no target.

    Raises:
        UserError: an id is out of range.
    """
    allowed = (ids >= 0) & (ids < vocabulary) | (ids == lowest)
    if not bool(allowed.all()):
        kind = "label" if lowest else "token id"
        raise UserError(
            f"a batch has {kind} {int(ids[~allowed][0])}, but the student's vocabulary has "
            f"{vocabulary} tokens (0 and up): tokenize with the student's own tokenizer"
        )


def attended_tokens(batch: Batch) -> int:
    """Return the number of tokens in a batch that are not padding."""
    if "attended_rows" in batch:
        return len(batch["attended_rows"])
    mask = batch.get("attention_mask")
    return int(mask.sum()) if mask is not None else batch["input_ids"].numel()


def _is_off(weight: float | Tensor) -> bool:
    return not isinstance(weight, Tensor) and weight == 0


def _states(
    model: PreTrainedModel, family: Family, batch: Batch, layer: int | None
) -> tuple[Tensor, Sequence[Tensor]]:
    """Return a model's last hidden state, and a layer's queries, keys and values if one is named.

    Raises:
        UserError: they can't be had with these settings.
    """
    if layer is None:
        return last_hidden_state(model, family, batch), ()
    with captured_states(model, layer) as attention:
        hidden = last_hidden_state(model, family, batch)
    if any(each.shape[:2] != hidden.shape[:2] for each in attention):
        raise UserError(
            f"alpha_rel: the {config_of(model).model_type}'s attention "
            f"({model.config._attn_implementation}) drops padding before it computes queries: load "
            'it with attn_implementation="sdpa"'
        )
    if hidden.requires_grad and not attention[0].requires_grad:
        raise UserError(
            "alpha_rel: reentrant gradient checkpointing passes no gradient to a layer's queries: "
            "set gradient_checkpointing_kwargs={'use_reentrant': False}"
        )
    return hidden, attention


def _recomputes(model: PreTrainedModel) -> bool:
    """Return whether gradient checkpointing is on, which takes no cache."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def last_hidden_state(model: PreTrainedModel, family: Family, batch: Mapping[str, Any]) -> Tensor:
    """Return the output [B, S, H] of a model's body, without its head.

    Args:
        model: the teacher or the student.
        family: its architecture's row.
        batch: its inputs, of B sequences of S tokens.
    """
    inputs: dict[str, Any] = family.model_inputs(batch)
    if "attention_mask" in inputs:
        inputs["attention_mask"] = whole_mask(model, inputs["attention_mask"])
    elif family.causal:  # of which transformers would ask the device more
        if family.looks_for_padding:
            embeddings = model.get_submodule(family.paths.word_embeddings)
            inputs["inputs_embeds"] = embeddings(inputs.pop("input_ids"))
        if not (model.training and _recomputes(model)):
            inputs["past_key_values"] = NothingCached()
    hidden: Tensor = family.body(model)(**inputs).last_hidden_state
    return hidden
