"""A student from a teacher: which layers it keeps, what is copied, whether the two fit together.

`plan_student` and `check_pair` need only configs, so that whatever is wrong is said before any
weights are read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from angels_share.errors import UserError
from angels_share.tokenizing import check_vocabularies
from distil_trainer.models.families import (
    Family,
    Shape,
    config_of,
    conversion,
    family_named,
    family_of,
    student_config,
)

Init = Literal["teacher", "random"]


@dataclass(frozen=True)
class StudentPlan:
    """What a student will be: its teacher's layers that it keeps, in order, and its own config."""

    teacher: Family
    student: Family
    layers: tuple[int, ...]
    config: PreTrainedConfig


def default_layers(teacher_depth: int, num_layers: int) -> tuple[int, ...]:
    """Layers evenly spaced from the first to the last, rounding half up.

    12 to 6 gives 0, 2, 4, 7, 9, 11 (the paper's), 6 to 3 gives 0, 3, 5; one layer is layer 0.
    """
    if num_layers == 1:
        return (0,)
    gaps, reach = num_layers - 1, teacher_depth - 1
    return tuple((2 * index * reach + gaps) // (2 * gaps) for index in range(num_layers))


def choose_layers(
    teacher_depth: int, layers: Sequence[int] | None = None, num_layers: int | None = None
) -> tuple[int, ...]:
    """The teacher's layers that a student keeps; half of them, rounded up, unless told otherwise.

    Raises:
        UserError: The two wishes disagree, or the teacher has no such layers.
    """
    if layers is None:
        wanted = (teacher_depth + 1) // 2 if num_layers is None else num_layers
        if not 1 <= wanted <= teacher_depth:
            raise UserError(
                f"a student of {wanted} layers: its teacher has {teacher_depth}, "
                f"so 1 to {teacher_depth} are possible"
            )
        return default_layers(teacher_depth, wanted)
    if num_layers not in (None, len(layers)):
        raise UserError(
            f"num_layers {num_layers} and layers {_listed(layers)} ({len(layers)} of them) "
            "disagree: give one of the two"
        )
    _check_layers(teacher_depth, layers)
    return tuple(layers)


def _check_layers(teacher_depth: int, layers: Sequence[int]) -> None:
    """Refuses layers that the teacher doesn't have, and any order but its own.

    A repeated or reordered layer would read what no layer of the teacher ever wrote: it has always
    been a slip of the keyboard.
    """
    if not layers:
        raise UserError("no layers: name at least one of the teacher's, e.g. 0")
    for layer in layers:
        if not 0 <= layer < teacher_depth:
            raise UserError(
                f"layer {layer} of {teacher_depth}: layers are counted from 0, "
                f"so 0..{teacher_depth - 1} are allowed"
            )
    if list(layers) != sorted(set(layers)):
        raise UserError(
            f"layers {_listed(layers)}: give them in the teacher's order and each once, "
            f"{_listed(sorted(set(layers)))}"
        )


def _listed(layers: Sequence[int]) -> str:
    return ",".join(map(str, layers))


def plan_student(
    teacher_config: PreTrainedConfig,
    *,
    layers: Sequence[int] | None = None,
    num_layers: int | None = None,
    init: Init = "teacher",
    architecture: str | None = None,
    fold_token_types: bool = False,
) -> StudentPlan:
    """Decides everything about a student that its teacher's config can tell; see `make_student`.

    Raises:
        UserError: No such student can be made from this teacher.
    """
    if init not in ("teacher", "random"):
        raise UserError(f"init {init!r} is not known: use teacher or random")
    teacher = family_of(teacher_config)
    student = family_named(architecture or teacher.student)
    conversion(teacher, student)
    if init == "teacher":
        _check_layer_norm(teacher_config, teacher, student)
    if fold_token_types:
        _check_fold(teacher, student, init)
    kept = choose_layers(teacher.shape(teacher_config).depth, layers, num_layers)
    config = student_config(teacher_config, teacher, student, len(kept))
    return StudentPlan(teacher, student, kept, config)


def _check_layer_norm(config: PreTrainedConfig, teacher: Family, student: Family) -> None:
    """Refuses copies that a hard-coded epsilon would make compute something else."""
    fixed = student.layer_norm_eps
    if teacher is not student and fixed is not None and config.layer_norm_eps != fixed:
        raise UserError(
            f"the teacher's layer_norm_eps is {config.layer_norm_eps:g} and {student.model_type} "
            f"always uses {fixed:g}, so copied layers would differ: make a {teacher.model_type} "
            f'student instead (architecture="{teacher.model_type}")'
        )


def _check_fold(teacher: Family, student: Family, init: Init) -> None:
    if init == "random":
        raise UserError("fold_token_types adds to copied positions: it needs init teacher")
    if not (teacher.token_types and student.paths.type_embeddings is None):
        raise UserError(
            "fold_token_types is for a student that loses its teacher's token types: "
            f"{teacher.model_type} to {student.model_type} loses none"
        )


def make_student(
    teacher: PreTrainedModel,
    *,
    layers: Sequence[int] | None = None,
    num_layers: int | None = None,
    init: Init = "teacher",
    architecture: str | None = None,
    copy_head_transform: bool = True,
    fold_token_types: bool = False,
    freeze_positions: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """Makes a shallower language model whose weights are copies of its teacher's.

    Args:
        teacher: A language model; it is neither changed nor shared with the student.
        layers: Which of its layers to keep, counted from 0, ascending.
        num_layers: How many to keep, evenly spaced; half of them, rounded up, by default.
        init: "teacher" copies weights; "random" takes only sizes and settings from the teacher.
        architecture: The student's; by default DistilBERT for a BERT, else the teacher's own.
        copy_head_transform: Whether the head's transform is copied too (the original didn't).
        fold_token_types: Adds a single segment's token type to every position, where the student
            has no token types: the first layer then reads exactly what the teacher's reads.
        freeze_positions: Leaves the position table as it is while the student trains. A saved
            student doesn't remember this.
        seed: Decides every weight that isn't copied. The global generator isn't touched.

    Returns:
        The student in float32 and in eval mode, like one that `from_pretrained` gives.

    Raises:
        UserError: No such student can be made from this teacher.
    """
    plan = plan_student(
        teacher.config,
        layers=layers,
        num_layers=num_layers,
        init=init,
        architecture=architecture,
        fold_token_types=fold_token_types,
    )
    _require_language_model(teacher, plan.teacher)
    student = plan.student.new_model(plan.config, seed)
    if init == "teacher":
        _copy_weights(teacher, student, plan, with_transform=copy_head_transform)
    if fold_token_types:
        _fold_token_types(teacher, student, plan)
    if freeze_positions:
        plan.student.position_embeddings(student).requires_grad_(requires_grad=False)
    return student


def _require_language_model(teacher: PreTrainedModel, family: Family) -> None:
    if not isinstance(teacher, family.model_class):
        raise UserError(
            f"the teacher is a {type(teacher).__name__}, whose head is not a language model's: "
            f"load it as {family.lm_class}"
        )


def _copy_weights(
    teacher: PreTrainedModel, student: PreTrainedModel, plan: StudentPlan, *, with_transform: bool
) -> None:
    for origin, copy in _copied_modules(plan, with_transform=with_transform):
        # Loading copies into the student's own tensors, whatever dtype or device the teacher has.
        student.get_submodule(copy).load_state_dict(teacher.get_submodule(origin).state_dict())


def _copied_modules(plan: StudentPlan, *, with_transform: bool) -> Iterator[tuple[str, str]]:
    """The modules to copy, as (name in the teacher, name in the student)."""
    old, new = plan.teacher.paths, plan.student.paths
    yield old.word_embeddings, new.word_embeddings
    yield old.position_embeddings, new.position_embeddings
    for origin, copy in (
        (old.type_embeddings, new.type_embeddings),
        (old.embedding_norm, new.embedding_norm),
        (old.final_norm, new.final_norm),
    ):
        if origin and copy:
            yield origin, copy
    names = conversion(plan.teacher, plan.student).layer_modules
    for to, layer in enumerate(plan.layers):
        for origin, copy in names:
            yield f"{old.layers}.{layer}{origin}", f"{new.layers}.{to}{copy}"
    if with_transform:
        yield from zip(old.transform, new.transform, strict=True)
    yield old.decoder, new.decoder


@torch.no_grad()
def _fold_token_types(
    teacher: PreTrainedModel, student: PreTrainedModel, plan: StudentPlan
) -> None:
    positions = plan.student.position_embeddings(student).weight
    types = teacher.get_submodule(plan.teacher.paths.type_embeddings).weight
    positions.add_(types[0].to(positions))


def check_pair(
    student: PreTrainedModel | PreTrainedConfig,
    teacher: PreTrainedModel | PreTrainedConfig,
    *,
    needs_equal_width: bool,
    max_length: int | None = None,
    student_tokenizer: PreTrainedTokenizerBase | None = None,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Refuses a student and a teacher that can't read the same batch or be compared on it.

    Args:
        student: The student or its config.
        teacher: The teacher or its config.
        needs_equal_width: Whether hidden states are compared (L_cos), which has no projection.
        max_length: The longest sequence that they will see; None is as long as they can read.
        student_tokenizer: Compared with the teacher's where both are given.
        teacher_tokenizer: Compared with the student's where both are given.

    Raises:
        UserError: One line that says what differs and what to do.
    """
    student_family, teacher_family = family_of(student), family_of(teacher)
    small = student_family.shape(config_of(student))
    large = teacher_family.shape(config_of(teacher))
    if student_family.causal != teacher_family.causal:
        raise UserError(
            f"a {student_family.model_type} student and a {teacher_family.model_type} teacher: "
            "one predicts the next token and the other masked ones, so choose two of a kind"
        )
    _check_sizes(small, large, needs_equal_width=needs_equal_width)
    _check_lengths(small.max_length, large.max_length, max_length)
    if student_tokenizer is not None and teacher_tokenizer is not None:
        check_vocabularies(student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab())


def _check_sizes(student: Shape, teacher: Shape, *, needs_equal_width: bool) -> None:
    if student.vocabulary != teacher.vocabulary:
        raise UserError(
            f"the student's vocabulary has {student.vocabulary} tokens and the teacher's "
            f"{teacher.vocabulary}: soft targets need one vocabulary, so take a student made for "
            "this teacher"
        )
    if student.depth > teacher.depth:
        raise UserError(
            f"the student has {student.depth} layers and its teacher {teacher.depth}: "
            f"a student has at most its teacher's depth, so take {teacher.depth} or fewer"
        )
    if needs_equal_width and student.width != teacher.width:
        raise UserError(
            f"the student's hidden size is {student.width} and the teacher's {teacher.width}: "
            "L_cos compares hidden states, so set alpha_cos to 0 or make the sizes equal"
        )


def _check_lengths(student: int, teacher: int, wanted: int | None) -> None:
    shortest = min(student, teacher)
    reads = f"the student reads {student} tokens at most and the teacher {teacher}"
    if wanted is None and student != teacher:
        raise UserError(f"{reads}: limit sequences to {shortest} tokens or fewer")
    if wanted is not None and wanted > shortest:
        raise UserError(f"sequences of {wanted} tokens: {reads}, so use {shortest} or fewer")
