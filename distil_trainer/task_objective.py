"""Distilling a task: true labels and a teacher's soft targets, where the student has a task's head.

Sequence and token classification, regression (one label), and extractive question answering.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from angels_share.errors import UserError
from distil_trainer.losses import (
    IGNORED,
    Term,
    cross_entropy,
    logit_mse,
    soft_target_kl,
    squared_error,
)
from distil_trainer.objective import Batch, Objective, Outcome
from distil_trainer.recipe import Mode

_TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
_CLASS_LABELS = ("labels",)
_ANSWER_LABELS = ("start_positions", "end_positions")


class Answer(NamedTuple):
    """A model's answer in the shape that the losses take.

    Question answering is two classifications over positions, of the answer's start and its end.
    """

    logits: Tensor
    """[rows, classes]; [rows] for a regression."""
    labels: Tensor
    """[rows], -100 where there is none."""
    allowed: Tensor | None
    """[rows, classes] where soft targets may put any mass; None: everywhere."""


def has_task_head(model: PreTrainedModel) -> bool:
    """Whether this is a model for one of the tasks here."""
    return type(model).__name__.endswith(_TASKS)


class TaskObjective(Objective):
    """α_task · true labels + α_ce · soft targets."""

    weight_names = ("alpha_ce", "alpha_task")
    mode: Mode = "task"

    def __init__(self, student: PreTrainedModel, *, temperature: float) -> None:
        """Holds the student.

        Args:
            student: a model with a task's head.
            temperature: T of the soft targets.

        Raises:
            UserError: the task is one that isn't distilled here.
        """
        super().__init__(student)
        self.temperature = temperature
        name = type(student).__name__
        self._answers_questions = name.endswith("ForQuestionAnswering")
        one_number = student.config.num_labels == 1
        self._regression = one_number and name.endswith("ForSequenceClassification")
        self._label_names = _ANSWER_LABELS if self._answers_questions else _CLASS_LABELS
        self._inputs = _inputs_of(student)
        self._require_one_label()

    def _require_one_label(self) -> None:
        said = self.student.config.problem_type
        done = "regression" if self._regression else "single_label_classification"
        if said not in (None, done):
            raise UserError(
                f"the student's problem_type {said} is not supported: with its head and "
                f"{self.student.config.num_labels} labels it would learn {done}"
            )

    def counts(self, batch: Batch) -> Tensor:
        """Labels that there are; soft targets apply where there is a label."""
        count = int((self._labels(batch) != IGNORED).sum()) if self._is_labelled(batch) else 0
        return torch.tensor([count, count])

    @torch.no_grad()
    def ask(self, teacher: PreTrainedModel, batch: Batch) -> Any:
        """A teacher's output, from its own inputs."""
        return teacher(**_chosen(batch, _inputs_of(teacher)))

    def forward(
        self,
        batch: Batch,
        teachers: Sequence[Any],
        weights: Sequence[float | Tensor],
    ) -> Outcome:
        """The objective of one micro-batch, the sums of its terms, and the student's logits.

        Without labels, as in a test split, there are only logits, and the rest is 0.

        Raises:
            UserError: no labels to train on.
        """
        output = self.student(**_chosen(batch, self._inputs))
        if not self._is_labelled(batch):
            return self._logits_only(batch, output)
        ours = self._answer(output, batch)
        hard = squared_error if self._regression else cross_entropy
        terms = [_nothing(ours.logits), hard(ours.logits, ours.labels)]
        if teachers:
            terms[0] = self._soft(ours, [self._answer(teacher, batch) for teacher in teachers])
        objective = torch.stack(
            [weight * term.total for weight, term in zip(weights, terms, strict=True)]
        ).sum()
        sums = torch.stack([term.total.detach() for term in terms])
        return Outcome(objective, sums, torch.zeros_like(objective), _logits(output))

    def _logits_only(self, batch: Batch, output: Any) -> Outcome:
        if self.training:
            raise UserError(
                f"a batch of the training data holds {', '.join(batch)}, and no "
                f"{' and '.join(self._label_names)}"
            )
        zero = torch.zeros((), device=batch["input_ids"].device)
        return Outcome(zero, zero.repeat(len(self.weight_names)), zero, _logits(output))

    def _is_labelled(self, batch: Batch) -> bool:
        return all(name in batch for name in self._label_names)

    def _answer(self, output: Any, batch: Batch) -> Answer:
        if not self._answers_questions:
            logits = output.logits.reshape(-1) if self._regression else output.logits.flatten(0, -2)
            return Answer(logits, self._labels(batch), None)
        logits = torch.cat([output.start_logits, output.end_logits])
        # Padding can hold no answer; left in, the loss would depend on what a batch is padded to.
        attended = batch["attention_mask"].bool().repeat(2, 1)
        logits = logits.masked_fill(~attended, float("-inf"))
        allowed = batch["answer_mask"].bool().repeat(2, 1) if "answer_mask" in batch else None
        return Answer(logits, self._labels(batch), allowed)

    def _labels(self, batch: Batch) -> Tensor:
        """One label a row; a position outside the window is none, as in transformers' head."""
        labels = torch.cat([batch[name].reshape(-1) for name in self._label_names])
        if not self._answers_questions:
            return labels
        return labels.masked_fill(labels >= batch["input_ids"].shape[1], IGNORED)

    def _soft(self, ours: Answer, theirs: Sequence[Answer]) -> Term:
        mask = ours.labels != IGNORED
        if self._regression:
            return logit_mse(ours.logits[:, None], [each.logits[:, None] for each in theirs], mask)
        # Ruled-out classes get no mass in either distribution.
        logits = [
            each.logits if each.allowed is None
            else each.logits.masked_fill(~each.allowed, float("-inf"))
            for each in (ours, *theirs)
        ]  # fmt: skip
        return soft_target_kl(logits[0], logits[1:], mask, self.temperature)


def check_task_pair(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Refuses a teacher of another task, or with other labels.

    Raises:
        UserError: says what differs.
    """
    kinds = [
        next((task for task in _TASKS if type(model).__name__.endswith(task)), "none of these")
        for model in (student, teacher)
    ]
    if kinds[0] != kinds[1]:
        raise UserError(f"the student's task is {kinds[0]} and the teacher's {kinds[1]}")
    ours, theirs = student.config.id2label, teacher.config.id2label
    if ours != theirs:
        raise UserError(
            f"the student's labels are {dict(ours)} and the teacher's {dict(theirs)}: "
            "soft targets need the same in the same order"
        )


def _inputs_of(model: PreTrainedModel) -> frozenset[str]:
    """What a model's forward can be given: a DistilBERT gets no token types, a BERT does."""
    names = inspect.signature(model.forward).parameters
    return frozenset(names) - {*_CLASS_LABELS, *_ANSWER_LABELS}


def _chosen(batch: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name in names}


def _nothing(like: Tensor) -> Term:
    zero = like.new_zeros((), dtype=torch.float32)
    return Term(zero, torch.zeros((), dtype=torch.int64, device=like.device))


def _logits(output: Any) -> Any:
    return output.logits if "logits" in output else (output.start_logits, output.end_logits)
