import copy
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
import transformers
import worlds

from angels_share.errors import RunFailed, UserError
from angels_share.files import sha256_of_file
from angels_share.sealed_folder import require_unchanged
from angels_share.student_record import add_step, read_record
from eval_harness.runs.models import identify
from eval_harness.runs.run import Method
from eval_harness.tasks.lookup import task_named
from eval_harness.training import runner
from eval_harness.training.classification import logits_of
from eval_harness.training.model_loading import load_for_task
from eval_harness.training.runner import run_task

DISTIL = "distil_trainer.harness:make_trainer"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch):
    """Every test begins as a new worker does."""
    monkeypatch.setattr(runner, "_last_of_each", {})


def ran(run):
    return run_task(run, lambda _share: None)


def test_a_run_learns_and_says_all_there_is_to_know(world):
    """Prevents a record that can't be trusted or repeated."""
    run = worlds.run_on(world / "glue", world / "bert", given={"num_train_epochs": 12})
    shares = []
    result, predictions = run_task(run, shares.append)
    assert result.score > 0.7
    assert result.score == result.scores["validation"]["accuracy"]
    assert result.key == run.key
    assert result.data["examples"] == {"train": 48, "validation": 24}
    assert result.provenance["threads"] == torch.get_num_threads()
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert predictions.logits.shape == (24, 2)
    answers = predictions.logits.argmax(1)
    assert (answers == predictions.labels).mean() == pytest.approx(result.score)


@pytest.mark.parametrize("task", ["rte", "stsb"])
def test_the_same_seed_gives_the_same_bits(world, task):
    """Prevents numbers that nobody can repeat: head, order and dropout all come from the seed.

    The second run finds model and data cached by the first; the third comes after another seed.
    """
    first, again, other, last = (
        ran(worlds.run_on(world / "glue", world / "bert", task, seed=seed))[1].logits
        for seed in (1, 1, 2, 1)
    )
    assert np.array_equal(first, again)
    assert np.array_equal(first, last)
    assert not np.array_equal(first, other)


def test_a_cached_model_is_not_trained(world):
    """Prevents a second run that begins where the first one ended."""
    run = worlds.run_on(world / "glue", world / "bert")
    ran(run)
    pristine = runner._last_of_each["model"][1].model
    before = copy.deepcopy(pristine.state_dict())
    ran(run)
    assert all(torch.equal(value, before[name]) for name, value in pristine.state_dict().items())


def test_the_best_epoch_is_marked_and_changes_nothing_else(world):
    """Prevents a peek at dev from passing for a plain result, or from disturbing the training."""
    plain, _ = ran(worlds.run_on(world / "glue", world / "bert"))
    best, _ = ran(worlds.run_on(world / "glue", world / "bert", choose="best"))
    assert not [mark for mark in plain.marks if "best" in mark]
    assert any("best on dev" in mark for mark in best.marks)
    assert best.score >= plain.score
    assert best.history == plain.history
    assert best.key != plain.key


def test_half_precision_checkpoints_are_tuned_in_float32(world, tmp_path):
    """Prevents fine-tuning in the dtype that a checkpoint happens to be stored in."""
    half = tiny.bert(2).half()
    tiny.folder(tmp_path / "half", half, tiny.wordpiece(worlds.WORDS))
    run = worlds.run_on(world / "glue", tmp_path / "half")
    ran(run)
    seen = {weight.dtype for weight in runner._last_of_each["model"][1].model.parameters()}
    assert seen == {torch.float32}
    assert run.settings.row["dtype"] == "float32"


def test_one_answer_for_all_is_marked(world):
    """Prevents a degenerate seed from hiding among the others."""
    still = {"learning_rate": 1e-12}
    result, _ = ran(worlds.run_on(world / "glue", world / "bert", given=still))
    assert any(mark.startswith("degenerate") for mark in result.marks)


def test_a_regression_that_collapsed_is_marked(world, monkeypatch):
    """Prevents a constant with some rounding noise from passing for a regression."""
    noise = np.random.default_rng(0).normal(2.0, 1e-4, (24, 1)).astype("f4")
    monkeypatch.setattr("eval_harness.training.classification.logits_of", lambda *_a, **_k: noise)
    result, _ = ran(worlds.run_on(world / "glue", world / "bert", "stsb"))
    assert any(mark.startswith("degenerate") for mark in result.marks)


def test_kept_weights_are_those_that_were_scored(world, tmp_path, monkeypatch):
    """Prevents a teacher of the last epoch under the result of the best one."""
    looks = iter([0.5, 0.9, 0.7])  # on any machine the second epoch of three is the best
    monkeypatch.setattr(
        "eval_harness.training.classification.compute_metrics", lambda *_: {"score": next(looks)}
    )
    given = {"num_train_epochs": 3}
    run = worlds.run_on(
        world / "glue", world / "bert", given=given, choose="best", seed=3,
        save_weights_to=str(tmp_path / "kept"),
    )  # fmt: skip
    result, predictions = ran(run)
    assert "epoch 2 of 3, the best on dev" in result.marks
    assert result.score == 0.9
    encoded = runner._last_of_each["encoded"][1]["validation"]
    kept = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "kept")
    np.testing.assert_allclose(logits_of(kept, encoded, 0), predictions.logits, atol=1e-5)
    assert kept.config.finetuning_task == "rte"


def test_saved_weights_say_what_they_were_made_of(world, tmp_path):
    """Prevents a model of which nobody knows what it was before, and a seal that an export breaks.

    It is tuned from a cut model: that cut is in its record too.
    """
    start, kept = tmp_path / "cut", tmp_path / "kept"
    shutil.copytree(world / "bert", start)
    weights = sha256_of_file(start / "model.safetensors")
    cut = {"what": "prune", "file": "model.safetensors", "sha256": weights}
    add_step(start, cut)
    add_step(start, {**cut, "what": "export", "file": "onnx/model.onnx"})
    run = worlds.run_on(world / "glue", start, seed=3, save_weights_to=str(kept))
    result, _ = ran(run)
    before, step = read_record(kept)["lineage"]
    assert before == cut  # not the export: that file holds other weights
    assert step["what"] == "fine-tune"
    assert step["from"]["sha256"] == weights
    assert step["sha256"] == sha256_of_file(kept / "model.safetensors")
    assert step["score"] == result.score
    assert step["settings"] | {"task": "rte", "seed": 3} == step["settings"]
    assert str(tmp_path) not in json.dumps(step)
    add_step(kept, {"what": "export", "file": "onnx/model.onnx"})
    require_unchanged(kept)


def test_bf16_is_an_autocast_that_leaves_no_trace(world):
    """Prevents bf16 from being refused on a CPU, or from touching the next run in the process."""
    plain, _ = ran(worlds.run_on(world / "glue", world / "bert"))
    half, _ = ran(worlds.run_on(world / "glue", world / "bert", given={"bf16": True}))
    again, _ = ran(worlds.run_on(world / "glue", world / "bert"))
    assert half.settings.row["dtype"] == "bfloat16"
    assert half.history != plain.history
    assert again.history == plain.history


def test_positions_begin_where_the_published_model_has_them(world, tmp_path):
    """Prevents RoBERTa's positions from moving because a tokenizer pads with another id."""
    tokenizer = tiny.byte_bpe(worlds.WORDS, roberta=True)
    model = tiny.roberta(2)
    tokenizer.pad_token = "<mask>"
    tiny.folder(tmp_path / "roberta", model, tokenizer)
    ran(worlds.run_on(world / "glue", tmp_path / "roberta"))
    pristine = runner._last_of_each["model"][1]
    assert tokenizer.pad_token_id != 1
    assert pristine.pad_id == pristine.model.config.pad_token_id == 1
    assert pristine.max_tokens == 64


def test_an_undefined_score_is_none_and_no_nan(world, monkeypatch):
    """Prevents a NaN in a result: a correlation with constant predictions is undefined."""
    one = "eval_harness.training.classification.logits_of"
    monkeypatch.setattr(one, lambda _m, part, *_a, **_k: np.ones((len(part), 1), "f4"))
    result, _ = ran(worlds.run_on(world / "glue", world / "bert", "stsb"))
    assert result.score is None
    assert result.scores["validation"]["pearson"] is None


def test_a_loss_that_is_not_finite_ends_the_run(world, tmp_path):
    """Fault 8. Prevents a run of NaNs from ending with a score: step and seed are named."""
    broken = tiny.bert(2)
    with torch.no_grad():
        broken.bert.encoder.layer[0].output.LayerNorm.weight.fill_(3e38)  # finite, but overflows
    tiny.folder(tmp_path / "nan", broken, tiny.wordpiece(worlds.WORDS))
    run = worlds.run_on(world / "glue", tmp_path / "nan", seed=7)
    with pytest.raises(RunFailed, match=r"step 1 \(seed 7\).*not finite"):
        ran(run)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_with_nan_is_named_as_that(world, tmp_path, value):
    """Prevents a damaged file from being reported as a learning rate that is too high."""
    folder = tmp_path / "damaged"
    shutil.copytree(world / "bert", folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    weights[name][3, 5] = value
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    said = rf"^damaged: its weights are damaged: {name} contains NaN or infinity$"
    with pytest.raises(UserError, match=said):
        ran(worlds.run_on(world / "glue", folder))


def test_an_exploding_run_has_no_result(world):
    """Fault 8. Prevents a result from weights that ran away in the middle."""
    given = {"learning_rate": 1e30, "max_grad_norm": 0.0, "warmup_steps": 0, "optim": "sgd"}
    with pytest.raises(RunFailed, match="not finite"):
        ran(worlds.run_on(world / "glue", world / "bert", given=given))


def test_distillation_comes_in_by_name(world, tmp_path):
    """Prevents a harness that must import what it runs: teacher, factory and options are data."""
    teacher = tmp_path / "teacher"
    ran(worlds.run_on(world / "glue", world / "bert", save_weights_to=str(teacher)))
    kept = transformers.AutoConfig.from_pretrained(teacher)
    assert list(kept.id2label.values()) == ["entailment", "not_entailment"]
    options = {"teacher_model": "bert", "alpha_ce": 0.5, "alpha_task": 0.5, "temperature": 2.0}
    method = Method("distil", DISTIL, options, {"teacher": str(teacher)})
    run = worlds.run_on(world / "glue", world / "distilbert", method=method)
    distilled, _ = ran(run)
    plain, _ = ran(worlds.run_on(world / "glue", world / "distilbert"))
    assert distilled.settings.row["method"]["name"] == "distil"
    assert distilled.key != plain.key
    assert distilled.history != plain.history


def test_distillation_without_soft_targets_is_plain_fine_tuning(world, tmp_path):
    """Prevents two ways to fine-tune from drifting apart: (D) with weight 0 must equal plain."""
    teacher = tmp_path / "teacher"
    ran(worlds.run_on(world / "glue", world / "bert", save_weights_to=str(teacher)))
    options = {"teacher_model": "bert", "alpha_ce": 0.0, "alpha_task": 1.0, "temperature": 2.0}
    method = Method("distil", DISTIL, options, {"teacher": str(teacher)})
    _, distilled = ran(worlds.run_on(world / "glue", world / "distilbert", method=method))
    _, plain = ran(worlds.run_on(world / "glue", world / "distilbert"))
    np.testing.assert_allclose(distilled.logits, plain.logits, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["no.such.module:make", "eval_harness.training.runner:no_such_function", "nonsense"]
)
def test_an_unknown_method_is_named(world, name):
    """Prevents a traceback from a mistyped factory."""
    with pytest.raises(UserError, match=r"package\.module:name"):
        ran(worlds.run_on(world / "glue", world / "bert", method=Method("x", name)))


def test_what_does_not_fit_is_refused(world, tmp_path):
    """Prevents an index error, or silence, where tokenizer, length or weights don't fit."""
    tiny.folder(tmp_path / "small", tiny.bert(2, vocab_size=20), tiny.wordpiece(worlds.WORDS))
    with pytest.raises(UserError, match="do not belong together"):
        ran(worlds.run_on(world / "glue", tmp_path / "small"))
    short = tiny.bert(2, max_position_embeddings=8)
    tiny.folder(tmp_path / "short", short, tiny.wordpiece(worlds.WORDS))
    with pytest.raises(UserError, match="--max_seq_length 8"):
        ran(worlds.run_on(world / "glue", tmp_path / "short"))
    tiny.folder(tmp_path / "holes", tiny.bert(2), tiny.wordpiece(worlds.WORDS))
    weights = safetensors.torch.load_file(tmp_path / "holes" / "model.safetensors")
    weights = {name: value for name, value in weights.items() if "layer.1." not in name}
    safetensors.torch.save_file(
        weights, tmp_path / "holes" / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(UserError, match="weights do not fit"):
        ran(worlds.run_on(world / "glue", tmp_path / "holes"))
    shallow = tiny.folder(tmp_path / "shallow", tiny.bert(2), tiny.wordpiece(worlds.WORDS))
    config = (shallow / "config.json").read_text()
    (shallow / "config.json").write_text(
        config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 1')
    )
    with pytest.raises(UserError, match="left over"):
        ran(worlds.run_on(world / "glue", shallow))


def test_data_that_changed_meanwhile_is_not_scored(world, tmp_path):
    """Prevents a result under the key of other data than it was made from."""
    folder = worlds.glue_folder(tmp_path / "glue")
    run = worlds.run_on(folder, world / "bert")
    worlds.glue_folder(folder, seed=5)
    with pytest.raises(RunFailed, match="changed since"):
        ran(run)


@pytest.mark.parametrize("kind", sorted(set(tiny.ARCHITECTURES) - {"bert", "distilbert"}))
def test_other_architectures_run_too(world, tmp_path, kind):
    """Prevents a harness for BERT alone: other heads, other tokenizers, no padding token."""
    tokenizer = tiny.tokenizer_for(kind, worlds.WORDS)
    tiny.folder(tmp_path / kind, tiny.ARCHITECTURES[kind](2), tokenizer)
    result, _ = ran(worlds.run_on(world / "glue", tmp_path / kind))
    assert result.score is not None


def test_a_transform_that_was_pre_trained_is_kept(tmp_path):
    """ModernBERT's head for a task begins with the language model's: new, it would be worse."""
    language_model, task = tiny.modernbert(2), task_named("rte")
    tiny.folder(tmp_path / "lm", language_model, tiny.wordpiece(worlds.WORDS))
    loaded = load_for_task(identify(str(tmp_path / "lm")), task, tiny.wordpiece(worlds.WORDS))
    assert loaded.new == ("classifier",)
    tuned = loaded.copy(3)
    assert tuned.head.dense.weight.equal(language_model.head.dense.weight)
    # Of a model that was fine-tuned before, nothing is kept but its body.
    tiny.folder(tmp_path / "tuned", tuned, tiny.wordpiece(worlds.WORDS))
    again = load_for_task(identify(str(tmp_path / "tuned")), task, tiny.wordpiece(worlds.WORDS))
    assert again.new == ("head.dense", "head.norm", "classifier")
