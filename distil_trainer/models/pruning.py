"""Models cut to their most important heads, neurons and hidden units.

What is left is an ordinary model of the same architecture, which plain transformers loads: each
layer has the same number of heads and neurons, though not the same ones. Heads keep their size, so
where an architecture has no size of its own for them (hidden size divided by heads), width and
heads are one choice.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from angels_share.errors import UserError
from distil_trainer.models.families import Family, config_of, family_of
from distil_trainer.models.importance import Importance, norms_of_width


class Sizes(NamedTuple):
    """What a model is cut to; its depth is another matter."""

    width: int
    heads: int
    key_value_heads: int
    ffn: int

    @classmethod
    def of(cls, model_or_config: PreTrainedModel | PreTrainedConfig) -> "Sizes":
        """Return a model's sizes."""
        family, config = family_of(model_or_config), config_of(model_or_config)
        shape = family.shape(config)
        return cls(shape.width, shape.heads, family.key_value_heads(config), shape.ffn)


def check_sizes(config: PreTrainedConfig, sizes: Sizes) -> None:
    """Refuse sizes that no cut of a model has.

    Args:
        config: the config of the model to be cut.
        sizes: what it is to be cut to.

    Raises:
        UserError: a size is larger than the model's, or head sizes would change.
    """
    family, old = family_of(config), Sizes.of(config)
    size = family.head_size(config)
    for name, now, most in zip(Sizes._fields, sizes, old, strict=True):
        if not 1 <= now <= most:
            raise UserError(
                f"{_words(name)} {now}: the model has {most}, and a cut can only leave out"
            )
    if not _has_head_size(config) and sizes.width != sizes.heads * size:
        raise UserError(
            f"hidden size {sizes.width} with {sizes.heads} heads: a {family.model_type}'s head is "
            f"as wide as the hidden size divided by the heads, and the model's are {size} wide: "
            f"use {sizes.heads * size} or {_multiples(sizes.width, size)}"
        )
    groups = old.heads // old.key_value_heads
    if sizes.heads % sizes.key_value_heads or sizes.heads // sizes.key_value_heads > groups:
        raise UserError(
            f"{sizes.heads} heads with {sizes.key_value_heads} of keys and values: each of those "
            f"serves {groups} in the model, so use {sizes.key_value_heads} times 1 to {groups}"
        )


def _words(field: str) -> str:
    return {"width": "hidden size", "ffn": "feed-forward width"}.get(
        field, field.replace("_", " ").replace("key value", "key-value")
    )


def _multiples(width: int, size: int) -> str:
    heads = max(width // size, 1)
    return f"{heads} head{'' if heads == 1 else 's'} with {heads * size}"


def _has_head_size(config: PreTrainedConfig) -> bool:
    """Return whether the size of a head is a setting of its own."""
    return getattr(config, "head_dim", None) is not None


@torch.no_grad()
def prune(model: PreTrainedModel, sizes: Sizes, importance: Importance) -> PreTrainedModel:
    """Return a model cut to its most important parts; the model itself is left unchanged.

    Args:
        model: a model of a supported family, with any head.
        sizes: what is left.
        importance: as `measure_importance` returns it.

    Raises:
        UserError: no cut of the model has these sizes.
    """
    check_sizes(model.config, sizes)
    family = family_of(model)
    kept = _Kept.of(model, sizes, importance)
    with torch.random.fork_rng(devices=[]):
        pruned = type(model)(pruned_config(model.config, sizes)).eval()
    values = model.state_dict()
    prefix, names = f"{family.paths.layers}.", _axes_of(model, kept)
    for name in pruned.state_dict():
        layer = int(name.removeprefix(prefix).split(".")[0]) if name.startswith(prefix) else 0
        for dimension, axis in enumerate(names.get(name, ())):
            if axis is not None:
                index = kept.indices(axis, layer).to(values[name].device)
                values[name] = values[name].index_select(dimension, index)
    pruned.load_state_dict(values)
    return pruned


def pruned_config(config: PreTrainedConfig, sizes: Sizes) -> PreTrainedConfig:
    """Return the float32 config of a model that is cut."""
    family = family_of(config)
    fields = {
        "hidden_size": sizes.width,
        "num_attention_heads": sizes.heads,
        family.ffn_field: sizes.ffn,
    }
    if hasattr(config, "num_key_value_heads"):
        fields["num_key_value_heads"] = sizes.key_value_heads
    named = {config.attribute_map.get(name, name): value for name, value in fields.items()}
    return type(config).from_dict({**config.to_dict(), **named, "dtype": "float32"})


class _Axis(NamedTuple):
    """What the entries of a tensor's dimension belong to."""

    part: str
    """"units", "neurons", "queries" or "keys"."""
    copies: int = 1
    """How many of them lie side by side, as in a fused projection."""


_UNITS, _NEURONS, _QUERIES, _KEYS = map(_Axis, ("units", "neurons", "queries", "keys"))
Axes = tuple[_Axis | None, ...]


class _Kept(NamedTuple):
    """The indices that are kept, ascending, of each layer."""

    units: Tensor
    neurons: list[Tensor]
    queries: list[Tensor]
    keys: list[Tensor]
    sizes: dict[str, int]
    """How many there were."""

    @classmethod
    def of(cls, model: PreTrainedModel, sizes: Sizes, importance: Importance) -> "_Kept":
        old, size = Sizes.of(model), family_of(model).head_size(model.config)
        heads = [_heads(scores, old, sizes) for scores in importance.heads]
        return cls(
            _largest(importance.units, sizes.width),
            [_largest(scores, sizes.ffn) for scores in importance.neurons],
            [_spread(queries, size) for queries, _ in heads],
            [_spread(keys, size) for _, keys in heads],
            {
                "units": old.width,
                "neurons": old.ffn,
                "queries": old.heads * size,
                "keys": old.key_value_heads * size,
            },
        )

    def indices(self, axis: _Axis, layer: int) -> Tensor:
        """Return the entries of a dimension that are kept."""
        found = getattr(self, axis.part)
        one: Tensor = found if isinstance(found, Tensor) else found[layer]
        step = self.sizes[axis.part]
        return torch.cat([one + copy * step for copy in range(axis.copies)])


def _largest(scores: Tensor, count: int) -> Tensor:
    """Return the indices of the largest scores, ascending; of equal ones the first."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def _heads(scores: Tensor, old: Sizes, new: Sizes) -> tuple[Tensor, Tensor]:
    """Return a layer's heads of queries that are kept, and of keys and values."""
    groups = scores.view(old.key_value_heads, -1)
    keys = _largest(groups.sum(1), new.key_value_heads)
    each = new.heads // new.key_value_heads
    queries = [key * groups.shape[1] + _largest(groups[key], each) for key in keys]
    return torch.cat(queries), keys


def _spread(heads: Tensor, size: int) -> Tensor:
    """Return the entries of heads."""
    return (heads.unsqueeze(1) * size + torch.arange(size)).flatten()


def _axes_of(model: PreTrainedModel, kept: _Kept) -> dict[str, Axes]:
    """Return what each dimension of each weight belongs to; None is left as it is."""
    family = family_of(model)
    width = family.shape(model.config).width
    inner = {
        f"{family.paths.layers}.{index}.{name}": axes
        for index, layer in enumerate(family.layers(model))
        for name, axes in _projections(family, layer, kept).items()
    }
    norms = set(norms_of_width(model, width))
    found: dict[str, Axes] = {}
    for path, module in model.named_modules():
        if path in inner:
            source, target = inner[path]
        elif module in norms:
            source, target = None, _UNITS
        elif isinstance(module, nn.Embedding):
            # Its rows are tokens, positions or types, however many there are.
            source, target = _UNITS, None
        elif isinstance(module, nn.Linear):
            source = _UNITS if module.in_features == width else None
            target = None if _ends(model, family, path, module) else _UNITS
        else:
            continue
        is_matrix = getattr(module, "weight", None) is not None and module.weight.dim() == 2
        across = (source, target) if isinstance(module, Conv1D) else (target, source)
        found[f"{path}.weight"] = across if is_matrix else (target,)
        found[f"{path}.bias"] = (target,)
    return found


def _projections(family: Family, layer: nn.Module, kept: _Kept) -> dict[str, Axes]:
    """Return (input, output) of a layer's projections by their names."""
    names = family.layer
    found: dict[str, Axes] = {
        names.attention_output: (_QUERIES, _UNITS),
        names.feed_forward_output: (_NEURONS, _UNITS),
    }
    if len(names.queries_keys_values) == 1:
        found[names.queries_keys_values[0]] = (_UNITS, _QUERIES._replace(copies=3))
    else:
        outputs: Sequence[_Axis] = (_QUERIES, _KEYS, _KEYS)
        for name, output in zip(names.queries_keys_values, outputs, strict=True):
            found[name] = (_UNITS, output)
    for name in names.feed_forward:
        rows = _outputs(layer.get_submodule(name))
        found[name] = (_UNITS, _NEURONS._replace(copies=rows // kept.sizes["neurons"]))
    return found


def _outputs(projection: Any) -> int:
    return int(projection.nf if isinstance(projection, Conv1D) else projection.out_features)


def _ends(model: PreTrainedModel, family: Family, path: str, module: nn.Linear) -> bool:
    """Return whether a projection outside of the layers leaves the hidden width: to classes."""
    width = family.shape(model.config).width
    classes = path.rpartition(".")[2] in ("classifier", "score", "qa_outputs", "out_proj")
    return module.out_features != width or path == family.paths.decoder or classes
