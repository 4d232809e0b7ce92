"""`--dry_run`: what would be done is said, and nothing is."""

import re

import pytest
import worlds

from angels_share.cli import run_command
from eval_harness.commands import glue, squad

SMALL = [
    "--learning_rate", "3e-3", "--num_train_epochs", "2", "--per_device_train_batch_size", "8",
    "--threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def glue_words(world, root, *words):
    return [
        "--model", str(world / "distilbert"), "--data_dir", str(world / "glue"),
        "--max_seq_length", "32", "--results_dir", str(root), *SMALL, *words,
    ]  # fmt: skip


def cells(printed):
    """Return the table's rows as lists of cells."""
    lines = printed.splitlines()
    ruler = next(number for number, line in enumerate(lines) if set(line) == {"-", " "})
    end = lines.index("", ruler)
    return [re.split(r" {2,}", line.strip()) for line in lines[ruler + 1 : end]]


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_nothing_is_made_by_a_dry_run(world, tmp_path, capsys):
    """Prevents a rehearsal that leaves a folder, a lease or a model behind."""
    words = glue_words(
        world, tmp_path / "results", "--tasks", "rte", "cola", "--num_seeds", "3", "--teacher",
        str(world / "bert"), "--save_models", "best", "--dry_run",
    )  # fmt: skip
    assert run_command(glue.COMMAND, words) == 0
    said = capsys.readouterr()
    assert list(tmp_path.iterdir()) == []
    assert said.err == ""
    unknown = ["48", "24", "12", "unknown: no earlier result"]
    assert cells(said.out) == [
        ["bert (teacher)", "RTE", "1", "0", "1", *unknown],
        ["distilbert (D)", "RTE", "3", "0", "3", *unknown],
        ["bert (teacher)", "CoLA", "1", "0", "1", *unknown],
        ["distilbert (D)", "CoLA", "3", "0", "3", *unknown],
    ]
    assert "8 runs (1 model x 2 tasks x 3 seeds, and 2 of the teacher)" in said.out


def test_a_dry_run_knows_what_is_there_and_how_long_it_took(world, tmp_path, capsys):
    """Prevents a rehearsal that plans what is done, or that touches it."""
    words = glue_words(world, tmp_path / "results", "--tasks", "rte", "--num_seeds", "1")
    assert run_command(glue.COMMAND, words) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "run_glue: 1 run (1 model x 1 task x 1 seed): 0 with results, 1 to do"
    assert said[3].startswith("1/1 run in 00:")
    assert len(said) == 4
    before = files_below(tmp_path)
    wider = glue_words(world, tmp_path / "results", "--tasks", "rte", "--num_seeds", "3")
    assert run_command(glue.COMMAND, [*wider, "--dry_run"]) == 0
    ((*row, time),) = cells(capsys.readouterr().out)
    assert row == ["distilbert", "RTE", "3", "1", "2", "48", "24", "12"]
    assert re.fullmatch(r"\d+ s, from 1 earlier result", time)
    assert files_below(tmp_path) == before


def test_a_dry_run_says_where_it_would_push_and_asks_nobody(world, tmp_path, capsys):
    """Prevents a rehearsal that needs a token or a network."""
    words = glue_words(
        world, tmp_path / "results", "--tasks", "rte", "cola", "--dry_run", "--push_to_hub",
        "--hub_model_id", "mine",
    )  # fmt: skip
    assert run_command(glue.COMMAND, words) == 0
    pushes = capsys.readouterr().out.splitlines()[-2:]
    assert [line.partition(": ")[0] for line in pushes] == ["would be pushed"] * 2
    assert pushes[0].endswith("rte to you/mine-rte (private if new)")
    assert pushes[1].endswith("cola to you/mine-cola (private if new)")


def test_steps_on_questions_are_a_lower_bound(world, tmp_path, capsys):
    """Prevents a number of steps that would need every context cut into windows."""
    words = [
        "--model", str(world / "distilbert"), "--results_dir", str(tmp_path / "results"),
        "--train_file", str(world / "squad" / "train.json"), "--num_seeds", "2",
        "--validation_file", str(world / "squad" / "dev.json"), "--max_seq_length", "24",
        "--doc_stride", "4", "--max_query_length", "8", *SMALL, "--dry_run",
    ]  # fmt: skip
    assert run_command(squad.COMMAND, words) == 0
    (row,) = cells(capsys.readouterr().out)
    assert row[:5] == ["distilbert", "SQuAD", "2", "0", "2"]
    assert row[7] == "at least 12"
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_under_never_says_that_it_would_do_nothing(world, tmp_path, capsys):
    """Prevents runs announced that --rerun never leaves out."""
    words = glue_words(world, tmp_path, "--tasks", "rte", "--dry_run", "--rerun", "never")
    assert run_command(glue.COMMAND, words) == 0
    assert capsys.readouterr().out.endswith("--rerun never: none of them would be executed\n")
