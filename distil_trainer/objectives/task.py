"""Distilling a task: true labels and a teacher's soft targets, where the student has a task's head.

Sequence and token classification, regression (one label), and extractive question answering.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import QuestionAnsweringModelOutput, SequenceClassifierOutput

from angels_share.errors import UserError
from angels_share.inputs import chosen, inputs_of
from distil_trainer.objectives.language_model import Batch, Objective, Outcome
from distil_trainer.objectives.losses import (
    IGNORED,
    Term,
    cross_entropy,
    logit_mse,
    soft_target_kl,
    squared_error,
)
from distil_trainer.recipe import Mode

_TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
TEACHER_OUTPUTS = "teacher_outputs"
"""What a batch calls a teacher's outputs that were computed before."""

_CLASS_LABELS = ("labels",)
_ANSWER_LABELS = ("start_positions", "end_positions")
LABELS = frozenset({*_CLASS_LABELS, *_ANSWER_LABELS})
"""What a batch calls what is to be learned."""


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


class TaskHead(NamedTuple):
    """What a model with a task's head answers."""

    task: str
    """How its class' name ends, such as ForSequenceClassification."""
    labels: Mapping[int, str]
    """Its classes by their ids; those of question answering are positions and have no names."""


def task_head(model: PreTrainedModel) -> TaskHead:
    """Which task a model is for, and with which labels."""
    name = type(model).__name__
    task = next((task for task in _TASKS if name.endswith(task)), "none of these")
    labels = {} if answers_questions(model) else dict(model.config.id2label)
    return TaskHead(task, labels)


def has_task_head(model: PreTrainedModel) -> bool:
    """Whether this is a model for one of the tasks here."""
    return type(model).__name__.endswith(_TASKS)


def answers_questions(model: PreTrainedModel) -> bool:
    """Whether this is a model for extractive question answering."""
    return type(model).__name__.endswith("ForQuestionAnswering")


class TaskObjective(Objective):
    """α_task · true labels + α_ce · soft targets."""

    weight_names = ("alpha_ce", "alpha_task")
    mode: Mode = "task"

    def __init__(
        self, student: PreTrainedModel, *, temperature: float, over_all_positions: bool = False
    ) -> None:
        """Holds the student.

        Args:
            student: a model with a task's head.
            temperature: T of the soft targets.
            over_all_positions: whether an answer may begin and end anywhere, in the padding too.

        Raises:
            UserError: the task is one that isn't distilled here.
        """
        super().__init__(student)
        self.temperature = temperature
        self._answers_questions = answers_questions(student)
        self._over_all_positions = over_all_positions
        self._width: int | None = None
        one_number = student.config.num_labels == 1
        self._regression = one_number and task_head(student).task == "ForSequenceClassification"
        self._label_names = _ANSWER_LABELS if self._answers_questions else _CLASS_LABELS
        self._inputs = inputs_of(student)
        self._require_one_label()

    def _require_one_label(self) -> None:
        said = self.student.config.problem_type
        done = "regression" if self._regression else "single_label_classification"
        if said not in (None, done):
            raise UserError(
                f"the student's problem_type {said} is not supported: with its head and "
                f"{self.student.config.num_labels} labels it would learn {done}"
            )

    def prepare(self, batch: Batch) -> Batch:
        """Leaves a batch as it is; over all positions it must be as wide as those before.

        Raises:
            UserError: it isn't, so that the loss would depend on which examples come together.
        """
        if self._over_all_positions:
            width = batch["input_ids"].shape[1]
            if self._width is None:
                kept = batch.get(TEACHER_OUTPUTS)
                self._width = width if kept is None else kept.shape[1]
            require_width(width, self._width)
        return batch

    def counts(self, batch: Batch) -> Tensor:
        """Labels that there are; soft targets apply where there is a label."""
        count = int((self._labels(batch) != IGNORED).sum()) if self._is_labelled(batch) else 0
        return torch.tensor([count, count])

    @torch.no_grad()
    def ask(self, teacher: PreTrainedModel, batch: Batch) -> Any:
        """A teacher's output, from its own inputs."""
        return teacher(**chosen(batch, inputs_of(teacher)))

    def forward(
        self,
        batch: Batch,
        teachers: Sequence[Any],
        weights: Sequence[float | Tensor],
    ) -> Outcome:
        """The objective of one micro-batch, the sums of its terms, and the student's logits.

        Without labels, as in a test split, there are only logits, and the rest is 0. What teachers
        say is what `ask` gave, or what `packed` made of that.

        Raises:
            UserError: no labels to train on.
        """
        output = self.student(**chosen(batch, self._inputs))
        if not self._is_labelled(batch):
            return self._logits_only(batch, output)
        ours = self._answer(output, batch)
        hard = squared_error if self._regression else cross_entropy
        terms = [_nothing(ours.logits), hard(ours.logits, ours.labels)]
        if teachers:
            theirs = [self._unpacked(teacher) for teacher in teachers]
            terms[0] = self._soft(ours, [self._answer(output, batch) for output in theirs])
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

    def _unpacked(self, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        if not self._answers_questions:
            return SequenceClassifierOutput(logits=output)
        start, end = output.unbind(-1)
        return QuestionAnsweringModelOutput(start_logits=start, end_logits=end)

    def _is_labelled(self, batch: Batch) -> bool:
        return all(name in batch for name in self._label_names)

    def _answer(self, output: Any, batch: Batch) -> Answer:
        if not self._answers_questions:
            logits = output.logits.reshape(-1) if self._regression else output.logits.flatten(0, -2)
            return Answer(logits, self._labels(batch), None)
        logits = torch.cat([output.start_logits, output.end_logits])
        if self._over_all_positions:
            return Answer(logits, self._labels(batch), None)
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


def require_width(found: int, wanted: int) -> None:
    """Refuses a batch of another width where padding counts.

    Raises:
        UserError: says both.
    """
    if found != wanted:
        raise UserError(
            f"kd_over_all_positions: a batch of width {found} where others have {wanted}, and "
            "padding counts: have all batches padded to one width"
        )


def check_task_pair(student: TaskHead, teacher: TaskHead) -> None:
    """Refuses a teacher of another task, or with other labels.

    Raises:
        UserError: says what differs.
    """
    if student.task != teacher.task:
        raise UserError(f"the student's task is {student.task} and the teacher's {teacher.task}")
    if student.labels != teacher.labels:
        raise UserError(
            f"the student's labels are {dict(student.labels)} and the teacher's "
            f"{dict(teacher.labels)}: soft targets need the same in the same order"
        )


def packed(output: Any) -> Tensor:
    """A model's output as one tensor: a row of each example, or of each token."""
    logits = _logits(output)
    return torch.stack(logits, dim=-1) if isinstance(logits, tuple) else logits


def _nothing(like: Tensor) -> Term:
    zero = like.new_zeros((), dtype=torch.float32)
    return Term(zero, torch.zeros((), dtype=torch.int64, device=like.device))


def _logits(output: Any) -> Any:
    return output.logits if "logits" in output else (output.start_logits, output.end_logits)
