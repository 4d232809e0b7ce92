import hashlib
import json

import pytest
import tiny
from made_results import model_folder

from angels_share.errors import UserError
from angels_share.inputs import positions_of
from eval_harness.runs.models import identify, is_fine_tuned_for, max_tokens_of
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import GLUE


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
    named_like_one = model_folder(tmp_path / "distilbert")
    assert identify(str(named_like_one)).teacher is None
    record.write_text(json.dumps({"lineage": [{"what": "export", "file": "onnx/model.onnx"}]}))
    assert identify(str(folder)).teacher is None  # a record of later steps alone
    record.write_text("{")
    with pytest.raises(UserError, match=r"distil\.json: not a valid distillation record"):
        identify(str(folder))


def test_a_student_knows_its_teachers_weights(tmp_path):
    """Prevents two teachers of one name from being taken for each other."""
    teacher, folder = model_folder(tmp_path / "teacher"), model_folder(tmp_path / "student")
    weights = identify(str(teacher)).weights
    assert weights == hashlib.sha256(b"weights").hexdigest()
    for said, known in (
        ({"revision": None, "sha256": weights}, weights),
        ({"revision": "7" * 40, "sha256": None}, "7" * 40),
        ({"revision": None, "sha256": None}, None),
        ({}, None),
    ):
        record = {"teachers": [{"name": "/a/teacher", **said}]}
        (folder / "distil.json").write_text(json.dumps(record))
        assert identify(str(folder)).teacher_weights == known


def study_record(**changed):
    """What `--ablation` writes, as far as Table 4 reads it."""
    record = {
        "ablation": "none",
        "teachers": [
            {"name": "/a/bert", "source": "/a/bert", "revision": None, "sha256": "1" * 64}
        ],
        "corpus": {"fingerprint": "2" * 16, "sources": ["/a/text.txt"]},
        "student": {"asked_for": {"student_init": "teacher", "num_layers": 3}},
        "recipe": {
            "alpha_ce": 5,
            "alpha_cos": 1.0,
            "seed": 42,
            "max_steps": -1,
            "student": "3" * 16,
        },
        "versions": {"torch": "2.13.0"},
    }
    return {**record, **changed}


def distilled(tmp_path, record, name="student"):
    folder = model_folder(tmp_path / name)
    (folder / "distil.json").write_text(json.dumps(record))
    return identify(str(folder)).distilled


def test_a_student_knows_how_it_was_made(tmp_path):
    """Prevents an ablation that isn't paired with its full loss, though all else was the same."""
    recipe = study_record()["recipe"]
    full = distilled(tmp_path, study_record())
    assert (full.ablation, full.init) == ("none", "teacher")
    assert full.loss == {"alpha_ce": 5.0, "alpha_cos": 1.0}
    less = distilled(tmp_path, study_record(
        ablation="no-ce",
        recipe={**recipe, "alpha_ce": 0},
        # Another machine's paths and versions, and the random start of another student.
        teachers=[{"name": "/b/bert", "source": "/b/bert", "revision": None, "sha256": "1" * 64}],
        corpus={"fingerprint": "2" * 16, "sources": ["/b/text.txt"]},
        versions={"torch": "9"},
    ))  # fmt: skip
    assert (less.rest, less.loss["alpha_ce"]) == (full.rest, 0)
    asked = {"student_init": "random", "num_layers": 3}
    started = distilled(tmp_path, study_record(
        ablation="random-init", student={"asked_for": asked},
        recipe={**recipe, "student": "4" * 16},
    ))  # fmt: skip
    assert (started.rest, started.init) == (full.rest, "random")


@pytest.mark.parametrize(
    "changed",
    [
        {"teachers": [{"name": "bert", "revision": "5" * 40, "sha256": None}]},
        {"corpus": {"fingerprint": "6" * 16}},
        {"corpus": {"streamed": ["a"]}},
        {"student": {"asked_for": {"student_init": "teacher", "num_layers": 2}}},
        {"recipe": {**study_record()["recipe"], "seed": 1}},
        {"recipe": {**study_record()["recipe"], "max_steps": 10}},
    ],
)
def test_another_study_is_told_apart(tmp_path, changed):
    """Prevents a student from being held against one of another teacher, text, shape or length."""
    assert distilled(tmp_path, study_record(**changed)).rest != (
        distilled(tmp_path, study_record(), "other").rest
    )


def test_what_was_not_distilled_is_in_no_study(tmp_path):
    """Prevents the baseline without a teacher from passing for a triple loss."""
    assert distilled(tmp_path, study_record(teachers=[])) is None
    assert distilled(tmp_path, {"teachers": [{"name": "bert"}]}) is None
    with pytest.raises(UserError, match="not a valid distillation record"):
        distilled(tmp_path, study_record(recipe=[]))


def test_a_student_of_a_study_has_its_name(tmp_path):
    """Prevents a row called `none`; the key, where results lie, is the folder's own."""
    model = identify(str(model_folder(tmp_path / "my study" / "no-ce")))
    assert model.name == "my study/no-ce"
    assert model.key.startswith("no-ce-")


@pytest.mark.parametrize("file", ["added_tokens.json", "special_tokens_map.json", "spiece.model"])
def test_the_digest_is_of_the_tokenizer_too(tmp_path, file):
    """Prevents other ids under the same key: these files decide them."""
    folder = model_folder(tmp_path / "model")
    before = identify(str(folder)).digest
    (folder / file).write_text("{}")
    assert identify(str(folder)).digest != before


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"model_type": "bert", "max_position_embeddings": 64, "pad_token_id": 0}, 64),
        ({"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ({"model_type": "roberta", "max_position_embeddings": 66}, None),
        ({"model_type": "gpt2", "n_positions": 32}, 32),
        ({"model_type": "deberta-v2", "max_position_embeddings": 64}, None),
        ({"model_type": "bert"}, None),
        ({"model_type": "bert", "max_position_embeddings": "64"}, None),
    ],
)
def test_what_a_config_says_for_certain_about_length(tmp_path, config, limit):
    """Prevents a length that works from being refused, and one that doesn't from being tried."""
    folder = model_folder(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(config))
    assert max_tokens_of(identify(str(folder))) == limit


@pytest.mark.parametrize("make", [tiny.bert, tiny.distilbert, tiny.roberta, tiny.gpt2])
def test_a_config_says_what_the_model_reads(tmp_path, make):
    """Prevents a limit from the config that is another than the model's own."""
    model = make(2)
    tiny.folder(tmp_path / "model", model, tiny.wordpiece())
    assert max_tokens_of(identify(str(tmp_path / "model"))) == positions_of(model)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"a": ' + "1" * 5000 + "}"])
def test_a_config_that_is_none(tmp_path, text):
    """Prevents a traceback for a model's config that is hostile or damaged."""
    folder = model_folder(tmp_path / "model")
    model = identify(str(folder))
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: not a model's config"):
        max_tokens_of(model)


def test_a_folder_without_a_tokenizer_is_refused_at_once(tmp_path):
    """Prevents a sweep whose every run fails for the same reason."""
    folder = model_folder(tmp_path / "model")
    (folder / "vocab.txt").unlink()
    with pytest.raises(UserError, match="holds no tokenizer"):
        identify(str(folder))


def test_pickled_weights_are_refused_at_once(tmp_path):
    """Prevents a sweep that begins, and then refuses to run code."""
    folder = model_folder(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="can run code"):
        identify(str(folder))


def test_a_teacher_is_finished_only_for_its_own_labels(tmp_path):
    """Prevents soft targets from a head for another task, or with its labels in another order.

    RTE and QNLI have the same labels, so names alone prove nothing there.
    """
    head = {"architectures": ["BertForSequenceClassification"]}
    names = {"0": "entailment", "1": "not_entailment"}
    rte = model_folder(tmp_path / "rte", id2label=names, finetuning_task="rte", **head)
    known = {task: is_fine_tuned_for(identify(str(rte)), task_named(task)) for task in GLUE}
    assert [task for task, it_is in known.items() if it_is] == ["rte"]
    nobodys = identify(str(model_folder(tmp_path / "pairs", id2label=names, **head)))
    assert not any(is_fine_tuned_for(nobodys, task_named(task)) for task in GLUE)
    names = {"0": "negative", "1": "positive"}
    sst2 = identify(str(model_folder(tmp_path / "sst2", id2label=names, **head)))
    assert is_fine_tuned_for(sst2, task_named("sst2"))
    swapped = identify(str(model_folder(
        tmp_path / "swapped", id2label={"0": "positive", "1": "negative"}, **head
    )))  # fmt: skip
    assert not is_fine_tuned_for(swapped, task_named("sst2"))
    numbers = model_folder(tmp_path / "stsb", finetuning_task="stsb", **head)
    assert is_fine_tuned_for(identify(str(numbers)), task_named("stsb"))
    plain = identify(str(model_folder(tmp_path / "plain", architectures=["BertForMaskedLM"])))
    assert not is_fine_tuned_for(plain, task_named("rte"))


def test_a_head_of_mnlis_is_one_of_xnlis(tmp_path):
    """Prevents MNLI's teachers from being tuned anew since XNLI has the same three classes, and an
    English one from passing for one that was trained on translations."""
    names = {"0": "entailment", "1": "neutral", "2": "contradiction"}
    head = {"architectures": ["BertForSequenceClassification"], "id2label": names}
    model = identify(str(model_folder(tmp_path / "mnli", **head)))
    tasks = ("mnli", "xnli", "xnli-translate-train-de")
    assert [is_fine_tuned_for(model, task_named(task)) for task in tasks] == [True, True, False]
