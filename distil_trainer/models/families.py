"""One row per architecture: module paths, config fields and the default student's architecture.

No other module knows the attribute names of transformers' models. A new architecture is one more
`Family`; a student of another architecture than its teacher's is one more `Conversion`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from angels_share.errors import UserError
from angels_share.names import nearest


@dataclass(frozen=True)
class Paths:
    """Dotted names of a language model's modules; None where the architecture has no such part."""

    body: str
    word_embeddings: str
    position_embeddings: str | None
    type_embeddings: str | None
    embedding_norm: str | None
    layers: str
    final_norm: str | None
    transform: tuple[str, ...]
    decoder: str

    def of_body(self) -> tuple[str, ...]:
        """Return the paths of all modules that produce the body's last hidden state."""
        parts = (
            self.word_embeddings,
            self.position_embeddings,
            self.type_embeddings,
            self.embedding_norm,
            self.layers,
            self.final_norm,
        )
        return tuple(part for part in parts if part)


class LayerPaths(NamedTuple):
    """Dotted names of the projections inside a layer."""

    queries_keys_values: tuple[str, ...]
    """Of each, or of the one that makes all three, which lie side by side in its output."""
    attention_output: str
    feed_forward: tuple[str, ...]
    """All projections onto the feed-forward width, a gate's too; one may make both."""
    feed_forward_output: str


class Shape(NamedTuple):
    """The sizes in a config, under the same names for every architecture."""

    depth: int
    width: int
    heads: int
    ffn: int
    vocabulary: int
    max_length: int


@dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
        model_type: its name in a config.
        lm_class: the name of transformers' class with the language-model head.
        causal: whether a token attends only to itself and earlier tokens.
        token_types: whether its forward is given `token_type_ids`.
        positions_after_padding: whether position numbers begin after the padding token's id, which
            reserves `pad_token_id + 1` rows of the position table.
        paths: the names of its modules.
        layer: the names of the projections inside a layer.
        transform_rows: the head's transform of hidden rows [N, H], before the decoder.
        ffn_field: the config's name of the feed-forward width; None there means 4 times the width.
        student: the default architecture of its students.
        layer_norm_eps: the LayerNorm epsilon if it is hard-coded, None if the config has it.
        first_layer_differs: why the first layer can't be a copy of another one, or None.
        one_mask: whether the models of all heads only pass their mask on, and to all layers alike.
        looks_for_padding: whether its body, given no mask, looks for padding among the ids.
    """

    model_type: str
    lm_class: str
    causal: bool
    token_types: bool
    positions_after_padding: bool
    paths: Paths
    layer: LayerPaths
    transform_rows: Callable[[PreTrainedModel, Tensor], Tensor]
    ffn_field: str
    student: str
    layer_norm_eps: float | None = None
    first_layer_differs: str | None = None
    one_mask: bool = False
    looks_for_padding: bool = False

    @property
    def model_class(self) -> Any:
        """The transformers class with the language-model head."""
        return getattr(transformers, self.lm_class)

    def shape(self, config: PreTrainedConfig) -> Shape:
        """Return a config's sizes (transformers itself aliases all field names but the FFN's)."""
        reserved = config.pad_token_id + 1 if self.positions_after_padding else 0
        return Shape(
            depth=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            ffn=getattr(config, self.ffn_field) or 4 * config.hidden_size,
            vocabulary=config.vocab_size,
            max_length=config.max_position_embeddings - reserved,
        )

    def head_size(self, config: PreTrainedConfig) -> int:
        """Return the width of an attention head."""
        shape = self.shape(config)
        return getattr(config, "head_dim", None) or shape.width // shape.heads

    def key_value_heads(self, config: PreTrainedConfig) -> int:
        """Return the number of heads of keys and values, which groups of queries share."""
        return getattr(config, "num_key_value_heads", None) or self.shape(config).heads

    def new_model(self, config: PreTrainedConfig, seed: int) -> PreTrainedModel:
        """Return a language model in eval mode, initialised as its architecture does it.

        Its random numbers come from the seed alone; the global generator is left unchanged.
        """
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: it would seed every GPU's generator as well.
            torch.default_generator.manual_seed(seed)
            if not self.causal:
                return self.model_class(config).eval()
            # The embedding of the padding token is left at zero. In causal models the token that
            # ends and begins a text often pads, too: at zero, each norm after it multiplies
            # gradients by a thousand.
            padding, config.pad_token_id = config.pad_token_id, None
            model = self.model_class(config).eval()
            config.pad_token_id = model.generation_config.pad_token_id = padding
            return model

    def body(self, model: PreTrainedModel) -> nn.Module:
        """Return the model without its head; its forward returns the last hidden state."""
        body: nn.Module = model.get_submodule(self.paths.body)
        return body

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        """Return the stack of transformer layers."""
        layers: nn.ModuleList = model.get_submodule(self.paths.layers)
        return layers

    def position_embeddings(self, model: PreTrainedModel) -> nn.Embedding:
        """Return the table of learned position embeddings.

        Raises:
            UserError: its positions are rotary.
        """
        positions: nn.Embedding = model.get_submodule(self.position_table("position embeddings"))
        return positions

    def position_table(self, asker: str, instead: str = "leave it out") -> str:
        """Return the name of the table of position embeddings.

        Args:
            asker: what needs the table, such as a flag.
            instead: what to do where there is none.

        Raises:
            UserError: its positions are rotary.
        """
        if self.paths.position_embeddings is None:
            raise UserError(
                f"{asker}: a {self.model_type} has no table of positions (they are rotary, "
                f"computed and not learned): {instead}"
            )
        return self.paths.position_embeddings

    def transform(self, model: PreTrainedModel, hidden_rows: Tensor) -> Tensor:
        """Apply the head's transform, which precedes the decoder, to hidden rows [N, H]."""
        return self.transform_rows(model, hidden_rows)

    def decoder(self, model: PreTrainedModel) -> tuple[Tensor, Tensor | None]:
        """Return the projection to the vocabulary: weight [V, H], and bias [V] or None."""
        decoder: nn.Linear = model.get_submodule(self.paths.decoder)
        return decoder.weight, decoder.bias

    def model_inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor | bool]:
        """Return the forward's arguments from a batch.

        Token types go only to a model that has them (GPT-2 would add their *word* embeddings), and
        a causal model is told not to cache keys and values, which only generation needs.
        """
        names = ("input_ids", "attention_mask", *(("token_type_ids",) if self.token_types else ()))
        inputs: dict[str, Tensor | bool] = {name: batch[name] for name in names if name in batch}
        return inputs | {"use_cache": False} if self.causal else inputs


def _bert_transform(model: PreTrainedModel, rows: Tensor) -> Tensor:
    transformed: Tensor = model.cls.predictions.transform(rows)
    return transformed


def _roberta_transform(model: PreTrainedModel, rows: Tensor) -> Tensor:
    head = model.lm_head
    transformed: Tensor = head.layer_norm(nn.functional.gelu(head.dense(rows)))
    return transformed


def _distilbert_transform(model: PreTrainedModel, rows: Tensor) -> Tensor:
    transformed: Tensor = model.vocab_layer_norm(model.activation(model.vocab_transform(rows)))
    return transformed


def _modernbert_transform(model: PreTrainedModel, rows: Tensor) -> Tensor:
    transformed: Tensor = model.head(rows)
    return transformed


def _no_transform(_model: PreTrainedModel, rows: Tensor) -> Tensor:
    return rows


_BERT_LAYER = LayerPaths(
    queries_keys_values=("attention.self.query", "attention.self.key", "attention.self.value"),
    attention_output="attention.output.dense",
    feed_forward=("intermediate.dense",),
    feed_forward_output="output.dense",
)

_LLAMA_LAYER = LayerPaths(
    queries_keys_values=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_output="self_attn.o_proj",
    feed_forward=("mlp.gate_proj", "mlp.up_proj"),
    feed_forward_output="mlp.down_proj",
)

BERT = Family(
    model_type="bert",
    lm_class="BertForMaskedLM",
    causal=False,
    token_types=True,
    positions_after_padding=False,
    paths=Paths(
        body="bert",
        word_embeddings="bert.embeddings.word_embeddings",
        position_embeddings="bert.embeddings.position_embeddings",
        type_embeddings="bert.embeddings.token_type_embeddings",
        embedding_norm="bert.embeddings.LayerNorm",
        layers="bert.encoder.layer",
        final_norm=None,
        transform=("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
        decoder="cls.predictions.decoder",
    ),
    layer=_BERT_LAYER,
    transform_rows=_bert_transform,
    ffn_field="intermediate_size",
    student="distilbert",
    one_mask=True,
)

ROBERTA = Family(
    model_type="roberta",
    lm_class="RobertaForMaskedLM",
    causal=False,
    # Its table of token types has one row, which is always used; its tokenizers return no types.
    token_types=False,
    positions_after_padding=True,
    paths=Paths(
        body="roberta",
        word_embeddings="roberta.embeddings.word_embeddings",
        position_embeddings="roberta.embeddings.position_embeddings",
        type_embeddings="roberta.embeddings.token_type_embeddings",
        embedding_norm="roberta.embeddings.LayerNorm",
        layers="roberta.encoder.layer",
        final_norm=None,
        transform=("lm_head.dense", "lm_head.layer_norm"),
        decoder="lm_head.decoder",
    ),
    layer=_BERT_LAYER,
    transform_rows=_roberta_transform,
    ffn_field="intermediate_size",
    student="roberta",
    one_mask=True,
)

XLM_ROBERTA = replace(
    ROBERTA, model_type="xlm-roberta", lm_class="XLMRobertaForMaskedLM", student="xlm-roberta"
)

DISTILBERT = Family(
    model_type="distilbert",
    lm_class="DistilBertForMaskedLM",
    causal=False,
    token_types=False,
    positions_after_padding=False,
    paths=Paths(
        body="distilbert",
        word_embeddings="distilbert.embeddings.word_embeddings",
        position_embeddings="distilbert.embeddings.position_embeddings",
        type_embeddings=None,
        embedding_norm="distilbert.embeddings.LayerNorm",
        layers="distilbert.transformer.layer",
        final_norm=None,
        transform=("vocab_transform", "vocab_layer_norm"),
        decoder="vocab_projector",
    ),
    layer=LayerPaths(
        queries_keys_values=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        attention_output="attention.out_lin",
        feed_forward=("ffn.lin1",),
        feed_forward_output="ffn.lin2",
    ),
    transform_rows=_distilbert_transform,
    ffn_field="hidden_dim",
    student="distilbert",
    layer_norm_eps=1e-12,
    one_mask=True,
)

GPT2 = Family(
    model_type="gpt2",
    lm_class="GPT2LMHeadModel",
    causal=True,
    token_types=False,
    positions_after_padding=False,
    paths=Paths(
        body="transformer",
        word_embeddings="transformer.wte",
        position_embeddings="transformer.wpe",
        type_embeddings=None,
        embedding_norm=None,
        layers="transformer.h",
        final_norm="transformer.ln_f",
        transform=(),
        decoder="lm_head",
    ),
    layer=LayerPaths(
        queries_keys_values=("attn.c_attn",),
        attention_output="attn.c_proj",
        feed_forward=("mlp.c_fc",),
        feed_forward_output="mlp.c_proj",
    ),
    transform_rows=_no_transform,
    ffn_field="n_inner",
    student="gpt2",
    looks_for_padding=True,
)

MODERNBERT = Family(
    model_type="modernbert",
    lm_class="ModernBertForMaskedLM",
    causal=False,
    token_types=False,
    positions_after_padding=False,
    paths=Paths(
        body="model",
        word_embeddings="model.embeddings.tok_embeddings",
        position_embeddings=None,
        type_embeddings=None,
        embedding_norm="model.embeddings.norm",
        layers="model.layers",
        final_norm="model.final_norm",
        transform=("head.dense", "head.norm"),
        decoder="decoder",
    ),
    layer=LayerPaths(
        queries_keys_values=("attn.Wqkv",),
        attention_output="attn.Wo",
        feed_forward=("mlp.Wi",),
        feed_forward_output="mlp.Wo",
    ),
    transform_rows=_modernbert_transform,
    ffn_field="intermediate_size",
    student="modernbert",
    first_layer_differs="which has no attention norm, since the embeddings are normalised already",
)

NOMIC_BERT = Family(
    model_type="nomic_bert",
    lm_class="NomicBertForMaskedLM",
    causal=False,
    token_types=True,
    positions_after_padding=False,
    paths=Paths(
        body="nomic_bert",
        word_embeddings="nomic_bert.embeddings.word_embeddings",
        position_embeddings=None,
        type_embeddings="nomic_bert.embeddings.token_type_embeddings",
        embedding_norm="nomic_bert.embeddings.LayerNorm",
        layers="nomic_bert.layers",
        final_norm=None,
        transform=("cls.predictions.transform.dense", "cls.predictions.transform.layer_norm"),
        decoder="cls.predictions.decoder",
    ),
    layer=_LLAMA_LAYER,
    transform_rows=_bert_transform,
    ffn_field="intermediate_size",
    student="nomic_bert",
    one_mask=True,
)

LLAMA = Family(
    model_type="llama",
    lm_class="LlamaForCausalLM",
    causal=True,
    token_types=False,
    positions_after_padding=False,
    paths=Paths(
        body="model",
        word_embeddings="model.embed_tokens",
        position_embeddings=None,
        type_embeddings=None,
        embedding_norm=None,
        layers="model.layers",
        final_norm="model.norm",
        transform=(),
        decoder="lm_head",
    ),
    layer=_LLAMA_LAYER,
    transform_rows=_no_transform,
    ffn_field="intermediate_size",
    student="llama",
)

QWEN2 = replace(LLAMA, model_type="qwen2", lm_class="Qwen2ForCausalLM", student="qwen2")
QWEN3 = replace(LLAMA, model_type="qwen3", lm_class="Qwen3ForCausalLM", student="qwen3")
GEMMA3 = replace(
    LLAMA, model_type="gemma3_text", lm_class="Gemma3ForCausalLM", student="gemma3_text"
)
# A Llama that reads both ways.
EUROBERT = replace(
    LLAMA, model_type="eurobert", lm_class="EuroBertForMaskedLM", causal=False, student="eurobert"
)

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        BERT,
        DISTILBERT,
        ROBERTA,
        XLM_ROBERTA,
        MODERNBERT,
        NOMIC_BERT,
        EUROBERT,
        GPT2,
        LLAMA,
        QWEN2,
        QWEN3,
        GEMMA3,
    )
}

_SCALED = (
    "it scales or caps its logits after the decoder, which the vocabulary head computes without"
)
_REPLACED = (
    "it was pre-trained to spot replaced words, not to guess hidden ones, so there is no language "
    "model to learn from; distil it on a task instead (run_glue.py --teacher)"
)
_REFUSED = {
    "gemma2": _SCALED,
    "granite": _SCALED,
    "cohere": _SCALED,
    "cohere2": _SCALED,
    "electra": _REPLACED,
    "deberta-v2": f"DeBERTa-v3 is of this type: {_REPLACED}",
}
"""Architectures that people ask for, and why they are no teachers of a language model."""

# What transformers' models do to logits after the decoder, and the value that means nothing is.
_LOGIT_SCALES = {"final_logit_softcapping": None, "logits_scaling": 1, "logit_scale": 1}


@dataclass(frozen=True)
class Conversion:
    """The names that a teacher's modules and config fields have in a student's architecture.

    Attributes:
        layer_modules: names inside a layer, (teacher's, student's), each with its leading dot.
        config_fields: names in the config, (teacher's, student's).
    """

    layer_modules: tuple[tuple[str, str], ...]
    config_fields: tuple[tuple[str, str], ...]


_SAME = Conversion(layer_modules=(("", ""),), config_fields=())

_BERT_TO_DISTILBERT = Conversion(
    layer_modules=(
        (".attention.self.query", ".attention.q_lin"),
        (".attention.self.key", ".attention.k_lin"),
        (".attention.self.value", ".attention.v_lin"),
        (".attention.output.dense", ".attention.out_lin"),
        (".attention.output.LayerNorm", ".sa_layer_norm"),
        (".intermediate.dense", ".ffn.lin1"),
        (".output.dense", ".ffn.lin2"),
        (".output.LayerNorm", ".output_layer_norm"),
    ),
    config_fields=(
        ("vocab_size", "vocab_size"),
        ("hidden_size", "dim"),
        ("num_attention_heads", "n_heads"),
        ("intermediate_size", "hidden_dim"),
        ("hidden_act", "activation"),
        ("hidden_dropout_prob", "dropout"),
        ("attention_probs_dropout_prob", "attention_dropout"),
        ("max_position_embeddings", "max_position_embeddings"),
        ("initializer_range", "initializer_range"),
        ("pad_token_id", "pad_token_id"),
        ("bos_token_id", "bos_token_id"),
        ("eos_token_id", "eos_token_id"),
        ("tie_word_embeddings", "tie_word_embeddings"),
        ("id2label", "id2label"),
        ("label2id", "label2id"),
        ("problem_type", "problem_type"),
    ),
)

_CONVERSIONS: dict[tuple[str, str], Conversion] = {
    (family.model_type, family.model_type): _SAME for family in FAMILIES.values()
} | {("bert", "distilbert"): _BERT_TO_DISTILBERT}

# Fields that say where a config came from, not what the model is: not to be copied.
_PROVENANCE = ("_name_or_path", "architectures", "auto_map", "transformers_version")


def family_named(model_type: str) -> Family:
    """Return the family with this name.

    Raises:
        UserError: the architecture is not supported.
    """
    if family := FAMILIES.get(model_type):
        return family
    if reason := _REFUSED.get(model_type):
        raise UserError(f"architecture {model_type!r} is not supported: {reason}")
    known = ", ".join(sorted(FAMILIES))
    raise UserError(
        f"unknown architecture {model_type!r}: use one of {known}{nearest(model_type, FAMILIES)}"
    )


def family_of(model_or_config: PreTrainedModel | PreTrainedConfig) -> Family:
    """Return the family of a model or of a config.

    Raises:
        UserError: the architecture is not supported, or not with these settings: an encoder that
            runs as a decoder, whose tokens attend to earlier ones only, a decoder whose tokens
            attend to later ones too, or scaled logits.
    """
    config = config_of(model_or_config)
    family = family_named(config.model_type)
    if getattr(config, "is_decoder", False) and not family.causal:
        raise UserError(
            f"a {config.model_type} with is_decoder=true is not supported: "
            "set is_decoder to false in its config, or use a gpt2"
        )
    if getattr(config, "use_bidirectional_attention", False) and family.causal:
        raise UserError(
            f"a {config.model_type} with use_bidirectional_attention=true is not supported: its "
            "tokens see the ones that they would have to predict"
        )
    for name, neutral in _LOGIT_SCALES.items():
        if (value := getattr(config, name, None)) not in (None, neutral):
            raise UserError(
                f"a {config.model_type} with {name}={value} is not supported: {_SCALED}"
            )
    return family


def config_of(model_or_config: PreTrainedModel | PreTrainedConfig) -> PreTrainedConfig:
    """Return a model's config; return a config unchanged."""
    return getattr(model_or_config, "config", model_or_config)


def conversion(teacher: Family, student: Family) -> Conversion:
    """Return the names that the teacher's modules and config fields have in the student.

    Raises:
        UserError: no student of this architecture can be made from this teacher.
    """
    if found := _CONVERSIONS.get((teacher.model_type, student.model_type)):
        return found
    possible = [to for origin, to in _CONVERSIONS if origin == teacher.model_type]
    raise UserError(
        f"a {teacher.model_type} teacher can't have a {student.model_type} student: "
        f"use architecture {' or '.join(sorted(possible))}"
    )


def layer_types(config: PreTrainedConfig) -> tuple[str, ...] | None:
    """Return each layer's kind of attention where a config tells it, None elsewhere."""
    types = getattr(config, "layer_types", None)
    return None if types is None else tuple(types)


def student_config(
    teacher_config: PreTrainedConfig, teacher: Family, student: Family, layers: Sequence[int]
) -> PreTrainedConfig:
    """Return a float32 student's config: the teacher's settings with some of its layers.

    Args:
        teacher_config: the teacher's config, left unchanged.
        teacher: the teacher's family.
        student: the student's family.
        layers: the teacher's layers that the student has, in order.

    Raises:
        UserError: no student of this family can be made from this teacher.
    """
    if teacher is student:
        depth = teacher.shape(teacher_config).depth
        values = {
            name: [value[layer] for layer in layers] if _is_per_layer(name, value, depth) else value
            for name, value in teacher_config.to_dict().items()
        }
    else:
        fields = conversion(teacher, student).config_fields
        values = {new: getattr(teacher_config, old) for old, new in fields}
    for name in _PROVENANCE:
        values.pop(name, None)
    config_class = student.model_class.config_class
    depth_field = config_class.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    # Given at once, not set afterwards: a config checks its lists against its depth, and makes
    # those that it lacks.
    return config_class.from_dict(values | {depth_field: len(layers), "dtype": "float32"})


def _is_per_layer(name: str, value: Any, depth: int) -> bool:
    """Return whether a config's field lists one value per layer.

    Lists of token ids (several tokens may end a text) are as long by chance.
    """
    is_list = isinstance(value, (list, tuple)) and len(value) == depth
    return is_list and not name.endswith(("token_id", "token_ids"))
