"""`make smaller`: the whole way on a tiny task, again after an interruption, what is refused."""

import json
import sys

import made_results as made
import pytest
import worlds
from example_scripts import example_module

from angels_share.cli import run_command
from angels_share.student_record import read_record


@pytest.fixture
def smaller():
    with example_module("smaller") as module:
        yield module


@pytest.fixture
def world(tmp_path):
    return worlds.make(tmp_path)


def go(smaller, world, *more, task="rte"):
    words = [world / "out", "--teacher", world / "bert", "--task", task]
    words += ["--data_dir", world / "glue", "--rows", 16, "--learning_rate", "1e-3", *more]
    return run_command(smaller.COMMAND, list(map(str, words)))


def test_other_flags_than_the_folder_was_begun_with(smaller, world, monkeypatch, capsys):
    """Prevents a model of other flags from being shown under those that are given now."""
    monkeypatch.setattr(smaller._Way, "tuned", lambda *_, **_more: sys.exit(7))
    assert go(smaller, world, task="squad") == 2  # not begun: nothing could be made
    for _ in range(2):
        with pytest.raises(SystemExit, match="7"):
            go(smaller, world)
    capsys.readouterr()
    assert go(smaller, world, "--ffn", "0.25") == 2
    assert "was begun with --ffn 0.5, not 0.25: name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "more", "said"),
    [
        ("squad", (), "has no labelled texts to score a cut on"),
        ("rte", ("--ffn", "1.5"), "--ffn 1.5: must be above 0 and at most 1"),
        ("rtee", (), "did you mean 'rte'?"),
    ],
)
def test_what_it_can_not_do_is_one_line(smaller, world, task, more, said, capsys):
    """Prevents a failure after an hour of what could be seen at the start."""
    assert go(smaller, world, *more, task=task) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


@pytest.mark.slow
def test_the_whole_way(smaller, world, monkeypatch, capsys):
    """Prevents a step that forgets what it was made of, and one that is done twice."""
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    assert go(smaller, world) == 0
    captured = capsys.readouterr()
    rows = made.grid(captured.out[captured.out.rindex("# ") :])
    assert [row["Step"] for row in rows] == [
        "teacher", "student (D)", "cut, (D) again", "ONNX", "int8",
    ]  # fmt: skip
    assert [row["How it was made"] for row in rows] == [
        "fine-tuned on rte",
        "fine-tuned on rte by its teacher",
        "cut by fisher and fine-tuned on rte by its teacher",
        "ONNX, float32",
        "ONNX, int8",
    ]
    assert "3 fine-tunings of 48 examples" in captured.err
    (edge,) = (world / "out").glob("edge-*")
    steps = [step["what"] for step in read_record(edge)["lineage"]]
    assert steps == ["halved", "fine-tune", "prune", "fine-tune", "export", "export"]
    assert json.loads((world / "out" / "smaller.json").read_text())["rows"] == 16

    before = {path: path.stat().st_mtime_ns for path in (world / "out").rglob("*.safetensors")}
    monkeypatch.setattr(smaller.prune, "COMMAND", None)
    monkeypatch.setattr(smaller.export, "COMMAND", None)
    assert go(smaller, world) == 0
    after = {path: path.stat().st_mtime_ns for path in (world / "out").rglob("*.safetensors")}
    assert after == before
