"""The proof of a score: it is computed again from the predictions beside it."""

from dataclasses import replace

import made_results as made
import numpy as np
import pytest

from eval_harness.results.predictions import AnsweredQuestions
from eval_harness.results.store import find, path_of
from eval_harness.results.verify import agreeing, disagreement
from eval_harness.runs.run import Settings
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.metrics import compute_metrics


def saved(root, result, said):
    made.put(root, result, said=said)
    return next(each for each in find(root).results if each.key == result.key)


def measured(task, labels, answers, splits=("validation",)):
    measures = compute_metrics(task_named(task), np.asarray(answers), np.asarray(labels))
    return {split: {name: float(value) for name, value in measures.items()} for split in splits}


LABELS, SAID = [0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("task", ["rte", "mrpc", "cola", "qqp"])
def test_every_metric_of_classes_is_computed_again(tmp_path, task):
    """Prevents a score that its own predictions contradict from being shown as measured."""
    scores = measured(task, LABELS, SAID)
    result = made.result(task=task, score=scores["validation"]["score"], scores=scores)
    sound = saved(tmp_path, result, made.predictions(LABELS, SAID))
    assert disagreement(tmp_path, sound) is None
    for name in scores["validation"]:
        made.rewrite(
            path_of(tmp_path, sound.key),
            lambda record, name=name: {
                **record,
                "scores": {"validation": {**scores["validation"], name: 0.9}},
                "score": 0.9 if name == "score" else record["score"],
            },
        )
        (altered,) = find(tmp_path).results
        assert f"scores.validation.{name} is 0.9, but 0." in disagreement(tmp_path, altered)
        made.rewrite(
            path_of(tmp_path, sound.key),
            lambda record: {**record, "scores": scores, "score": result.score},
        )


def test_the_score_is_that_of_its_split(tmp_path):
    """Prevents the one number that tables print from differing from the ones beside it."""
    result = made.result(score=0.9, scores=measured("rte", LABELS, SAID))
    sound = saved(tmp_path, result, made.predictions(LABELS, SAID))
    assert disagreement(tmp_path, sound) == "score 0.9 is not the score of validation"


def test_a_small_alteration_is_seen(tmp_path):
    """Prevents a tolerance for rounding from letting through what a table would show."""
    scores = measured("rte", LABELS, SAID)
    for name in scores["validation"]:
        scores["validation"][name] += 1e-4
    result = made.result(score=scores["validation"]["score"], scores=scores)
    sound = saved(tmp_path, result, made.predictions(LABELS, SAID))
    assert disagreement(tmp_path, sound).startswith("scores.validation.")


def test_a_regression_and_an_undefined_score(tmp_path):
    """Prevents a correlation from being computed of classes, and None from agreeing with 0."""
    labels, answers = np.array([0.5, 4.75, 2.0, 3.0]), np.array([0.1, 5.2, 2.5, 2.0])
    scores = measured("stsb", labels, answers.astype(np.float32))
    result = made.result(task="stsb", score=scores["validation"]["score"], scores=scores)
    assert (
        disagreement(tmp_path, saved(tmp_path, result, made.predictions(labels, answers))) is None
    )
    nothing = {"pearson": None, "spearman": None, "score": None}
    result = made.result(task="stsb", seed=2, score=None, scores={"validation": nothing})
    constant = made.predictions(labels, np.ones(4))
    assert disagreement(tmp_path, saved(tmp_path, result, constant)) is None
    zero = {"pearson": 0.0, "spearman": None, "score": None}
    result = made.result(task="stsb", seed=3, score=None, scores={"validation": zero})
    told = disagreement(tmp_path, saved(tmp_path, result, constant))
    assert told == "scores.validation.pearson is 0.0, but None by its predictions"


def test_a_custom_tasks_metrics_stand_in_its_settings(tmp_path):
    """Prevents results of a task whose file is elsewhere from having no proof."""
    labels, said = [0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 1, 1]
    both = measured("mrpc", labels, said)["validation"]
    given = made.settings("stars", labels=["bad", "good"])
    given = Settings(given.row, {**given.task, "measures": ["f1", "accuracy", "matthews"]})
    scores = {**both, "matthews": measured("cola", labels, said)["validation"]["matthews"]}
    more = {"given": given, "scores": {"validation": scores}}
    result = made.result(task="stars", score=both["score"], **more)
    assert disagreement(tmp_path, saved(tmp_path, result, made.predictions(labels, said))) is None
    more["scores"] = {"validation": {**scores, "score": 0.9}}
    result = made.result(task="stars", seed=2, score=0.9, **more)
    told = disagreement(tmp_path, saved(tmp_path, result, made.predictions(labels, said)))
    assert told.startswith("scores.validation.score is 0.9")


def test_the_means_of_questions_are_computed_again(tmp_path):
    """Prevents an F1 that isn't the mean of its answers' F1."""
    answered = made.answers()
    scores = {"exact_match": 1 / 3, "f1": 1.4 / 3, "score": 1.4 / 3, "has_answer_f1": 0.7}
    result = made.result(task="squad", score=scores["f1"], scores={"validation": scores})
    assert disagreement(tmp_path, saved(tmp_path, result, answered)) is None
    wrong = AnsweredQuestions(
        answered.split, answered.ids, answered.texts, np.zeros(3), answered.f1, answered.null_odds
    )
    again = made.result(task="squad", seed=2, score=scores["f1"], scores={"validation": scores})
    told = disagreement(tmp_path, saved(tmp_path, again, wrong))
    assert told == f"scores.validation.exact_match is {1 / 3}, but 0.0 by its predictions"


def test_a_flipped_bit_of_predictions_is_named(tmp_path):
    """Prevents damaged predictions of the right size from passing as the ones that were scored."""
    sound = saved(tmp_path, made.result(score=1.0), made.predictions())
    file = path_of(tmp_path, sound.key).with_name(sound.predictions["name"])
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    found = agreeing(tmp_path, find(tmp_path))
    assert found.results == ()
    assert found.invalid[0].path == f"runs/{sound.key}.json"
    assert "sha256 differs" in found.invalid[0].reason


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({"dev": {"accuracy": 1.0, "score": 1.0}}, "scores.validation is missing"),
        (
            {"validation": {"score": 1.0}},
            "scores.validation.accuracy is missing",
        ),
        (
            {"validation": {"accuracy": 1.0, "score": 1.0}, "dev": {"score": 1.0}},
            "scores.dev has no predictions",
        ),
    ],
)
def test_scores_without_examples_are_named(tmp_path, scores, told):
    """Prevents scores of nothing from agreeing with anything."""
    sound = saved(tmp_path, made.result(score=1.0, scores=scores), made.predictions())
    assert disagreement(tmp_path, sound).startswith(told)


def test_predictions_without_any_score_are_named(tmp_path):
    """Prevents a record from which the scores were taken from agreeing with its predictions."""
    sound = saved(tmp_path, made.result(score=1.0), made.predictions())
    robbed = replace(sound, score=None, scores={})
    assert disagreement(tmp_path, robbed) == "scores.validation is missing"
