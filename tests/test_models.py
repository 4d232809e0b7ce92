import json

import pytest

from angels_share.errors import UserError
from eval_harness.models import identify, is_fine_tuned_for
from eval_harness.tasks import task_named


def model_folder(path, weights=b"weights", **config):
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(weights)
    (path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    return path


def test_the_digest_is_of_what_a_model_computes(tmp_path):
    """Prevents two models under one key, and one model under two because of its README."""
    one = identify(str(model_folder(tmp_path / "a" / "my Model")))
    same = model_folder(tmp_path / "b" / "my Model")
    (same / "README.md").write_text("about it")
    other = identify(str(model_folder(tmp_path / "c" / "my Model", b"other weights")))
    deeper = identify(str(model_folder(tmp_path / "d" / "my Model", num_hidden_layers=3)))
    assert identify(str(same)).key == one.key
    assert len({one.key, other.key, deeper.key}) == 3
    assert one.key.startswith("my-model-")
    assert one.name == "my Model"


def test_a_hub_model_is_known_by_its_revision(tmp_path, monkeypatch):
    """Prevents a result of an older revision from passing for the newest one's."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    root = tmp_path / "models--distilbert--distilbert-base-uncased"
    model_folder(root / "snapshots" / "0123456789ab")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0123456789ab")
    model = identify("distilbert-base-uncased")
    assert model.key == "distilbert-01234567"
    assert (model.name, model.teacher) == ("distilbert", "bert")
    assert model.revision == "0123456789ab"


def test_a_student_knows_its_teacher(tmp_path):
    """Prevents a share retained against nobody: a student's record names its teacher."""
    folder = model_folder(tmp_path / "student")
    record = folder / "distil.json"
    record.write_text(json.dumps({"teachers": [{"name": "google-bert/bert-base-uncased"}]}))
    assert identify(str(folder)).teacher == "bert"
    record.write_text(json.dumps({"teachers": [{"name": "/models/my-bert"}]}))
    assert identify(str(folder)).teacher == "my-bert"
    record.write_text(json.dumps({"teachers": []}))
    assert identify(str(folder)).teacher is None
    record.write_text("{")
    with pytest.raises(UserError, match=r"distil\.json: is no record"):
        identify(str(folder))


def test_pickled_weights_are_refused_at_once(tmp_path):
    """Prevents a sweep that begins, and then refuses to run code."""
    folder = model_folder(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="can run code"):
        identify(str(folder))


def test_a_teacher_is_finished_only_for_its_own_labels(tmp_path):
    """Prevents soft targets from a head for another task, or with its labels in another order."""
    head = {"architectures": ["BertForSequenceClassification"]}
    names = {"0": "entailment", "1": "not_entailment"}
    rte = identify(str(model_folder(tmp_path / "rte", id2label=names, **head)))
    assert is_fine_tuned_for(rte, task_named("rte"))
    assert not is_fine_tuned_for(rte, task_named("wnli"))
    assert not is_fine_tuned_for(rte, task_named("sst2"))
    plain = identify(str(model_folder(tmp_path / "plain", architectures=["BertForMaskedLM"])))
    assert not is_fine_tuned_for(plain, task_named("rte"))
