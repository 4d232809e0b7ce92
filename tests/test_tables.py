"""The tables: medians of like with like, what is missing is said, equal files give equal bytes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import made_results as made
import pytest

from eval_harness.paper import load_paper
from eval_harness.rows import plain, rows_of
from eval_harness.store import find, path_of
from eval_harness.tables import tables, write_tables
from eval_harness.tasks import GLUE

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
BERT = made.model("bert", "99999999")
STUDENT = made.model("distilbert", "0123abcd", teacher="bert")


@pytest.fixture
def root(tmp_path):
    shutil.copytree(REFERENCE, tmp_path / "reference")
    return tmp_path


def cells(text):
    """A table's rows by their first cell: each a dictionary by column."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(split[0], row, strict=True)) for row in split[2:]}


def notes(text):
    return [line[2:] for line in text.splitlines() if line.startswith("- ")]


def note(text, start):
    (found,) = [line for line in notes(text) if line.startswith(start)]
    return found


def seeds(*scores, of=STUDENT, task="rte", first=1, given=None, **more):
    return [
        made.result(of, task, seed=seed, score=score, given=given, **more)
        for seed, score in enumerate(scores, first)
    ]


def test_without_results_the_papers_rows_stand_alone(root):
    """Prevents empty columns, and a table that is missing, before anything was measured."""
    table1, table2, _, table4 = write_tables(root)
    first = cells(table1)
    assert list(first) == ["ELMo (paper)", "BERT-base (paper)", "DistilBERT (paper)"]
    assert list(first["ELMo (paper)"])[:3] == ["Model", "Score", "CoLA"]
    assert "MNLI-mm" not in first["ELMo (paper)"]
    assert cells(table2)["DistilBERT (paper)"]["IMDb"] == "92.82"
    assert cells(table4)["no L_ce (paper)"]["Change of score"] == "-2.96"
    assert "printed 86.7, should be 84.7" in table1


def test_a_table_is_a_frame(root):
    """Prevents a table from being readable by eye alone."""
    frame = tables(load_paper())[0].frame.set_index("Model")
    assert frame.loc["DistilBERT (paper)", "CoLA"] == "51.3"


def test_a_cell_is_the_median_and_the_spread(root):
    """Prevents a mean, or the best seed, from passing for the median of five."""
    made.put(root, *seeds(0.57, 0.614, 0.599, 0.61, 0.58))
    row = cells(write_tables(root)[0])["distilbert"]
    assert (row["n"], row["RTE"], row["Score"]) == ("5", "59.9 (57.0-61.4)", "")
    assert row["Mean of k"] == "59.9 of 1"
    made.put(root, *seeds(0.601, first=6))
    assert cells(write_tables(root)[0])["distilbert"]["RTE"] == "60.0 (57.0-61.4)"


def test_one_seed_has_no_spread(root):
    """Prevents one run from looking as sure as five."""
    made.put(root, *seeds(0.57))
    row = cells(write_tables(root)[0])["distilbert"]
    assert (row["n"], row["RTE"]) == ("1", "57.0")


def test_a_missing_seed_is_shown(root):
    """Fault 20: prevents a median of four from passing for one of five."""
    made.put(root, *seeds(0.1, 0.2, 0.3, 0.4, 0.5, task="cola"))
    made.put(root, *seeds(0.57, 0.614), *seeds(0.61, 0.58, first=4))
    row = cells(write_tables(root)[0])["distilbert"]
    assert row["n"] == "4/5"
    assert row["RTE"] == "59.5 (57.0-61.4; 4/5)"
    assert row["CoLA"] == "30.0 (10.0-50.0)"


def test_a_sweep_says_what_it_was_asked_for(root):
    """Fault 20: prevents a seed that failed on every task from being forgotten."""
    sweep = {**made.result().provenance, "seeds": [1, 2, 3, 4, 5]}
    made.put(root, *seeds(0.57, 0.614), *seeds(0.61, 0.58, first=4))
    path = path_of(root, made.result(STUDENT).key)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "provenance": sweep}))
    assert cells(write_tables(root)[0])["distilbert"]["n"] == "4/5"


@pytest.mark.parametrize("how", ["nan", "torn", "contradicted"])
def test_what_does_not_count_is_missing_and_named(root, how):
    """Fault 20: prevents a NaN, half a file, or one of two numbers for a run from being counted."""
    made.put(root, *seeds(0.57, 0.614, 0.8, 0.61, 0.58))
    third = path_of(root, made.result(STUDENT, seed=3).key)
    text = third.read_text()
    if how == "contradicted":
        third.with_name("seed-3 (copy).json").write_text(text.replace("0.8", "0.1"))
    else:
        third.write_text(text.replace("0.8", "NaN") if how == "nan" else text[:200])
    table1, *_, line = write_tables(root)
    row = cells(table1)["distilbert"]
    assert (row["n"], row["RTE"]) == ("4/5", "59.5 (57.0-61.4; 4/5)")
    name = third.relative_to(root).as_posix()
    assert line.startswith(f"not counted: {name}: ")
    assert note(table1, f"Not counted: {name}: ")


@pytest.mark.parametrize(
    ("other", "label"),
    [
        ({"recipe": 2}, "distilbert, recipe 2"),
        ({"overrides": {"learning_rate": 1e-4}}, "distilbert, learning_rate 1e-4"),
        ({"limit": 100}, "distilbert, limit 100"),
        ({"choose": "best"}, "distilbert, best epoch"),
        ({"dtype": "bfloat16"}, "distilbert, dtype bfloat16"),
        ({"method": made.distilled_from(BERT)}, "distilbert (D)"),
    ],
)
def test_two_settings_are_two_rows(root, other, label):
    """Fault 20: prevents a median over mixed settings, and rows that nobody can tell apart."""
    made.put(root, *seeds(0.5, 0.6, 0.7))
    made.put(root, *seeds(0.1, 0.2, given=made.settings(**other)))
    rows = cells(write_tables(root)[0])
    ours = {name: row["RTE"] for name, row in rows.items() if "(paper)" not in name}
    assert ours.pop(label) == "15.0 (10.0-20.0)"
    assert list(ours.values()) == ["60.0 (50.0-70.0)"]
    assert "recipe 1" in next(iter(ours)) or "recipe" not in other


def test_two_temperatures_are_two_names(root):
    """Prevents two rows `(D)` that only a hash tells apart."""
    for temperature in (2.0, 4.0):
        method = made.distilled_from(BERT, temperature=temperature)
        made.put(root, *seeds(0.5, given=made.settings(method=method)))
    rows = cells(write_tables(root)[0])
    assert {"distilbert (D), temperature 2", "distilbert (D), temperature 4"} <= set(rows)


def test_other_data_are_another_row(root):
    """Fault 20: prevents a median over two data sets that bear one name."""
    made.put(root, *seeds(0.5, 0.6, 0.7), *seeds(0.3, 0.4, task="cola"))
    changed = made.settings(content="f" * 16)
    made.put(root, *seeds(0.1, 0.2, given=changed))
    rows = cells(write_tables(root)[0])
    assert (rows["distilbert"]["RTE"], rows["distilbert"]["CoLA"]) == (
        "60.0 (50.0-70.0)",
        "35.0 (30.0-40.0; 2/3)",
    )
    assert rows[f"distilbert, data {'f' * 16}"]["RTE"] == "15.0 (10.0-20.0)"
    assert rows[f"distilbert, data {'f' * 16}"]["CoLA"] == ""


def test_a_teachers_seed_may_follow_the_students(root):
    """Prevents a row for each seed where each has a teacher's run of its own."""
    method = made.distilled_from(BERT)
    for seed in (1, 2, 3):
        inputs = {"teacher": f"{BERT.key}/rte/0a0a0a0a/seed-{seed}"}
        given = made.settings(method=method, inputs=inputs)
        made.put(root, *seeds(seed / 10, first=seed, given=given))
    assert cells(write_tables(root)[0])["distilbert (D)"]["RTE"] == "20.0 (10.0-30.0)"
    inputs = {"teacher": f"{BERT.key}/rte/0a0a0a0a/seed-9"}
    made.put(root, *seeds(0.9, given=made.settings(method=method, inputs=inputs)))
    labels = [row.label for row in rows_of(find(root))]
    assert len(labels) == len(set(labels)) > 1
    for row in rows_of(find(root)):
        used = [each.seed for each in row.results]
        assert len(used) == len(set(used)), "one seed stands twice in a cell"


def test_models_of_one_name_are_told_apart(root):
    """Prevents a retrained model from sharing its row with the one before."""
    made.put(root, *seeds(0.5), *seeds(0.7, of=made.model("distilbert", "aaaaaaaa")))
    rows = cells(write_tables(root)[0])
    assert rows["distilbert 0123abcd"]["RTE"] == "50.0"
    assert rows["distilbert aaaaaaaa"]["RTE"] == "70.0"


def test_the_score_needs_all_nine(root):
    """Prevents a mean of the easy tasks from standing in the place of GLUE's score."""
    for number, task in enumerate(GLUE[:8]):
        made.put(root, *seeds(number / 10, task=task))
    row = cells(write_tables(root)[0])["distilbert"]
    assert (row["Score"], row["Mean of k"]) == ("", "35.0 of 8")
    made.put(root, *seeds(0.8, task=GLUE[8]))
    row = cells(write_tables(root)[0])["distilbert"]
    assert row["Score"] == "40.0"
    assert "Mean of k" not in row


def test_both_parts_of_mnli(root):
    """Prevents MNLI's second part from being averaged into the first, or left out."""
    both = {
        "validation_matched": {"accuracy": 0.8, "score": 0.8},
        "validation_mismatched": {"accuracy": 0.82, "score": 0.82},
    }
    made.put(root, *seeds(0.8, task="mnli", scores=both))
    row = cells(write_tables(root)[0])["distilbert"]
    assert (row["MNLI"], row["MNLI-mm"], row["Mean of k"]) == ("80.0", "82.0", "80.0 of 1")
    assert list(row).index("MNLI-mm") == list(row).index("MNLI") + 1


def test_a_degenerate_run_counts_and_is_named(root):
    """Prevents a seed that learned nothing from being dropped, or from going unseen."""
    made.put(root, *seeds(0.6, 0.7), *seeds(0.5, first=3, marks=("degenerate",)))
    table1 = write_tables(root)[0]
    assert cells(table1)["distilbert"]["RTE"] == "60.0 (50.0-70.0)"
    assert "RTE (seed 3)" in note(table1, "Marked 'degenerate', and counted")


def test_an_undefined_score_does_not_count(root):
    """Prevents an undefined correlation from counting as 0, or from vanishing."""
    nothing = {"validation": {"pearson": None, "score": None}}
    made.put(root, *seeds(0.6, 0.7, task="stsb"))
    made.put(root, *seeds(None, task="stsb", first=3, scores=nothing))
    table1 = write_tables(root)[0]
    assert cells(table1)["distilbert"]["STS-B"] == "65.0 (60.0-70.0; 2/3)"
    assert "seed 3" in note(table1, "STS-B: not counted")


def test_notes_say_what_a_reader_must_know(root):
    """Prevents our hyper-parameters, own data or mixed code from passing for the paper's."""
    own = {**made.result().data, "revision": None, "source": "my/tsv", "content": "ab" * 8}
    old = {**made.result().provenance, "version": "0.0.9", "libraries": {"torch": "2.12.0"}}
    given = made.settings("cola", values={"learning_rate": 1e-5}, limit=50)
    made.put(root, *seeds(0.6, 0.7, given=made.settings(limit=50), provenance=old))
    made.put(root, *seeds(0.6, task="cola", data=own, given=given))
    table1 = write_tables(root)[0]
    ours = note(table1, "Hyper-parameters are ours")
    assert "learning_rate 1e-5 (CoLA) / 3e-5 (RTE), num_train_epochs 3." in ours
    assert "at most 50 examples" in note(table1, "Not the whole data")
    assert "my/tsv, content abababababababab" in note(table1, "CoLA: the data were not the Hub's")
    assert "0.0.9, 0.1.0" in note(table1, "Made by several versions of the code")
    assert "2.12.0, 2.13.0" in note(table1, "Made with several versions of torch")
    assert note(table1, "Erratum: BERT-base mnli")


def test_imdb_stands_in_table_2(root):
    """Prevents IMDb from being averaged into GLUE, or its two decimals from being lost."""
    made.put(root, *seeds(0.92814, 0.93, task="imdb"), *seeds(0.5, 0.6, 0.7))
    table1, table2, *_ = write_tables(root)
    assert cells(table2)["distilbert"]["IMDb"] == "92.91 (92.81-93.00; 2/3)"
    assert "IMDb" not in cells(table1)["distilbert"]
    assert note(table2, "Hyper-parameters are ours")


def test_a_task_of_ones_own_has_a_column(root):
    """Prevents a user's own task from being measured and never shown, or counted into GLUE."""
    made.put(root, *seeds(0.9, task="spam"), *seeds(0.5))
    row = cells(write_tables(root)[0])["distilbert"]
    assert (row["spam"], row["Mean of k"]) == ("90.0", "50.0 of 1")


def test_what_was_retained(root):
    """Prevents a share of tasks that only one of the two was judged on."""
    for task, score in (("rte", 0.8), ("mrpc", 0.5)):
        made.put(root, *seeds(score, of=BERT, task=task))
    made.put(root, *seeds(0.6, 0.62), *seeds(0.1, task="cola"))
    distilled = made.settings(method=made.distilled_from(BERT))
    made.put(root, *seeds(0.7, given=distilled))
    table1 = write_tables(root)[0]
    rows = cells(table1)
    assert rows["distilbert"]["Retained"].startswith("76.2 [")
    assert rows["distilbert (D)"]["Retained"].startswith("87.5 [")
    assert rows["bert"]["Retained"] == ""
    assert note(table1, "Retained, distilbert: against bert, over RTE")


@pytest.mark.parametrize("other", [{"limit": 10}, {"recipe": 2}])
def test_nothing_is_retained_of_another_experiment(root, other):
    """Prevents a student on all data from being held against its teacher on ten examples."""
    made.put(root, *seeds(0.8, of=BERT, given=made.settings(**other)), *seeds(0.6))
    assert "Retained" not in cells(write_tables(root)[0])["distilbert"]


def test_nothing_is_retained_on_other_examples(root):
    """Prevents two data sets that bear one name from being compared."""
    made.put(root, *seeds(0.8, of=BERT, given=made.settings(content="e" * 16)), *seeds(0.6))
    assert "Retained" not in cells(write_tables(root)[0])["distilbert"]


def test_the_teacher_most_alike_is_taken(root):
    """Prevents a student from being held against a teacher that was trained otherwise."""
    slow = {"overrides": {"learning_rate": 1e-5}}
    made.put(root, *seeds(0.9, of=BERT), *seeds(0.8, of=BERT, given=made.settings(**slow)))
    made.put(root, *seeds(0.6), *seeds(0.4, given=made.settings(**slow)))
    rows = cells(write_tables(root)[0])
    assert rows["distilbert"]["Retained"].startswith("66.7")
    assert rows["distilbert, learning_rate 1e-5"]["Retained"].startswith("50.0")


def test_the_same_files_give_the_same_bytes(root):
    """Prevents tables that depend on when or where they were made."""
    made.put(root, *seeds(0.8, 0.7, of=BERT), *seeds(0.6, 0.5), *seeds(0.4, task="imdb"))
    write_tables(root)
    first = {path.name: path.read_bytes() for path in root.glob("table*.md")}
    assert sorted(first) == [f"table{number}.md" for number in (1, 2, 3, 4)]
    copy = root / "copy"
    shutil.copytree(root / "reference", copy / "reference")
    shutil.copytree(root / "runs", copy / "runs")
    write_tables(copy)
    assert first == {path.name: path.read_bytes() for path in copy.glob("table*.md")}


def test_a_sweep_sees_its_own_models(root):
    """Prevents the answer to a command from drowning in the rows of everything before it."""
    made.put(root, *seeds(0.8, of=BERT), *seeds(0.6))
    shown = cells(write_tables(root, models={STUDENT.key})[0])
    assert "bert" not in shown
    assert shown["distilbert"]["Retained"].startswith("75.0")
    assert "bert" in cells((root / "table1.md").read_text())


def test_a_name_does_not_break_the_table(root):
    """Prevents a folder's odd name from adding a column."""
    odd = replace(STUDENT, name="a|b\nc")
    made.put(root, *seeds(0.6, of=odd))
    assert "| a\\|b c " in write_tables(root)[0]


def test_a_folder_of_ones_own_has_the_papers_rows(tmp_path):
    """Prevents --results_dir from wanting a file that only the repository's own folder has."""
    assert "BERT-base (paper)" in write_tables(tmp_path)[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-4, "1e-4"), (2.5e-5, "2.5e-5"), (0.1, "0.1"), (3.0, "3"), (0.0, "0"), ("linear", "linear"),
     (True, "True"), (1e-8, "1e-8")],
)  # fmt: skip
def test_settings_are_written_as_people_do(value, text):
    """Prevents two settings from being rounded into one name."""
    assert plain(value) == text
