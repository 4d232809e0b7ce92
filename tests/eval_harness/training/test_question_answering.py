import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
import transformers
import worlds

from angels_share.errors import RunFailed, UserError
from eval_harness.data.splits import load_task
from eval_harness.data.squad_files import read_squad
from eval_harness.squad.answers import answers_of
from eval_harness.squad.metrics import scores_of
from eval_harness.squad.windows import make_windows
from eval_harness.training import runner
from eval_harness.training.encoding import Collator
from eval_harness.training.fine_tuner import make_trainer, train
from eval_harness.training.question_answering import logits_of
from eval_harness.training.runner import run_task

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch):
    """Every test begins as a new worker does."""
    monkeypatch.setattr(runner, "_last_of_each", {})


def ran(run):
    return run_task(run, lambda _share: None)


def asker(**config):
    return tiny.bert(2, model_class=transformers.BertForQuestionAnswering, **NO_DROPOUT, **config)


def windows(world, name="dev", width=24):
    questions = read_squad(world / "squad" / f"{name}.json")
    tokenizer = tiny.wordpiece(worlds.WORDS)
    lengths = {"max_seq_length": width, "doc_stride": 4, "max_query_length": 8}
    return questions, make_windows(questions, tokenizer, **lengths)


# --- a run


def test_a_model_learns_to_answer(world):
    """Prevents a chain from question to score that is broken at any link."""
    run = worlds.run_on_questions(world / "squad", world / "bert", given={"num_train_epochs": 8})
    result, answered = ran(run)
    assert result.score > 0.6
    assert result.scores["validation"]["exact_match"] == pytest.approx(answered.exact.mean())
    assert result.score == result.scores["validation"]["f1"] == pytest.approx(answered.f1.mean())
    assert result.data["examples"] == {"train": 48, "validation": 24}
    assert result.data["source"] == "train.json, dev.json"
    questions = read_squad(world / "squad" / "dev.json")
    assert list(answered.ids) == list(questions.ids)
    again = scores_of(answered.texts, questions.answers, version2=False)
    np.testing.assert_array_equal(again.f1, answered.f1)


def test_what_cannot_be_answered_is_left_blank(world):
    """Prevents SQuAD 2.0 from being trained or evaluated by the rules of 1.1."""
    given = {"num_train_epochs": 8}
    run = worlds.run_on_questions(world / "squad2", world / "bert", "squad_v2", given=given)
    result, answered = ran(run)
    assert {"has_answer_f1", "no_answer_f1"} <= result.scores["validation"].keys()
    assert "" in answered.texts
    assert any(answered.texts)
    questions = read_squad(world / "squad2" / "dev.json")
    blank = [not answers for answers in questions.answers]
    odds = answered.null_odds[blank].mean() - answered.null_odds[np.invert(blank)].mean()
    assert odds > 0  # it tells them apart
    assert result.score > 0.6


def test_the_same_seed_gives_the_same_answers(world):
    """Prevents numbers that nobody can repeat, whatever was cached by another seed's run."""
    first, again, other, last = (
        ran(worlds.run_on_questions(world / "squad", world / "bert", seed=seed))[1]
        for seed in (1, 1, 2, 1)
    )
    assert np.array_equal(first.null_odds, again.null_odds)
    assert np.array_equal(first.null_odds, last.null_odds)
    assert not np.array_equal(first.null_odds, other.null_odds)


def test_the_best_epoch_is_marked_and_kept(world, tmp_path, monkeypatch):
    """Prevents a teacher of the last epoch under the result of the best one."""
    real, looks = scores_of, iter([0.0, 1.0, 0.0])
    monkeypatch.setattr(
        "eval_harness.training.question_answering.summary",
        lambda *_a, **_k: dict.fromkeys(("exact_match", "f1"), next(looks)),
    )
    run = worlds.run_on_questions(
        world / "squad", world / "bert", given={"num_train_epochs": 3}, choose="best",
        save_weights_to=str(tmp_path / "kept"),
    )  # fmt: skip
    result, answered = ran(run)
    assert "epoch 2 of 3, the best on dev" in result.marks
    kept = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "kept")
    assert kept.config.finetuning_task == "squad"
    questions, rows = windows(world)
    starts, ends = logits_of(kept, rows, 0)
    answers = answers_of(questions, rows, starts, ends, version2=False)
    scores = real(answers.texts, questions.answers, version2=False)
    np.testing.assert_allclose(scores.f1, answered.f1)
    np.testing.assert_allclose(answers.null_odds, answered.null_odds, rtol=1e-4)


def test_a_model_that_says_one_thing_is_marked(world, monkeypatch):
    """Prevents a degenerate seed from hiding among the others."""
    still = {"learning_rate": 1e-12}
    run = worlds.run_on_questions(world / "squad2", world / "bert", "squad_v2", given=still)
    monkeypatch.setitem(run.settings.task["values"], "null_score_diff_threshold", -1e9)
    result, _ = ran(run)
    assert any(mark.startswith("degenerate") for mark in result.marks)


# --- numbers


def one_step(model, data, batch_size, accumulation, folder, **settings):
    """The weights after one plain gradient step, and the loss that was logged."""
    arguments = {
        "output_dir": str(folder), "max_steps": 1, "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation, "optim": "sgd", "learning_rate": 0.1,
        "max_grad_norm": 0.0, "logging_steps": 1, "report_to": "none", "disable_tqdm": True,
        "lr_scheduler_type": "constant", "remove_unused_columns": False, "save_strategy": "no",
        "train_sampling_strategy": "sequential", "use_cpu": True,
    }  # fmt: skip
    model = copy.deepcopy(model)
    collator = settings.pop("collator", Collator(0))
    trainer = make_trainer(
        model, arguments, options={}, folders={}, train_dataset=data, data_collator=collator
    )
    trainer.train()
    return model, trainer.state.log_history[0]["loss"]


@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (4, 2), (1, 8)])
@pytest.mark.parametrize("width", [None, 40])
def test_accumulation_and_padding_change_nothing(world, batch_size, accumulation, width, tmp_path):
    """Fault 9. Prevents a loss that is multiplied, or diluted by padding that can hold no answer.

    Value and gradient are those of a float64 textbook computation, a window at a time.
    """
    model = asker()
    _, data = windows(world, "train")
    collator = Collator(0, width)
    stepped, loss = one_step(model, data, batch_size, accumulation, tmp_path, collator=collator)
    textbook = copy.deepcopy(model).double()
    losses = []
    for window in (data[index] for index in range(8)):
        inputs = {name: torch.tensor(window[name][None].astype("i8"))
                  for name in ("input_ids", "token_type_ids")}  # fmt: skip
        output = textbook(**inputs)
        for logits, name in ((output.start_logits, "start"), (output.end_logits, "end")):
            losses.append(-logits[0].log_softmax(0)[int(window[f"{name}_positions"])])
    expected = torch.stack(losses).mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    for name, weight in textbook.named_parameters():
        moved = model.get_parameter(name) - stepped.get_parameter(name)
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        np.testing.assert_allclose(moved.detach().double() / 0.1, gradient, atol=1e-5, err_msg=name)


def test_logits_lie_where_their_tokens_do(world):
    """Prevents batching by length from writing a window's logits to another's place."""
    _, rows = windows(world, "train")
    model = asker()
    starts, ends = logits_of(model, rows, 0, batch_size=5)
    model.eval()
    with torch.no_grad():
        for index in range(len(rows)):
            inputs = {name: torch.tensor(rows[index][name][None].astype("i8"))
                      for name in ("input_ids", "token_type_ids")}  # fmt: skip
            output = model(**inputs)
            part = slice(rows.starts[index], rows.starts[index + 1])
            np.testing.assert_allclose(starts[part], output.start_logits[0], atol=1e-5)
            np.testing.assert_allclose(ends[part], output.end_logits[0], atol=1e-5)


def test_a_loss_that_is_not_finite_ends_the_run(world, tmp_path):
    """Fault 8. Prevents a run of NaNs from ending with a score."""
    broken = tiny.bert(2)
    with torch.no_grad():
        broken.bert.encoder.layer[0].output.LayerNorm.weight.fill_(3e38)  # finite, but overflows
    tiny.folder(tmp_path / "nan", broken, tiny.wordpiece(worlds.WORDS))
    with pytest.raises(RunFailed, match=r"step 1 \(seed 1\): .*not finite"):
        ran(worlds.run_on_questions(world / "squad", tmp_path / "nan"))


def test_windows_beyond_the_position_table_are_refused(world, tmp_path):
    """Prevents an index error in the middle of a run."""
    tiny.folder(
        tmp_path / "short", tiny.bert(2, max_position_embeddings=16), tiny.wordpiece(worlds.WORDS)
    )
    with pytest.raises(UserError, match=r"reads 16 tokens .* --max_seq_length 16"):
        ran(worlds.run_on_questions(world / "squad", tmp_path / "short"))


def test_a_body_of_classification_may_have_another_number_of_labels(world, tmp_path):
    """Prevents a model of three classes from getting three answers' heads."""
    three = tiny.bert(2, model_class=transformers.BertForSequenceClassification, num_labels=3)
    tiny.folder(tmp_path / "three", three, tiny.wordpiece(worlds.WORDS))
    result, _ = ran(worlds.run_on_questions(world / "squad", tmp_path / "three"))
    assert result.score is not None


def test_a_byte_level_tokenizer_answers_too(world, tmp_path):
    """Prevents questions for WordPiece alone: RoBERTa's separators, no token types."""
    tokenizer = tiny.byte_bpe(worlds.WORDS, roberta=True)
    tiny.folder(tmp_path / "roberta", tiny.roberta(2), tokenizer)
    run = worlds.run_on_questions(
        world / "squad", tmp_path / "roberta", given={"max_seq_length": 40}
    )
    result, _ = ran(run)
    assert result.score is not None


# --- settings that must arrive


def test_every_setting_of_answers_arrives(world, monkeypatch):
    """Prevents a flag of answers that is accepted, recorded and then dropped."""
    told = {}

    def spy(*rest, **named):
        told.update(named)
        return answers_of(*rest, **named)

    monkeypatch.setattr("eval_harness.training.question_answering.answers_of", spy)
    given = {"n_best_size": 3, "max_answer_length": 7, "null_score_diff_threshold": 1.5}
    ran(worlds.run_on_questions(world / "squad2", world / "bert", "squad_v2", given=given))
    assert told == {
        "version2": True, "n_best": 3, "max_answer_length": 7, "null_threshold": 1.5,
    }  # fmt: skip


def test_precision_and_batch_reach_the_evaluation(world, monkeypatch):
    """Prevents --bf16 and --per_device_eval_batch_size from ending at the training."""
    told = {}

    def spy(*rest, **named):
        told.update(named)
        return logits_of(*rest, **named)

    monkeypatch.setattr("eval_harness.training.question_answering.logits_of", spy)
    run = worlds.run_on_questions(
        world / "squad", world / "bert", given={"bf16": True},
        neutral={"per_device_eval_batch_size": 5},
    )  # fmt: skip
    ran(run)
    assert told == {"batch_size": 5, "bf16": True}


@pytest.mark.parametrize(("padded", "width"), [(True, 24), (False, None)])
def test_windows_are_padded_where_that_is_asked_for(world, monkeypatch, padded, width):
    """Prevents --pad_to_max_length, and the original's soft targets, from padding nothing."""
    told = []

    def spy(model, factory, values, rows, collator, **named):
        told.append(collator.width)
        return train(model, factory, values, rows, collator, **named)

    monkeypatch.setattr("eval_harness.training.runner.train", spy)
    given = {"pad_to_max_length": padded}
    ran(worlds.run_on_questions(world / "squad", world / "bert", given=given))
    assert told == [width]


def test_padding_beyond_the_position_table_is_refused(world):
    """Prevents a RuntimeError where texts are short and what they are padded to isn't."""
    given = {"max_seq_length": 200, "pad_to_max_length": True}
    with pytest.raises(UserError, match=r"reads 64 tokens .* --max_seq_length 64"):
        ran(worlds.run_on_questions(world / "squad", world / "bert", given=given))


def test_a_limit_is_of_both_splits_and_other_data(world):
    """Prevents --limit from being ignored for questions, or passed for all of them."""
    row = worlds.run_on_questions(world / "squad", world / "bert").task
    whole, some = (load_task(row, None, limit=limit) for limit in (None, 5))
    assert [len(some.train), len(some.evaluation[0])] == [5, 5]
    assert whole.content != some.content


def test_the_same_questions_under_other_ids_are_evaluated_anew(world, tmp_path):
    """Prevents answers under ids that the file doesn't have."""
    text = (world / "squad" / "dev.json").read_text()
    (tmp_path / "dev.json").write_text(text.replace('"id": "q', '"id": "other-q'))
    row = worlds.run_on_questions(world / "squad", world / "bert").task
    other = replace(row, files={**row.files, "validation": str(tmp_path / "dev.json")})
    assert load_task(row, None).content != load_task(other, None).content


def test_the_hubs_own_columns_are_the_same_questions(world, tmp_path):
    """Prevents questions from the Hub from being others than those of SQuAD's own files."""
    import pandas as pd

    from eval_harness.tasks.lookup import task_named

    task = task_named("squad")
    folder = tmp_path / "squad" / "plain_text"
    folder.mkdir(parents=True)
    for name, file in (("train", "train"), ("validation", "dev")):
        questions = read_squad(world / "squad" / f"{file}.json")
        document = json.loads((world / "squad" / f"{file}.json").read_text())
        asked = [(paragraph["context"], each) for article in document["data"]
                 for paragraph in article["paragraphs"] for each in paragraph["qas"]]  # fmt: skip
        rows = [
            {"id": each["id"], "title": "t", "context": context, "question": each["question"],
             "answers": {key: [answer[key] for answer in each["answers"]]
                         for key in ("text", "answer_start")}}
            for context, each in asked
        ]  # fmt: skip
        assert len(rows) == len(questions)
        pd.DataFrame(rows).to_parquet(folder / f"{name}-00000-of-00001.parquet")
    hub = load_task(task, tmp_path)
    own = load_task(worlds.run_on_questions(world / "squad", world / "bert").task, None)
    assert hub.content == own.content
    assert list(hub.train.answers) == list(own.train.answers)


def test_weights_of_a_checkpoint_for_questions_start_anew(world, tmp_path):
    """Prevents a model that was fine-tuned before from passing for one fine-tuned here."""
    tuned = tiny.folder(tmp_path / "tuned", asker(), tiny.wordpiece(worlds.WORDS))
    state = safetensors.torch.load_file(tuned / "model.safetensors")
    ran(worlds.run_on_questions(world / "squad", tuned))
    pristine = runner._last_of_each["model"][1]
    assert "qa_outputs" in pristine.new
    fresh = pristine.copy(1).qa_outputs.weight
    assert not torch.equal(fresh, state["qa_outputs.weight"])
