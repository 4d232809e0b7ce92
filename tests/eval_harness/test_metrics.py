"""Our metrics as modules of the library `evaluate`."""

import evaluate
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from torchmetrics.functional.text import squad as squad_of_torchmetrics

from angels_share.errors import UserError
from eval_harness.metrics import load_metric
from eval_harness.tasks.metrics import compute_metrics
from eval_harness.tasks.registry import GLUE, TASKS


@pytest.fixture
def labels():
    rng = np.random.default_rng(5)
    gold = rng.integers(0, 2, 200)
    return np.where(rng.random(200) < 0.7, gold, 1 - gold).tolist(), gold.tolist()


@pytest.mark.parametrize("name", [name for name in GLUE if name != "stsb"])
def test_a_task_has_the_scores_of_the_tables(name, labels):
    """Prevents a module that computes something else than the harness, under the same name."""
    task = next(task for task in TASKS if task.name == name)
    found = load_metric(name).compute(predictions=labels[0], references=labels[1])
    expected = compute_metrics(task, *labels)
    assert found["score"] == expected["score"]
    named = {"matthews": "matthews_correlation"}
    assert found == {named.get(key, key): value for key, value in expected.items()}


def test_single_metrics_are_scikit_learns(labels):
    """Prevents predictions and references from changing places on the way through Arrow."""
    said, gold = labels
    for name, of_sklearn in (
        ("accuracy", metrics.accuracy_score),
        ("f1", metrics.f1_score),
        ("matthews", metrics.matthews_corrcoef),
    ):
        found = load_metric(name).compute(predictions=said, references=gold)
        assert list(found.values()) == pytest.approx([of_sklearn(gold, said)], rel=1e-12)
    three = {"predictions": [0, 1, 2, 2], "references": [0, 2, 2, 1]}
    macro = metrics.f1_score(three["references"], three["predictions"], average="macro")
    assert load_metric("f1_macro").compute(**three) == {"f1_macro": pytest.approx(macro)}


def test_a_regression_keeps_its_decimals():
    """Prevents numbers from being stored as integers or in single precision."""
    gold = np.linspace(0, 5, 50) + 1e-9
    said = gold**2 + 1e-9 * np.arange(50)
    found = load_metric("stsb").compute(predictions=said.tolist(), references=gold.tolist())
    assert found["pearson"] == pytest.approx(stats.pearsonr(said, gold).statistic, rel=1e-14)
    assert found["spearmanr"] == pytest.approx(1)
    assert found["score"] == pytest.approx((found["pearson"] + 1) / 2)


def test_batches_add_up(labels):
    """Prevents the last batch alone from being scored: the library's own way to use a module."""
    said, gold = labels
    whole = load_metric("mrpc").compute(predictions=said, references=gold)
    module = load_metric("mrpc")
    for start in range(0, 200, 64):
        part = slice(start, start + 64)
        module.add_batch(predictions=said[part], references=gold[part])
    assert module.compute() == whole
    assert load_metric("mrpc").compute(predictions=said[:9], references=gold[:9]) != whole


def test_modules_are_combined_by_the_library(labels):
    """Prevents modules whose results overwrite one another in `evaluate.combine`."""
    said, gold = labels
    both = evaluate.combine([load_metric("accuracy"), load_metric("matthews")])
    found = both.compute(predictions=said, references=gold)
    assert list(found) == ["accuracy", "matthews_correlation"]
    tasks = evaluate.combine([load_metric("mrpc"), load_metric("rte")])
    found = tasks.compute(predictions=said, references=gold)
    assert {"mrpc_score", "rte_score", "mrpc_accuracy", "rte_accuracy"} <= set(found)
    assert found["rte_score"] == pytest.approx(metrics.accuracy_score(gold, said))


def answers(*triples):
    predictions = [{"id": name, "prediction_text": said} for name, said, _ in triples]
    references = [
        {"id": name, "answers": {"text": golds, "answer_start": [0] * len(golds)}}
        for name, _, golds in triples
    ]
    return {"predictions": predictions, "references": references}


def test_answers_are_scored_in_percent_as_the_library_does():
    """Prevents a share of 1 where everybody who knows the library's squad expects percent."""
    given = answers(
        ("a", "the Old river!", ["old river", "river"]),
        ("b", "dark barrels", ["barrels"]),
        ("c", "nothing", ["angels"]),
    )
    theirs = squad_of_torchmetrics(
        [{"id": each["id"], "prediction_text": each["prediction_text"]}
         for each in given["predictions"]], given["references"],
    )  # fmt: skip
    found = load_metric("squad").compute(**given)
    assert found == {name: pytest.approx(float(value), rel=1e-6) for name, value in theirs.items()}


def test_answers_are_matched_by_id_and_none_may_be_missing():
    """Prevents answers in another order from being scored against each other's questions."""
    given = answers(("a", "river", ["river"]), ("b", "dark", ["dark"]))
    given["predictions"].reverse()
    assert load_metric("squad").compute(**given) == {"exact_match": 100.0, "f1": 100.0}
    wrong = answers(("a", "river", ["river"]), ("b", "dark", ["dark"]))
    wrong["predictions"][1]["id"] = "z"
    with pytest.raises(UserError, match="no prediction for question 'b'"):
        load_metric("squad").compute(**wrong)


def test_no_answer_is_the_empty_text_or_what_is_improbable_enough():
    """Prevents SQuAD 2.0 from being scored by the rules of 1.1, or a probability without effect."""
    given = answers(("a", "", []), ("b", "x", []), ("c", "river", ["river"]))
    for each in given["predictions"]:
        each["no_answer_probability"] = 0.5
    found = load_metric("squad_v2").compute(**given)
    assert found["exact"] == pytest.approx(200 / 3)
    assert (found["NoAns_f1"], found["HasAns_f1"]) == (50, 100)
    assert (found["total"], found["HasAns_total"], found["NoAns_total"]) == (3, 1, 2)
    found = load_metric("squad_v2").compute(**given, no_answer_threshold=0.4)
    assert (found["NoAns_f1"], found["HasAns_f1"]) == (100, 0)


def test_what_would_be_cut_off_or_ignored_is_refused():
    """Prevents probabilities from being read as class 0, and a setting that nobody reads."""
    with pytest.raises(UserError, match=r"0\.7 is no class id"):
        load_metric("rte").compute(predictions=[0.7, 0.2], references=[1, 0])
    with pytest.raises(UserError, match="unknown setting 'average'"):
        load_metric("f1", average="macro")
    with pytest.raises(UserError, match="no questions to score"):
        load_metric("squad").compute(predictions=[], references=[])


def test_nothing_is_left_on_disk_and_nothing_is_shared(tmp_path, monkeypatch, labels):
    """Prevents two runs at a time from reading each other's cache files."""
    monkeypatch.chdir(tmp_path)
    modules = [load_metric("rte", cache_dir=str(tmp_path)) for _ in range(2)]
    for module, part in zip(modules, (slice(0, 100), slice(100, 200)), strict=True):
        module.add_batch(predictions=labels[0][part], references=labels[1][part])
    scores = [module.compute()["accuracy"] for module in modules]
    gold, said = np.array(labels[1]), np.array(labels[0])
    assert scores == [(gold == said)[:100].mean(), (gold == said)[100:].mean()]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_unknown_name_gets_the_nearest():
    """Prevents a KeyError, or a look-up on the Hub, for a mistyped name."""
    with pytest.raises(UserError, match="unknown metric 'mrcp'; did you mean 'mrpc'"):
        load_metric("mrcp")
