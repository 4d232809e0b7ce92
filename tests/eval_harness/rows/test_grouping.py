"""Rows: nothing in a cell differs but the seed, and every row is named."""

from dataclasses import replace

import made_results as made
import pytest
from made_results import BERT, cells, note, seeds

from eval_harness.results.store import find
from eval_harness.rows.grouping import rows_of
from eval_harness.rows.labels import format_setting
from eval_harness.runs.run import Settings
from eval_harness.tables.compared import entry_named
from eval_harness.tables.write import write_tables


@pytest.fixture
def root(tmp_path):
    return tmp_path


def row_named(label, root):
    return cells(write_tables(root)[0])[label]


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
    assert ours.pop(label) == "15.0 (10.0 to 20.0)"
    assert list(ours.values()) == ["60.0 (50.0 to 70.0)"]
    assert "recipe 1" in next(iter(ours)) or "recipe" not in other


def test_what_all_share_is_in_no_label(root):
    """Prevents labels that repeat what tells no row from another, and a flag said nowhere."""
    for lr in (1e-4, 3e-3):
        overrides = {"learning_rate": lr, "weight_decay": 0.2, "dataloader_drop_last": True}
        values = {**overrides, "num_train_epochs": 3.0}
        given = made.settings(values=values, overrides=overrides)
        made.put(root, *seeds(0.5, given=given), *seeds(0.8, of=BERT, given=given))
    text = write_tables(root)[0]
    labels = {label for label in cells(text) if "(paper)" not in label}
    names = ("bert", "distilbert")
    assert labels == {f"{name}, learning_rate {lr}" for name in names for lr in ("1e-4", "3e-3")}
    said = note(text, "Hyper-parameters")
    assert said.startswith(
        "Hyper-parameters (ours: the paper's were never published): "
        "epochs 3, dataloader_drop_last on, weight_decay 0.2; the rest: "
    )


LONG = {"learning_rate": 5e-5, "num_train_epochs": 4.0, "per_device_train_batch_size": 16}


def test_a_long_name_is_short_and_a_footnote(root):
    """Prevents names that fill a phone's screen with what one setting differs in, or hide it."""
    for of in (None, BERT):
        made.put(root, *seeds(0.5, of=of), *seeds(0.6, of=of, given=made.settings(overrides=LONG)))
    once = made.settings(overrides={**LONG, "num_train_epochs": 1.0}, limit=100, choose="best")
    made.put(root, *seeds(0.7, given=once))
    text = write_tables(root)[0]
    shown = {label: row["RTE"] for label, row in cells(text).items() if "(paper)" not in label}
    assert shown == {
        "bert": "50.0", "bert [a]": "60.0",
        "distilbert": "50.0", "distilbert [b]": "70.0", "distilbert [a]": "60.0",
    }  # fmt: skip
    assert note(text, "[a]") == "[a] learning rate 5e-5, 4 epochs, batch size 16."
    assert note(text, "[b]") == (
        "[b] learning rate 5e-5, 1 epoch, batch size 16, at most 100 examples a split, best epoch."
    )
    labels = [row.label for row in rows_of(find(root))]
    assert labels[1] == (
        "bert, learning_rate 5e-5, num_train_epochs 4, per_device_train_batch_size 16"
    )


def test_a_table_explains_its_own_marks_alone(root):
    """Prevents footnotes of rows that a table doesn't show."""
    given = made.settings("imdb", overrides=LONG)
    made.put(root, *seeds(0.5), *seeds(0.9, task="imdb"), *seeds(0.8, task="imdb", given=given))
    table1, table2, *_ = write_tables(root)
    assert "[a]" not in table1
    assert note(table2, "[a]")


def test_names_are_unique_however_models_are_called(root):
    """Prevents a mark that somebody's model has in its name from standing for two rows."""
    odd = replace(made.model("x", "5" * 8), name="distilbert [a]")
    made.put(root, *seeds(0.5, of=odd), *seeds(0.5))
    for number in range(60):
        given = made.settings(overrides={**LONG, "learning_rate": (1 + number) * 1e-5})
        made.put(root, *seeds(0.6, given=given))
    rows = rows_of(find(root))
    assert len({row.short for row in rows}) == len(rows) == 62
    marks = {row.footnote.partition(" ")[0] for row in rows}
    assert {"[b]", "[z]", "[aa]"} < marks
    assert not {"[a]", "[x]"} & marks  # the second would be a ticked box in markdown


def test_two_temperatures_are_two_names(root):
    """Prevents two rows `(D)` that only a hash tells apart."""
    for temperature in (2.0, 4.0):
        method = made.distilled_from(BERT, temperature=temperature)
        made.put(root, *seeds(0.5, given=made.settings(method=method)))
    rows = cells(write_tables(root)[0])
    assert {"distilbert (D), temperature 2", "distilbert (D), temperature 4"} <= set(rows)


def ours(root):
    """Our rows by their labels, each with the tasks that it has."""
    return {row.label: sorted(row.cells) for row in rows_of(find(root))}


def test_other_data_are_another_row(root):
    """Fault 20: prevents a median over two data sets of one name."""
    made.put(root, *seeds(0.5, 0.6, 0.7, day=2), *seeds(0.3, 0.4, task="cola", day=2))
    for task in ("rte", "cola"):
        changed = made.settings(task, content="f" * 16)
        made.put(root, *seeds(0.1, 0.2, task=task, given=changed))
    made.put(root, *seeds(0.9, task="mrpc"))
    rows = cells(write_tables(root)[0])
    row, other = rows["distilbert"], rows["distilbert, other data"]
    assert (row["RTE"], row["CoLA"]) == ("60.0 (50.0 to 70.0)", "35.0 (30.0 to 40.0)")
    assert (other["RTE"], other["CoLA"]) == ("15.0 (10.0 to 20.0)", "15.0 (10.0 to 20.0)")
    assert (row["MRPC"], other["MRPC"]) == ("90.0", "")


def test_the_newest_data_are_the_row(root):
    """Prevents many results of long ago from hiding what was measured today."""
    made.put(root, *seeds(0.5, 0.6, 0.7))
    made.put(root, *seeds(0.1, given=made.settings(content="f" * 16), day=2))
    assert row_named("distilbert", root)["RTE"] == "10.0"


def test_of_equally_old_data_those_with_most_seeds_are_the_row(root):
    """Prevents two seeds from hiding three that finished in the same second.

    Of the three, each is in a folder of its own: a teacher's run has the student's seed.
    """
    method = made.distilled_from(BERT)
    inputs = {"teacher": f"{BERT.key}/rte/0a0a0a0a/seed-1"}
    other = made.settings(content="f" * 16, method=method, inputs=inputs)
    made.put(root, *seeds(0.8, 0.9, given=other))
    for seed in (1, 2, 3):
        inputs = {"teacher": f"{BERT.key}/rte/0a0a0a0a/seed-{seed}"}
        given = made.settings(method=method, inputs=inputs)
        made.put(root, *seeds(seed / 10, first=seed, given=given))
    rows = cells(write_tables(root)[0])
    assert rows["distilbert (D)"]["RTE"] == "20.0 (10.0 to 30.0)"
    assert rows["distilbert (D), other data"]["RTE"] == "85.0 (80.0 to 90.0)"


def test_earlier_defaults_are_one_row_over_all_tasks(root):
    """Fault 20: prevents a row for each task, and a mean over runs of two generations."""
    for task in ("rte", "cola", "mrpc"):
        made.put(root, *seeds(0.5, task=task))
    for task in ("rte", "cola"):
        changed = made.settings(task, values={"learning_rate": 5e-5})
        made.put(root, *seeds(0.7, task=task, given=changed, day=2))
    assert ours(root) == {
        "distilbert": ["cola", "rte"],
        "distilbert, earlier defaults": ["cola", "mrpc", "rte"],
    }
    text = write_tables(root)[0]
    assert cells(text)["distilbert"]["Mean of tasks"] == "70.0 (CoLA, RTE)"
    said = "Other hyper-parameters: distilbert, earlier defaults: learning rate 3e-5."
    assert note(text, "Other hyper-parameters") == said


def test_a_tasks_own_defaults_are_not_left_behind(root):
    """Prevents a task with defaults of its own from being taken for one that is out of date."""
    own = made.settings("mrpc", values={"learning_rate": 2e-5})
    made.put(root, *seeds(0.5), *seeds(0.5, task="mrpc", given=own))
    changed = made.settings(values={"learning_rate": 5e-5})
    made.put(root, *seeds(0.7, given=changed, day=2))
    assert ours(root) == {"distilbert": ["mrpc", "rte"], "distilbert, earlier defaults": ["rte"]}


def test_generations_have_a_row_each(root):
    """Prevents two rows of one label, of which one's share would be shown beside both."""
    for day, lr in enumerate((1e-5, 2e-5, 3e-5), 1):
        for task in ("rte", "cola"):
            given = made.settings(task, values={"learning_rate": lr})
            made.put(root, *seeds(day / 10, task=task, given=given, day=day))
    for task in ("rte", "cola"):
        made.put(root, *seeds(0.9, of=BERT, task=task))
    both = ["cola", "rte"]
    assert ours(root) == {
        "bert": both,
        "distilbert": both,
        "distilbert, earlier defaults": both,
        "distilbert, earlier defaults (2)": both,
    }
    rows = cells(write_tables(root)[0])
    assert rows["distilbert"]["Retained"].startswith("33.3")
    assert rows["distilbert, earlier defaults"]["Retained"].startswith("22.2")
    assert rows["distilbert [a]"]["Retained"].startswith("11.1")
    assert note(write_tables(root)[0], "[a]") == "[a] earlier defaults (2)."


def of_the_first_schema(given):
    """Settings as they were before a task's labels, measures and columns stood in them."""
    added = ("labels", "measures", "columns")
    return Settings(given.row, {name: given.task[name] for name in given.task.keys() - set(added)})


def test_an_added_field_sets_nothing_apart(root):
    """Prevents results of yesterday from leaving the row because a record says more today."""
    for task in ("rte", "cola"):
        given = made.settings(task)
        made.put(root, *seeds(0.5, 0.6, task=task, given=of_the_first_schema(given)))
        made.put(root, *seeds(0.7, task=task, first=3, given=given, day=2))
    assert ours(root) == {"distilbert": ["cola", "rte"]}
    assert row_named("distilbert", root)["RTE"] == "60.0 (50.0 to 70.0)"
    other = made.settings(labels=["no", "yes"])
    made.put(root, *seeds(0.9, given=other, day=3))
    assert ours(root) == {
        "distilbert": ["cola", "rte"],
        "distilbert, earlier version of the task": ["rte"],
    }
    assert row_named("distilbert", root)["RTE"] == "90.0"


def test_of_two_runs_of_a_seed_the_newer_counts(root):
    """Fault 20: prevents one seed from standing twice in a median, and its first number's loss."""
    given = made.settings()
    made.put(root, *seeds(0.5, 0.6, 0.7, given=of_the_first_schema(given), asked=[1, 2, 3]))
    made.put(root, *seeds(0.5, 0.8, given=given, day=2))
    rows = cells(write_tables(root)[0])
    assert rows["distilbert"]["RTE"] == "70.0 (50.0 to 80.0)"
    again = rows["distilbert, an earlier run"]
    assert (again["n"], again["RTE"]) == ("1", "60.0")  # the first says what the newer says


def test_a_teachers_seed_may_follow_the_students(root):
    """Prevents a row for each seed where each has a teacher's run of its own."""
    method = made.distilled_from(BERT)
    for seed in (1, 2, 3):
        inputs = {"teacher": f"{BERT.key}/rte/0a0a0a0a/seed-{seed}"}
        given = made.settings(method=method, inputs=inputs)
        made.put(root, *seeds(seed / 10, first=seed, given=given))
    assert row_named("distilbert (D)", root)["RTE"] == "20.0 (10.0 to 30.0)"
    inputs = {"teacher": f"{BERT.key}/rte/0a0a0a0a/seed-9"}
    made.put(root, *seeds(0.9, given=made.settings(method=method, inputs=inputs), day=2))
    rows = cells(write_tables(root)[0])
    assert rows["distilbert (D)"]["RTE"] == "30.0 (20.0 to 90.0)"
    assert rows["distilbert (D), an earlier run"]["RTE"] == "10.0"


def test_other_runs_of_a_teacher_are_one_row(root):
    """Prevents a row for each task where the teacher was fine-tuned under other settings."""
    for day, settings in enumerate(("0a0a0a0a", "0b0b0b0b"), 1):
        for task in ("rte", "cola"):
            inputs = {"teacher": f"{BERT.key}/{task}/{settings}/seed-1"}
            given = made.settings(task, method=made.distilled_from(BERT), inputs=inputs)
            made.put(root, *seeds(day / 10, task=task, given=given, day=day))
    assert ours(root) == {
        "distilbert (D)": ["cola", "rte"],
        "distilbert (D), another run of the teacher": ["cola", "rte"],
    }


def test_a_teachers_run_is_not_named_beside_what_changed_it(root):
    """Prevents "other data, another run of the teacher": its run changes with all else."""
    for day, (settings, changed) in enumerate((("0a0a0a0a", {"content": "f" * 16}),
                                               ("0b0b0b0b", {})), 1):  # fmt: skip
        inputs = {"teacher": f"{BERT.key}/rte/{settings}/seed-1"}
        given = made.settings(method=made.distilled_from(BERT), inputs=inputs, **changed)
        made.put(root, *seeds(day / 10, given=given, day=day))
    assert ours(root) == {"distilbert (D)": ["rte"], "distilbert (D), other data": ["rte"]}


def test_two_differences_are_two_names(root):
    """Prevents a label that names half of what changed, or runs both names together."""
    earlier = made.settings(content="f" * 16, values={"learning_rate": 5e-5})
    made.put(root, *seeds(0.5, given=earlier), *seeds(0.7, day=2))
    assert ours(root) == {
        "distilbert": ["rte"],
        "distilbert, other data, earlier defaults": ["rte"],
    }


@pytest.mark.parametrize("changed", ["version", "labels", "measures", "columns"])
def test_what_makes_an_earlier_version_of_a_task(root, changed):
    """Prevents "other settings" where a task is read or scored otherwise since."""
    given = made.settings()
    value = 0 if changed == "version" else ["earlier"]
    made.put(root, *seeds(0.5, given=Settings(given.row, {**given.task, changed: value})))
    made.put(root, *seeds(0.7, given=given, day=2))
    assert ours(root) == {
        "distilbert": ["rte"],
        "distilbert, earlier version of the task": ["rte"],
    }


def test_labels_are_unique_as_they_are_printed(root):
    """Prevents two rows that a reader can't tell apart."""
    for name, digest in (("a b", "1" * 8), ("a\tb", "2" * 8), ("a  b", "3" * 8)):
        made.put(root, *seeds(0.5, of=replace(made.model("x", digest), name=name)))
    assert {"a b", "a b (2)", "a b (3)"} == set(ours(root))


def test_models_of_one_name_are_told_apart(root):
    """Prevents a retrained model from sharing its row with the one before."""
    made.put(root, *seeds(0.5), *seeds(0.7, of=made.model("distilbert", "aaaaaaaa")))
    rows = cells(write_tables(root)[0])
    assert rows["distilbert 0123abcd"]["RTE"] == "50.0"
    assert rows["distilbert aaaaaaaa"]["RTE"] == "70.0"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-4, "1e-4"), (2.5e-5, "2.5e-5"), (0.1, "0.1"), (3.0, "3"), (0.0, "0"), ("linear", "linear"),
     (True, "on"), (1e-8, "1e-8"), (3e-3, "3e-3"), (0.01, "0.01"), (["q", "v"], "q+v"),
     (None, "none"), ({"num_cycles": 2}, '{"num_cycles": 2}')],
)  # fmt: skip
def test_settings_are_written_as_people_do(value, text):
    """Prevents two settings from being rounded into one name."""
    assert format_setting(value) == text


def trained(name, training_seed, group="a" * 16):
    """A student of one training among several, and what its results record of that."""
    student = replace(made.model(f"{name}-{training_seed}"), digest=f"{training_seed:08d}")
    training = {"group": group, "seed": training_seed}
    return student, {**made.PROVENANCE, "training": training}


def put_students(root, fine_tuned, name="study", group="a" * 16):
    """Save results of students by their training's seed: fine-tuning seeds, each with its score."""
    for training_seed, scores in fine_tuned.items():
        student, provenance = trained(name, training_seed, group)
        for seed, score in scores.items():
            made.put(root, made.result(student, seed=seed, score=score, provenance=provenance))


def test_students_of_one_training_are_one_row(root):
    """Prevents a median of a single seed each, whose interval leaves pre-training's chance out."""
    put_students(root, {11: {11: 0.5}, 22: {22: 0.6}, 33: {33: 0.9}})
    put_students(root, {11: {11: 0.4}}, "other", "b" * 16)
    rows = {row.label: row for row in rows_of(find(root))}
    assert set(rows) == {"study (3 students)", "other-11"}
    cell = rows["study (3 students)"].cells["rte"]
    assert cell.scores == (0.5, 0.6, 0.9)
    assert cell.expected_seeds == {11, 22, 33}
    assert len(rows["study (3 students)"].keys) == 3
    assert len(rows_of(find(root), pooled=False)) == 4


def test_students_with_the_same_fine_tuning_seeds_have_rows_of_their_own(root):
    """Prevents runs of which a cell could count only one a seed from being dropped."""
    put_students(root, {11: {1: 0.5, 2: 0.6}, 22: {2: 0.6, 3: 0.7}})
    assert [row.label for row in rows_of(find(root))] == ["study-11", "study-22"]


def test_a_copy_of_a_student_is_no_further_seed(root):
    """Prevents a copy under another name from standing for a repetition."""
    put_students(root, {11: {1: 0.5}})
    put_students(root, {11: {2: 0.5}}, "copy")
    assert [row.label for row in rows_of(find(root))] == ["copy-11", "study-11"]


def test_older_results_of_a_student_do_not_record_its_training(root):
    """Prevents a table that fails where a folder also holds results of an earlier version."""
    put_students(root, {11: {11: 0.5}, 22: {22: 0.6}, 33: {33: 0.9}})
    student, _ = trained("study", 22)
    older = made.result(student, "cola", seed=5, score=0.1, scores={"validation": {"score": 0.1}})
    made.put(root, older)
    rows = {row.label: row for row in rows_of(find(root))}
    assert set(rows) == {"study (3 students)"}
    assert rows["study (3 students)"].cells["cola"].scores == (0.1,)


def test_a_student_among_several_is_found_by_its_own_name(root, capsys):
    """Prevents a folder, or a training, that the tables count from being unknown to `compare`."""
    put_students(root, {11: {11: 0.5}, 22: {22: 0.6}, 33: {33: 0.9}})
    rows = rows_of(find(root))
    for name in ("study (3 students)", "study", "study-22", trained("study", 33)[0].key):
        assert entry_named(name, rows, root).row is rows[0]
