import json
import shutil

import pytest
import tiny
import worlds

from angels_share.cli import run_command
from angels_share.errors import UserError
from angels_share.flags import parse
from eval_harness.commands import glue
from eval_harness.sweep.plan import jobs, plan
from eval_harness.sweep.queue import unique

SMALL = [
    "--learning_rate", "3e-3", "--num_train_epochs", "2", "--per_device_train_batch_size", "8",
    "--max_seq_length", "32",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def planned(world, tmp_path, *words):
    argv = [
        "--model", str(world / "distilbert"), "--data_dir", str(world / "glue"),
        "--results_dir", str(tmp_path / "results"), "--tasks", "rte", "cola", *SMALL, *words,
    ]  # fmt: skip
    return plan(glue.experiment(parse(glue.COMMAND.flags, argv, takes_training_flags=True)))


def test_a_sweep_is_models_by_tasks_by_seeds(world, tmp_path):
    """Prevents a run that is forgotten, or done under another's key."""
    sweep = planned(world, tmp_path, "--seeds", "11", "22", "33")
    keys = [job.run.key for job in jobs(sweep)]
    assert len(set(keys)) == 2 * 3
    assert {job.run.seed for job in jobs(sweep)} == {11, 22, 33}
    assert not any(job.needs for job in jobs(sweep))


def test_no_epoch_is_chosen_on_test_sets(world, tmp_path):
    """Prevents XNLI's best epoch from being the one that its test sets like best."""
    with pytest.raises(UserError, match="--choose best: XNLI is judged on test sets alone"):
        planned(world, tmp_path, "--tasks", "xnli", "--choose", "best")


def test_a_teacher_is_tuned_first_and_once(world, tmp_path):
    """Prevents students without a teacher, and a teacher that is tuned for each seed."""
    words = ("--teacher", str(world / "bert"), "--num_seeds", "2", "--temperature", "3")
    wanted = list(jobs(planned(world, tmp_path, *words)))
    teachers = [job for job in wanted if job.run.method is None]
    students = [job for job in wanted if job.run.method is not None]
    assert [job.run.task.name for job in teachers] == ["rte", "cola"]
    assert len(students) == 4
    for job in students:
        teacher = next(each for each in teachers if each.run.task == job.run.task)
        assert job.needs == teacher.run.key
        assert job.run.method.folders["teacher"] == teacher.run.save_weights_to
        assert teacher.run.save_weights_to.endswith(f"results/models/{teacher.run.key}")
        assert job.run.settings.task["inputs"] == {"teacher": teacher.run.key}
        assert job.run.method.options["temperature"] == 3.0
        assert job.run.settings.row["method"]["options"]["teacher_model"].startswith("bert-")


def test_a_teacher_that_is_evaluated_too_is_tuned_once(world, tmp_path):
    """Prevents the teacher's first seed from being run with and without keeping its weights."""
    bert = str(world / "bert")
    distilled = planned(world, tmp_path, "--teacher", bert, "--num_seeds", "2")
    again = planned(world, tmp_path, "--model", bert, "--num_seeds", "2")
    both = unique([*jobs(again), *jobs(distilled)])
    kept = [job for job in both if job.run.save_weights_to]
    assert len(both) == 2 * 2 + 2 * 2
    assert len(kept) == 2


def test_a_teacher_that_knows_the_task_is_taken_as_it_is(world, tmp_path):
    """Prevents a second fine-tuning of a teacher that somebody fine-tuned already."""
    import transformers

    tuned = tiny.bert(
        2, model_class=transformers.BertForSequenceClassification,
        id2label={0: "entailment", 1: "not_entailment"},
        label2id={"entailment": 0, "not_entailment": 1}, finetuning_task="rte",
    )  # fmt: skip
    tiny.folder(tmp_path / "tuned", tuned, tiny.wordpiece(worlds.WORDS))
    words = ("--teacher", str(tmp_path / "tuned"), "--num_seeds", "1", "--tasks", "rte")
    (job,) = jobs(planned(world, tmp_path, *words))
    assert job.needs is None
    assert job.run.method.folders["teacher"] == str(tmp_path / "tuned")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--temperature", "3"], "--temperature needs a --teacher"),
        (["--seeds", "1", "--num_seeds", "2"], "one of them"),
        (["--output_dir", "x"], "--results_dir"),
        (["--data_dir", "/nowhere"], "/nowhere"),
        (["--max_seq_length", "65"], "--max_seq_length 65: distilbert reads 64 tokens at most"),
    ],
)
def test_mistakes_are_told_before_any_work(world, tmp_path, words, said):
    """Prevents an hour of work before a refusal."""
    with pytest.raises(UserError, match=said):
        planned(world, tmp_path, *words)


def test_all_tasks_that_are_missing_are_named_at_once(world, tmp_path):
    """Prevents nine attempts to learn which of the nine a folder holds."""
    words = ("--tasks", "mnli", "rte", "qqp", "cola", "sst2")
    said = r"no data for mnli, qqp, sst2; to run the 2 that are there: --tasks rte cola$"
    with pytest.raises(UserError, match=said):
        planned(world, tmp_path, *words)
    with pytest.raises(UserError, match=r"no MNLI.* found; looked for"):
        planned(world, tmp_path, "--tasks", "mnli", "qqp")


def test_a_teacher_of_another_vocabulary_is_refused_at_once(world, tmp_path):
    """Fault 16. Prevents hours of a teacher's fine-tuning before ids that mean other words."""
    tokens = tiny.wordpiece([*worlds.WORDS[:-1], "zebra"])
    tiny.folder(tmp_path / "other", tiny.bert(2), tokens)
    with pytest.raises(UserError, match="distilbert and its teacher other: the tokenizers differ"):
        planned(world, tmp_path, "--teacher", str(tmp_path / "other"))


def test_flags_that_change_no_number_are_passed_on(world, tmp_path):
    """Prevents a flag that is accepted and then dropped."""
    (job, *_) = jobs(planned(world, tmp_path, "--dataloader_num_workers", "2", "--use_cpu"))
    assert job.run.neutral == {"dataloader_num_workers": 2, "use_cpu": True}
    (plain, *_) = jobs(planned(world, tmp_path))
    assert plain.run.key == job.run.key


def test_a_launcher_is_refused(world, tmp_path, monkeypatch):
    """Prevents N processes of torchrun that each do the same sweep."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--workers"):
        planned(world, tmp_path)


def test_the_whole_way_from_command_to_table(world, tmp_path, capsys):
    """Prevents a broken link between command, sweep, runner, store and table.

    The second command finds everything there; the third does what a lost file lacks.
    """
    results = tmp_path / "results"
    words = [
        "--model", str(world / "distilbert"), "--teacher", str(world / "bert"), "--tasks", "rte",
        "--data_dir", str(world / "glue"), "--results_dir", str(results), "--num_seeds", "2",
        "--threads", "1", *SMALL,
    ]  # fmt: skip
    assert run_command(glue.COMMAND, words) == 0
    table = capsys.readouterr().out
    assert "distilbert (D)" in table
    files = sorted(results.glob("runs/*/rte/*/seed-*.json"))
    assert [path.name for path in files] == ["seed-1.json", "seed-1.json", "seed-2.json"]
    record = json.loads(files[0].read_text())
    assert record["provenance"]["threads"] == 1
    before = {path: path.stat().st_mtime_ns for path in files}
    assert run_command(glue.COMMAND, words) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert capsys.readouterr().out == table
    lost = next(path for path in files if path.name == "seed-2.json")
    content = json.loads(lost.read_text())
    lost.unlink()
    assert run_command(glue.COMMAND, words) == 0
    assert json.loads(lost.read_text())["scores"] == content["scores"]
    assert capsys.readouterr().out == table
    assert (results / "table1.md").read_text() in table


def test_a_model_that_cannot_be_loaded_is_bad_input(world, tmp_path, capsys):
    """Prevents status 1, by which a script would try again, for what repeating doesn't help."""
    folder = tmp_path / "damaged"
    shutil.copytree(world / "bert", folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    words = [
        "--model", str(folder), "--data_dir", str(world / "glue"), "--num_seeds", "2", "--tasks",
        "rte", "--results_dir", str(tmp_path / "results"), "--threads", "1", *SMALL,
    ]  # fmt: skip
    assert run_command(glue.COMMAND, words) == 2
    assert "failed: damaged on RTE, seed 1: damaged: cannot be loaded" in capsys.readouterr().err


@pytest.mark.slow
def test_a_teacher_whose_weights_were_kept_is_not_tuned_again(world, tmp_path, capsys):
    """Prevents hours of a teacher's fine-tuning for what an identical plain run has made already.

    Without its weights a plain run's result is no teacher: then it is made again, and that is said.
    """
    results = tmp_path / "results"
    shared = [
        "--data_dir", str(world / "glue"), "--results_dir", str(results), "--num_seeds", "1",
        "--tasks", "rte", "--threads", "1", *SMALL,
    ]  # fmt: skip
    plain = ["--model", str(world / "bert"), *shared]
    distilled = ["--model", str(world / "distilbert"), "--teacher", str(world / "bert"), *shared]
    assert run_command(glue.COMMAND, [*plain, "--save_models", "all"]) == 0
    (teacher,) = results.glob("runs/*/rte/*/seed-1.json")
    before = teacher.stat().st_mtime_ns
    assert run_command(glue.COMMAND, distilled) == 0
    assert teacher.stat().st_mtime_ns == before
    assert len(list(results.glob("models/*/rte/*/seed-1"))) == 1
    assert "fine-tuned again" not in capsys.readouterr().err
    shutil.rmtree(results / "models")
    next(path for path in results.glob("runs/*/rte/*/seed-1.json") if path != teacher).unlink()
    assert run_command(glue.COMMAND, distilled) == 0
    assert teacher.stat().st_mtime_ns > before
    assert (
        "run_glue: bert on RTE, seed 1: has a result, but its weights were not kept: it is "
        "fine-tuned again (--save_models all keeps those of every run)\n"
    ) in capsys.readouterr().err


@pytest.mark.slow
def test_answers_for_the_server_are_made_afterwards_too(world, tmp_path, capsys):
    """Prevents a finished run from having no submission because it wasn't asked for at once."""
    tests = [f"{number}\t{text}\told" for number, text in enumerate(worlds.WORDS)]
    folder = worlds.glue_folder(tmp_path / "glue")
    (folder / "RTE" / "test.tsv").write_text("\n".join(["index\tsentence1\tsentence2", *tests]))
    results = tmp_path / "results"
    words = [
        "--model", str(world / "distilbert"), "--tasks", "rte", "--data_dir", str(folder),
        "--results_dir", str(results), "--num_seeds", "1", "--threads", "1", *SMALL,
    ]  # fmt: skip
    assert run_command(glue.COMMAND, words) == 0
    (before,) = results.glob("runs/*/rte/*/seed-1.json")
    scores = json.loads(before.read_text())["scores"]
    assert not list(results.glob("submissions/**/*.tsv"))
    assert run_command(glue.COMMAND, [*words, "--predict_test"]) == 0
    assert json.loads(before.read_text())["scores"] == scores
    (made,) = results.glob("submissions/*/*/seed-1/RTE.tsv")
    assert str(made) in capsys.readouterr().out
    lines = made.read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert len(lines) == 1 + len(worlds.WORDS)
    assert {line.split("\t")[1] for line in lines[1:]} <= {"entailment", "not_entailment"}


def test_a_custom_task_prints_its_own_table_alone(world, tmp_path, capsys):
    """Prevents nine empty columns of GLUE as the answer to who asked for a task of their own.

    The table has the title of the task's file, which the result records.
    """
    for split in ("train", "dev"):
        lines = [f"{'old' if number % 2 else 'dark'} river,{number % 2}" for number in range(16)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["review,label", *lines, ""]))
    (tmp_path / "stars.yaml").write_text(
        "name: stars\ntitle: Star rating\ncolumns: [review]\nlabels: ['0', '1']\n"
        "primary: [accuracy]\nfiles: {train: train.csv, validation: dev.csv}\n"
    )
    words = [
        "--model", str(world / "distilbert"), "--tasks", str(tmp_path / "stars.yaml"), "--seeds",
        "11", "--results_dir", str(tmp_path / "results"), "--use_cpu", *SMALL,
    ]  # fmt: skip
    assert run_command(glue.COMMAND, words) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("# ")] == ["# Custom tasks"]
    assert "| Star rating |" in " ".join(printed.split())
    (result,) = (tmp_path / "results" / "runs").rglob("seed-11.json")
    assert json.loads(result.read_text())["data"]["title"] == "Star rating"
