"""Models side by side: what is compared, by how much they differ, and what can be told."""

import json
from dataclasses import replace

import made_results as made
import numpy as np
import pytest
from scipy import stats

from angels_share.errors import UserError
from eval_harness.results.store import find, withhold
from eval_harness.rows.grouping import rows_of
from eval_harness.runs.run import Settings
from eval_harness.tables import compared as compared_module
from eval_harness.tables.compared import (
    MEAN,
    Entry,
    compare_rows,
    comparison_table,
    entry_named,
    sentences,
)
from eval_harness.tables.comparison import primary_metrics, task_scores
from eval_harness.tables.formats import to_json, to_markdown

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(compared_module, "RESAMPLES", 200)


def put(root, model, task, *accuracies, first=1, **given):
    """Save a result per accuracy, whose hundred predictions have it."""
    for seed, share in enumerate(accuracies, first):
        settings = made.settings(task, **given)
        result = made.result(model, task, seed=seed, score=share, given=settings)
        made.put(root, result, said=made.scoring(share))


def compared(root, *names, tasks=None):
    rows = rows_of(find(root))
    return compare_rows([entry_named(name, rows, root) for name in names], tasks)


def test_a_difference_is_that_of_the_means_over_seeds(tmp_path):
    """Prevents a difference with the wrong sign, of other numbers, or over other tasks."""
    for task, ours, theirs in (("rte", (0.6, 0.7, 0.8), (0.5, 0.5, 0.5)),
                               ("qnli", (0.9, 0.9, 0.9), (0.8, 0.8, 0.8))):  # fmt: skip
        put(tmp_path, made.STUDENT, task, *ours)
        put(tmp_path, made.BERT, task, *theirs)
    found = compared(tmp_path, "bert", "distilbert")
    assert found.tasks == ("qnli", "rte")  # the tables' order
    changes = {task: found.differences[task, "distilbert"] for task in (*found.tasks, MEAN)}
    assert {task: change.value for task, change in changes.items()} == pytest.approx(
        {"qnli": 10, "rte": 20, MEAN: 15}
    )
    assert changes["rte"].half > changes["qnli"].half  # only RTE's seeds differ
    back = compared(tmp_path, "distilbert", "bert").differences["rte", "bert"]
    assert (back.value, back.half) == pytest.approx((-20, changes["rte"].half))


def test_only_what_is_more_than_chance_is_called_so(tmp_path):
    """Prevents noise from being called a difference, and a plain difference from being missed."""
    put(tmp_path, made.BERT, "rte", 0.5, 0.6, 0.7)
    put(tmp_path, made.STUDENT, "rte", 0.55, 0.6, 0.66)
    put(tmp_path, made.model("far", "f" * 8), "rte", 0.94, 0.95, 0.96)
    found = compared(tmp_path, "bert", "distilbert", "far")
    assert not found.is_told("rte", "distilbert")
    assert found.is_told("rte", "far")
    near, far = sentences(found)
    assert near.endswith("(RTE): chance alone may explain that.")
    assert far.startswith("far scores 35.0 ±")
    assert far.endswith("higher than bert (RTE): more than chance explains.")


def test_the_mean_does_not_pay_for_the_number_of_tasks(tmp_path):
    """Prevents nine tasks from hiding a difference of the means by Holm's factor of ten."""
    rng = np.random.default_rng(3)
    for task in ("rte", "qnli", "sst2", "mnli"):
        noise = rng.normal(0, 0.02, (2, 3)).round(2)
        put(tmp_path, made.BERT, task, *(0.6 + noise[0]))
        put(tmp_path, made.STUDENT, task, *(0.66 + noise[1]))
    found = compared(tmp_path, "bert", "distilbert")
    change = found.differences[MEAN, "distilbert"]
    assert found.adjusted[MEAN, "distilbert"] == pytest.approx(change.p)
    smallest = min(found.differences[task, "distilbert"].p for task in found.tasks)
    assert min(found.adjusted[task, "distilbert"] for task in found.tasks) == pytest.approx(
        min(4 * smallest, 1)
    )


def test_a_mean_is_that_of_the_differences_whatever_the_seeds(tmp_path):
    """Prevents a mean over the seeds that all tasks have: of other numbers than those beside it,

    and with one common seed without the variance over seeds that was measured.
    """
    for model, shares in ((made.BERT, (0.5, 0.6, 0.7)), (made.STUDENT, (0.9, 0.6, 0.8))):
        put(tmp_path, model, "rte", *shares)
        put(tmp_path, model, "qnli", *shares[::-1], first=3)
    found = compared(tmp_path, "bert", "distilbert")
    parts = [found.differences[task, "distilbert"] for task in found.tasks]
    mean = found.differences[MEAN, "distilbert"]
    assert mean.value == pytest.approx(np.mean([part.value for part in parts]))
    # Both tasks have one variance over seeds, that of .4, 0 and .1, with 2 degrees of freedom each:
    # their mean's has half of it, with 4. That over examples is added as for a single task.
    over_seeds = np.var([40, 0, 10], ddof=1) / 3 / 2
    resampled = [
        np.subtract(*(found.scores[task][name].resampled.mean(axis=0)
                      for name in ("distilbert", "bert")))
        for task in found.tasks
    ]  # fmt: skip
    over_examples = np.mean(resampled, axis=0).var(ddof=1)
    terms = [stats.t.ppf(0.975, 4) ** 2 * over_seeds, stats.t.ppf(0.975, 199) ** 2 * over_examples]
    assert mean.half == pytest.approx(np.sqrt(sum(terms)), rel=1e-9)
    assert mean.half < np.sqrt(sum(part.half**2 for part in parts)) / 2


def test_what_is_found_of_single_runs_says_so(tmp_path):
    """Prevents one seed of each model from being quoted as a difference of the models."""
    put(tmp_path, made.BERT, "rte", 0.5)
    put(tmp_path, made.STUDENT, "rte", 0.9)
    (said,) = sentences(compared(tmp_path, "bert", "distilbert"))
    assert "more than chance explains, for these runs; where there is one seed" in said
    for seed in (2, 3):
        put(tmp_path, made.BERT, "rte", 0.5, first=seed)
        put(tmp_path, made.STUDENT, "rte", 0.9, first=seed)
    (said,) = sentences(compared(tmp_path, "bert", "distilbert"))
    assert said.endswith("more than chance explains.")


def test_the_draws_depend_on_the_task_alone(tmp_path):
    """Prevents a star that comes and goes with the other tasks that are compared."""
    rng = np.random.default_rng(1)
    for task in ("qnli", "rte"):
        for model in (made.BERT, made.STUDENT):
            put(tmp_path, model, task, *rng.uniform(0.4, 0.9, 3).round(2))
    alone = compared(tmp_path, "bert", "distilbert", tasks=["rte", "rte"])
    assert alone.tasks == ("rte",)
    both = compared(tmp_path, "bert", "distilbert")
    key = ("rte", "distilbert")
    assert both.differences[key] == alone.differences[key]
    scores = [both.scores[task]["bert"].resampled - both.scores[task]["bert"].points[:, None]
              for task in both.tasks]  # fmt: skip
    assert abs(np.corrcoef(*(each.mean(axis=0) for each in scores))[0, 1]) < 0.3


@pytest.mark.parametrize("other", [{"content": "another-content0"}, {"labels": ["a", "b"]}])
def test_other_data_and_other_scoring_are_not_compared(tmp_path, other):
    """Prevents scores of other examples, or other metrics, from being set against each other."""
    put(tmp_path, made.BERT, "rte", 0.5)
    put(tmp_path, made.STUDENT, "rte", 0.6, **other)
    with pytest.raises(UserError, match="nothing to compare: RTE: distilbert and bert were"):
        compared(tmp_path, "bert", "distilbert")
    put(tmp_path, made.BERT, "qnli", 0.5)
    put(tmp_path, made.STUDENT, "qnli", 0.6)
    put(tmp_path, made.STUDENT, "sst2", 0.6)
    found = compared(tmp_path, "bert", "distilbert")
    assert found.tasks == ("qnli",)
    assert found.left_out["sst2"] == "bert has no score"
    assert "Not compared: SST-2: bert has no score." in made.notes(
        to_markdown(comparison_table(found))
    )


def test_questions_are_compared_by_their_f1(tmp_path):
    """Prevents SQuAD from being left out, or compared by another number than the table's."""
    said = {}
    for model, f1 in ((made.BERT, 0.9), (made.STUDENT, 0.4)):
        scores = [f1] * 40
        said[model.name] = made.answers(["x"] * 40, [0.0] * 40, scores, [0.0] * 40)
        for result in made.on_squad(f1, f1, f1, of=model, exact=[0.0] * 3):
            made.put(tmp_path, result, said=said[model.name])
    found = compared(tmp_path, "bert", "distilbert")
    change = found.differences["squad", "distilbert"]
    assert change.value == pytest.approx(-50)
    assert found.is_told("squad", "distilbert")


def test_a_custom_task_is_scored_by_its_primary_metrics(tmp_path):
    """Prevents a custom task from being compared by the metrics that are only reported."""
    own = made.settings("stars", labels=["bad", "good"])
    own = Settings(own.row, {**own.task, "measures": ["accuracy", "matthews", "f1"]})
    said = made.scoring(0.8)
    measured = {"accuracy": 0.8, "matthews": 0.6, "f1": 0.8, "score": 0.7}
    for model in (made.BERT, made.STUDENT):
        result = made.result(model, "stars", score=0.7, given=own, scores={"validation": measured})
        made.put(tmp_path, result, said=said)
    assert primary_metrics([result]) == ("accuracy", "matthews")
    collapsed = replace(
        result, seed=2, score=0.0, scores={"validation": dict.fromkeys(measured, 0.0)}
    )
    assert primary_metrics([collapsed, result]) == ("accuracy", "matthews")
    recorded = replace(result, data={**result.data, "primary": ["f1"]})
    assert primary_metrics([recorded]) == ("f1",)
    found = compared(tmp_path, "bert", "distilbert")
    assert found.scores["stars"]["bert"].points == pytest.approx([70], abs=0.5)
    assert found.differences["stars", "distilbert"].half == 0


def test_a_score_is_that_of_the_result(tmp_path):
    """Prevents an interval about another number than the one that the table shows."""
    labels = np.linspace(0, 5, 60)
    said = labels + np.random.default_rng(0).normal(0, 1, 60)
    pearson = np.corrcoef(labels, said.astype(np.float32))[0, 1]
    ranks = [np.argsort(np.argsort(each)) for each in (labels, said)]
    score = (pearson + np.corrcoef(*ranks)[0, 1]) / 2
    given = made.settings("stsb")
    given = Settings(given.row, {**given.task, "labels": []})
    result = made.result(made.BERT, "stsb", score=score, given=given)
    made.put(tmp_path, result, said=made.predictions(labels, said))
    (row,) = rows_of(find(tmp_path))
    scores, _ = task_scores(row, "stsb", tmp_path, number=1, resamples=200)
    assert scores.points == pytest.approx([100 * score], abs=1e-4)
    assert abs(scores.resampled.mean() - 100 * score) < 2


def test_withheld_predictions_leave_the_medians(tmp_path):
    """Prevents results without predictions from making the whole comparison fail."""
    for task in ("rte", "qnli"):
        put(tmp_path, made.BERT, task, 0.5)
        put(tmp_path, made.STUDENT, task, 0.6)
    one = next(each for each in find(tmp_path).results if each.task == "rte")
    withhold(tmp_path, one)
    found = compared(tmp_path, "bert", "distilbert")
    assert list(found.without_interval) == ["rte"]
    text = to_markdown(comparison_table(found))
    assert made.cells(text)["RTE"]["bert"].startswith("50.0")
    assert made.cells(text)["RTE"]["distilbert vs bert"] == ""
    assert "No interval for RTE" in text


def test_rows_are_found_by_label_name_short_name_and_hub_id(tmp_path):
    """Prevents a model from being found under one of its names only."""
    put(tmp_path, made.STUDENT, "rte", 0.5)
    rows = rows_of(find(tmp_path))
    for name in ("distilbert", "distilbert-base-uncased", made.STUDENT.key):
        assert entry_named(name, rows, tmp_path).row is rows[0]
    with pytest.raises(UserError, match=r"no results of 'distilbrt'.*did you mean 'distilbert'"):
        entry_named("distilbrt", rows, tmp_path)
    with pytest.raises(UserError, match="holds no results"):
        entry_named("bert", [], tmp_path)


def test_of_several_rows_one_must_be_named(tmp_path):
    """Prevents one of a model's settings from being chosen silently."""
    put(tmp_path, made.STUDENT, "rte", 0.5, overrides={"learning_rate": 1e-4})
    put(tmp_path, made.STUDENT, "rte", 0.6, overrides={"learning_rate": 1e-5})
    rows = rows_of(find(tmp_path))
    with pytest.raises(UserError, match="has 2 rows of results: name one of") as caught:
        entry_named("distilbert", rows, tmp_path)
    labels = [row.label for row in rows]
    assert all(f'"{label}"' in str(caught.value) for label in labels)
    assert [entry_named(label, rows, tmp_path).row for label in labels] == rows


def test_one_model_twice_is_refused(tmp_path):
    """Prevents a model from being compared with itself under two of its names."""
    put(tmp_path, made.STUDENT, "rte", 0.5)
    with pytest.raises(UserError, match="distilbert is named twice"):
        compared(tmp_path, "distilbert", "distilbert-base-uncased")
    with pytest.raises(UserError, match="two models or more"):
        compared(tmp_path, "distilbert")


def test_two_folders_with_one_label_are_told_apart(tmp_path):
    """Prevents two runs of the same model from sharing a column."""
    entries = []
    for name, share in (("before", 0.5), ("after", 0.6)):
        put(tmp_path / name, made.STUDENT, "rte", share)
        rows = rows_of(find(tmp_path / name))
        entries.append(entry_named("distilbert", rows, tmp_path / name))
    found = compare_rows(entries)
    assert [entry.label for entry in found.entries] == ["distilbert (before)", "distilbert (after)"]
    assert found.differences["rte", "distilbert (after)"].value == pytest.approx(10)
    assert found.retained[0].interval.percent is None


@pytest.mark.parametrize("names", [("before/results", "after/results"), ("here", "here")])
def test_models_of_one_name_are_compared_with_each_other(tmp_path, names):
    """Prevents a model from being compared with itself because another has its label."""
    entries = []
    for number, (name, share) in enumerate(zip(names, (0.5, 0.8), strict=True)):
        model = made.model("distilbert", f"{number}" * 8)
        put(tmp_path / name / str(number), model, "rte", share)
        rows = rows_of(find(tmp_path / name / str(number)))
        root = tmp_path / name / str(number)
        entries.append(Entry("distilbert", rows[0], root))
    found = compare_rows(entries)
    (change,) = found.differences.values()
    assert change.value == pytest.approx(30)
    assert len({entry.label for entry in found.entries}) == 2


def test_json_has_the_numbers_behind_the_text(tmp_path):
    """Prevents a program from having to read an interval out of a cell's text."""
    put(tmp_path, made.BERT, "rte", 0.5, 0.6, 0.7)
    put(tmp_path, made.STUDENT, "rte", 0.6, 0.6, 0.9)
    found = compared(tmp_path, "bert", "distilbert")
    record = json.loads(to_json(comparison_table(found)))
    change = found.differences["rte", "distilbert"]
    cell = record["rows"][0]["distilbert vs bert"]
    assert cell["number"] == pytest.approx(change.value)
    assert cell["interval"] == pytest.approx(
        [change.value - change.half, change.value + change.half]
    )
    assert (cell["p"], cell["holm"]) == pytest.approx((change.p, change.p))
    frame = found.to_pandas()
    assert frame.loc[0, ["low", "high"]].tolist() == pytest.approx(cell["interval"])
    assert frame.loc[0, ["task", "model"]].tolist() == ["rte", "distilbert"]


def test_damaged_predictions_are_named(tmp_path):
    """Prevents predictions that were exchanged between two files from being compared."""
    put(tmp_path, made.BERT, "rte", 0.5)
    put(tmp_path, made.STUDENT, "rte", 0.6)
    rows = rows_of(find(tmp_path))
    (cell,) = rows[0].cells.values()
    other = replace(
        cell.results[0], predictions={**cell.results[0].predictions, "sha256": "0" * 64}
    )
    rows[0] = replace(rows[0], cells={"rte": replace(cell, results=(other,))})
    found = compare_rows([entry_named(name, rows, tmp_path) for name in ("bert", "distilbert")])
    assert "sha256 differs" in found.without_interval["rte"]
