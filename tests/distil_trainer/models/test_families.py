"""The rows of distil_trainer.models.families against transformers' own models."""

import pytest
import tiny
import torch
import transformers

from angels_share.errors import UserError
from distil_trainer.models.families import (
    FAMILIES,
    conversion,
    family_named,
    family_of,
    student_config,
)

MAKERS = tiny.ARCHITECTURES
every_family = pytest.mark.parametrize("name", MAKERS)
ROTARY = [name for name, family in FAMILIES.items() if family.paths.position_embeddings is None]


def batch_of(length=9, rows=2):
    ids = torch.randint(5, 150, (rows, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[-1, -3:] = 0
    types = torch.zeros_like(ids)
    types[:, length // 2 :] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def test_every_row_is_tested():
    """A new architecture that no test here builds would go unseen."""
    assert set(MAKERS) == set(FAMILIES)


@every_family
@torch.no_grad()
def test_body_transform_and_decoder_give_the_models_logits(name):
    """A head that is put together wrongly would train against other logits than the model's."""
    model = MAKERS[name]()
    for parameter in model.parameters():  # LayerNorms of ones and biases of zeros hide mistakes
        parameter.add_(0.05 * torch.randn_like(parameter))
    family = family_of(model)
    inputs = family.model_inputs(batch_of())
    hidden = family.body(model)(**inputs).last_hidden_state
    weight, bias = family.decoder(model)
    rows = family.transform(model, hidden.flatten(0, 1))
    logits = torch.nn.functional.linear(rows, weight, bias)
    torch.testing.assert_close(logits, model(**inputs).logits.flatten(0, 1))


@every_family
def test_the_paths_cover_the_whole_model(name):
    """A part that no path names would silently stay random in a student."""
    model = MAKERS[name]()
    paths = family_of(model).paths
    parts = tuple(f"{path}." for path in (*paths.of_body(), *paths.transform, paths.decoder))
    tied = {"cls.predictions.bias", "lm_head.bias"}
    rest = {key for key in model.state_dict() if not key.startswith(parts)}
    assert rest <= tied


@every_family
def test_shape_is_what_the_model_has(name):
    """A size read from the wrong field would pass checks that it should fail."""
    model = MAKERS[name](layers=3, hidden=32)
    family = family_of(model)
    shape = family.shape(model.config)
    assert shape.depth == len(family.layers(model)) == 3
    assert (shape.vocabulary, shape.width) == tuple(family.decoder(model)[0].shape)
    assert shape.heads == 2
    widths = {max(p.shape) for p in family.layers(model)[0].parameters() if p.dim() == 2}
    fused = 2 if name == "modernbert" else 1  # gate and input are one projection
    assert fused * shape.ffn == max(widths)
    assert shape.max_length == 64
    if name not in ROTARY:
        positions = family.position_embeddings(model)
        assert positions.weight.shape[0] == model.config.max_position_embeddings


def test_rotary_positions_are_those_without_a_table():
    """A row that forgot its table would be trained as if it were frozen."""
    for name, make in MAKERS.items():
        names = {key for key in make().state_dict() if "position" in key or ".wpe." in key}
        assert (not names) is (name in ROTARY), name


@pytest.mark.parametrize("name", sorted(set(MAKERS) - set(ROTARY)))
@torch.no_grad()
def test_max_length_is_the_longest_that_can_be_read(name):
    """RoBERTa's reserved positions: a sequence that fits the table's rows would still crash."""
    model = MAKERS[name](layers=1)
    longest = family_of(model).shape(model.config).max_length
    model(torch.full((1, longest), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, longest + 1), 7))


def test_model_inputs_are_the_models_own():
    """A teacher without its token types reads other sentence pairs; GPT-2 would misread them."""
    batch = batch_of() | {"labels": torch.zeros(2, 9)}
    plain = {"input_ids", "attention_mask"}
    assert set(FAMILIES["bert"].model_inputs(batch)) == plain | {"token_type_ids"}
    assert set(FAMILIES["distilbert"].model_inputs(batch)) == plain
    assert set(FAMILIES["roberta"].model_inputs(batch)) == plain
    assert set(FAMILIES["modernbert"].model_inputs(batch)) == plain
    assert FAMILIES["gpt2"].model_inputs(batch).pop("use_cache") is False
    del batch["token_type_ids"]
    assert set(FAMILIES["bert"].model_inputs(batch)) == plain


def test_unknown_architecture_names_the_known_ones():
    """A bare KeyError would not say what can be distilled."""
    with pytest.raises(UserError, match=r"'distillbert'.*gpt2, llama.*did you mean 'distilbert'"):
        family_named("distillbert")
    with pytest.raises(UserError, match="unknown architecture 'albert'"):
        family_of(transformers.AlbertConfig())


def test_an_encoder_run_as_a_decoder_is_refused():
    """Its tokens don't see what comes after them: a DistilBERT copy's would."""
    with pytest.raises(UserError, match="is_decoder"):
        family_of(transformers.BertConfig(is_decoder=True))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (transformers.Gemma2Config(), "gemma2.*caps its logits"),
        (transformers.GraniteConfig(), "granite.*caps its logits"),
        (transformers.CohereConfig(), "cohere.*caps its logits"),
        (transformers.DebertaV2Config(), "DeBERTa-v3.*replaced words.*run_glue.py --teacher"),
        (transformers.ElectraConfig(), "electra.*replaced words.*run_glue.py --teacher"),
        (
            transformers.Gemma3TextConfig(final_logit_softcapping=30.0),
            "gemma3_text with final_logit_softcapping=30.0.*caps its logits",
        ),
        (
            transformers.Gemma3TextConfig(use_bidirectional_attention=True),
            "gemma3_text with use_bidirectional_attention=true.*would have to predict",
        ),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_what_the_losses_would_get_wrong_is_refused_with_the_reason(config, said):
    """Logits without their scale or cap, or a model that sees the answer: trained on nonsense."""
    with pytest.raises(UserError, match=said):
        family_of(config)


def test_pairs_without_a_conversion_are_refused():
    """Copying between unlike architectures must not be tried at all."""
    with pytest.raises(
        UserError, match=r"bert teacher can't have a gpt2 student.*bert or distilbert"
    ):
        conversion(FAMILIES["bert"], FAMILIES["gpt2"])


def test_bert_settings_reach_a_distilbert():
    """A setting that is lost on the way changes training without a word."""
    teacher = transformers.BertConfig(
        vocab_size=90,
        hidden_size=24,
        num_attention_heads=3,
        intermediate_size=50,
        hidden_act="relu",
        hidden_dropout_prob=0.05,
        attention_probs_dropout_prob=0.15,
        max_position_embeddings=40,
        initializer_range=0.5,
        pad_token_id=3,
        id2label={0: "no", 1: "yes", 2: "maybe"},
        label2id={"no": 0, "yes": 1, "maybe": 2},
        dtype="bfloat16",
        attn_implementation="eager",
    )
    config = student_config(teacher, FAMILIES["bert"], FAMILIES["distilbert"], range(5))
    expected = {
        "vocab_size": 90,
        "dim": 24,
        "n_heads": 3,
        "hidden_dim": 50,
        "activation": "relu",
        "dropout": 0.05,
        "attention_dropout": 0.15,
        "max_position_embeddings": 40,
        "initializer_range": 0.5,
        "pad_token_id": 3,
        "n_layers": 5,
        "num_labels": 3,
        "label2id": {"no": 0, "yes": 1, "maybe": 2},
        "dtype": torch.float32,
        "_attn_implementation": None,
    }
    assert {name: getattr(config, name) for name in expected} == expected


@every_family
def test_a_config_of_its_own_family_differs_only_in_depth(name):
    """Every setting of the teacher is the student's too, but not where its files came from."""
    teacher = MAKERS[name](layers=4).config
    teacher.architectures, teacher.name_or_path = ["Other"], "some/teacher"
    teacher.auto_map = {"AutoModel": "code.Model"}
    family = FAMILIES[name]
    config = student_config(teacher, family, family, [0, 2])
    assert config.name_or_path == ""
    assert not hasattr(config, "auto_map")
    old, new = teacher.to_dict(), config.to_dict()
    changed = {key for key in old | new if old.get(key) != new.get(key)}
    depth = {"num_hidden_layers", "n_layers", "n_layer"} & changed
    assert new[depth.pop()] == 2
    if "layer_types" in old:
        assert new["layer_types"] == [old["layer_types"][0], old["layer_types"][2]]
    assert changed - {"num_hidden_layers", "n_layers", "n_layer"} <= {
        "layer_types",
        "architectures",
        "auto_map",
        "dtype",
        "_name_or_path",
    }


def test_every_list_of_one_value_per_layer_follows_the_layers():
    """A list that is copied whole is refused by its length, or is another layer's."""
    teacher = tiny.llama(layers=4, eos_token_id=[0, 1, 2, 3]).config
    teacher.a_number_per_layer = [10, 11, 12, 13]
    config = student_config(teacher, FAMILIES["llama"], FAMILIES["llama"], [0, 3])
    assert config.a_number_per_layer == [10, 13]
    assert config.eos_token_id == [0, 1, 2, 3]  # as long by chance
