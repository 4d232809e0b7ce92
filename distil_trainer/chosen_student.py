"""The student that a pre-training command asks for: its config, its first weights, its record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from angels_share.errors import UserError
from distil_trainer.data.batches import TextStream
from distil_trainer.data.corpus import Corpus
from distil_trainer.models.families import family_of
from distil_trainer.models.loading import load_config, load_model, student_from_config
from distil_trainer.models.pruning import Sizes
from distil_trainer.models.student import make_student, plan_student
from distil_trainer.recipe import parse_layers
from distil_trainer.training.args import DistilTrainingArguments
from distil_trainer.training.narrowing import (
    SEQUENCES,
    fill_from_teacher,
    measure_on_text,
    narrow_config,
    plan_narrow_student,
    sizes_for,
)
from distil_trainer.training.trainer import DistilTrainer

OF_STUDENT = (
    "student", "student_init", "student_layers", "num_layers", "architecture",
    "copy_head_transform", "fold_token_types", "freeze_pos_embs",
)  # fmt: skip
"""The flags that say which student it is; its record has them."""


@dataclass(frozen=True)
class ChosenStudent:
    """The flags that say which student is trained.

    Attributes:
        options: the values of all flags.
        given: the names of those that were given.
    """

    options: Mapping[str, Any]
    given: frozenset[str]

    @property
    def is_config(self) -> bool:
        """Whether it is given as a config, which has no weights."""
        return str(self.options["student"]).endswith(".json")

    def config(self, teachers: Sequence[PreTrainedConfig]) -> PreTrainedConfig:
        """Return the student's config.

        Args:
            teachers: the teachers' configs.

        Raises:
            UserError: there can be no such student, or a flag has no effect on it.
        """
        given = self.options["student"]
        if given is None:
            plan = plan_student(teachers[0], **self._plan(), init=self.options["student_init"])
            return plan.config
        first = teachers[0] if teachers else None
        unused = ["num_layers", "architecture"]
        if not self._is_cut():
            unused += ["student_layers", "copy_head_transform", "fold_token_types"]
        if not self.is_config and self.options["student_init"] == "random":
            unused.append("student_init")
        for name in unused:
            # An ablation sets student_init, too.
            if name in self.given or name == "student_init":
                raise UserError(
                    f"--{name} {self.options[name]} has no effect on --student {given}; drop it"
                )
        if not self.is_config:
            return load_config(given)
        if not self._is_cut():
            return student_from_config(given, first).config
        if first is None:
            raise UserError(
                f"--student {given}: a config has no weights; add --student_init random"
            )
        layers = self._plan()["layers"]
        chosen = narrow_config(given, first, layers)
        fold = self.options["fold_token_types"]
        plan_narrow_student(first, chosen, layers, fold_token_types=fold)
        if self.options["stream_corpus"] and sizes_for(first, chosen) is not None:
            raise UserError(
                f"--student {given} is narrower than its teacher, and what to leave out is "
                "measured on a prepared corpus: drop --stream_corpus or add --student_init random"
            )
        return chosen

    def _is_cut(self) -> bool:
        """Return whether a config is given and the weights are the teacher's, cut to it."""
        return self.is_config and self.options["student_init"] == "teacher"

    def _plan(self) -> dict[str, Any]:
        layers = self.options["student_layers"]
        return {
            "layers": parse_layers(layers) if layers else None,
            "num_layers": self.options["num_layers"],
            "architecture": self.options["architecture"],
            "fold_token_types": self.options["fold_token_types"],
        }

    def make(
        self,
        teachers: Sequence[PreTrainedModel],
        corpus: Corpus | TextStream,
        arguments: DistilTrainingArguments,
        tokenizer: Any,
    ) -> PreTrainedModel:
        """Return the student before its training.

        Args:
            teachers: the teachers.
            corpus: the text, on which it is measured what a cut leaves out.
            arguments: the run's arguments.
            tokenizer: the tokenizer.
        """
        given, seed = self.options["student"], arguments.seed
        if self._is_cut():
            student = self._cut_student(teachers[0], corpus, arguments, tokenizer)
        elif self.is_config:
            first = teachers[0].config if teachers else None
            student = student_from_config(given, first, seed=seed)
        elif given:
            student = load_model(given)
        else:
            student = make_student(
                teachers[0],
                **self._plan(),
                init=self.options["student_init"],
                copy_head_transform=self.options["copy_head_transform"],
                seed=seed,
            )
        if self.options["freeze_pos_embs"]:
            positions = family_of(student).position_embeddings(student)
            positions.requires_grad_(requires_grad=False)
        return student

    def _cut_student(
        self,
        teacher: PreTrainedModel,
        corpus: Corpus | TextStream,
        arguments: DistilTrainingArguments,
        tokenizer: Any,
    ) -> PreTrainedModel:
        """Return a student of the given config, filled with its teacher's most important parts."""
        seed = arguments.seed
        config = narrow_config(self.options["student"], teacher.config, self._plan()["layers"])
        student = family_of(config).new_model(config, seed)
        importance = None
        if sizes_for(teacher.config, student.config) is not None:
            assert isinstance(corpus, Corpus)  # a stream was refused
            importance = measure_on_text(
                teacher, corpus.train, arguments, tokenizer, corpus.token_counts
            )
        fill_from_teacher(
            student,
            teacher,
            importance,
            layers=self._plan()["layers"],
            seed=seed,
            copy_head_transform=self.options["copy_head_transform"],
            fold_token_types=self.options["fold_token_types"],
        )
        return student

    def cut(self, trainer: DistilTrainer) -> dict[str, Any]:
        """Return for the record what the first teacher was cut to, if it was."""
        if not self._is_cut():
            return {}
        old, new = (each.config for each in (trainer.teachers[0], trainer.student))
        if (sizes := sizes_for(old, new)) is None:
            return {}
        scored = min(SEQUENCES, len(trainer.train_dataset))
        cut = {"from": Sizes.of(old)._asdict(), "to": sizes._asdict(), "sequences": scored}
        return {"cut": cut}

    def layers_taken(self, trainer: DistilTrainer) -> list[int] | None:
        """Return the teacher's layers that the student was initialized from, if any."""
        if self.options["student_init"] != "teacher":
            return None
        teacher = trainer.teachers[0].config if trainer.teachers else None
        if self._is_cut():
            layers = self._plan()["layers"]
            return list(plan_narrow_student(teacher, trainer.student.config, layers).layers)
        if self.options["student"]:
            return None
        return list(plan_student(teacher, **self._plan(), init="teacher").layers)
