"""The metrics, against their definitions."""

from dataclasses import replace

import numpy as np
import pytest

from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.metrics import compute_metrics
from eval_harness.tasks.registry import TASKS


def confusion(predictions, labels):
    pairs = list(zip(predictions, labels, strict=True))
    return [sum(pair == wanted for pair in pairs) for wanted in ((1, 1), (1, 0), (0, 1), (0, 0))]


@pytest.mark.parametrize("seed", range(5))
def test_classification_measures_are_what_they_are_by_definition(seed):
    """Prevents predictions and labels from being swapped, which accuracy would not notice."""
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, 2, 97), rng.integers(0, 2, 97)
    tp, fp, fn, tn = confusion(predictions, labels)
    f1 = 2 * tp / (2 * tp + fp + fn)
    root = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert compute_metrics(task_named("cola"), predictions, labels)["score"] == pytest.approx(
        (tp * tn - fp * fn) / root
    )
    values = compute_metrics(task_named("mrpc"), predictions, labels)
    assert values["f1"] == pytest.approx(f1)
    assert values["accuracy"] == pytest.approx((tp + tn) / 97)
    assert values["score"] == pytest.approx((values["f1"] + values["accuracy"]) / 2)


def test_f1_of_many_classes_is_what_it_is_by_definition():
    """Prevents the F1 of many classes from being that of one, or from counting absent ones."""
    task = replace(task_named("sst2"), labels=("a", "b", "c", "d"), primary=("f1_macro",))
    labels, predictions = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 0]
    values = compute_metrics(replace(task, also=("f1_micro",)), predictions, labels)
    # Of a: 2 right, 4 predicted, 3 there; of b: 1, 2, 2; of c: 0, 0, 1; nobody speaks of d.
    assert values["score"] == pytest.approx((4 / 7 + 2 / 4 + 0) / 3)
    assert values["f1_micro"] == pytest.approx(3 / 6)


def test_correlations_are_what_they_are_by_definition():
    """Prevents ranks with ties from being counted by their order of appearance."""
    labels, predictions = np.array([0.0, 1.0, 1.0, 4.0, 5.0]), np.array([0.1, 2.0, 1.0, 1.0, 9.0])
    ranks = [1, 2.5, 2.5, 4, 5], [1, 4, 2.5, 2.5, 5]
    values = compute_metrics(task_named("stsb"), predictions, labels)
    assert values["pearson"] == pytest.approx(np.corrcoef(predictions, labels)[0, 1])
    assert values["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_a_constant_answer():
    """Prevents a collapsed model from raising, or a made-up number for what is undefined."""
    assert compute_metrics(task_named("cola"), [1] * 4, [0, 1, 1, 1])["score"] == 0
    assert compute_metrics(task_named("mrpc"), [0] * 4, [0, 1, 1, 1])["f1"] == 0
    assert np.isnan(compute_metrics(task_named("stsb"), [2.0] * 3, [0.0, 1.0, 2.0])["score"])


def test_f1_is_0_where_nothing_is_positive(recwarn):
    """Prevents an F1 of 1, or a warning of scikit-learn's, where neither side says "yes"."""
    values = compute_metrics(task_named("mrpc"), [0, 0, 0], [0, 0, 0])
    assert (values["f1"], values["accuracy"], values["score"]) == (0, 1, 0.5)
    assert [str(each.message) for each in recwarn] == []


def test_a_correlation_is_undefined_only_for_a_constant(recwarn):
    """Prevents scipy's warning for a constant side, and NaN where numbers lie close together."""
    close = [0.0, 0.5, 1.0]
    assert compute_metrics(task_named("stsb"), close, [1.0, 1.5, 2.0])["score"] == pytest.approx(1)
    for pair in (([2.0] * 3, close), (close, [2.0] * 3)):
        assert np.isnan(compute_metrics(task_named("stsb"), *pair)["score"])
    assert [str(each.message) for each in recwarn] == []


def test_nothing_to_measure():
    """Prevents a score over no examples, or over the wrong ones."""
    with pytest.raises(ValueError, match="0 predictions for 0 labels"):
        compute_metrics(TASKS[0], [], [])
    with pytest.raises(ValueError, match="1 predictions for 2 labels"):
        compute_metrics(TASKS[0], [1], [1, 0])


@pytest.mark.parametrize("name", ["cola", "mrpc", "stsb"])
def test_the_evaluate_library_agrees(name):
    """Prevents a definition of our own, where the field's library is in the cache to ask."""
    import evaluate

    try:
        reference = evaluate.load("glue", name)
    except Exception as error:  # noqa: BLE001  (whatever it is, the script is not to be had here)
        pytest.skip(f"evaluate's script for GLUE is not in the cache ({type(error).__name__})")
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    theirs = reference.compute(predictions=predictions, references=labels)
    ours = compute_metrics(task_named(name), predictions, labels)
    assert set(np.round(list(theirs.values()), 9)) <= set(np.round(list(ours.values()), 9))
