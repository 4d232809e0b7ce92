"""`run_glue.py --transfer_set`: refusals, the key, the record, and what the tables say."""

import json
import shutil

import pytest
import worlds

from angels_share.cli import run_command
from angels_share.errors import RunFailed, UserError
from angels_share.flags import parse
from eval_harness.commands import glue, squad
from eval_harness.sweep.plan import jobs, plan
from eval_harness.training.runner import run_task

SMALL = [
    "--learning_rate", "3e-3", "--num_train_epochs", "1", "--per_device_train_batch_size", "8",
    "--max_seq_length", "32",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def words_for(world, tmp_path, *words):
    return [
        "--model", str(world / "distilbert"), "--data_dir", str(world / "glue"), "--num_seeds",
        "1", "--results_dir", str(tmp_path / "results"), "--threads", "1", *SMALL, *words,
    ]  # fmt: skip


def planned(world, tmp_path, *words):
    argv = words_for(world, tmp_path, *words)
    return plan(glue.experiment(parse(glue.COMMAND.flags, argv, takes_training_flags=True)))


def lines(path, count=10):
    path.write_text("\n".join(f"the {word} sleep" for word in worlds.WORDS[:count]))
    return str(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--transfer_set needs --teacher: unlabelled text has only a teacher's soft targets"),
        (["--teacher", "bert", "--alpha_ce", "0"], "--alpha_ce 0 switches off the soft targets"),
    ],
)
def test_texts_that_nobody_answers_are_refused(world, tmp_path, words, said):
    """Prevents texts that are given and never learned from."""
    with pytest.raises(UserError, match=said):
        planned(world, tmp_path, "--tasks", "cola", "--transfer_set", "more.txt", *words)


def test_questions_refuse_the_flag(tmp_path, capsys):
    """Prevents an unknown flag as the answer to who knows it from run_glue.py."""
    words = ["--model", "distilbert", "--transfer_set", lines(tmp_path / "more.txt")]
    assert run_command(squad.COMMAND, words) == 2
    assert "questions are learned with their answers" in capsys.readouterr().err


def test_only_students_keys_change_and_by_content_alone(world, tmp_path):
    """Prevents old results that count for new runs, and new runs for a file that was moved."""
    shared = ("--tasks", "cola", "--teacher", str(world / "bert"))
    with_texts = [*shared, "--transfer_set", lines(tmp_path / "more.txt")]
    moved, other = lines(tmp_path / "moved.txt"), lines(tmp_path / "other.txt", count=9)
    found = [
        [job.run for job in jobs(planned(world, tmp_path, *words))]
        for words in (
            shared,
            with_texts,
            (*shared, "--transfer_set", moved),
            (*shared, "--transfer_set", other),
        )
    ]
    assert len({teacher.key for teacher, _ in found}) == 1
    plain, one, same, another = (student for _, student in found)
    assert one.key == same.key
    assert len({plain.key, one.key, another.key}) == 3
    assert "transfer_set" not in json.dumps([plain.settings.row, plain.settings.task])
    assert not any(run.transfer_set for run in (plain, *(teacher for teacher, _ in found)))


def test_the_whole_way_from_texts_to_the_tables_note(world, tmp_path, capsys):
    """Prevents texts that are read and not learned from, and a row that doesn't say that it did.

    One file serves a task of classes and a regression, which are evaluated on one of its pairs.
    The file's labels are of no task.
    """
    more = tmp_path / "more.csv"
    rows = [f"{word},dark river,?" for word in worlds.WORDS]
    rows.append("old river,,?")
    dev = (world / "glue" / "RTE" / "dev.tsv").read_text().splitlines()[1].split("\t")
    more.write_text("\n".join(["sentence1,sentence2,label", *rows, f"{dev[1]},{dev[2]},?"]))
    words = words_for(world, tmp_path, "--tasks", "rte", "stsb", "--teacher", str(world / "bert"))
    assert run_command(glue.COMMAND, [*words, "--transfer_set", str(more)]) == 0
    printed = capsys.readouterr()
    assert (
        "run_glue: RTE: 48 labelled examples and 14 unlabelled texts of more.csv, 1.3 times the "
        "steps an epoch; dropped: 1 blank, 1 of the evaluated splits; labels are not read\n"
    ) in printed.err
    assert "distilbert (D) [a]" in printed.out
    said = " ".join(printed.out.split())
    assert "[a] with 14 unlabelled texts." in said
    assert "learned by the teacher's answers: RTE 14 of more.csv, less 1 blank and 1 eval" in said
    files = sorted((tmp_path / "results").glob("runs/distilbert-*/*/*/seed-1.json"))
    records = [json.loads(path.read_text()) for path in files]
    assert [record["task"] for record in records] == ["rte", "stsb"]
    for record in records:
        added = record["data"]["transfer_set"]
        assert added["texts"] == 14
        assert added["dropped"] == {"blank": 1, "evaluated": 1}
        assert [file["name"] for file in added["files"]] == ["more.csv"]
        assert record["settings"]["task"]["inputs"]["transfer_set"] == added["content"]
        assert record["data"]["examples"]["train"] == 48
        assert record["history"][-1]["step"] == (48 + 14 + 7) // 8
    before = {path: path.stat().st_mtime_ns for path in files}
    shutil.move(more, tmp_path / "moved.csv")
    again = [*words, "--transfer_set", str(tmp_path / "moved.csv")]
    assert run_command(glue.COMMAND, again) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_a_dry_run_counts_the_texts_of_students_alone(world, tmp_path, capsys):
    """Prevents hours that nobody was told of, and a teacher that seems to take them, too."""
    more = lines(tmp_path / "more.txt")
    words = ("--tasks", "cola", "--teacher", str(world / "bert"), "--transfer_set", more)
    assert run_command(glue.COMMAND, [*words_for(world, tmp_path, *words), "--dry_run"]) == 0
    printed = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split() for line in printed.splitlines() if "CoLA  " in line}
    assert rows["bert (teacher)"][-7:-4] == ["48", "24", "6"]
    assert rows["distilbert (D)"][-7:-4] == ["58", "24", "8"]
    assert "CoLA: 48 labelled examples and 10 unlabelled texts of more.txt, 1.2 times" in printed
    assert not (tmp_path / "results").exists()


def test_texts_that_changed_since_the_plan_are_refused(world, tmp_path):
    """Prevents a result under the key of other texts."""
    more = lines(tmp_path / "more.txt")
    made = planned(
        world, tmp_path, "--tasks", "cola", "--teacher", str(world / "bert"),
        "--transfer_set", more,
    )  # fmt: skip
    _, job = jobs(made)
    lines(tmp_path / "more.txt", count=5)
    with pytest.raises(RunFailed, match=r"more\.txt: its texts changed since the sweep began"):
        run_task(job.run, lambda _share: None)
