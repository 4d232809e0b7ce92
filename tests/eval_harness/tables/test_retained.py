"""What was retained, and of whom: a share of another model's score would look like any other."""

import json
import shutil
from dataclasses import replace

import made_results as made
import pytest
from made_results import BERT, STUDENT, cells, model_folder, notes, seeds

from angels_share.files import sha256_of_file
from eval_harness.runs.models import identify
from eval_harness.tables.write import write_tables


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def taught(tmp_path):
    """Two teachers that are called alike; a student of the first; all as `identify` has them."""
    first = model_folder(tmp_path / "v1" / "teacher", b"first")
    second = model_folder(tmp_path / "v2" / "teacher", b"second")
    student = model_folder(tmp_path / "student", b"smaller")
    write_record(student, first)
    return tuple(identify(str(folder)) for folder in (first, second, student))


def write_record(student, teacher):
    sha256 = sha256_of_file(teacher / "model.safetensors")
    identity = {"name": str(teacher), "source": str(teacher), "revision": None, "sha256": sha256}
    (student / "distil.json").write_text(json.dumps({"teachers": [identity]}))


def share(root, label):
    return cells(write_tables(root)[0])[label].get("Retained", "").partition(" ")[0]


def why_not(root):
    (said,) = [
        line for line in notes(write_tables(root)[0]) if line.startswith("Retained is unknown")
    ]
    return said


@pytest.mark.parametrize("later", [0, 1])
def test_of_two_teachers_of_one_name_the_students_own_is_taken(root, taught, later):
    """Prevents a share of a teacher that the student never had: 120.0 instead of 66.7."""
    first, second, student = taught
    made.put(root, *seeds(0.9, of=first, day=1 + later), *seeds(0.5, of=second, day=2 - later))
    made.put(root, *seeds(0.6, of=student))
    assert share(root, "student") == "66.7"


def test_a_teacher_that_was_trained_again_is_another(root, taught):
    """Prevents yesterday's student from being held against today's weights in the same folder."""
    _, second, student = taught
    made.put(root, *seeds(0.5, of=second), *seeds(0.6, of=student))
    assert share(root, "student") == ""
    assert why_not(root) == (
        "Retained is unknown for student: its teacher had other weights "
        f"({student.teacher_weights[:8]}) than teacher."
    )


def test_a_teacher_is_known_wherever_it_lies(root, taught, tmp_path):
    """Prevents a share from going missing because a folder was moved or renamed."""
    _, _, student = taught
    moved = shutil.move(tmp_path / "v1" / "teacher", tmp_path / "my-bert")
    made.put(root, *seeds(0.9, of=identify(str(moved))), *seeds(0.6, of=student))
    assert share(root, "student") == "66.7"


def test_a_teacher_on_the_hub_is_known_by_its_revision(root):
    """Prevents a share of another revision's score."""
    newer = replace(BERT, digest="77777777", revision="7" * 40)
    student = replace(made.model("mine", "55555555"), teacher="bert", revision=None)
    student = replace(student, teacher_weights=BERT.revision)
    made.put(root, *seeds(0.9, of=BERT), *seeds(0.5, of=newer), *seeds(0.6, of=student))
    assert share(root, "mine") == "66.7"


def test_results_that_do_not_say_which_weights_go_by_the_name(root, taught):
    """Prevents the shares of earlier results from going, and guesses between two teachers."""
    first, second, student = (replace(each, weights=None, teacher_weights=None) for each in taught)
    made.put(root, *seeds(0.9, of=first), *seeds(0.6, of=student))
    assert share(root, "student") == "66.7"
    made.put(root, *seeds(0.5, of=second))
    assert share(root, "student") == ""
    labels = sorted(f"teacher {each.digest}" for each in (first, second))
    assert why_not(root) == (
        "Retained is unknown for student: any of these may be its teacher's row: "
        f"{labels[0]}; {labels[1]}."
    )


def test_rows_that_fit_equally_are_not_chosen_from(root):
    """Prevents a teacher's hyper-parameters from being chosen by the spelling of its label."""
    for rate, score in ((1e-5, 0.9), (2e-5, 0.7)):
        row = made.settings(overrides={"learning_rate": rate})
        made.put(root, *seeds(score, of=BERT, given=row))
    made.put(root, *seeds(0.6))
    assert share(root, "distilbert") == ""
    assert "bert, learning_rate 1e-5; bert, learning_rate 2e-5" in why_not(root)


def test_a_published_students_teacher_is_no_folder(root):
    """Prevents a folder that somebody called `bert` from passing for BERT-base."""
    own = replace(BERT, digest="11111111", revision=None, source="/models/bert")
    made.put(root, *seeds(0.5, of=own), *seeds(0.6, of=STUDENT))
    assert share(root, "distilbert") == ""
    made.put(root, *seeds(0.8, of=BERT))
    assert share(root, "distilbert") == "75.0"


@pytest.mark.parametrize(
    "other",
    [{"version": 2}, {"measures": ["f1"]}, {"labels": ["not_entailment", "entailment"]},
     {"columns": ["sentence2", "sentence1"]}],
)  # fmt: skip
def test_nothing_is_retained_of_another_measure(root, other):
    """Prevents a share of f1 by accuracy, or of a task that has been read otherwise since."""
    given = made.settings()
    changed = replace(given, task={**given.task, **other})
    made.put(root, *seeds(0.8, of=BERT, given=changed), *seeds(0.6))
    assert share(root, "distilbert") == ""


def test_what_a_result_does_not_name_is_no_difference(root):
    """Prevents the first results, which name no labels, from being compared with nothing."""
    given = made.settings()
    first = {name: given.task[name] for name in given.task if name not in ("labels", "measures")}
    made.put(root, *seeds(0.8, of=BERT, given=replace(given, task=first)), *seeds(0.6))
    assert share(root, "distilbert") == "75.0"
