"""Students made from a teacher: choice of layers, copying of weights, and compatibility checks.

`plan_student` and `check_pair` need only configs, so that errors come before any weights are
loaded.
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
    layer_types,
    student_config,
)
from distil_trainer.recipe import TERMS

_OF_HIDDEN_STATES = [term.weight for term in TERMS if term.needs_equal_width]

Init = Literal["teacher", "random"]


@dataclass(frozen=True)
class StudentPlan:
    """A student to be made: its teacher's layers that it copies, in order, and its config."""

    teacher: Family
    student: Family
    layers: tuple[int, ...]
    config: PreTrainedConfig


def default_layers(teacher_depth: int, num_layers: int) -> tuple[int, ...]:
    """Return layers evenly spaced from the first to the last, rounding half up.

    12 to 6 gives 0, 2, 4, 7, 9, 11 (the paper's), 6 to 3 gives 0, 3, 5; one layer is layer 0.
    """
    if num_layers == 1:
        return (0,)
    gaps, reach = num_layers - 1, teacher_depth - 1
    return tuple((2 * index * reach + gaps) // (2 * gaps) for index in range(num_layers))


def layers_by_type(types: Sequence[str], num_layers: int) -> tuple[int, ...]:
    """Return layers whose kinds of attention follow each other as in the teacher.

    Where the teacher's types repeat, as global and local attention do in ModernBERT, the student's
    are to be its first ones, in order: the same rhythm. Of the choices with the fewest layers of
    another type, it is the one nearest to evenly spaced layers (least sum of squared distances).
    Where nothing repeats, or the student is shorter than what does, layers are evenly spaced.

    Args:
        types: the type of each of the teacher's layers.
        num_layers: how many of them the student has.
    """
    even = default_layers(len(types), num_layers)
    if num_layers < (_period(types) or len(types)):
        return even
    # Of the choices that end with a layer, the best: number of wrong types, distance, the layers.
    best: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (0, 0, (0,))}
    for place in range(1, num_layers):
        step = {}
        for layer in range(place, len(types)):
            wrong, distance, before = min(best[last] for last in best if last < layer)
            wrong += types[layer] != types[place]
            step[layer] = (wrong, distance + (layer - even[place]) ** 2, (*before, layer))
        best = step
    return min(best.values())[2]


def _period(types: Sequence[str]) -> int | None:
    """Return after how many layers the types repeat, at least once; None if they don't."""
    depth = len(types)
    lengths = range(1, depth // 2 + 1)
    return next((n for n in lengths if list(types[n:]) == list(types[: depth - n])), None)


def choose_layers(
    teacher_depth: int,
    layers: Sequence[int] | None = None,
    num_layers: int | None = None,
    types: Sequence[str] | None = None,
) -> tuple[int, ...]:
    """Return the teacher's layers for a student; by default half of them, rounded up.

    Args:
        teacher_depth: the teacher's number of layers.
        layers: the layers themselves, counted from 0, ascending.
        num_layers: how many of them, evenly spaced.
        types: the type of each of the teacher's layers; where several alternate, the rhythm is
            kept, see `layers_by_type`.

    Raises:
        UserError: `layers` and `num_layers` disagree, or the teacher has no such layers.
    """
    if layers is None:
        depth = (teacher_depth + 1) // 2 if num_layers is None else num_layers
        if not 1 <= depth <= teacher_depth:
            raise UserError(
                f"a student of {depth} layers: its teacher has {teacher_depth}, "
                f"so use 1 to {teacher_depth}"
            )
        return layers_by_type(types or [""] * teacher_depth, depth)
    if num_layers not in (None, len(layers)):
        raise UserError(
            f"num_layers {num_layers} and layers {_listed(layers)} ({len(layers)} of them) "
            "disagree: give only one of them"
        )
    _check_layers(teacher_depth, layers)
    return tuple(layers)


def _check_layers(teacher_depth: int, layers: Sequence[int]) -> None:
    """Refuse layers that the teacher doesn't have, and any order but the teacher's.

    A repeated or reordered layer would get inputs unlike the teacher's: taken for a typo.
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
    """Return everything about a student that follows from its teacher's config.

    Args:
        teacher_config: the teacher's config; the other arguments are those of `make_student`.
        layers: which of the teacher's layers to copy.
        num_layers: how many layers to copy.
        init: "teacher" or "random".
        architecture: the student's model type.
        fold_token_types: whether token types are added to the positions.

    Raises:
        UserError: no such student can be made from this teacher.
    """
    if init not in ("teacher", "random"):
        raise UserError(f"unknown init {init!r}: use teacher or random")
    teacher = family_of(teacher_config)
    student = family_named(architecture or teacher.student)
    conversion(teacher, student)
    if init == "teacher":
        _check_layer_norm(teacher_config, teacher, student)
    if fold_token_types:
        _check_fold(teacher, student, init)
    depth = teacher.shape(teacher_config).depth
    chosen = choose_layers(depth, layers, num_layers, layer_types(teacher_config))
    if init == "teacher":
        _check_first_layers(teacher_config, teacher, chosen)
    config = student_config(teacher_config, teacher, student, chosen)
    return StudentPlan(teacher, student, chosen, config)


def _check_layer_norm(config: PreTrainedConfig, teacher: Family, student: Family) -> None:
    """Refuse copied layers whose outputs a hard-coded epsilon would change."""
    fixed = student.layer_norm_eps
    if teacher is not student and fixed is not None and config.layer_norm_eps != fixed:
        raise UserError(
            f"the teacher's layer_norm_eps is {config.layer_norm_eps:g} and {student.model_type} "
            f"always uses {fixed:g}, so copied layers would differ: make a {teacher.model_type} "
            f'student instead (architecture="{teacher.model_type}")'
        )


def _check_first_layers(config: PreTrainedConfig, teacher: Family, chosen: Sequence[int]) -> None:
    """Refuse copied layers that would not work alike in another place."""
    if chosen[0] != 0 and teacher.first_layer_differs:
        raise UserError(
            f"layers {_listed(chosen)}: a {teacher.model_type} student begins with its teacher's "
            f"layer 0, {teacher.first_layer_differs}; add 0"
        )
    moved = list(chosen) != list(range(len(chosen)))
    if moved and getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise UserError(
            f"layers {_listed(chosen)}: this {teacher.model_type} divides attention by the layer's "
            "number (scale_attn_by_inverse_layer_idx), so a copied layer would work otherwise in "
            f"another place: keep the first ones ({_listed(range(len(chosen)))})"
        )


def _check_fold(teacher: Family, student: Family, init: Init) -> None:
    student.position_table("fold_token_types")
    if init == "random":
        raise UserError(
            "fold_token_types changes copied position embeddings: it needs init teacher"
        )
    if not (teacher.token_types and student.paths.type_embeddings is None):
        raise UserError(
            "fold_token_types is for students that lose their teacher's token types: "
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
    """Make a shallower language model whose weights are copied from its teacher.

    Args:
        teacher: a language model; it is left unchanged, and the student shares no memory with it.
        layers: which of its layers to copy, counted from 0, ascending.
        num_layers: how many to copy, by default half of them, rounded up: evenly spaced, and where
            kinds of attention alternate, in the teacher's rhythm.
        init: "teacher" copies weights; "random" takes only sizes and settings from the teacher.
        architecture: the student's; by default DistilBERT for a BERT, else the teacher's.
        copy_head_transform: whether to copy the head's transform too (the original didn't).
        fold_token_types: whether to add the first segment's token type to every position, where the
            student has no token types: on single segments its first layer then gets exactly the
            teacher's input.
        freeze_positions: whether to exclude the position embeddings from training. This is not
            stored in a saved student. Rotary positions are not trained anyway: refused.
        seed: seed of the weights that aren't copied. The global generator is left unchanged.

    Returns:
        The student in float32 and in eval mode, like one from `from_pretrained`.

    Raises:
        UserError: no such student can be made from this teacher.
    """
    plan = plan_student(
        teacher.config,
        layers=layers,
        num_layers=num_layers,
        init=init,
        architecture=architecture,
        fold_token_types=fold_token_types,
    )
    if not isinstance(teacher, plan.teacher.model_class):
        raise UserError(
            f"the teacher is a {type(teacher).__name__}, whose head is not a language model's: "
            f"load it as {plan.teacher.lm_class}"
        )
    if freeze_positions:
        plan.student.position_table("freeze_positions")
    student = plan.student.new_model(plan.config, seed)
    if init == "teacher":
        for source, target in _copied_modules(plan, with_transform=copy_head_transform):
            weights = teacher.get_submodule(source).state_dict()
            # Copies into the student's tensors, whatever the teacher's dtype or device.
            student.get_submodule(target).load_state_dict(weights)
    if fold_token_types:
        _fold_token_types(teacher, student, plan)
    if freeze_positions:
        plan.student.position_embeddings(student).requires_grad_(requires_grad=False)
    return student


def _copied_modules(plan: StudentPlan, *, with_transform: bool) -> Iterator[tuple[str, str]]:
    """Yield the modules to copy, as (name in the teacher, name in the student)."""
    old, new = plan.teacher.paths, plan.student.paths
    yield old.word_embeddings, new.word_embeddings
    for source, target in (
        (old.position_embeddings, new.position_embeddings),
        (old.type_embeddings, new.type_embeddings),
        (old.embedding_norm, new.embedding_norm),
        (old.final_norm, new.final_norm),
    ):
        if source and target:
            yield source, target
    names = conversion(plan.teacher, plan.student).layer_modules
    for index, layer in enumerate(plan.layers):
        for source, target in names:
            yield f"{old.layers}.{layer}{source}", f"{new.layers}.{index}{target}"
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
    """Refuse a student and a teacher that can't process the same batch or be compared on it.

    Args:
        student: the student or its config.
        teacher: the teacher or its config.
        needs_equal_width: whether hidden states are compared (L_cos), which has no projection.
        max_length: maximum sequence length in tokens; None is the longest that each accepts, which
            must then be the same.
        student_tokenizer: compared with the teacher's if both are given.
        teacher_tokenizer: compared with the student's if both are given.

    Raises:
        UserError: the two are incompatible.
    """
    student_family, teacher_family = family_of(student), family_of(teacher)
    small = student_family.shape(config_of(student))
    large = teacher_family.shape(config_of(teacher))
    if student_family.causal != teacher_family.causal:
        raise UserError(
            f"a {student_family.model_type} student and a {teacher_family.model_type} teacher: "
            "one predicts the next token and the other masked ones, so use two of the same kind"
        )
    _check_sizes(small, large, needs_equal_width=needs_equal_width)
    _check_lengths(small.max_length, large.max_length, max_length)
    if student_tokenizer is not None and teacher_tokenizer is not None:
        check_vocabularies(student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab())


def _check_sizes(student: Shape, teacher: Shape, *, needs_equal_width: bool) -> None:
    if student.vocabulary != teacher.vocabulary:
        raise UserError(
            f"the student's vocabulary has {student.vocabulary} tokens and the teacher's "
            f"{teacher.vocabulary}: soft targets need one vocabulary, so use a student made for "
            "this teacher"
        )
    if student.depth > teacher.depth:
        raise UserError(
            f"the student has {student.depth} layers and its teacher {teacher.depth}: "
            f"a student must not be deeper, so use {teacher.depth} layers or fewer"
        )
    if needs_equal_width and student.width != teacher.width:
        raise UserError(
            f"the student's hidden size is {student.width} and the teacher's {teacher.width}: "
            f"hidden states are compared, so set {' and '.join(_OF_HIDDEN_STATES)} to 0 (alpha_rel "
            "compares models of any width) or make the sizes equal"
        )


def _check_lengths(student: int, teacher: int, max_length: int | None) -> None:
    shorter = min(student, teacher)
    limits = f"the student accepts at most {student} tokens and the teacher {teacher}"
    if max_length is None and student != teacher:
        raise UserError(f"{limits}: limit sequences to {shorter} tokens or fewer")
    if max_length is not None and max_length > shorter:
        raise UserError(f"sequences of {max_length} tokens: {limits}, so use {shorter} or fewer")
