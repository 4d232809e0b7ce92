"""What GLUE's server and SQuAD's own scripts take, to the byte."""

import json

import made_results as made
import numpy as np
import pytest

from angels_share.errors import RunFailed, UserError
from eval_harness.data.texts import Split
from eval_harness.results.submission import write_answers, write_submission
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import GLUE

NAMES = {
    ("cola", "test"): "CoLA.tsv",
    ("mnli", "test_matched"): "MNLI-m.tsv",
    ("mnli", "test_mismatched"): "MNLI-mm.tsv",
    ("mrpc", "test"): "MRPC.tsv",
    ("qnli", "test"): "QNLI.tsv",
    ("qqp", "test"): "QQP.tsv",
    ("rte", "test"): "RTE.tsv",
    ("sst2", "test"): "SST-2.tsv",
    ("stsb", "test"): "STS-B.tsv",
    ("wnli", "test"): "WNLI.tsv",
}
ANSWERS = {
    "cola": "01", "mrpc": "01", "qqp": "01", "sst2": "01", "wnli": "01",
    "mnli": ("entailment", "neutral"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
    "stsb": ("1.000", "0.000"),
}  # fmt: skip


def split_of(task, name, rows):
    texts = tuple(["x"] * rows for _ in task.columns)
    return Split(name, [str(7 + row) for row in range(rows)], texts, None)


@pytest.mark.parametrize(("name", "part"), NAMES)
def test_the_servers_format(name, part, tmp_path):
    """Prevents a name, a header, a label or an index that the server would refuse."""
    task = task_named(name)
    logits = np.eye(2, max(len(task.labels), 1), dtype=np.float32)
    path = write_submission(tmp_path, task, split_of(task, part, 2), logits)
    first, second = ANSWERS[name]
    assert path == tmp_path / NAMES[name, part]
    assert path.read_bytes() == f"index\tprediction\n0\t{first}\n1\t{second}\n".encode()


def test_every_task_of_glue_has_a_file():
    """Prevents a task from being left out of the server's zip."""
    wanted = {(name, part) for name in GLUE for part in task_named(name).test}
    assert wanted == set(NAMES)


def test_numbers_stay_on_the_scale(tmp_path):
    """Prevents -0.01 and 5.2, which a regression does give, from being refused by the server."""
    task = task_named("stsb")
    logits = np.array([[-0.0], [5.2], [3.14159]], dtype=np.float32)
    path = write_submission(tmp_path, task, split_of(task, "test", 3), logits)
    assert path.read_text().split("\n")[1:4] == ["0\t0.000", "1\t5.000", "2\t3.142"]


def test_what_is_refused(tmp_path):
    """Prevents a file with NaN answered as class 0, of another split's rows, or of no GLUE task."""
    task = task_named("rte")
    split = split_of(task, "test", 2)
    with pytest.raises(RunFailed, match="RTE: test row 1: the prediction is not finite"):
        write_submission(tmp_path, task, split, np.array([[0.0, 1.0], [np.nan, 0.0]]))
    with pytest.raises(ValueError, match=r"logits of shape \(3, 2\) for 2 of RTE"):
        write_submission(tmp_path, task, split, np.zeros((3, 2)))
    with pytest.raises(UserError, match="does not accept the validation split of RTE"):
        write_submission(tmp_path, task, split_of(task, "validation", 2), np.zeros((2, 2)))
    with pytest.raises(UserError, match="does not accept the test split of IMDb"):
        write_submission(tmp_path, task_named("imdb"), split, np.zeros((2, 2)))
    assert not list(tmp_path.iterdir())


def test_squads_own_format(tmp_path):
    """Prevents answers that SQuAD's own script can't open, in whatever encoding it prefers."""
    said = made.answers(texts=["Größe", "", "1066"])
    (path,) = write_answers(tmp_path / "new", "squad", said)
    assert path == tmp_path / "new" / "squad.json"
    assert path.read_bytes() == b'{\n "q0": "Gr\\u00f6\\u00dfe",\n "q1": "",\n "q2": "1066"\n}\n'
    assert [each.name for each in path.parent.iterdir()] == ["squad.json"]


def test_odds_of_no_answer_are_numbers(tmp_path):
    """Prevents `Infinity`, which is not JSON, and odds that are finite and yet the greatest."""
    said = made.answers(odds=[-3.5, np.inf, 3e38])
    paths = write_answers(tmp_path, "squad_v2", said)
    assert [path.name for path in paths] == ["squad_v2.json", "squad_v2-null-odds.json"]
    assert json.loads(paths[0].read_text()) == {"q0": "a dog", "q1": "", "q2": "1066"}
    assert "Infinity" not in paths[1].read_text()
    odds = json.loads(paths[1].read_text())
    assert odds == {"q0": -3.5, "q1": 1e300, "q2": 3e38}
    assert sorted(odds, key=odds.get) == ["q0", "q2", "q1"]  # as SQuAD 2.0's script does
