"""Custom tasks: a table of their own, with their titles and their own mean."""

import json

import made_results as made
import pytest
from made_results import BERT, cells, note, seeds

from eval_harness.results.store import path_of
from eval_harness.tables.write import write_by_name

NAME = "table-custom"


@pytest.fixture
def root(tmp_path):
    return tmp_path


def custom(root):
    return write_by_name(root)[NAME]


def titled(title, task, **more):
    return {**made.result(task=task).data, "title": title, **more}


def test_they_have_a_table_of_their_own(root):
    """Prevents a user's task from standing among nine empty columns, or counting into GLUE."""
    made.put(root, *seeds(0.9, task="spam", data=titled("Spam or not", "spam")), *seeds(0.5))
    made.put(root, *seeds(0.7, 0.8, task="stars"))
    row = cells(custom(root))["distilbert"]
    assert list(row.items()) == [
        ("Model", "distilbert"), ("n", "1-2"), ("Spam or not", "90.0"),
        ("stars", "75.0 (70.0 to 80.0)"), ("Mean of tasks", "82.5 (2 tasks)"),
    ]  # fmt: skip
    of_glue = cells(write_by_name(root)["table1"])["distilbert"]
    assert not {"spam", "Spam or not", "stars"} & of_glue.keys()
    assert of_glue["Mean of tasks"] == "50.0 (1 task)"


def test_alone_they_are_no_row_of_table_1(root):
    """Prevents a row of blanks under the paper's, and a table of nothing where there are none."""
    made.put(root, *seeds(0.5))
    assert NAME not in write_by_name(root)
    made.put(root, *seeds(0.9, of=BERT, task="spam"))
    texts = write_by_name(root)
    assert "bert" not in cells(texts["table1"])
    assert list(cells(texts[NAME])) == ["bert"]
    assert "Mean of tasks" not in cells(texts[NAME])["bert"]
    for path in (root / "runs" / BERT.key / "spam").rglob("*.*"):
        path.unlink()
    write_by_name(root)
    assert not (root / f"{NAME}.md").exists()


def test_means_of_other_tasks_are_told_apart(root):
    """Prevents a mean of one task from standing above one of two without a word."""
    made.put(root, *seeds(0.9, task="spam"), *seeds(0.7, task="stars"))
    made.put(root, *seeds(0.95, of=BERT, task="spam"))
    rows = cells(custom(root))
    assert rows["distilbert"]["Mean of tasks"] == "80.0 (all 2)"
    assert rows["bert"]["Mean of tasks"] == "95.0 (spam)"


def test_the_newest_title_is_the_column(root):
    """Prevents a task that was renamed in its file from having two columns, or its old name."""
    made.put(root, *seeds(0.5, task="spam", data=titled("Old", "spam")))
    made.put(root, *seeds(0.7, first=2, task="spam", data=titled("New", "spam"), day=2))
    assert cells(custom(root))["distilbert"]["New"] == "60.0 (50.0 to 70.0)"


def test_a_title_takes_nobodys_place(root):
    """Prevents a task called `n`, or two of one title, from overwriting a column."""
    for task, title in (("a", "n"), ("b", "CoLA"), ("c", "Twin"), ("d", "Twin")):
        made.put(root, *seeds(0.25, 0.35, task=task, data=titled(title, task)))
    row = cells(custom(root))["distilbert"]
    assert list(row) == [
        "Model", "n", "n (task)", "CoLA (task)", "Twin", "Twin (d)", "Mean of tasks",
    ]  # fmt: skip
    assert row["n"] == "2"


def test_notes_name_the_title(root):
    """Prevents notes on a name that no column has, and own files from passing for stand-ins."""
    data = titled("Spam or not", "spam", revision=None, source="files of spam", overlap=3)
    made.put(root, *seeds(0.9, task="spam", data=data))
    text = custom(root)
    assert note(text, "Read from files, not from the Hub: Spam or not spam0000.")
    assert note(text, "Dev examples that are also in train: Spam or not 3.")
    assert "stand-in" not in text
    assert note(text, "Hyper-parameters: learning rate 3e-5")


def test_what_does_not_count_is_said_there(root):
    """Prevents a torn result of a custom task from being told under a table that lacks it."""
    made.put(root, *seeds(0.9, task="spam"), *seeds(0.5))
    path_of(root, made.result(made.STUDENT, "spam").key).write_text("{")
    texts = write_by_name(root)
    assert note(texts[NAME], "Not counted: runs/")
    assert "ot counted" not in texts["table1"]
    assert texts["not counted"].endswith(f"{NAME}.md")


def test_json_has_the_whole_name(root):
    """Prevents a program from having to look a mark up in the notes."""
    given = {"learning_rate": 5e-5, "num_train_epochs": 4.0}
    for overrides in ({}, given):
        settings = made.settings("spam", overrides=overrides)
        made.put(root, *seeds(0.9, task="spam", given=settings))
    read = json.loads(write_by_name(root, form="json")[NAME])
    plain, marked = (row["Model"] for row in read["rows"])
    assert (plain["text"], plain["label"]) == ("distilbert", "distilbert")
    assert marked["text"] == "distilbert [a]"
    assert marked["label"] == "distilbert, learning_rate 5e-5, num_train_epochs 4"
    assert marked["settings"]["overrides"] == given
    assert read["notes"][0] == "[a] learning rate 5e-5, 4 epochs."
