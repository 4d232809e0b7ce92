"""A student narrower than its teacher, started from the teacher's most important parts.

What is important is measured on the text that is going to be trained on: as language modelling's
sensitivity to each head, neuron and hidden unit of the teacher.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tqdm
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from angels_share.errors import UserError, one_line
from angels_share.untrusted import refuse_unknown_fields
from distil_trainer.data.batches import Sequences
from distil_trainer.data.masking import AnyInts
from distil_trainer.models.families import conversion, family_named, family_of
from distil_trainer.models.importance import Importance, measure_importance
from distil_trainer.models.loading import read_config
from distil_trainer.models.pruning import Sizes, check_sizes, prune, pruned_config
from distil_trainer.models.student import StudentPlan, make_student, plan_student
from distil_trainer.objectives.language_model import LanguageModelObjective
from distil_trainer.training.args import DistilTrainingArguments
from distil_trainer.training.checks import mode_of
from distil_trainer.training.loaders import Loaders

SEQUENCES = 256
"""How many sequences are scored; seconds to minutes, without gradients of weights."""


def sizes_for(teacher: PreTrainedConfig, student: PreTrainedConfig) -> Sizes | None:
    """Return what a teacher is cut to for a student's config; None if it needn't be cut.

    Raises:
        UserError: no cut of the teacher has the student's sizes.
    """
    sizes = Sizes.of(student)
    if sizes == Sizes.of(teacher):
        return None
    check_sizes(teacher, sizes)
    return sizes


def narrow_config(
    source: str | Path, teacher: PreTrainedConfig, layers: Sequence[int] | None = None
) -> PreTrainedConfig:
    """Return the config of a student that is cut from its teacher.

    What a config file leaves out is the teacher's, sizes and all that decides what its weights
    mean: positions, norms, activations, ties.

    Args:
        source: the file.
        teacher: the teacher's config.
        layers: which of the teacher's layers the student has [half of them, or as many as the file
            says].

    Raises:
        UserError: the file can't be read, or there can't be such a student.
    """
    given = read_config(Path(source))
    if not isinstance(model_type := given.get("model_type"), str):
        raise UserError(f'{source}: has no "model_type", e.g. "distilbert"')
    config_class = family_named(model_type).model_class.config_class
    refuse_unknown_fields(str(source), config_class, given)
    own = {config_class.attribute_map.get(name, name): value for name, value in given.items()}
    depth = own.get(config_class.attribute_map.get("num_hidden_layers", "num_hidden_layers"))
    plan = plan_student(teacher, layers=layers, num_layers=depth, architecture=model_type)
    try:
        return config_class.from_dict({**plan.config.to_dict(), **own, "dtype": "float32"})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise UserError(f"{source}: {one_line(error)}") from error


def plan_narrow_student(
    teacher: PreTrainedConfig, student: PreTrainedConfig, layers: Sequence[int] | None, **plan: Any
) -> StudentPlan:
    """Return the plan of a student of a given config whose weights come from its teacher.

    Args:
        teacher: the teacher's config.
        student: the student's.
        layers: which of the teacher's layers to copy [evenly spaced].
        plan: other arguments of `plan_student`.

    Raises:
        UserError: the teacher has no weights for such a student.
    """
    wanted = family_of(student)
    conversion(family_of(teacher), wanted)
    sizes = sizes_for(teacher, student)
    cut = teacher if sizes is None else pruned_config(teacher, sizes)
    shape = wanted.shape(student)
    found = plan_student(
        cut, layers=layers, num_layers=shape.depth, architecture=wanted.model_type, **plan
    )
    made = wanted.shape(found.config)
    for name in ("vocabulary", "max_length"):
        ours, theirs = getattr(shape, name), getattr(made, name)
        if ours != theirs:
            words = "vocab_size" if name == "vocabulary" else "maximum length in tokens"
            raise UserError(
                f"the student's config has a {words} of {ours} and the teacher's weights are for "
                f"{theirs}: make them equal, or add --student_init random"
            )
    ties = (bool(each.tie_word_embeddings) for each in (student, found.config))
    if len(set(ties)) > 1:
        raise UserError(
            "the student's config has another tie_word_embeddings than its teacher: one table "
            "can't be both the embeddings and the head; leave it out"
        )
    _check_shapes(student, found.config)
    return found


def _check_shapes(student: PreTrainedConfig, made: PreTrainedConfig) -> None:
    """Refuse a config whose weights have other shapes than what is made of the teacher's."""
    with torch.device("meta"):  # allocates no weights
        ours, theirs = (
            {name: tuple(weight.shape) for name, weight in family.items()}
            for family in (
                family_of(each).model_class(each).state_dict() for each in (student, made)
            )
        )
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"the student's config makes {name} {ours.get(name, 'missing')}, and the "
                f"teacher's weights cut to its sizes {theirs.get(name, 'none')}: leave out what "
                "isn't a size, or add --student_init random"
            )


def measure_on_text(
    teacher: PreTrainedModel,
    sequences: Sequences,
    args: DistilTrainingArguments,
    tokenizer: Any,
    token_counts: Any,
) -> Importance:
    """Return how important each part of a language model is for modelling a text.

    Args:
        teacher: the language model; it is moved to the run's device.
        sequences: the text's sequences, of which some, evenly spaced, are scored.
        args: the run's arguments: masks, batch size for evaluation, device.
        tokenizer: supplies the mask token and the padding.
        token_counts: frequency of each token, for masks.
    """
    mode = mode_of(teacher)
    loader = Loaders(args, (teacher,), mode, tokenizer, token_counts).for_all(_Some.of(sequences))
    objective = LanguageModelObjective(
        teacher.to(args.device), temperature=1.0, restrict_to_mask=True, soft=False
    )

    def loss(batch: dict[str, Any]) -> Any:
        on_device = {name: value.to(args.device) for name, value in batch.items()}
        return objective(on_device, (), [0.0, 1.0, 0.0, 0.0, 0.0]).objective

    hidden = args.disable_tqdm or not args.should_log
    progress = tqdm.tqdm(loader, desc="important parts", disable=hidden, leave=False)
    return measure_importance(teacher, map(objective.prepare, progress), loss)


def fill_from_teacher(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    importance: Importance | None,
    *,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    **copying: Any,
) -> None:
    """Give a student the weights of its teacher, cut to the student's sizes.

    Args:
        student: a new model, filled in place.
        teacher: the language model that it starts from.
        importance: of the teacher's parts; None if nothing has to be cut.
        layers: which of the teacher's layers to copy [evenly spaced].
        seed: seed of weights that aren't copied.
        copying: `copy_head_transform` and `fold_token_types`, as in `make_student`.
    """
    family = family_of(student)
    if importance is not None:
        teacher = prune(teacher, Sizes.of(student), importance)
    made = make_student(
        teacher,
        layers=layers,
        num_layers=family.shape(student.config).depth,
        architecture=family.model_type,
        seed=seed,
        **copying,
    )
    student.load_state_dict(made.state_dict())


@dataclass(frozen=True)
class _Some:
    """Evenly spaced ones of many sequences."""

    sequences: Sequences
    chosen: Any

    @classmethod
    def of(cls, sequences: Sequences) -> "_Some":
        count = min(SEQUENCES, len(sequences))
        return cls(sequences, np.linspace(0, len(sequences) - 1, count).astype(np.int64))

    @property
    def lengths(self) -> AnyInts:
        lengths: AnyInts = np.asarray(self.sequences.lengths)[self.chosen]
        return lengths

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> AnyInts:
        return self.sequences[int(self.chosen[index])]

    def __iter__(self) -> Iterator[AnyInts]:
        return (self[index] for index in range(len(self)))
