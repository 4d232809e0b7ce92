import json
from pathlib import Path

import numpy as np
import pytest
import squad_made
import tiny
import transformers
import worlds

from angels_share.cli import run_command
from angels_share.errors import RunFailed, UserError
from angels_share.flags import parse
from eval_harness.commands import squad
from eval_harness.results.predictions import AnsweredQuestions
from eval_harness.results.store import load, publish, read_predictions
from eval_harness.sweep.plan import jobs
from eval_harness.sweep.worker import unfinished
from eval_harness.training.runner import run_task

SMALL = [
    "--learning_rate", "3e-3", "--num_train_epochs", "2", "--per_device_train_batch_size", "8",
    "--max_seq_length", "24", "--doc_stride", "4", "--max_query_length", "8", "--threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def planned(world, tmp_path, *words):
    words = argv(world, tmp_path, *words)
    return squad.checked_plan(squad.experiment(squad.COMMAND.parse(words)))


def argv(world, tmp_path, *words, data="squad"):
    return [
        "--model", str(world / "distilbert"), "--results_dir", str(tmp_path / "results"),
        "--train_file", str(world / data / "train.json"),
        "--validation_file", str(world / data / "dev.json"), *SMALL, *words,
    ]  # fmt: skip


def test_a_teacher_is_tuned_first_and_once(world, tmp_path):
    """Prevents students without a teacher, and a teacher that is tuned for each seed."""
    plan = planned(
        world, tmp_path, "--teacher", str(world / "bert"), "--num_seeds", "3",
        "--alpha_squad", ".7", "--alpha_ce", ".3", "--temperature", "3",
    )  # fmt: skip
    teacher, *students = jobs(plan)
    assert teacher.run.method is None
    assert [job.needs for job in students] == [teacher.key] * 3
    options = students[0].run.method.options
    assert options.items() >= {"alpha_ce": 0.3, "alpha_task": 0.7, "temperature": 3.0}.items()
    assert students[0].run.method.folders["teacher"] == teacher.run.save_weights_to
    assert students[0].run.method.folders["outputs"].startswith(str(plan.root))
    assert "kd_over_all_positions" not in options


def test_a_teacher_that_answers_questions_is_taken_as_it_is(world, tmp_path):
    """Prevents a second fine-tuning of a model that is one for questions already."""
    asker = tiny.bert(2, model_class=transformers.BertForQuestionAnswering)
    tiny.folder(tmp_path / "tuned", asker, tiny.wordpiece(worlds.WORDS))
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
        (["--train_file", "/nowhere.json"], "--train_file /nowhere.json: no such file"),
        (["--temperature", "3"], "--temperature needs a --teacher"),
        (["--alpha_squad", "1"], "--alpha_squad needs a --teacher"),
        (["--kd_over_all_positions"], "needs a --teacher"),
        (["--null_score_diff_threshold", "1"], "--version_2_with_negative"),
        (["--label_smoothing_factor", "0.1"], "not to answer spans"),
        (["--output_dir", "x"], "--results_dir"),
        (["--data_revision", "f" * 40], "is read from files, not from the Hub"),
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


def test_a_damaged_teacher_is_made_again_or_refused(world, tmp_path):
    """Fault 4. Prevents a seed that learns from half a teacher, or from an altered one."""
    (teacher, student) = jobs(
        planned(world, tmp_path, "--teacher", str(world / "bert"), "--num_seeds", "1")
    )
    publish(tmp_path / "results", *run_task(teacher.run, lambda _share: None))
    run_task(student.run, lambda _share: None)
    weights = Path(teacher.run.save_weights_to) / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[: len(good) // 2])
    (again, _) = jobs(
        planned(world, tmp_path, "--teacher", str(world / "bert"), "--num_seeds", "1")
    )
    assert again.again
    weights.write_bytes(good[:-100] + bytes(100))
    with pytest.raises(RunFailed, match=r"model\.safetensors is wrong: remove the folder"):
        run_task(student.run, lambda _share: None)


def test_questions_without_an_answer_need_the_other_rules(world, tmp_path):
    """Prevents SQuAD 2.0's files from being scored by 1.1's rules, in silence."""
    options = parse(
        squad.COMMAND.flags, argv(world, tmp_path, data="squad2"), takes_training_flags=True
    )
    with pytest.raises(UserError, match=r"question q\d+ has no answer.*--version_2_with_negative"):
        squad.checked_plan(squad.experiment(options))


def test_bad_data_is_one_line_and_status_2(world, tmp_path, capsys):
    """Fault 14. Prevents a traceback, or a number, from a file that is cut off."""
    text = (world / "squad" / "train.json").read_text()
    cut = tmp_path / "cut.json"
    cut.write_text(text[: len(text) // 2])
    assert run_command(squad.COMMAND, argv(world, tmp_path, "--train_file", str(cut))) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{cut}:1: not JSON" in said
    assert "is the file truncated?" in said


def test_the_whole_way_from_command_to_table(world, tmp_path, capsys):
    """Prevents a broken link between command, sweep, runner, store, table and answers.

    The second command finds everything there; the third does what a lost file lacks.
    """
    results = tmp_path / "results"
    words = argv(world, tmp_path, "--teacher", str(world / "bert"), "--num_seeds", "2")
    assert run_command(squad.COMMAND, words) == 0
    table = capsys.readouterr().out
    assert "distilbert (D)" in table
    files = sorted(results.glob("runs/*/squad/*/seed-*.json"))
    assert [path.name for path in files] == ["seed-1.json", "seed-1.json", "seed-2.json"]
    (cached,) = results.glob("teacher-outputs/*.npy")
    before = {path: path.stat().st_mtime_ns for path in (*files, cached)}
    assert run_command(squad.COMMAND, words) == 0
    assert {path: path.stat().st_mtime_ns for path in (*files, cached)} == before
    assert capsys.readouterr().out == table
    lost = next(path for path in files if path.name == "seed-2.json")
    content = json.loads(lost.read_text())
    lost.unlink()
    assert run_command(squad.COMMAND, words) == 0
    assert json.loads(lost.read_text())["scores"] == content["scores"]
    assert cached.stat().st_mtime_ns == before[cached]
    answers = json.loads(next(results.glob("submissions/*/*/seed-2/squad.json")).read_text())
    stored = read_predictions(results, load(lost), AnsweredQuestions)
    assert answers == dict(zip(stored.ids, stored.texts, strict=True))


@pytest.mark.slow
def test_cached_outputs_change_no_number_but_their_rounding(world, tmp_path):
    """Prevents a cache that is another teacher: with and without it the students are the same."""
    for name, words in (("with", ()), ("without", ("--no_teacher_cache",))):
        place = tmp_path / name
        place.mkdir()
        chosen = argv(world, place, "--teacher", str(world / "bert"), "--num_seeds", "1", *words)
        assert run_command(squad.COMMAND, chosen) == 0
    found = [
        next((tmp_path / name / "results").glob("runs/distilbert*/squad/*/seed-1.json"))
        for name in ("with", "without")
    ]
    first, second = (
        read_predictions(path.parents[4], load(path), AnsweredQuestions).null_odds for path in found
    )
    np.testing.assert_allclose(first, second, atol=1e-3)
    assert found[0].parent.name == found[1].parent.name  # one setting
    assert not list((tmp_path / "without" / "results").glob("teacher-outputs/*"))


def test_damaged_results_are_done_again(world, tmp_path):
    """Fault 11. Prevents a torn result, or predictions that aren't its own, from being counted."""
    root = tmp_path / "results"
    (job,) = jobs(planned(world, tmp_path, "--num_seeds", "1"))
    publish(root, *run_task(job.run, lambda _share: None))
    assert unfinished(root, job.key) is None
    (result,) = root.glob("runs/*/squad/*/seed-1.json")
    (predictions,) = root.glob("runs/*/squad/*/seed-1.*.parquet")
    whole = predictions.read_bytes()
    predictions.write_bytes(whole[:-10])
    assert "parquet" in unfinished(root, job.key)
    predictions.write_bytes(whole)
    result.write_text(result.read_text()[:100])
    assert unfinished(root, job.key)


def test_one_file_may_come_from_the_hub(world, tmp_path, monkeypatch):
    """Prevents a manual download of the official training set just to evaluate on a file."""
    asked_for = []

    def from_hub(task, data_dir, splits, revision):
        asked_for.append((task.files, tuple(splits), revision))
        raise UserError("no network here")

    monkeypatch.setattr("eval_harness.data.questions.find_source", from_hub)
    words = argv(world, tmp_path)
    at = words.index("--train_file")
    del words[at : at + 2]
    with pytest.raises(UserError, match="no network here"):
        squad.checked_plan(
            squad.experiment(parse(squad.COMMAND.flags, words, takes_training_flags=True))
        )
    assert asked_for == [({}, ("train",), None)]


def test_bad_questions_are_named(world, tmp_path):
    """Prevents answers that aren't where they are said to be from being trained on."""
    bad = squad_made.document([("the old river", "what is old", [("angels", 4)])])
    squad_made.write(tmp_path / "bad.json", bad)
    with pytest.raises(
        UserError, match=r"bad\.json: article 'Barrels' / paragraph 1 / question q0"
    ):
        planned(world, tmp_path, "--train_file", str(tmp_path / "bad.json"))
