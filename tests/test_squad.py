import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import squad_made
import tiny
import torch
import transformers
import worlds

from angels_share.cli import open_door
from angels_share.errors import RunFailed, UserError
from angels_share.flags import parse
from eval_harness import runner
from eval_harness.cli import SQUAD_DOOR
from eval_harness.data import load_task
from eval_harness.encoding import Collator
from eval_harness.fine_tuner import make_trainer, train
from eval_harness.plans import jobs
from eval_harness.runner import run_task
from eval_harness.squad import plan
from eval_harness.squad_answers import answers_of
from eval_harness.squad_files import read_squad
from eval_harness.squad_judge import logits_of
from eval_harness.squad_metrics import scores_of
from eval_harness.squad_windows import make_windows
from eval_harness.store import load, read_answers

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SMALL = [
    "--learning_rate", "3e-3", "--num_train_epochs", "2", "--per_device_train_batch_size", "8",
    "--max_seq_length", "24", "--doc_stride", "4", "--max_query_length", "8", "--threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Every test begins as a new worker does."""
    monkeypatch.setattr(runner, "_kept", {})


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
    """Prevents SQuAD 2.0 from being trained or judged by the rules of 1.1."""
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
    """Prevents numbers that nobody can repeat, whatever was kept of another seed's run."""
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
        "eval_harness.squad_judge.summary",
        lambda *_a, **_k: dict.fromkeys(("exact_match", "f1"), next(looks)),
    )
    run = worlds.run_on_questions(
        world / "squad", world / "bert", given={"num_train_epochs": 3}, choose="best",
        keep_weights=str(tmp_path / "kept"),
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
        broken.bert.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
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

    monkeypatch.setattr("eval_harness.squad_judge.answers_of", spy)
    given = {"n_best_size": 3, "max_answer_length": 7, "null_score_diff_threshold": 1.5}
    ran(worlds.run_on_questions(world / "squad2", world / "bert", "squad_v2", given=given))
    assert told == {
        "version2": True, "n_best": 3, "max_answer_length": 7, "null_threshold": 1.5,
    }  # fmt: skip


def test_precision_and_batch_reach_the_judge(world, monkeypatch):
    """Prevents --bf16 and --per_device_eval_batch_size from ending at the training."""
    told = {}

    def spy(*rest, **named):
        told.update(named)
        return logits_of(*rest, **named)

    monkeypatch.setattr("eval_harness.squad_judge.logits_of", spy)
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

    monkeypatch.setattr("eval_harness.runner.train", spy)
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


# --- the door


def planned(world, tmp_path, *words):
    return plan(parse(SQUAD_DOOR.flags, argv(world, tmp_path, *words), takes_training_flags=True))


def argv(world, tmp_path, *words, data="squad"):
    return [
        "--model", str(world / "distilbert"), "--results_dir", str(tmp_path / "results"),
        "--train_file", str(world / data / "train.json"),
        "--validation_file", str(world / data / "dev.json"), *SMALL, *words,
    ]  # fmt: skip


def test_a_teacher_is_tuned_first_and_once(world, tmp_path):
    """Prevents students without a teacher, and a teacher that is tuned for each seed."""
    what = planned(
        world, tmp_path, "--teacher", str(world / "bert"), "--num_seeds", "3",
        "--alpha_squad", ".7", "--alpha_ce", ".3", "--temperature", "3",
    )  # fmt: skip
    teacher, *students = jobs(what)
    assert teacher.run.method is None
    assert [job.needs for job in students] == [teacher.key] * 3
    options = students[0].run.method.options
    assert options.items() >= {"alpha_ce": 0.3, "alpha_task": 0.7, "temperature": 3.0}.items()
    assert students[0].run.method.folders["teacher"] == teacher.run.keep_weights
    assert students[0].run.method.folders["outputs"].startswith(str(what.root))
    assert "kd_over_all_positions" not in options


def test_a_teacher_that_answers_questions_is_taken_as_it_is(world, tmp_path):
    """Prevents a second fine-tuning of a model that is one for questions already."""
    tiny.folder(tmp_path / "tuned", asker(), tiny.wordpiece(worlds.WORDS))
    words = ("--teacher", str(tmp_path / "tuned"), "--num_seeds", "1")
    (job,) = jobs(planned(world, tmp_path, *words))
    assert job.needs is None
    assert job.run.method.folders["teacher"] == str(tmp_path / "tuned")


def test_the_originals_soft_targets_pad_the_student_alone(world, tmp_path):
    """Prevents a teacher that is tuned again because its student's windows are padded."""
    words = ("--teacher", str(world / "bert"), "--num_seeds", "1")
    teacher, _ = jobs(planned(world, tmp_path, *words))
    same, student = jobs(planned(world, tmp_path, *words, "--kd_over_all_positions"))
    assert same.key == teacher.key
    assert student.run.method.options["kd_over_all_positions"] is True
    assert student.run.settings.task["values"]["pad_to_max_length"] is True


def test_what_is_spelt_out_is_the_same_setting(world, tmp_path):
    """Prevents five more runs for a flag that was given with its default."""
    (plain, *_) = jobs(planned(world, tmp_path))
    (spelt, *_) = jobs(planned(world, tmp_path, "--n_best_size", "20", "--max_answer_length", "30"))
    (other, *_) = jobs(planned(world, tmp_path, "--max_answer_length", "15"))
    assert plain.key == spelt.key != other.key
    assert other.run.settings.row["overrides"]["max_answer_length"] == 15


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train_file", "/nowhere.json"], "--train_file /nowhere.json: there is no such file"),
        (["--temperature", "3"], "wants a --teacher"),
        (["--alpha_squad", "1"], "wants a --teacher"),
        (["--kd_over_all_positions"], "wants a --teacher"),
        (["--null_score_diff_threshold", "1"], "--version_2_with_negative"),
        (["--label_smoothing_factor", "0.1"], "an answer has one place"),
        (["--output_dir", "x"], "--results_dir"),
        (["--data_revision", "f" * 40], "is read from files"),
        (["--doc_stride", "1000"], "distilbert: --max_seq_length 24"),
        (["--seeds", "-1"], "must be from 0"),
        (["--max_answer_length", "0"], "must be above 0"),
    ],
)
def test_mistakes_are_told_before_any_work(world, tmp_path, words, said):
    """Prevents an hour of work before a refusal."""
    with pytest.raises(UserError, match=said):
        planned(world, tmp_path, *words)


def test_the_originals_names_lead_to_ours(world, tmp_path):
    """Prevents a teacher's flag from being taken for the student's, by the nearest name."""
    for flag, ours in (("--teacher_name_or_path", "--teacher"), ("--predict_file", "--validation")):
        with pytest.raises(UserError, match=f"use {ours}"):
            planned(world, tmp_path, flag, "x")


def test_a_number_of_a_file_is_that_of_the_command_line(world, tmp_path):
    """Prevents five more runs because YAML says 2 where the default is 2.0."""
    (tmp_path / "run.yaml").write_text("temperature: 2\nalpha_ce: 0.5\n")
    words = ("--teacher", str(world / "bert"), "--num_seeds", "1")
    plain, told = (
        list(jobs(planned(world, tmp_path, *words, *more)))[-1].key
        for more in ((), ("--config", str(tmp_path / "run.yaml")))
    )
    assert plain == told


def test_flags_of_answers_make_no_other_teacher(world, tmp_path):
    """Prevents hours of a teacher's fine-tuning for a threshold that its weights don't know."""
    words = ("--teacher", str(world / "bert"), "--num_seeds", "1")
    first, _ = jobs(planned(world, tmp_path, *words))
    again, student = jobs(planned(world, tmp_path, *words, "--max_answer_length", "15"))
    assert first.key == again.key
    assert student.run.settings.task["values"]["max_answer_length"] == 15


def test_a_damaged_teacher_is_made_again_or_refused(world, tmp_path, capsys):
    """Fault 4. Prevents a seed that learns from half a teacher, or from an altered one."""
    teacher = ("--teacher", str(world / "bert"))
    assert open_door(SQUAD_DOOR, argv(world, tmp_path, *teacher, "--num_seeds", "1")) == 0
    (weights,) = (tmp_path / "results" / "models").glob("**/model.safetensors")
    good = weights.read_bytes()
    weights.write_bytes(good[: len(good) // 2])
    (job, *_) = jobs(planned(world, tmp_path, *teacher))
    assert job.again
    weights.write_bytes(good[:-100] + bytes(100))
    words = argv(world, tmp_path, *teacher, "--num_seeds", "2")
    assert open_door(SQUAD_DOOR, words) == 1
    assert "isn't what was written there: remove the folder" in capsys.readouterr().err


def test_questions_without_an_answer_want_the_other_rules(world, tmp_path):
    """Prevents SQuAD 2.0's files from being judged by 1.1's rules, in silence."""
    options = parse(
        SQUAD_DOOR.flags, argv(world, tmp_path, data="squad2"), takes_training_flags=True
    )
    with pytest.raises(UserError, match=r"question q\d+ has no answer.*--version_2_with_negative"):
        plan(options)


def test_bad_data_is_one_line_and_status_2(world, tmp_path, capsys):
    """Fault 14. Prevents a traceback, or a number, from a file that is cut off."""
    text = (world / "squad" / "train.json").read_text()
    cut = tmp_path / "cut.json"
    cut.write_text(text[: len(text) // 2])
    assert open_door(SQUAD_DOOR, argv(world, tmp_path, "--train_file", str(cut))) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{cut}:1: not JSON" in said
    assert "copied whole?" in said


def test_the_whole_way_from_command_to_table(world, tmp_path, capsys):
    """Prevents a broken link between door, sweep, runner, store, table and answers.

    The second command finds everything there; the third does what a lost file lacks.
    """
    results = tmp_path / "results"
    words = argv(world, tmp_path, "--teacher", str(world / "bert"), "--num_seeds", "2")
    assert open_door(SQUAD_DOOR, words) == 0
    table = capsys.readouterr().out
    assert "distilbert (D)" in table
    files = sorted(results.glob("runs/*/squad/*/seed-*.json"))
    assert [path.name for path in files] == ["seed-1.json", "seed-1.json", "seed-2.json"]
    (kept,) = results.glob("teacher-outputs/*.npy")
    before = {path: path.stat().st_mtime_ns for path in (*files, kept)}
    assert open_door(SQUAD_DOOR, words) == 0
    assert {path: path.stat().st_mtime_ns for path in (*files, kept)} == before
    assert capsys.readouterr().out == table
    lost = next(path for path in files if path.name == "seed-2.json")
    content = json.loads(lost.read_text())
    lost.unlink()
    assert open_door(SQUAD_DOOR, words) == 0
    assert json.loads(lost.read_text())["scores"] == content["scores"]
    assert kept.stat().st_mtime_ns == before[kept]
    answers = json.loads(next(results.glob("submissions/*/*/seed-2/squad.json")).read_text())
    stored = read_answers(results, load(lost))
    assert answers == dict(zip(stored.ids, stored.texts, strict=True))


def test_kept_outputs_change_no_number_but_their_rounding(world, tmp_path):
    """Prevents a cache that is another teacher: with and without it the students are the same."""
    for name, words in (("with", ()), ("without", ("--no_teacher_cache",))):
        place = tmp_path / name
        place.mkdir()
        chosen = argv(world, place, "--teacher", str(world / "bert"), "--num_seeds", "1", *words)
        assert open_door(SQUAD_DOOR, chosen) == 0
    found = [
        next((tmp_path / name / "results").glob("runs/distilbert*/squad/*/seed-1.json"))
        for name in ("with", "without")
    ]
    first, second = (read_answers(path.parents[4], load(path)).null_odds for path in found)
    np.testing.assert_allclose(first, second, atol=1e-3)
    assert found[0].parent.name == found[1].parent.name  # one setting
    assert not list((tmp_path / "without" / "results").glob("teacher-outputs/*"))


def test_damaged_results_are_done_again(world, tmp_path, capsys):
    """Fault 11. Prevents a torn result, or predictions that aren't its own, from being counted."""
    words = argv(world, tmp_path, "--num_seeds", "2")
    assert open_door(SQUAD_DOOR, words) == 0
    table = capsys.readouterr().out
    results = tmp_path / "results"
    (result,) = results.glob("runs/*/squad/*/seed-1.json")
    (predictions,) = results.glob("runs/*/squad/*/seed-2.*.parquet")
    result.write_text(result.read_text()[:100])
    predictions.write_bytes(predictions.read_bytes()[:-10])
    assert open_door(SQUAD_DOOR, words) == 0
    assert capsys.readouterr().out == table


def test_the_hubs_own_columns_are_the_same_questions(world, tmp_path):
    """Prevents questions from the Hub from being others than those of SQuAD's own files."""
    import pandas as pd

    from eval_harness.tasks import task_named

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
    pristine = runner._kept["model"][1]
    assert "qa_outputs" in pristine.new
    fresh = pristine.copy(1).qa_outputs.weight
    assert not torch.equal(fresh, state["qa_outputs.weight"])


def test_one_file_may_come_from_the_hub(world, tmp_path, monkeypatch):
    """Prevents an official training set from having to be downloaded by hand to judge on a file."""
    asked_for = []

    def from_hub(task, data_dir, splits, revision):
        asked_for.append((task.files, tuple(splits), revision))
        raise UserError("no network here")

    monkeypatch.setattr("eval_harness.data.origin_of", from_hub)
    words = argv(world, tmp_path)
    at = words.index("--train_file")
    del words[at : at + 2]
    with pytest.raises(UserError, match="no network here"):
        plan(parse(SQUAD_DOOR.flags, words, takes_training_flags=True))
    assert asked_for == [({}, ("train",), None)]


def test_bad_questions_are_named(world, tmp_path):
    """Prevents answers that aren't where they are said to be from being trained on."""
    bad = squad_made.document([("the old river", "what is old", [("angels", 4)])])
    squad_made.write(tmp_path / "bad.json", bad)
    with pytest.raises(
        UserError, match=r"bad\.json: article 'Barrels' / paragraph 1 / question q0"
    ):
        planned(world, tmp_path, "--train_file", str(tmp_path / "bad.json"))
