"""The tables: medians of like with like, what is missing is said, equal files give equal bytes."""

import json
import os
import shutil
from dataclasses import replace

import made_results as made
import numpy as np
import pytest
from made_results import BERT, STUDENT, cells, note, notes, seeds
from places import PAPER

from angels_share.errors import UserError
from eval_harness.results.store import find, path_of
from eval_harness.tables.paper import load_paper
from eval_harness.tables.write import make_tables, write_by_name, write_tables
from eval_harness.tasks.registry import GLUE


@pytest.fixture
def root(tmp_path):
    shutil.copytree(PAPER.parent, tmp_path / "reference")
    return tmp_path


def row_named(label, root, table=0):
    return cells(write_tables(root)[table])[label]


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
    frame = make_tables(load_paper())[0].frame.set_index("Model")
    assert frame.loc["DistilBERT (paper)", "CoLA"] == "51.3"


def test_a_cell_is_the_median_and_the_spread(root):
    """Prevents a mean, or the best seed, from passing for the median of five."""
    made.put(root, *seeds(0.57, 0.614, 0.599, 0.61, 0.58))
    row = cells(write_tables(root)[0])["distilbert"]
    assert (row["n"], row["RTE"], row["Score"]) == ("5", "59.9 (57.0 to 61.4)", "")
    assert row["Mean of tasks"] == "59.9 (1 task)"
    made.put(root, *seeds(0.601, first=6))
    assert cells(write_tables(root)[0])["distilbert"]["RTE"] == "60.0 (57.0 to 61.4)"


def test_a_range_below_zero_can_be_read(root):
    """Prevents `-2.0 (-2.5-3.3)` and `-0.0`."""
    made.put(root, *seeds(-0.025, -0.0003, 0.033, task="cola"))
    assert row_named("distilbert", root)["CoLA"] == "0.0 (-2.5 to 3.3)"


def test_one_seed_has_no_spread(root):
    """Prevents one run from looking as sure as five."""
    made.put(root, *seeds(0.57))
    row = cells(write_tables(root)[0])["distilbert"]
    assert (row["n"], row["RTE"]) == ("1", "57.0")


def test_what_n_counts_is_said_where_it_is_needed(root):
    """Prevents an n that a newcomer must guess, and a note under a table of single runs."""
    made.put(root, *seeds(0.57))
    assert not any(line.startswith("n: ") for line in notes(write_tables(root)[0]))
    made.put(root, *seeds(0.5, 0.6, of=BERT))
    said = "n: seeds of fine-tuning; a score is their median (lowest to highest)"
    assert note(write_tables(root)[0], "n: ") == f"{said}."
    made.put(root, *seeds(0.9, of=BERT, first=3, asked=[1, 2, 3, 4]))
    missing = "2/3: only two of the three seeds that were asked for have a score"
    assert note(write_tables(root)[0], "n: ") == f"{said}; {missing}."


def test_a_missing_seed_is_shown(root):
    """Fault 20: prevents a median of four from passing for one of five."""
    five = [1, 2, 3, 4, 5]
    made.put(root, *seeds(0.1, 0.2, 0.3, 0.4, 0.5, task="cola", asked=five))
    made.put(root, *seeds(0.57, 0.614, asked=five), *seeds(0.61, 0.58, first=4, asked=five))
    row = row_named("distilbert", root)
    assert row["n"] == "4/5"
    assert row["RTE"] == "59.5 (57.0 to 61.4; 4/5)"
    assert row["CoLA"] == "30.0 (10.0 to 50.0)"


def test_a_task_that_was_asked_less_lacks_nothing(root):
    """Prevents `1/3` where three seeds of one task and one of another were asked for."""
    made.put(root, *seeds(0.1, 0.2, 0.3, task="cola", asked=[1, 2, 3]))
    made.put(root, *seeds(0.57, asked=[1]))
    row = row_named("distilbert", root)
    assert (row["n"], row["RTE"], row["CoLA"]) == ("1-3", "57.0", "20.0 (10.0 to 30.0)")


def test_the_newest_sweep_says_what_was_asked(root):
    """Prevents the seeds of a sweep of long ago, which nobody wants any more, from being missed."""
    made.put(root, *seeds(0.5, first=11, asked=[11, 22, 33]))
    made.put(root, *seeds(0.6, 0.7, asked=[1, 2], day=2))
    assert row_named("distilbert", root)["n"] == "3"
    made.put(root, *seeds(0.8, first=4, asked=[1, 2, 3, 4], day=3))
    assert row_named("distilbert", root)["n"] == "4/5"


@pytest.mark.parametrize("how", ["nan", "torn", "contradicted"])
def test_what_does_not_count_is_missing_and_named(root, how):
    """Fault 20: prevents a NaN, half a file, or one of two numbers for a run from being counted."""
    made.put(root, *seeds(0.57, 0.614, 0.8, 0.61, 0.58))
    made.put(root, *seeds(0.1, of=BERT))
    third = path_of(root, made.result(STUDENT, seed=3).key)
    text = third.read_text()
    if how == "contradicted":
        copy = third.with_name("seed-3 (copy).json")
        copy.write_text(text)
        made.rewrite(copy, lambda record: {**record, "score": 0.1})
    else:
        third.write_text(text.replace("0.8", "NaN") if how == "nan" else text[:200])
    table1, *_, line = write_tables(root)
    row = cells(table1)["distilbert"]
    assert (row["n"], row["RTE"]) == ("4/5", "59.5 (57.0 to 61.4; 4/5)")
    name = third.relative_to(root).as_posix()
    assert note(table1, f"Not counted: {name}: ")
    files = "2 files" if how == "contradicted" else "1 file"
    assert line == f"not counted: {files}; which and why: see the notes of {root / 'table1.md'}"
    about_another = write_tables(root, {BERT.key})
    assert not any("ot counted" in text for text in about_another)
    assert f"Not counted: {name}: " in (root / "table1.md").read_text()


def test_what_is_being_written_is_no_lasting_note(root):
    """Prevents the files of a live writer, or of a killed one, from standing under a table."""
    made.put(root, *seeds(0.57))
    folder = path_of(root, made.result(STUDENT).key).parent
    (folder / ".seed-3.json.77-abcd.tmp").write_text("x")
    (folder / "seed-4.0123abcd.parquet").write_text("x")
    (folder / "seed-1.0123abcd.parquet").write_text("x")
    assert len(find(root).invalid) == 3
    texts = write_by_name(root)
    assert "ot counted" not in texts["table1"]
    assert "not counted" not in texts


def test_the_score_needs_all_nine(root):
    """Prevents a mean of the easy tasks from standing in the place of GLUE's score."""
    for number, task in enumerate(GLUE[:8]):
        made.put(root, *seeds(number / 10, task=task))
    row = cells(write_tables(root)[0])["distilbert"]
    assert (row["Score"], row["Mean of tasks"]) == ("", "35.0 (8 tasks)")
    made.put(root, *seeds(0.8, task=GLUE[8]))
    row = cells(write_tables(root)[0])["distilbert"]
    assert row["Score"] == "40.0"
    assert "Mean of tasks" not in row


def test_both_parts_of_mnli(root):
    """Prevents MNLI's second part from being averaged into the first, or left out."""
    both = {
        "validation_matched": {"accuracy": 0.8, "score": 0.8},
        "validation_mismatched": {"accuracy": 0.82, "score": 0.82},
    }
    made.put(root, *seeds(0.8, task="mnli", scores=both))
    row = cells(write_tables(root)[0])["distilbert"]
    assert (row["MNLI"], row["MNLI-mm"], row["Mean of tasks"]) == ("80.0", "82.0", "80.0 (1 task)")
    assert list(row).index("MNLI-mm") == list(row).index("MNLI") + 1


def test_a_degenerate_run_counts_and_is_named(root):
    """Prevents a seed that learned nothing from being dropped, or from going unseen."""
    made.put(root, *seeds(0.6, 0.7), *seeds(0.5, first=3, marks=("degenerate",)))
    table1 = write_tables(root)[0]
    assert cells(table1)["distilbert"]["RTE"] == "60.0 (50.0 to 70.0)"
    made.put(root, *seeds(0.5, 0.5, of=BERT, marks=("degenerate: one answer", "odd")))
    best = ("epoch 2 of 3, the best on dev",)
    made.put(root, *seeds(0.5, 0.5, task="cola", marks=best))
    table1 = write_tables(root)[0]
    assert note(table1, "Degenerate") == (
        "Degenerate (one answer to everything, or nearly one number), but counted: "
        "RTE seeds 1 and 2 (bert), RTE seed 3 (distilbert)."
    )
    assert note(table1, "Marked 'odd'").endswith("RTE seeds 1 and 2 (bert).")
    assert "the best on dev" not in table1


def test_an_undefined_score_does_not_count(root):
    """Prevents an undefined correlation from counting as 0, or from vanishing."""
    nothing = {"validation": {"pearson": None, "score": None}}
    made.put(root, *seeds(0.6, 0.7, task="stsb"))
    made.put(root, *seeds(None, task="stsb", first=3, scores=nothing))
    table1 = write_tables(root)[0]
    assert cells(table1)["distilbert"]["STS-B"] == "65.0 (60.0 to 70.0; 2/3)"
    assert note(table1, "Not counted, since the score is not defined").endswith("STS-B seed 3.")


def test_notes_say_what_a_reader_must_know(root):
    """Prevents our hyper-parameters or mixed code from passing for the paper's."""
    old = {**made.PROVENANCE, "version": "0.0.9", "libraries": {"torch": "2.12.0"}}
    given = made.settings("cola", values={"learning_rate": 1e-5}, limit=50)
    made.put(root, *seeds(0.6, 0.7, given=made.settings(limit=50), provenance=old))
    made.put(root, *seeds(0.6, task="cola", given=given))
    made.put(root, *seeds(0.6, task="mrpc", given=made.settings("mrpc", limit=50)))
    table1 = write_tables(root)[0]
    assert note(table1, "Hyper-parameters") == (
        "Hyper-parameters (ours: the paper's were never published): learning rate 3e-5, epochs 3; "
        "the rest: `python -m eval_harness tasks`."
    )
    assert note(table1, "Other hyper") == "Other hyper-parameters: CoLA: learning rate 1e-5."
    assert note(table1, "Made by several versions of the code: 0.0.9, 0.1.0.")
    assert note(table1, "Made with several versions of torch: 2.12.0, 2.13.0.")
    assert note(table1, "Erratum: BERT-base, MNLI: printed 86.7, should be 84.7")
    assert "at most" not in table1
    assert "Rows:" not in table1


def test_another_commit_is_no_other_version(root):
    """Prevents a note under every table that was begun before the last commit."""
    made.put(root, *seeds(0.6, provenance={**made.PROVENANCE, "commit": "1" * 12}))
    made.put(root, *seeds(0.6, first=2, provenance={**made.PROVENANCE, "commit": "2" * 12}))
    assert "several" not in write_tables(root)[0]


def test_several_machines_are_named(root):
    """Prevents a spread over seeds from being one over machines without a word."""
    gpu = {**made.PROVENANCE, "device": "H200", "threads": 1}
    made.put(root, *seeds(0.6), *seeds(0.7, first=2, provenance=gpu), *seeds(0.1, task="cola"))
    said = note(write_tables(root)[0], "Seeds of one cell ran on different devices or threads")
    assert said.endswith(": RTE on H200 x 1 and cpu x 2.")


def test_files_and_overlaps_are_one_line_each(root):
    """Prevents own data from passing for the Hub's, and notes from drowning the table."""
    for task, folder, overlap in (("rte", "RTE", 0), ("cola", "CoLA", 16), ("stsb", "STS-B", 6)):
        of_the_hub = {**made.result(task=task).data, "overlap": overlap}
        own = {**of_the_hub, "revision": None, "source": folder}
        made.put(root, *seeds(0.6, task=task, data=own))
        made.put(root, *seeds(0.6, task=task, of=BERT, data=of_the_hub if task == "rte" else own))
    table1 = write_tables(root)[0]
    assert note(table1, "Read from files") == (
        "Read from files, not from the Hub: CoLA cola0000, RTE rte00000 (distilbert), "
        "STS-B stsb0000."
    )
    assert "Stand-in" not in table1
    said = "Dev examples that are also in train: CoLA 16, STS-B 6."
    assert note(table1, "Dev examples") == said


def test_stand_in_data_are_said(root):
    """Prevents a number on somebody's files from passing for one on GLUE: what, and whose row."""
    of_a_folder = {**made.result().data, "revision": None, "source": "mine.json"}
    made.put(root, *seeds(0.6, data=of_a_folder), *seeds(0.7, of=BERT))
    table1 = write_tables(root)[0]
    assert note(table1, "Possibly stand-in") == (
        "Possibly stand-in data: read from files in neither the Hub's nor GLUE's own layout: "
        "RTE rte00000 from mine.json (distilbert)."
    )


def test_means_are_over_the_same_tasks(root):
    """Prevents a mean of four tasks from being held against the paper's of nine."""
    made.put(root, *seeds(0.6), *seeds(0.7, task="mnli"), *seeds(0.9, of=BERT))
    made.put(root, *seeds(0.9, of=BERT, task="mnli"))
    table1 = write_tables(root)[0]
    rows = cells(table1)
    assert rows["distilbert"]["Mean of tasks"] == "65.0 (2 tasks)"
    assert rows["DistilBERT (paper)"]["Mean of tasks"] == "71.0 (2 tasks)"
    # The misprint of MNLI is corrected.
    assert rows["BERT-base (paper)"]["Mean of tasks"] == "77.0 (2 tasks)"
    assert note(table1, "Mean of tasks") == (
        "Mean of tasks: over MNLI, RTE; the paper's mean is computed here from its scores, "
        "its misprint corrected."
    )
    assert note(table1, "Score and Mean of tasks use MNLI's matched part.")
    made.put(root, *seeds(0.1, task="cola"))
    table1 = write_tables(root)[0]
    rows = cells(table1)
    assert rows["BERT-base (paper)"]["Mean of tasks"] == ""
    assert rows["bert"]["Mean of tasks"] == "90.0 (MNLI, RTE)"
    assert rows["distilbert"]["Mean of tasks"] == "46.7 (CoLA, MNLI, RTE)"
    said = "Mean of tasks: over those in brackets, which differ from row to row."
    assert note(table1, "Mean of tasks") == said


def test_a_mean_without_mnli_has_no_misprint(root):
    """Prevents a correction that was not made from being told, and digits nobody measured."""
    for task in ("cola", "rte", "mrpc"):
        made.put(root, *seeds(0.6, task=task))
    assert note(write_tables(root)[0], "Mean of tasks") == (
        "Mean of tasks: over CoLA, MRPC, RTE; the paper's mean is computed here from its scores."
    )
    rows = json.loads(write_by_name(root, form="json")["table1"])["rows"]
    (row,) = [row for row in rows if row["Model"]["text"] == "DistilBERT (paper)"]
    assert str(row["Mean of tasks"]["number"]) == "66.2333333333"


def test_equal_counts_of_other_tasks_are_told_apart(root):
    """Prevents a mean of two easy tasks from standing above one of two hard ones, both "2 tasks".

    Of many tasks those are named that are missing, since they are fewer.
    """
    for task in GLUE:
        made.put(root, *seeds(0.5, of=BERT, task=task))
    made.put(root, *seeds(0.6), *seeds(0.7, of=made.model("other", "7" * 8), task="spam"))
    for task in GLUE[:7]:
        made.put(root, *seeds(0.5, of=made.model("third", "8" * 8), task=task))
    table1 = write_tables(root)[0]
    rows = cells(table1)
    assert (rows["bert"]["Score"], rows["bert"]["Mean of tasks"]) == ("50.0", "")
    assert rows["distilbert"]["Mean of tasks"] == "60.0 (RTE)"
    assert rows["third"]["Mean of tasks"] == "50.0 (without STS-B, WNLI)"
    assert "other" not in rows
    assert note(table1, "Mean of tasks: over those in brackets")


def test_imdb_stands_in_table_2(root):
    """Prevents IMDb from being averaged into GLUE, or its two decimals from being lost."""
    made.put(root, *seeds(0.92814, 0.93, task="imdb", asked=[1, 2, 3]), *seeds(0.5, 0.6, 0.7))
    table1, table2, *_ = write_tables(root)
    assert cells(table2)["distilbert"]["IMDb"] == "92.91 (92.81 to 93.00; 2/3)"
    assert "IMDb" not in cells(table1)["distilbert"]
    assert note(table2, "Hyper-parameters (ours")


def test_what_was_retained(root):
    """Prevents a share of tasks that only one of the two was evaluated on."""
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
    said = "Retained, of bert (one seed) over RTE: distilbert; distilbert (D)."
    assert note(table1, "Retained, of") == said
    made.put(root, *seeds(0.7, of=BERT, first=2))
    assert note(write_tables(root)[0], "Retained, of bert over RTE")


def test_a_share_without_an_interval_says_why(root):
    """Prevents a bare share from looking as if its interval had been forgotten."""
    said = made.predictions(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    made.put(root, *seeds(0.5, task="stsb"), *seeds(0.5, task="stsb", of=BERT), said=said)
    table1 = write_tables(root)[0]
    assert cells(table1)["distilbert"]["Retained"] == "100.0"
    assert "resamples a score is not defined" in note(
        table1, "No interval for distilbert: in 100.0"
    )


@pytest.mark.parametrize(
    "other", [{"limit": 10}, {"recipe": 2}, {"choose": "best"}, {"dtype": "bfloat16"}]
)
def test_nothing_is_retained_of_another_experiment(root, other):
    """Prevents a student on all data from being held against its teacher on ten examples."""
    made.put(root, *seeds(0.8, of=BERT, given=made.settings(**other)), *seeds(0.6))
    assert "Retained" not in cells(write_tables(root)[0])["distilbert"]


def test_nothing_is_retained_on_other_examples(root):
    """Prevents two data sets of one name from being compared."""
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


def test_a_table_can_be_had_by_its_name(root):
    """Prevents a command from having to count tables to find the one that it shows."""
    made.put(root, *seeds(0.6, of=made.model("mine")))
    found = write_by_name(root)
    assert list(found) == ["table1", "table2", "table3", "table4"]
    assert found["table1"] == (root / "table1.md").read_text()


def test_a_name_does_not_break_the_table(root):
    """Prevents a folder's odd name from adding a column."""
    odd = replace(STUDENT, name="a|b\nc\x1b")
    made.put(root, *seeds(0.6, of=odd))
    (root / "runs" / os.fsdecode(b"\xff.json")).write_text("")
    assert "| a\\|b c? " in write_tables(root)[0]


def test_which_of_two_models_of_one_name_is_the_newer(root):
    """Prevents rows of a teacher that was trained again from telling nobody which is today's."""
    old, new = (made.model("teacher", digest) for digest in ("99999999", "11111111"))
    made.put(root, *seeds(0.5, of=old, day=1), *seeds(0.6, of=new, day=2))
    said = "2 models are named teacher; the newest results are from 11111111."
    assert note(write_tables(root)[0], "2 models") == said


def test_torn_times_are_told_at_the_end(root):
    """Prevents a session of `speed` from being lost without a line that says so."""
    (root / "speed").mkdir()
    (root / "speed" / "0123abcd.json").write_text("{")
    said = write_by_name(root)["not counted"]
    assert said == f"not counted: 1 file; which and why: see the notes of {root / 'table3.md'}"


def test_a_folder_that_is_not_there_is_refused(tmp_path, monkeypatch):
    """Prevents a misspelt --results_dir from becoming a folder with the paper's rows alone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"--results_dir .*/res: not a folder"):
        write_tables("~/res")
    assert not list(tmp_path.iterdir())
    (tmp_path / "res").mkdir()
    write_tables("~/res")
    assert (tmp_path / "res" / "table1.md").is_file()


def test_a_folder_of_ones_own_has_the_papers_rows(tmp_path):
    """Prevents --results_dir from wanting a file that only the repository's own folder has."""
    assert "BERT-base (paper)" in write_tables(tmp_path)[0]
