"""The objective of students with a task head: true labels and a teacher's soft targets.

Tasks are sequence and token classification, regression (one label), and extractive question
answering.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import QuestionAnsweringModelOutput, SequenceClassifierOutput

from angels_share.errors import UserError
from angels_share.inputs import UNLABELLED, chosen, inputs_of
from distil_trainer.models.padding import hides_nothing, takes_whole_mask, whole_mask
from distil_trainer.objectives.language_model import (
    Batch,
    Objective,
    ObjectiveOutput,
    require_known_ids,
)
from distil_trainer.objectives.losses import (
    IGNORED,
    SOFT_TARGETS,
    Term,
    cross_entropy,
    logit_mse,
    squared_error,
)
from distil_trainer.recipe import Divergence, Mode

_TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
TEACHER_OUTPUTS = "teacher_outputs"
"""The batch key of a teacher's cached outputs."""

_MASK = "attention_mask"
_CLASS_LABELS = ("labels",)
_ANSWER_LABELS = ("start_positions", "end_positions")
LABEL_KEYS = frozenset({*_CLASS_LABELS, *_ANSWER_LABELS})
"""The batch keys of true labels."""


class LossInputs(NamedTuple):
    """A model's logits and the labels in the shape that the losses take.

    Question answering is two classifications over positions: the answer's start and its end.
    """

    logits: Tensor
    """[rows, classes]; [rows] for a regression."""
    labels: Tensor
    """[rows], -100 for a row without a label."""
    taught: Tensor
    """[rows], true where soft targets apply: at labels, and at rows that only a teacher answers."""
    allowed: Tensor | None
    """[rows, classes], true where soft targets may put mass; None allows all classes."""


class TaskHead(NamedTuple):
    """The task and labels of a model's head."""

    task: str
    """The end of the model's class name, such as ForSequenceClassification.

    The whole name if the task is not supported.
    """
    labels: Mapping[int, str]
    """Label names by id; empty for question answering, whose classes are positions."""


def task_head(model: PreTrainedModel) -> TaskHead:
    """Return the task that a model is for, and its labels."""
    name = type(model).__name__
    task = next((task for task in _TASKS if name.endswith(task)), name)
    labels = {} if answers_questions(model) else dict(model.config.id2label)
    return TaskHead(task, labels)


def has_task_head(model: PreTrainedModel) -> bool:
    """Return whether a model has a head for one of the supported tasks."""
    return type(model).__name__.endswith(_TASKS)


def answers_questions(model: PreTrainedModel) -> bool:
    """Return whether a model is for extractive question answering."""
    return type(model).__name__.endswith("ForQuestionAnswering")


class TaskObjective(Objective):
    """α_task · true labels + α_ce · soft targets.

    Rows that the batch's `unlabelled` marks have soft targets only; the label that stands there,
    which keeps a batch's fields alike, isn't read.
    """

    weight_names = ("alpha_ce", "alpha_task")
    mode: Mode = "task"

    def __init__(
        self,
        student: PreTrainedModel,
        *,
        temperature: float,
        divergence: Divergence = "kl",
        over_all_positions: bool = False,
    ) -> None:
        """Wrap a student.

        Args:
            student: a model with a task head.
            temperature: T of the soft targets.
            divergence: how L_ce measures the distance from the soft targets.
            over_all_positions: let answers start and end at any position, padding included.

        Raises:
            UserError: the student's `problem_type` is not supported.
        """
        super().__init__(student)
        self.temperature = temperature
        self._soft_targets = SOFT_TARGETS[divergence]
        self._answers_questions = answers_questions(student)
        self._over_all_positions = over_all_positions
        self._width: int | None = None
        one_label = student.config.num_labels == 1
        self._regression = one_label and task_head(student).task == "ForSequenceClassification"
        self._label_names = _ANSWER_LABELS if self._answers_questions else _CLASS_LABELS
        self._inputs = inputs_of(student)
        self._check_problem_type()

    def _check_problem_type(self) -> None:
        configured = self.student.config.problem_type
        trained = "regression" if self._regression else "single_label_classification"
        if configured not in (None, trained):
            raise UserError(
                f"the student's problem_type {configured} is not supported: with its head and "
                f"{self.student.config.num_labels} labels it would learn {trained}"
            )

    def prepare(self, batch: Batch) -> Batch:
        """Return the batch after a check of its ids, without a mask that hides nothing.

        Over all positions, it must be as wide as the others.

        Raises:
            UserError: it is not, so the loss would depend on which examples share a batch; a token
                or a class is out of range; or questions are marked as unlabelled.
        """
        self._check_ids(batch)
        if UNLABELLED in batch and self._answers_questions:
            raise UserError(f"the batch has {UNLABELLED!r}, but every question needs its answer")
        if self._over_all_positions:
            width = batch["input_ids"].shape[1]
            if self._width is None:
                cached = batch.get(TEACHER_OUTPUTS)
                self._width = width if cached is None else cached.shape[1]
            require_width(width, self._width)
        mask = batch.get(_MASK)
        if mask is not None and takes_whole_mask(self.student) and hides_nothing(mask):
            return {name: value for name, value in batch.items() if name != _MASK}
        return batch

    def _check_ids(self, batch: Batch) -> None:
        embeddings = getattr(self.student.get_input_embeddings(), "num_embeddings", None)
        if embeddings is not None and "input_ids" in batch:
            require_known_ids(batch["input_ids"], embeddings)
        if self._regression or self._answers_questions or not self._is_labelled(batch):
            return
        labels, classes = self._labels(batch), self.student.config.num_labels
        wrong = (labels != IGNORED) & ((labels < 0) | (labels >= classes))
        if bool(wrong.any()):
            raise UserError(
                f"a batch has label {int(labels[wrong][0])}, but the student has {classes} "
                f"classes, 0 to {classes - 1}"
            )

    def counts(self, batch: Batch) -> Tensor:
        """Return the numbers of rows with soft targets and of rows with labels."""
        if not self._is_labelled(batch):
            return torch.tensor([0, 0])
        labels = self._labels(batch)
        nobody = _unlabelled(batch, labels)
        labelled = (labels != IGNORED) & ~nobody
        return torch.stack([(labelled | nobody).sum(), labelled.sum()]).cpu()

    @torch.no_grad()
    def run_teacher(self, teacher: PreTrainedModel, batch: Batch, *, first: bool = True) -> Any:
        """Return a teacher's output for a batch, from the inputs that the teacher takes."""
        return teacher(**_inputs(teacher, batch, inputs_of(teacher)))

    def forward(
        self,
        batch: Batch,
        teachers: Sequence[Any],
        weights: Sequence[float | Tensor],
    ) -> ObjectiveOutput:
        """Return the objective of one micro-batch, the sums of its terms, and the student's logits.

        A batch without labels, as in a test split, gives only logits; the rest is 0.

        Args:
            batch: a batch of examples.
            teachers: the teachers' outputs, as returned by `run_teacher` or `packed`.
            weights: for each term its alpha divided by its count in the whole accumulated batch.

        Raises:
            UserError: a training batch has no labels.
        """
        output = self.student(**_inputs(self.student, batch, self._inputs))
        if not self._is_labelled(batch):
            return self._logits_only(batch, output)
        ours = self._loss_inputs(output, batch)
        terms = [_empty_term(ours.logits), self._hard(ours, batch)]
        if teachers:
            theirs = [self._loss_inputs(self._unpacked(teacher), batch) for teacher in teachers]
            terms[0] = self._soft(ours, theirs)
        objective = torch.stack(
            [weight * term.total for weight, term in zip(weights, terms, strict=True)]
        ).sum()
        sums = torch.stack([term.total.detach() for term in terms])
        return ObjectiveOutput(objective, sums, torch.zeros_like(objective), _logits(output))

    def _logits_only(self, batch: Batch, output: Any) -> ObjectiveOutput:
        if self.training:
            raise UserError(
                f"a training batch has {', '.join(batch)}, but no {' and '.join(self._label_names)}"
            )
        zero = torch.zeros((), device=batch["input_ids"].device)
        return ObjectiveOutput(zero, zero.repeat(len(self.weight_names)), zero, _logits(output))

    def _unpacked(self, output: Any) -> Any:
        """Return a model's output from the tensor that `packed` made of it."""
        if not isinstance(output, Tensor):
            return output
        if not self._answers_questions:
            return SequenceClassifierOutput(logits=output)
        start, end = output.unbind(-1)
        return QuestionAnsweringModelOutput(start_logits=start, end_logits=end)

    def _is_labelled(self, batch: Batch) -> bool:
        return all(name in batch for name in self._label_names)

    def _loss_inputs(self, output: Any, batch: Batch) -> LossInputs:
        labels = self._labels(batch)
        taught = (labels != IGNORED) | _unlabelled(batch, labels)
        if not self._answers_questions:
            logits = output.logits.reshape(-1) if self._regression else output.logits.flatten(0, -2)
            return LossInputs(logits, labels, taught, None)
        logits = torch.cat([output.start_logits, output.end_logits])
        if self._over_all_positions:
            return LossInputs(logits, labels, taught, None)
        # Padding contains no answer; left in, the loss would depend on a batch's padded width.
        attended = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
        attended = attended.repeat(2, 1)
        logits = logits.masked_fill(~attended, float("-inf"))
        allowed = batch["answer_mask"].bool().repeat(2, 1) if "answer_mask" in batch else None
        return LossInputs(logits, labels, taught, allowed)

    def _labels(self, batch: Batch) -> Tensor:
        """Return one label per row; positions beyond the window are ignored, as in transformers."""
        labels = torch.cat([batch[name].reshape(-1) for name in self._label_names])
        if labels.is_floating_point() and not self._regression:
            raise UserError(
                f"the labels are floating-point numbers ({tuple(batch[self._label_names[0]].shape)}"
                "): several labels per example are not supported; give one class number each"
            )
        if self._answers_questions:
            return labels.masked_fill(labels >= batch["input_ids"].shape[1], IGNORED)
        if self._regression:
            return labels
        return labels.masked_fill(_unlabelled(batch, labels), IGNORED)

    def _hard(self, ours: LossInputs, batch: Batch) -> Term:
        if not self._regression:
            return cross_entropy(ours.logits, ours.labels)
        # No number means "no label", so both sides are overwritten: 0 differs from 0 by nothing.
        nobody = _unlabelled(batch, ours.labels)
        return squared_error(
            ours.logits.masked_fill(nobody, 0.0), ours.labels.masked_fill(nobody, 0.0)
        )

    def _soft(self, ours: LossInputs, theirs: Sequence[LossInputs]) -> Term:
        if self._regression:
            theirs_only = [each.logits[:, None] for each in theirs]
            return logit_mse(ours.logits[:, None], theirs_only, ours.taught)
        # Ruled-out classes get no mass in either distribution.
        student, *teachers = (
            each.logits
            if each.allowed is None
            else each.logits.masked_fill(~each.allowed, float("-inf"))
            for each in (ours, *theirs)
        )
        return self._soft_targets(student, teachers, ours.taught, self.temperature)


def _inputs(model: PreTrainedModel, batch: Batch, names: frozenset[str]) -> Batch:
    """Return what a model takes of a batch, the mask in a form that it doesn't have to look at."""
    inputs = chosen(batch, names)
    if _MASK in inputs:
        return inputs | {_MASK: whole_mask(model, inputs[_MASK])}
    if _MASK in names and not takes_whole_mask(model):  # it may need one for more than attention
        return inputs | {_MASK: torch.ones_like(batch["input_ids"])}
    return inputs


def require_width(width: int, expected: int) -> None:
    """Refuse a batch of another width where soft targets cover padding.

    Raises:
        UserError: the widths differ.
    """
    if width != expected:
        raise UserError(
            f"kd_over_all_positions: a batch has width {width}, others have {expected}; padding "
            "counts here, so pad all batches to one width"
        )


def check_task_pair(student: TaskHead, teacher: TaskHead) -> None:
    """Refuse a teacher whose task or labels differ from the student's.

    Raises:
        UserError: the task or the labels differ.
    """
    if student.task != teacher.task:
        raise UserError(f"the student's task is {student.task} and the teacher's {teacher.task}")
    if student.labels != teacher.labels:
        raise UserError(
            f"the student's labels are {dict(student.labels)} and the teacher's "
            f"{dict(teacher.labels)}: soft targets need the same labels in the same order"
        )


def packed(output: Any) -> Tensor:
    """Return a model's output as one tensor, with one row per example or per token."""
    logits = _logits(output)
    return torch.stack(logits, dim=-1) if isinstance(logits, tuple) else logits


def _unlabelled(batch: Batch, labels: Tensor) -> Tensor:
    """Return which of the rows only a teacher answers; none in a batch that doesn't say."""
    if UNLABELLED not in batch:
        return torch.zeros_like(labels, dtype=torch.bool)
    marked: Tensor = batch[UNLABELLED].reshape(-1).bool()
    return marked


def _empty_term(like: Tensor) -> Term:
    zero = like.new_zeros((), dtype=torch.float32)
    return Term(zero, torch.zeros((), dtype=torch.int64, device=like.device))


def _logits(output: Any) -> Any:
    return output.logits if "logits" in output else (output.start_logits, output.end_logits)
