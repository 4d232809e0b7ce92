"""The command `compare`."""

import json

import made_results as made
import pytest

from angels_share.cli import run_command
from eval_harness.commands.compare import COMMAND


@pytest.fixture
def root(tmp_path):
    for model, scores in ((made.BERT, (0.5, 0.6, 0.7)), (made.STUDENT, (0.8, 0.9, 0.9))):
        for result in made.seeds(*scores, of=model):
            made.put(tmp_path, result, said=made.scoring(result.score))
    return tmp_path


def test_two_models_are_compared_by_name(root, capsys):
    """Prevents the first word from being taken for the model that is measured, not the base."""
    assert run_command(COMMAND, ["bert", "distilbert", "--results_dir", str(root)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# distilbert compared with bert\n")
    assert made.cells(text)["RTE"]["distilbert vs bert"].startswith("+26.7 ±")


def test_other_formats_are_whole_on_standard_output(root, capsys):
    """Prevents a line before or after the JSON that a program reads."""
    words = ["bert", "distilbert", "--results_dir", str(root), "--format", "json"]
    assert run_command(COMMAND, words) == 0
    assert json.loads(capsys.readouterr().out)["rows"]


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_the_chart_is_written(root, tmp_path, ending):
    """Prevents a chart in another format than its file's name says."""
    file = tmp_path / f"difference{ending}"
    words = ["bert", "distilbert", "--results_dir", str(root), "--chart", str(file)]
    assert run_command(COMMAND, words) == 0
    start = {".svg": b"<svg xmlns", ".png": b"\x89PNG"}[ending]
    assert file.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bert"], "compare needs two models or more"),
        (["bert", "distilbrt"], "did you mean 'distilbert'"),
        (["bert", "distilbert", "--tasks", "ret"], "no results on 'ret'; did you mean 'rte'"),
        (["bert", "distilbert", "--chart", "x.pdf"], "must end in .svg or .png"),
        ([], "--models is missing"),
    ],
)
def test_mistakes_are_one_line(root, capsys, words, said):
    """Prevents a traceback, or a table of other models than those that were meant."""
    assert run_command(COMMAND, [*words, "--results_dir", str(root)]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_no_results_folder_is_one_line(tmp_path, capsys):
    """Prevents an empty comparison where the folder's name is mistyped."""
    words = ["bert", "distilbert", "--results_dir", str(tmp_path / "nowhere")]
    assert run_command(COMMAND, words) == 2
    assert "not a folder" in capsys.readouterr().err
