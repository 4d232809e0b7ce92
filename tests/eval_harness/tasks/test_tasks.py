"""The rows of tasks: the built-in ones, and those that users write as YAML."""

import dataclasses
import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import made_results as made
import pytest
from made_results import cells, seeds

from angels_share.errors import UserError
from eval_harness.data.splits import load_task
from eval_harness.tasks.custom import read_task
from eval_harness.tasks.kinds import PERPLEXITY, QUESTIONS
from eval_harness.tasks.lookup import task_named, tasks_named
from eval_harness.tasks.metrics import compute_metrics
from eval_harness.tasks.registry import GLUE, TASKS

STARS = {
    "name": "stars",
    "columns": "[review]",
    "labels": "[bad, good]",
    "primary": "[f1, accuracy]",
    "files": "{train: train.csv, validation: dev.csv}",
}


def written(folder, **changes):
    """A YAML file of a task; a key that is None is left out."""
    keys = {name: value for name, value in {**STARS, **changes}.items() if value is not None}
    path = folder / "stars.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in keys.items()))
    return path


def test_every_row_is_whole():
    """Prevents a row without a source or a citation, or whose measures don't fit its labels."""
    assert len({task.name for task in TASKS}) == len(TASKS)
    for task in TASKS:
        assert task.citation
        assert (task.hub is None) == (task.config is None)
        assert task.hub or task.column_files
        assert (task.name in GLUE) == (task.glue is not None)
        assert task.is_regression == (task.scale is not None)
        assert task.is_regression == (set(task.primary) <= {"pearson", "spearman"})
        assert task.kind != QUESTIONS or task.primary == ("f1",)
        assert not set(task.also) & set(task.primary)
        assert task.higher_is_better == (task.kind != PERPLEXITY)


@pytest.mark.parametrize("name", ["cola", "imdb", "own"])
def test_rows_travel(name, tmp_path):
    """Prevents a row that can't key a cache, reach a worker, or stand in a result."""
    task = read_task(written(tmp_path)) if name == "own" else task_named(name)
    again = pickle.loads(pickle.dumps(task))
    assert again == task
    assert hash(again) == hash(task)
    assert json.loads(json.dumps(dataclasses.asdict(task)))["name"] == task.name


def test_what_is_evaluated():
    """Prevents MNLI's mismatched half, or IMDb's 25,000 test reviews, from being left out."""
    assert task_named("mnli").evaluation == ("validation_matched", "validation_mismatched")
    assert (task_named("imdb").evaluation, task_named("imdb").test) == (("test",), ())


def test_extra_measures_do_not_count():
    """Prevents CoLA's accuracy from raising its score, which is Matthews' alone."""
    values = compute_metrics(task_named("cola"), [1, 1, 1, 1], [0, 1, 1, 1])
    assert values == {"matthews": 0, "accuracy": 0.75, "score": 0}


@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "rte", "wnli", "imdb"])
def test_the_score_of_the_commonest_label(name, real_data):
    """Prevents a majority score that is copied from somewhere, or of another measure."""
    task = task_named(name)
    data = load_task(task, real_data / "data" / "hub")
    answer = Counter(data.train.labels.tolist()).most_common(1)[0][0]
    labels = data.evaluation[0].labels
    score = compute_metrics(task, [answer] * len(labels), labels)["score"]
    assert round(100 * score, 1) == task.majority


WITH_ANOTHER_ROW = """
import sys
from dataclasses import replace
from pathlib import Path
from eval_harness.tasks import registry

sst2 = next(task for task in registry.TASKS if task.name == "sst2")
registry.TASKS = (*registry.TASKS, replace(sst2, name="stars", title="Stars", glue=None))

from eval_harness.tables.write import write_tables

print(write_tables(Path(sys.argv[1]))[0])
"""


def test_a_new_row_is_a_column_of_table_1(tmp_path):
    """Prevents a task that isn't GLUE's from needing more than its row to be shown.

    A process of its own: a row is added before anything reads the rows, as in the file.
    """
    made.put(tmp_path, *seeds(0.6, task="rte"), *seeds(0.7, task="stars"), *seeds(0.8, task="a"))
    command = [sys.executable, "-c", WITH_ANOTHER_ROW, str(tmp_path)]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row = cells(table)["distilbert"]
    assert list(row)[-3:-1] == ["WNLI", "Stars"]
    assert (row["RTE"], row["Stars"]) == ("60.0", "70.0")
    assert "a" not in row  # no row of the registry: a custom task


# --- custom tasks


def test_a_custom_task(tmp_path):
    """Prevents a key of the file from being read and forgotten."""
    path = written(
        tmp_path,
        title="Stars",
        also="[matthews]",
        version="3",
        label_column="verdict",
        evaluation="[validation, hard]",
        files="{train: train.csv, validation: dev.csv, hard: ../hard.jsonl, test: t.tsv}",
    )
    task = read_task(path)
    assert (task.name, task.title, task.columns, task.labels) == (
        "stars", "Stars", ("review",), ("bad", "good"),
    )  # fmt: skip
    assert (task.primary, task.also, task.version) == (("f1", "accuracy"), ("matthews",), 3)
    assert (task.evaluation, task.test) == (("validation", "hard"), ("test",))
    assert (task.label_column, task.hub, task.glue) == ("verdict", None, None)
    assert Path(task.files["hard"]) == tmp_path.parent / "hard.jsonl"


def test_a_custom_task_of_three_classes(tmp_path):
    """Prevents a task of three classes from having no F1 at all."""
    task = read_task(written(tmp_path, labels="[a, b, c]", primary="[f1_macro]", also="[f1_micro]"))
    assert (task.primary, task.also) == (("f1_macro",), ("f1_micro",))


def test_a_custom_regression_from_the_hub(tmp_path):
    """Prevents a scale from being taken for labels, and the GLUE repository for theirs."""
    task = read_task(
        written(
            tmp_path, columns="[a, b]", labels=None, scale="[-1, 1]", primary="[spearman]",
            files=None, hub="someone/pairs", config="plain", evaluation="[test]",
        )
    )  # fmt: skip
    assert task.is_regression
    assert task.scale == (-1.0, 1.0)
    assert (task.hub, task.config, task.evaluation, task.test) == (
        "someone/pairs", "plain", ("test",), (),
    )  # fmt: skip


NUMBERS = {"labels": None, "primary": "[pearson]"}
BAD = {
    "colums": ({"colums": "[a]"}, "unknown key 'colums'; did you mean 'columns'?"),
    "missing": ({"columns": None}, "columns: is missing"),
    "type": ({"version": "one"}, "version: 'one' is a string, expected an integer"),
    "name taken": ({"name": "rte"}, "name: 'rte' is there already"),
    "name for all": ({"name": "all"}, "name: 'all' is there already"),
    "name of the count": ({"name": "n"}, "name: 'n' is there already"),
    "name of a column": ({"name": "retained"}, "name: 'retained' is there already"),
    "name of a path": ({"name": "../x"}, "name: '../x': use lowercase letters"),
    "three texts": ({"columns": "[a, b, c]"}, "columns: 3 texts"),
    "label as text": ({"label_column": "review"}, "columns: 'review' is the label column"),
    "yes and no": ({"labels": "[no, yes]"}, "labels: False is not text; write it in quotes"),
    "one label": ({"labels": "[bad]"}, "labels: a single label"),
    "label twice": ({"labels": "[bad, bad]"}, "labels: 'bad' is listed twice"),
    "no labels": ({"labels": None}, "labels: give either labels (classes) or scale"),
    "both": ({"scale": "[0, 1]"}, "labels: give either labels (classes) or scale"),
    "scale": ({**NUMBERS, "scale": "[5, 0]"}, "scale: [5, 0]: expected [lowest, highest]"),
    "endless": ({**NUMBERS, "scale": "[0, .inf]"}, "scale: [0, inf]: expected"),
    "measure": ({"primary": "[acuracy]"}, "primary: 'acuracy' is not a metric for this task"),
    "near": ({"primary": "[acuracy]"}, "did you mean 'accuracy'?"),
    "unfit": ({"primary": "[pearson]"}, "'pearson' is not a metric for this task"),
    "f1 of three": ({"labels": "[a, b, c]"}, "primary: f1 needs two labels"),
    "which f1": ({"labels": "[a, b, c]"}, "for more labels use f1_macro or f1_micro"),
    "macro of numbers": ({**NUMBERS, "scale": "[0, 5]", "also": "[f1_macro]"}, "not a metric for"),
    "version": ({"version": "0"}, "version: 0: must be 1 or more"),
    "split": ({"files": "{train: a.csv, valid: b.csv}"}, "unknown split 'valid'; did you mean"),
    "no dev": ({"files": "{train: a.csv}"}, "files: validation is missing"),
    "kind": (
        {"files": "{train: a.xls, validation: b.csv}"},
        "train: 'a.xls': must end in one of .parquet",
    ),
    "nowhere": ({"files": None}, "files: give either files or hub"),
    "hub": ({"files": None, "hub": "a/b/c"}, "hub: 'a/b/c' is not a Hub id"),
    "config": ({"config": "plain"}, "config: needs hub"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_row_is_one_line_with_file_and_key(fault, tmp_path):
    """Prevents a slip in a row from becoming a run on something else than was meant."""
    changes, message = BAD[fault]
    path = written(tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        tasks_named([str(path)])
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_stands_twice(tmp_path):
    """Prevents the second of two lists of labels from winning without a word."""
    path = written(tmp_path)
    path.write_text(path.read_text() + "labels: [good, bad]\n")
    with pytest.raises(UserError, match="'labels' appears twice"):
        read_task(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": "&a [x, y]", "primary": "*a"}, ":4: *a is an alias: write its value out"),
        ({"labels": "[" * 5000}, ":3: nested more than 20 deep"),
        ({"version": "9" * 5000}, ":6: '999"),
        ({"title": "a" * 70_000}, ": more than 64 KiB; is it a file of settings?"),
    ],
)
def test_a_hostile_row(changes, message, tmp_path):
    """Prevents ten lines of aliases from taking all memory, and a traceback for what is no row."""
    path = written(tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        read_task(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert len(str(caught.value)) < len(str(path)) + 150


def test_rows_by_name_and_by_file(tmp_path):
    """Prevents two tasks of one name from sharing their results, and a lost file from a trace."""
    path = written(tmp_path)
    assert [task.name for task in tasks_named(["rte", str(path), "rte"])] == ["rte", "stars"]
    (tmp_path / "b").mkdir()
    other = written(tmp_path / "b", version="2")
    with pytest.raises(UserError, match="two tasks are called 'stars'"):
        tasks_named([str(path), str(other)])
    with pytest.raises(UserError, match=r"absent\.yml: no such file"):
        tasks_named(["absent.yml"])
    with pytest.raises(UserError, match="unknown task 'rtee'; did you mean 'rte'"):
        tasks_named(["rtee"])
