"""Table 4: each student against the one from which nothing was left out, and no other one."""

import json
import shutil
from dataclasses import replace

import made_results as made
import numpy as np
import pytest
from made_results import cells, note, notes, seeds

from angels_share.ablations import ABLATIONS
from distil_trainer.cli import PRETRAIN
from eval_harness.tables.write import write_by_name
from eval_harness.tasks.registry import GLUE

FULL = made.student()
CHANGE, OVER = "Change of score", "Tasks"


@pytest.fixture
def root(tmp_path):
    return tmp_path


def table4(root, models=None):
    return write_by_name(root, models)["table4"]


def evaluated(root, model, scores, **more):
    for task, score in scores.items():
        made.put(root, *seeds(score, of=model, task=task, **more))


def test_an_ablation_changes_what_pre_training_has_options_for():
    """Prevents an ablation whose full loss nobody would find: its record would not name it."""
    options = {flag.name for flag in PRETRAIN.flags}
    for each in ABLATIONS.values():
        assert each.changes.keys() <= options
        assert set(each.left_out) == {name.replace("student_", "") for name in each.changes}


def test_a_change_is_the_difference_of_the_means(root):
    """Prevents a difference of other numbers than the two rows show: computed by hand here.

    Medians of the full loss 60, 80 and 40, of no L_ce 50 and 75: (-10 - 5) / 2.
    """
    for task, scores in (("rte", (0.5, 0.6, 0.9)), ("mrpc", (0.8, 0.8, 0.8)), ("cola", (0.4,))):
        made.put(root, *seeds(*scores, of=FULL, task=task))
    evaluated(root, made.student("no-ce"), {"rte": 0.5, "mrpc": 0.75})
    evaluated(root, made.student("random-init"), {"rte": 0.3})
    text = table4(root)
    rows = cells(text)
    assert list(rows)[-3:] == [
        "triple loss (study/none)",
        "no L_ce (study/no-ce)",
        "triple loss, random initialization (study/random-init)",
    ]
    full, without, started = list(rows.values())[-3:]
    assert (full["n"], full["Mean of tasks"], full[CHANGE]) == ("1-3", "60.0 (CoLA, MRPC, RTE)", "")
    assert (without["n"], without["Mean of tasks"]) == ("1", "62.5 (MRPC, RTE)")
    assert without[CHANGE].startswith("-7.50 [")
    assert without[OVER] == "2 of 9"
    assert started[CHANGE].startswith("-30.00 [")
    assert rows["no L_ce (paper)"][CHANGE] == "-2.96"
    said = "Changes over MRPC, RTE from study/none: study/no-ce."
    assert note(text, "Changes over MRPC") == said
    assert note(text, "Change of score: mean over the common tasks")
    assert note(text, "Hyper-parameters (ours")
    assert not [line for line in notes(text) if "the paper's mean is computed" in line]


def test_all_nine_give_the_score(root):
    """Prevents a macro-score from going missing where it is whole."""
    for model in (FULL, made.student("no-mlm")):
        evaluated(root, model, dict.fromkeys(set(GLUE) - {"stsb"}, 0.5))
        numbers = made.predictions(np.arange(40) / 10)  # few of them would often be constant
        made.put(root, *seeds(0.5, of=model, task="stsb"), said=numbers)
    without = cells(table4(root))["no L_mlm (study/no-mlm)"]
    assert (without["Score"], without[OVER]) == ("50.0", "9 of 9")
    assert without[CHANGE] == "+0.00 [+0.00 to +0.00]"
    assert "Mean of tasks" not in without


@pytest.mark.parametrize(
    "full",
    [
        made.student(rest="f" * 16),
        made.student(alpha_cos=0.5),
        made.student("no-cos"),
        None,
    ],
)
def test_without_its_full_loss_a_row_has_no_change(root, full):
    """Prevents a student from being held against one of another teacher, corpus or weight."""
    if full:
        evaluated(root, full, {"rte": 0.9})
    evaluated(root, made.student("no-ce"), {"rte": 0.5})
    text = table4(root)
    row = cells(text)["no L_ce (study/no-ce)"]
    assert (row[CHANGE], row["Mean of tasks"]) == ("", "50.0 (1 task)")
    why = "no full triple loss of the same teacher and recipe was evaluated in the same way."
    assert note(text, "No change for ").count("study/no-ce") == 1
    assert note(text, "No change for ").endswith(f": {why}")
    assert "triple loss (study/none)" not in text


def test_other_weights_are_another_study(root):
    """Prevents two studies of one teacher from being mixed; their own weights may be any."""
    for study, cos in (("a", 1.0), ("b", 0.5)):
        evaluated(root, made.student(study=study, alpha_cos=cos), {"rte": 0.5 + cos / 10})
        evaluated(root, made.student("no-ce", study=study, alpha_cos=cos), {"rte": 0.5})
        evaluated(root, made.student("no-cos", study=study), {"cola": 0.1})
    rows = cells(table4(root))
    assert rows["no L_ce (a/no-ce)"][CHANGE].startswith("-10.00 [")
    assert rows["no L_ce (b/no-ce)"][CHANGE].startswith("-5.00 [")
    assert rows["no L_cos (a/no-cos)"][CHANGE] == ""


def test_a_term_that_was_added_since_weighs_nothing_in_an_older_record(root):
    """Prevents a new term of the loss from parting students made before it from those after."""
    made.put(root, *seeds(0.9, of=made.student(alpha_new=0.0)))
    made.put(root, *seeds(0.8, of=made.student("no-ce")))
    made.put(root, *seeds(0.7, of=made.student("no-mlm", alpha_new=1.0)))
    rows = cells(table4(root))
    assert rows["no L_ce (study/no-ce)"][CHANGE].startswith("-10.00 [")
    assert rows["no L_mlm (study/no-mlm)"][CHANGE] == ""


@pytest.mark.parametrize("other", [{"limit": 10}, {"overrides": {"learning_rate": 1e-4}}])
def test_evaluated_otherwise_is_not_compared(root, other):
    """Prevents a difference that comes from fine-tuning alone."""
    made.put(root, *seeds(0.9, of=FULL, given=made.settings(**other)))
    made.put(root, *seeds(0.5, of=made.student("no-ce")))
    label = "no L_ce (study/no-ce)"
    assert cells(table4(root))[label][CHANGE] == ""
    made.put(root, *seeds(0.6, of=FULL))
    assert cells(table4(root))[label][CHANGE].startswith("-10.00")


def test_other_data_or_defaults_are_no_common_task(root):
    """Prevents a difference between two data sets, or two generations of our defaults."""
    evaluated(root, FULL, {"rte": 0.9, "cola": 0.6, "mrpc": 0.8})
    without = made.student("no-ce")
    made.put(root, *seeds(0.1, of=without, given=made.settings(content="f" * 16)))
    slow = made.settings("cola", values={"learning_rate": 1e-5})
    made.put(root, *seeds(0.1, of=without, task="cola", given=slow))
    made.put(root, *seeds(0.5, of=without, task="mrpc"))
    row = cells(table4(root))["no L_ce (study/no-ce)"]
    assert row[CHANGE].startswith("-30.00 [")
    assert row[OVER] == "1 of 9"


@pytest.mark.parametrize("other", [{"version": 2}, {"measures": ["f1"]}])
def test_another_measure_is_no_common_task(root, other):
    """Prevents `-40.00` between an accuracy and the f1 that took its place."""
    given = made.settings()
    changed = replace(given, task={**given.task, **other})
    made.put(root, *seeds(0.9, of=FULL), *seeds(0.5, of=made.student("no-ce"), given=changed))
    for model, score in ((FULL, 0.6), (made.student("no-ce"), 0.5)):
        made.put(root, *seeds(score, of=model, task="mrpc"))
    row = cells(table4(root))["no L_ce (study/no-ce)"]
    assert row[CHANGE].startswith("-10.00 [")
    assert row[OVER] == "1 of 9"


def test_a_student_alone_is_no_study(root):
    """Prevents everybody's own student from standing in Table 4, and SQuAD's rows with it."""
    evaluated(root, FULL, {"rte": 0.9})
    made.put(
        root,
        *made.on_squad(0.5, of=made.student("no-ce")),
        said=made.answers(),
    )
    assert "study" not in table4(root)


def test_a_sweep_sees_the_full_loss_of_its_own(root):
    """Prevents a difference from nobody in the answer to a command about one student."""
    without = made.student("no-ce")
    evaluated(root, FULL, {"rte": 0.9})
    evaluated(root, without, {"rte": 0.5})
    evaluated(root, made.student("no-cos"), {"rte": 0.5})
    text = table4(root, {without.key})
    assert "triple loss (study/none)" in text
    assert "no-cos" not in text
    assert "no-cos" in (root / "table4.md").read_text()


def test_an_older_result_of_the_same_model_takes_part(root):
    """Prevents results from before the record said how from hiding that newer ones do."""
    evaluated(root, FULL, {"rte": 0.9, "cola": 0.5})
    evaluated(root, made.student("no-ce"), {"rte": 0.5, "cola": 0.4})
    for path in root.glob("runs/*/cola/*/*.json"):
        record = json.loads(path.read_text())
        del record["model"]["distilled"]
        path.write_text(json.dumps(made.unsealed(record, schema=1)))
    assert cells(table4(root))["no L_ce (study/no-ce)"][OVER] == "2 of 9"


def test_an_ablation_of_a_later_version_is_shown(root):
    """Prevents a name that this version doesn't know from stopping the tables."""
    known = made.student("no-ce")
    new = replace(known, distilled=replace(known.distilled, ablation="no-dropout"))
    evaluated(root, new, {"rte": 0.5})
    evaluated(root, FULL, {"rte": 0.9})
    assert cells(table4(root))["no-dropout (study/no-ce)"][CHANGE] == ""


def score_of(task, said, labels):
    """RTE's accuracy; MRPC's mean of accuracy and F1."""
    accuracy = np.mean(said == labels)
    if task == "rte":
        return accuracy
    f1 = 2 * np.sum(said & labels) / (np.sum(said) + np.sum(labels))
    return (accuracy + f1) / 2


def invented(random, size, wrong):
    labels = random.integers(0, 2, size)
    return labels, [np.where(random.random(size) < share, 1 - labels, labels) for share in wrong]


def test_the_interval_is_a_brute_force_bootstraps(root):
    """Prevents an interval of a ratio, of one seed, or of unpaired examples.

    Examples are drawn one resample at a time here, and each score is taken of those drawn.
    """
    random = np.random.default_rng(0)
    without = made.student("no-ce")
    data = {task: invented(random, 120, (0.1, 0.15, 0.3)) for task in ("rte", "mrpc")}
    for task, (labels, (one, two, three)) in data.items():
        for model, seed, said in ((FULL, 1, one), (FULL, 2, two), (without, 1, three)):
            score = float(score_of(task, said, labels))
            result = made.result(model, task, seed=seed, score=score)
            made.put(root, result, said=made.predictions(labels, said))
    draws = np.random.default_rng(1)
    changes = []
    for _ in range(1000):
        points = []
        for task, (labels, said) in data.items():
            drawn = draws.integers(0, 120, 120)
            one, two, three = (score_of(task, each[drawn], labels[drawn]) for each in said)
            points.append(100 * (three - np.median([one, two])))
        changes.append(np.mean(points))
    expected = np.percentile(changes, (2.5, 97.5))
    shown = cells(table4(root))["no L_ce (study/no-ce)"][CHANGE]
    low, high = map(float, shown.partition("[")[2].rstrip("]").split(" to "))
    spread = expected[1] - expected[0]
    assert (low, high) == pytest.approx(expected, abs=0.1 * spread)
    assert 3 < spread < 30


def test_a_change_without_an_interval_says_why(root):
    """Prevents damaged predictions from stopping the tables, or from going unsaid."""
    evaluated(root, FULL, {"rte": 0.9})
    evaluated(root, made.student("no-ce"), {"rte": 0.5})
    (path,) = root.glob("runs/no-ce-*/rte/*/*.parquet")
    path.write_bytes(bytes(len(path.read_bytes())))
    text = table4(root)
    assert cells(text)["no L_ce (study/no-ce)"][CHANGE] == "-40.00"
    assert "is not what the result was saved with" in note(text, "No interval for study/no-ce")


def test_the_same_files_give_the_same_bytes(root):
    """Prevents a table that depends on when, where, or in which order results were made."""
    evaluated(root, made.student("no-cos"), {"rte": 0.5})
    evaluated(root, FULL, {"rte": 0.9})
    evaluated(root, made.student("no-ce"), {"rte": 0.4})
    first = table4(root)
    copy = root / "copy"
    shutil.copytree(root / "runs", copy / "runs")
    assert table4(copy) == first == table4(root)
