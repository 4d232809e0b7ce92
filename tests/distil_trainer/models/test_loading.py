"""Models from folders and configs: what is refused, what is said, and that no code is run."""

import json
import logging
import pickle

import pytest
import tiny
import torch
import transformers

from angels_share.errors import UserError
from distil_trainer.models.loading import load_config, load_model, student_from_config


@pytest.fixture
def bert_folder(tmp_path):
    tiny.bert(layers=2).save_pretrained(tmp_path)
    return tmp_path


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_asked_for_is_what_is_loaded(tmp_path, dtype):
    """A checkpoint saved in half precision would otherwise be trained in it."""
    original = tiny.roberta(layers=2).to(torch.float16)
    original.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), dtype=dtype)
    assert isinstance(model, transformers.RobertaForMaskedLM)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    expected = original.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name].to(dtype))


@pytest.mark.parametrize(
    ("task", "model_class"),
    [
        ("classification", transformers.BertForSequenceClassification),
        ("qa", transformers.BertForQuestionAnswering),
    ],
)
def test_task_heads(tmp_path, caplog, task, model_class):
    """A teacher of a task must come with its own head, and silently when nothing is missing."""
    tiny.bert(layers=2, model_class=model_class).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="distil_trainer"):
        assert type(load_model(str(tmp_path), task=task)) is model_class
    assert not caplog.records


def test_a_missing_language_model_head_is_said(tmp_path, caplog):
    """A sentence encoder's random head gives soft targets that mean nothing."""
    tiny.bert(layers=2, model_class=transformers.BertModel).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="distil_trainer"):
        load_model(str(tmp_path))
    (record,) = caplog.records
    assert "weights of the language-model head (e.g. cls.predictions" in record.getMessage()
    assert "start at random" in record.getMessage()


class Bomb:
    """Its unpickling leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (open, (self.trace, "w"))


def test_pickled_weights_are_refused_unread(bert_folder, tmp_path_factory):
    """Reading a pickle runs what it says; the way out must be one that works."""
    trace = bert_folder / "exploded"
    (bert_folder / "model.safetensors").unlink()
    (bert_folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(str(trace))))
    with pytest.raises(UserError, match=r"pickled weights \(pytorch_model.bin\).*BertForMaskedLM"):
        load_model(str(bert_folder))
    assert not trace.exists()

    torch.save(tiny.bert(layers=2).state_dict(), bert_folder / "pytorch_model.bin")
    converted = tmp_path_factory.mktemp("converted")
    transformers.BertForMaskedLM.from_pretrained(
        str(bert_folder), use_safetensors=False
    ).save_pretrained(converted)
    load_model(str(converted))


@pytest.mark.parametrize(
    "entry",
    [
        {"auto_map": {"AutoModelForMaskedLM": "evil.Model", "AutoConfig": "evil.Config"}},
        {"attn_implementation": "somebody/kernel"},
        {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}},
    ],
)
def test_a_configs_own_code_is_never_run(bert_folder, entry):
    """Code in a model's folder is somebody else's; a plain model of its name computes otherwise."""
    trace = bert_folder / "exploded"
    (bert_folder / "evil.py").write_text(f"open({str(trace)!r}, 'w')\n")
    edit_config(bert_folder, **entry)
    with pytest.raises(UserError, match="refers to custom code"):
        load_model(str(bert_folder))
    assert not trace.exists()


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_names_only_its_own_folder(bert_folder, shard):
    """An index of weights could otherwise point anywhere on the disk."""
    (bert_folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"bert.embeddings.LayerNorm.bias": shard}}
    (bert_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="is not a safetensors file beside it"):
        load_model(str(bert_folder))


def test_sharded_weights_load(tmp_path):
    """The check of the index must let the real thing pass."""
    model = tiny.bert(layers=2)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    loaded = load_model(str(tmp_path)).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1}, "16 of the body's are missing or unexpected"),
        ({"num_hidden_layers": 3}, "16 of the body's are missing or unexpected"),
        ({"hidden_size": 64}, r"is \[32\] in the file and \[64\] in the config"),
        ({"hidden_size": "wide"}, "config cannot be used: .*hidden_size"),
        ({"model_type": "albert"}, "unknown architecture 'albert'"),
        ({"model_type": None}, "has no model_type"),
    ],
)
def test_weights_that_do_not_fit_are_refused(bert_folder, changes, message):
    """Layers that are missing or left over would be made up or dropped without an error."""
    edit_config(bert_folder, **changes)
    with pytest.raises(UserError, match=message):
        load_model(str(bert_folder))


def test_torn_files_are_refused_in_one_line(bert_folder):
    """Half a file is a message with the folder's name, not a traceback."""
    weights = bert_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="weights cannot be loaded") as refused:
        load_model(str(bert_folder))
    assert str(bert_folder) in str(refused.value)
    assert "\n" not in str(refused.value)
    weights.unlink()
    with pytest.raises(UserError, match="holds no weights"):
        load_model(str(bert_folder))
    (bert_folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(UserError, match="config cannot be used"):
        load_config(str(bert_folder))


@pytest.mark.parametrize("content", ["[1]", "[" * 99_999], ids=["list", "deep"])
def test_a_config_that_is_no_config_is_one_line(bert_folder, content):
    """Prevents a traceback from a hostile or damaged config.json of a model."""
    (bert_folder / "config.json").write_text(content)
    for load in (load_config, load_model):
        with pytest.raises(UserError, match=str(bert_folder)):
            load(str(bert_folder))


def test_a_student_from_a_config_has_its_teachers_vocabulary(tmp_path):
    """A student of any width, whose vocabulary is the teacher's without being told."""
    teacher = tiny.bert(vocab_size=123, pad_token_id=7).config
    values = {"model_type": "distilbert", "n_layers": 2, "dim": 24, "n_heads": 3, "hidden_dim": 40}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    student = student_from_config(path, teacher, seed=4)
    assert isinstance(student, transformers.DistilBertForMaskedLM)
    assert (student.config.vocab_size, student.config.pad_token_id) == (123, 7)
    assert student.vocab_projector.weight.shape == (123, 24)
    again = student_from_config(values, teacher, seed=4).state_dict()
    other = student_from_config(values, teacher, seed=5).state_dict()
    name = "vocab_transform.weight"
    assert torch.equal(student.state_dict()[name], again[name])
    assert not torch.equal(student.state_dict()[name], other[name])


def test_a_config_that_transformers_wrote_is_taken(bert_folder):
    """Fields that an older version left behind are no misspelling."""
    edit_config(bert_folder, position_embedding_type="absolute")
    student = student_from_config(bert_folder / "config.json")
    assert isinstance(student, transformers.BertForMaskedLM)


SMALL = {"model_type": "distilbert", "vocab_size": 50, "dim": 8, "n_heads": 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**SMALL, "vocab_size": 51}, "vocab_size 51, but the teacher's is 50"),
        ({**SMALL, "n_layer": 2}, "has no field 'n_layer'; did you mean 'n_layers'"),
        ({**SMALL, "zzz": 2}, "has no field 'zzz': remove it"),
        ({**SMALL, "dim": "8"}, "Field 'dim' expected int, got str"),
        ({**SMALL, "dim": 9}, "must divide"),
        ({**SMALL, "model_type": "albert"}, "unknown architecture 'albert'"),
        ({"vocab_size": 50}, 'has no "model_type"'),
    ],
)
def test_bad_student_configs_are_refused(values, message):
    """A misspelt field would silently build a student of another size."""
    with pytest.raises(UserError, match=message):
        student_from_config(values, tiny.bert(vocab_size=50).config)


def test_without_a_teacher_the_vocabulary_must_be_given():
    """DistilBERT's own default would be a vocabulary that no tokenizer here has."""
    assert student_from_config(SMALL).config.vocab_size == 50
    with pytest.raises(UserError, match="without a teacher"):
        student_from_config({"model_type": "distilbert"})


@pytest.mark.parametrize("content", ["{", "[1]", None, pytest.param("[" * 99_999, id="deep")])
def test_unreadable_student_configs_are_refused(tmp_path, content):
    """One line with the path, whatever is wrong with the file."""
    path = tmp_path / "student.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"student\.json: "):
        student_from_config(path)


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_a_text_end_that_also_pads_does_not_start_at_zero(name):
    """From zero, gradients through all the norms overflow at the first step."""
    config = tiny.ARCHITECTURES[name]().config.to_diff_dict() | {"pad_token_id": 0}
    student = student_from_config(config)
    assert student.get_input_embeddings().weight[0].abs().min() > 0
    assert student.config.pad_token_id == student.generation_config.pad_token_id == 0
    ids = torch.tensor([[0, 5, 6, 0]])
    student(ids, labels=ids).loss.backward()
    assert all(p.grad.abs().max() < 100 for p in student.parameters())


@pytest.mark.parametrize("name", ["modernbert", "eurobert"])
def test_the_published_padding_in_a_smaller_vocabulary_is_refused(name):
    """Its default is the id of a token that a small vocabulary doesn't have: a bare assertion."""
    config = tiny.ARCHITECTURES[name]().config.to_diff_dict()
    del config["pad_token_id"]
    with pytest.raises(UserError, match=r"pad_token_id \d+ is outside of a vocabulary of \d+: set"):
        student_from_config(config)
