"""Table 2: IMDb and SQuAD in one row, each measure with its own median."""

import shutil
from dataclasses import replace

import made_results as made
import pytest
from made_results import BERT, STUDENT, cells, grid, note, on_squad, seeds

from angels_share.errors import UserError
from eval_harness.results.store import find, path_of
from eval_harness.rows.grouping import rows_of
from eval_harness.tables.cells import columns_of
from eval_harness.tables.paper import load_paper
from eval_harness.tables.table2 import columns_of_tasks
from eval_harness.tables.write import make_tables, write_tables
from eval_harness.tasks import custom as own_tasks
from eval_harness.tasks.registry import TASKS

ALL_POSITIONS = made.distilled_from(BERT, kd_over_all_positions=True)
GOLDEN = [
    ("BERT-base (paper)", "", "93.46", "81.2", "88.5"),
    ("DistilBERT (paper)", "", "92.82", "77.7", "85.8"),
    ("DistilBERT (D) (paper)", "", "", "79.1", "86.9"),
    ("bert", "1", "", "80.9", "88.1"),
    ("distilbert", "2-5", "92.91 (92.81 to 93.00)", "77.9 (77.1 to 78.5)", "85.8 (85.1 to 86.0)"),
    ("distilbert (D)", "4/5", "", "78.7 (77.9 to 79.0; 4/5)", "86.6 (86.0 to 86.9; 4/5)"),
    ("distilbert (D) [a]", "1", "", "78.4", "86.4"),
]


@pytest.fixture
def root(tmp_path):
    return tmp_path


def put(root, *results):
    made.put(root, *results, said=made.answers())


def table2(root):
    return write_tables(root)[1]


def put_all(root):
    """A teacher of one seed, a student, and the student distilled a second time in two ways."""
    five = [1, 2, 3, 4, 5]
    exact = [0.771, 0.779, 0.785, 0.774, 0.782]  # the third's F1 is the median
    put(root, *on_squad(0.8806, of=BERT, exact=[0.809]))
    put(root, *on_squad(0.851, 0.853, 0.858, 0.86, 0.859, exact=exact, asked=five))
    distilled = {"given": made.squad_settings(method=made.distilled_from(BERT)), "asked": five}
    put(root, *on_squad(0.86, 0.865, exact=[0.779, 0.785], **distilled))
    put(root, *on_squad(0.867, 0.869, exact=[0.789, 0.79], first=4, **distilled))
    put(root, *on_squad(0.864, exact=[0.784], given=made.squad_settings(method=ALL_POSITIONS)))
    made.put(root, *seeds(0.92814, 0.93, task="imdb"))


def test_imdb_and_squad_are_one_row(root):
    """Prevents a model's two tasks from standing in two lines, and an invented number of decimals.

    EM's median is of another seed than F1's; the paper has one decimal here and two for IMDb.
    """
    put_all(root)
    text = table2(root)
    assert [tuple(row.values()) for row in grid(text)][-len(GOLDEN) :] == GOLDEN
    assert note(text, "[a]") == "[a] soft targets over padding and question, too."
    assert note(text, "n: ").endswith("; 2/3: only two of the three seeds that were asked for "
                                      "have a score.")  # fmt: skip


def test_a_missing_seed_is_shown(root):
    """Fault 20: prevents a median of four from passing for one of five, and names the file."""
    put(root, *on_squad(0.5, 0.6, 0.7), *on_squad(0.2, 0.3, task="squad_v2"))
    for task, seed in (("squad", 3), ("squad_v2", 2)):
        given = made.squad_settings(task)
        path = path_of(root, made.result(STUDENT, task, seed=seed, given=given).key)
        path.write_text("")
    table1, second, *_, line = write_tables(root)
    row = cells(second)["distilbert"]
    assert (row["SQuAD EM"], row["SQuAD F1"]) == (
        "45.0 (40.0 to 50.0; 2/3)",
        "55.0 (50.0 to 60.0; 2/3)",
    )
    assert (row["SQuAD 2.0 EM"], row["SQuAD 2.0 F1"]) == ("10.0 (1/2)", "20.0 (1/2)")
    assert second.count("Not counted: ") == 2
    assert "ot counted" not in table1
    assert line.endswith(f"which and why: see the notes of {root / 'table2.md'}")


def test_squad_2_has_columns_where_somebody_has_it(root):
    """Prevents two empty columns under everybody's table, and SQuAD 2.0 among SQuAD's numbers."""
    put(root, *on_squad(0.5))
    assert list(cells(table2(root))["distilbert"]) == [
        "Model", "n", "IMDb", "SQuAD EM", "SQuAD F1",
    ]  # fmt: skip
    put(root, *on_squad(0.25, task="squad_v2", of=BERT))
    rows = cells(table2(root))
    second = ("SQuAD 2.0 EM", "SQuAD 2.0 F1")
    assert [rows["bert"][name] for name in second] == ["15.0", "25.0"]
    assert rows["bert"]["SQuAD F1"] == ""
    assert [rows["distilbert"][name] for name in second] == ["", ""]
    assert [rows["BERT-base (paper)"][name] for name in second] == ["", ""]


def test_a_new_task_of_table_2_brings_its_columns():
    """Prevents a task whose row names this table from being evaluated and shown nowhere."""
    tasks = {task.name: task for task in TASKS if task.table == "table2"}
    text = replace(tasks["imdb"], name="yelp", title="Yelp")
    second = replace(tasks["squad"].second, title="News EM", cell="news_em")
    questions = replace(tasks["squad"], name="news", title="News", second=second)
    columns = columns_of_tasks([*tasks.values(), text, questions])
    assert list(columns)[-3:] == ["Yelp", "News EM", "News F1"]
    assert [columns[name].cell for name in ("Yelp", "News EM", "News F1")] == [
        "yelp",
        "news_em",
        "news",
    ]
    assert not any(columns[name].published for name in ("Yelp", "News EM", "News F1"))


def test_squad_is_no_part_of_table_1(root):
    """Prevents SQuAD from being taken for a task of one's own, averaged into GLUE, or retained."""
    for of, score in ((BERT, 0.8), (STUDENT, 0.6)):
        made.put(root, *seeds(score, of=of))
    before = write_tables(root)[0]
    for task in ("squad", "squad_v2"):
        put(root, *on_squad(0.9, 0.9, of=BERT, task=task), *on_squad(0.1, 0.2, task=task))
    assert write_tables(root)[0] == before
    assert cells(before)["distilbert"]["Retained"].startswith("75.0")
    assert not any("squad" in name.lower() for name in columns_of(rows_of(find(root))))


def test_squad_alone_is_no_row_of_table_1(root):
    """Prevents a row of nothing but blanks, and one of IMDb in SQuAD's notes."""
    put(root, *on_squad(0.5))
    first, second, *_ = write_tables(root)
    assert "distilbert" not in cells(first)
    assert cells(second)["distilbert"]["IMDb"] == ""
    assert "Hyper-parameters" not in first


def test_no_task_of_ones_own_has_a_known_cell(root):
    """Prevents a task of one's own from being shown as SQuAD's exact match."""
    reserved = {"mnli-mm", *(task.name for task in TASKS)}
    for name in (task.second.cell for task in TASKS if task.second):
        assert name in reserved or not own_tasks._NAME.fullmatch(name)
    for task in ("squad", "squad_v2"):
        (root / "task.yaml").write_text(f"name: {task}\n")
        with pytest.raises(UserError, match="is there already"):
            own_tasks.read_task(root / "task.yaml")


def test_distilled_over_all_positions_is_told_apart(root):
    """Prevents the original's way from passing for ours, also where it stands alone."""
    put(root, *on_squad(0.5, given=made.squad_settings(method=ALL_POSITIONS)))
    assert "distilbert (D) [a]" in cells(table2(root))
    put(root, *on_squad(0.5, given=made.squad_settings(method=made.distilled_from(BERT))))
    off = made.distilled_from(BERT, kd_over_all_positions=False, temperature=4.0)
    put(root, *on_squad(0.5, given=made.squad_settings(method=off)))
    labels = [row.label for row in rows_of(find(root))]
    assert len(labels) == len(set(labels)) == 3
    assert sum(label.endswith(", kd_over_all_positions") for label in labels) == 1
    assert len({row.short for row in rows_of(find(root))}) == 3


def test_notes_are_of_table_2s_tasks(root):
    """Prevents SQuAD's hyper-parameters or own files from going unsaid, or standing elsewhere."""
    long = {"max_seq_length": 512, "per_device_train_batch_size": 16, "num_train_epochs": 3.0}
    imdb = made.settings("imdb", values=long)
    of_files = {**made.result(task="squad").data, "revision": None, "overlap": 7}
    of_files["source"] = "standin-train.json, standin-dev.json"
    overlapping = {**made.result(task="imdb").data, "overlap": 123}
    marks = ("degenerate: one answer for all of validation",)
    put(root, *on_squad(0.5, 0.6, data=of_files, marks=marks))
    made.put(root, *seeds(0.9, task="imdb", given=imdb, data=overlapping), *seeds(0.5))
    first, second, *_ = write_tables(root)
    assert note(second, "Hyper-parameters") == (
        "Hyper-parameters (ours: the paper's were never published): learning rate 3e-5, epochs 3, "
        "batch 16, length 512; the rest: `python -m eval_harness tasks`."
    )
    assert note(second, "Other hyper") == (
        "Other hyper-parameters: SQuAD: length 384, epochs 2, batch 12."
    )
    assert note(second, "Possibly stand-in") == (
        "Possibly stand-in data: read from files in neither the Hub's nor GLUE's own layout: "
        "SQuAD squad000 from standin-train.json, standin-dev.json."
    )
    assert note(second, "Dev examples that are also in train: SQuAD 7.")
    assert note(second, "Test examples that are also in train: IMDb 123.")
    assert note(second, "Degenerate").endswith("but counted: SQuAD seeds 1 and 2.")
    assert "SQuAD" not in first


def test_windows_of_ones_own_are_said(root):
    """Prevents another stride than ours from going unsaid, or ours from drowning the notes."""
    given = made.squad_settings()
    given.task["values"].update(doc_stride=64)
    put(root, *on_squad(0.5, given=given))
    said = note(table2(root), "Hyper-parameters")
    assert "batch 12, length 384, doc_stride 64; the rest" in said


def test_a_result_without_exact_match_lacks_it_alone(root):
    """Prevents one measure that isn't there from stopping the table."""
    made.put(root, *seeds(0.5, task="squad", given=made.squad_settings()), said=made.answers())
    row = cells(table2(root))["distilbert"]
    assert (row["SQuAD EM"], row["SQuAD F1"]) == ("", "50.0")


def test_answers_under_a_task_of_glue_give_no_interval(root):
    """Prevents predictions of another kind from stopping all tables."""
    put(root, *seeds(0.8, of=BERT), *seeds(0.6))
    table1 = write_tables(root)[0]
    assert cells(table1)["distilbert"]["Retained"] == "75.0"
    assert "holds AnsweredQuestions instead of ClassPredictions" in note(
        table1, "No interval for distilbert"
    )


def test_the_same_files_give_the_same_bytes(root):
    """Prevents a table that depends on when, where, or in which order results were made."""
    put_all(root)
    put(root, *on_squad(0.3, task="squad_v2"))
    write_tables(root)
    first = (root / "table2.md").read_bytes()
    copy = root / "copy"
    shutil.copytree(root / "runs", copy / "runs")
    write_tables(copy)
    assert first == (copy / "table2.md").read_bytes()


def test_without_results_the_papers_rows_stand_alone():
    """Prevents a published number from changing with what was measured."""
    rows = {name: rest for name, *rest in make_tables(load_paper())[1].rows}
    assert rows["DistilBERT (D) (paper)"] == ["", "79.1", "86.9"]
    assert rows["BERT-base (paper)"] == ["93.46", "81.2", "88.5"]
