"""`python -m eval_harness lineage`: a line of models, its table, its chart, what is refused."""

import json
import re
from dataclasses import replace

import made_report
import made_results as made
import numpy as np
import pytest
from safetensors.numpy import save_file

from angels_share.files import sha256_of_file
from angels_share.student_record import add_step
from eval_harness.cli import PROGRAM
from eval_harness.results.speed import Machine, write_session
from eval_harness.runs.run import Model
from eval_harness.tables.write import texts_by_name, write_tables

LABELS = [0, 1] * 20


def judged(folder, digest, wrong):
    """A model's folder, and a result that has so many of forty answers wrong."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    size = 40 - wrong
    save_file({"w": np.zeros((size, 10), np.float32)}, folder / "model.safetensors")
    weights = sha256_of_file(folder / "model.safetensors")
    of = Model(folder.name, folder.name, digest, str(folder), weights=weights)
    said = [1 - label if n < wrong else label for n, label in enumerate(LABELS)]
    return of, said


@pytest.fixture
def line(tmp_path):
    """Three models with results on RTE: a teacher, its student, and what was cut from that."""
    root = tmp_path / "results"
    for name, digest, wrong in (("teacher", "a", 4), ("student", "b", 8), ("cut", "c", 20)):
        of, said = judged(tmp_path / name, digest * 8, wrong)
        result = as_it_is(of, score=1 - wrong / 40)
        made.put(root, result, said=made.predictions(labels=LABELS, said=said))
    weights = tmp_path / "cut" / "model.safetensors"
    step = {"what": "prune", "file": weights.name, "settings": {"scores": ["fisher"]}}
    add_step(tmp_path / "cut", {**step, "sha256": sha256_of_file(weights)})
    return tmp_path


def as_it_is(of, **more):
    """A result of a model that was evaluated without fine-tuning."""
    given = made.settings("rte")
    return made.result(of=of, given=replace(given, row={**given.row, "eval_only": True}), **more)


def lineage(line, *names, more=()):
    words = [str(line / name) for name in names]
    return PROGRAM.run(["lineage", *words, "--results_dir", str(line / "results"), *more])


def test_the_table_says_what_each_step_cost(line, capsys):
    """Prevents a difference from the wrong model, other weights' size, a step without a name."""
    assert lineage(line, "teacher", "student", "cut") == 0
    rows = made.grid(capsys.readouterr().out)
    assert list(rows[0])[:6] == [
        "Step", "How it was made", "RTE", "RTE vs first", "MB", "M parameters",
    ]  # fmt: skip
    assert [row["Step"] for row in rows] == [
        f"{name} (as it is)" for name in ("teacher", "student", "cut")
    ]
    assert [row["How it was made"] for row in rows] == ["", "", "cut by fisher"]
    assert [row["RTE"] for row in rows] == ["90.0", "80.0", "50.0"]
    changes = [row["RTE vs first"].partition(" (")[0] for row in rows]
    assert changes == ["", "-10.0", "-40.0"]
    assert all("to" in row["RTE vs first"] for row in rows[1:])
    (file,) = (line / "results" / "lineages").iterdir()
    record = json.loads(file.read_text())
    assert [each["parameters"] for each in record["models"]] == [360, 320, 200]
    assert all(each["bytes"] > each["parameters"] * 4 for each in record["models"])
    assert len(record["models"][0]["sha256"]) == 64


def test_tables_and_report_show_it_from_then_on(line, capsys):
    """Prevents a table that is gone with the next command, or that needs the models' folders."""
    pytest.importorskip("matplotlib")
    assert lineage(line, "teacher", "cut", more=["--labels", "before", "after"]) == 0
    for name in ("teacher", "cut"):
        (line / name / "model.safetensors").unlink()
    texts = texts_by_name(line / "results")
    assert "From teacher to edge: before to after" in texts["table-edge"]
    write_tables(line / "results")
    assert (line / "results" / "table-edge.md").is_file()
    assert PROGRAM.run(["report", "--results_dir", str(line / "results")]) == 0
    assert (line / "results" / "figures" / "teacher-to-edge.svg").is_file()
    page = (line / "results" / "report.html").read_text()
    assert "before 90.0 in" in page
    next((line / "results" / "lineages").iterdir()).unlink()
    write_tables(line / "results")
    assert not (line / "results" / "table-edge.md").exists()
    capsys.readouterr()


def test_two_lines_have_a_table_each(line, capsys):
    """Prevents the second line from replacing the first one's table."""
    assert lineage(line, "teacher", "cut") == lineage(line, "teacher", "student") == 0
    capsys.readouterr()
    write_tables(line / "results")
    names = sorted(path.name for path in (line / "results").glob("table-edge*"))
    assert names == ["table-edge-2.md", "table-edge.md"]


def test_a_damaged_file_is_named(line, capsys):
    """Prevents a line that vanishes without a word."""
    assert lineage(line, "teacher", "cut") == 0
    (line / "results" / "lineages" / "other.json").write_text("{")
    write_tables(line / "results")
    assert "lineages/other.json" in (line / "results" / "table-edge.md").read_text()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (["teacher", "nowhere"], (), "no results of"),
        (["teacher"], (), "name two models or more, each once"),
        (["teacher", "teacher"], (), "name two models or more, each once"),
        (["teacher", "cut"], ("--labels", "one"), "1 labels for 2 models"),
        (["teacher", "cut"], ("--tasks", "mrpc"), "they share rte"),
    ],
)
def test_bad_input_is_one_line(line, capsys, names, more, said):
    """Prevents a table of models that were never judged."""
    assert lineage(line, *names, more=more) == 2
    assert said in capsys.readouterr().err
    assert not (line / "results" / "lineages").exists()


def test_an_exported_file_is_a_step(line, capsys, monkeypatch):
    """Prevents int8 taken for float32, and a file's size or record looked for elsewhere."""
    for name, precision, wrong in (("model.onnx", "float32", 20), ("q.onnx", "int8", 22)):
        file = line / "cut" / "onnx" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(name.encode() * 1000)
        step = {"what": "export", "file": f"onnx/{name}", "sha256": sha256_of_file(file)}
        add_step(line / "cut", {**step, "settings": {"precision": precision}})
        of = Model(f"cut ({name})", name, sha256_of_file(file)[:8], str(file), None)
        said = [1 - label if n < wrong else label for n, label in enumerate(LABELS)]
        result = as_it_is(of, score=1 - wrong / 40)
        made.put(line / "results", result, said=made.predictions(labels=LABELS, said=said))
    assert lineage(line, "cut", "cut/onnx/model.onnx", "cut/onnx/q.onnx") == 0
    rows = made.grid(capsys.readouterr().out)
    assert [row["How it was made"] for row in rows] == [
        "cut by fisher", "ONNX, float32", "ONNX, int8",
    ]  # fmt: skip
    monkeypatch.chdir(line / "cut" / "onnx")
    words = ["lineage", str(line / "cut"), "q.onnx", "--results_dir", str(line / "results")]
    assert PROGRAM.run(words) == 0
    assert made.grid(capsys.readouterr().out)[1]["How it was made"] == "ONNX, int8"


def test_other_weights_than_those_evaluated_are_refused(line, capsys):
    """Prevents one model's score beside another one's size and origin."""
    path = line / "cut" / "model.safetensors"
    save_file({"w": np.ones((20, 10), np.float32)}, path)
    assert lineage(line, "teacher", "cut") == 2
    assert "cut: model.safetensors is not what was evaluated" in capsys.readouterr().err
    assert not (line / "results" / "lineages").exists()


def test_all_steps_since_the_model_before(line, capsys):
    """Prevents a cut that can't be seen, since the model learned again after it."""
    teacher, cut = (
        sha256_of_file(line / name / "model.safetensors") for name in ("teacher", "cut")
    )
    (line / "cut" / "distil.json").unlink()
    step = {"what": "prune", "file": "model.safetensors", "sha256": "1" * 64}
    add_step(line / "cut", {**step, "from": {"sha256": teacher}, "settings": {"scores": ["kl"]}})
    step = {"what": "fine-tune", "file": "model.safetensors", "sha256": cut}
    settings = {"task": "rte", "method": {"name": "distil"}}
    add_step(line / "cut", {**step, "from": {"sha256": "1" * 64}, "settings": settings})
    assert lineage(line, "teacher", "cut") == 0
    rows = made.grid(capsys.readouterr().out)
    assert rows[1]["How it was made"] == "cut by kl and fine-tuned on rte by its teacher"
    assert lineage(line, "student", "cut") == 0  # of which the record knows nothing
    rows = made.grid(capsys.readouterr().out)
    assert rows[1]["How it was made"] == "fine-tuned on rte by its teacher"


def test_a_row_that_was_fine_tuned_and_one_of_few_examples(line, capsys):
    """Prevents the start's origin under a fine-tuned model's score, and a limit left untold."""
    given = made.settings("rte")
    of, said = judged(line / "tuned", "d" * 8, 2)
    few = replace(given, row={**given.row, "limit": 40})
    made.put(
        line / "results", made.result(of=of, given=few, score=0.95),
        said=made.predictions(labels=LABELS, said=said),
    )  # fmt: skip
    assert lineage(line, "teacher", "tuned", more=["--labels", "a", "b"]) == 0
    text = capsys.readouterr().out
    assert made.grid(text)[1]["How it was made"] == "fine-tuned on rte"
    assert "At most 40 examples a split: b." in text


def test_intervals_and_times(line, capsys):
    """Prevents an interval with its sign turned, another session's times, a wrong unit."""
    keys = {
        name: f"{name}-{digest * 8}" for name, digest in zip(("teacher", "cut"), "ac", strict=True)
    }
    for seconds, day in ((4.0, 1), (1.0, 2)):
        models = [("teacher", keys["teacher"], 10, 4.0), ("cut", keys["cut"], 5, seconds)]
        finished, machine = f"2026-01-0{day}T00:00:00", Machine("a chip", day, "Linux", "cpu")
        session = made_report.session(*models, finished=finished, machine=machine)
        write_session(line / "results", session)
    assert lineage(line, "teacher", "cut", more=["--format", "json"]) == 0
    table = json.loads(capsys.readouterr().out)
    text = json.dumps(table)
    assert lineage(line, "teacher", "cut") == 0
    row = made.grid(capsys.readouterr().out)[1]
    low, high = (float(each) for each in re.findall(r"[-+][\d.]+", row["RTE vs first"])[1:])
    assert low < -40.0 < high < 0
    assert row["ms a pair"] == "1.00 (4.0 x)"  # of the newest session
    size = (line / "cut" / "model.safetensors").stat().st_size
    assert row["MB"] == f"{size / 1e6:.1f}"
    assert str(size) in text


def test_folders_of_one_name_are_told_apart_by_their_place(line, capsys):
    """Prevents saved models, all in folders named `seed-1`, from being taken for each other."""
    of, said = judged(line / "elsewhere" / "cut", "d" * 8, wrong=12)
    made.put(
        line / "results",
        made.result(of=of, score=0.7),
        said=made.predictions(labels=LABELS, said=said),
    )
    assert lineage(line, "teacher", "cut") == 0
    assert [row["RTE"] for row in made.grid(capsys.readouterr().out)] == ["90.0", "50.0"]
