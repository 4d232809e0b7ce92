"""The tables of named entities and XNLI, their places in the family, verification and intervals."""

import random

import made_results as made
import numpy as np
import pytest
import tagged
from made_results import cells, note, seeds

from eval_harness.api import load_results
from eval_harness.intervals import bootstrap
from eval_harness.results.predictions import ClassPredictions, TaggedSentences
from eval_harness.results.store import find, path_of, read_any_predictions
from eval_harness.results.verify import agreeing, disagreement
from eval_harness.rows.grouping import rows_of
from eval_harness.runs.run import Settings
from eval_harness.tables.comparison import task_scores
from eval_harness.tables.write import write_by_name
from eval_harness.tasks.entities import ENTITY_METRICS, all_counts, entity_metrics
from eval_harness.tasks.lookup import task_named

GERMAN = made.model("bert-german", "55555555")
GERMAN_STUDENT = made.model("distilbert-german", "66666666", teacher="bert-german")
MULTILINGUAL_STUDENT = made.model("distilmbert", "77777777", teacher="mbert")
LANGUAGES = ("en", "de", "ur")


def said(seed, task="conll2003", splits=("validation", "test"), wrong=0.2):
    """Predictions of made-up sentences, some of them wrong."""
    draw = random.Random(seed)
    rows = [(split, *row) for n, split in enumerate(splits) for row in tagged.sentences(40, n)]
    answers = [
        [draw.choice(("O", "B-PER", "I-LOC")) if draw.random() < wrong else tag for tag in tags]
        for _, _, tags in rows
    ]
    ids = [str(number) for number in range(len(rows))]
    return TaggedSentences([row[0] for row in rows], ids, [row[2] for row in rows], answers)


def scores_of(predictions, primary="entity_f1"):
    found = {}
    for split in dict.fromkeys(predictions.split):
        rows = [n for n, each in enumerate(predictions.split) if each == split]
        metrics = entity_metrics(
            *([each[n] for n in rows] for each in (predictions.gold, predictions.tags))
        )
        found[split] = {**metrics, "score": metrics[primary]}
    return found


def of_entities(seed=1, task="conll2003", of=None, primary="entity_f1", **more):
    predictions = said(seed, task)
    scores = scores_of(predictions, primary)
    given = made.settings(task, labels=["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
    others = [name for name in ENTITY_METRICS if name != primary]
    own = {**given.task, "measures": [primary, *others], "columns": ["tokens"]}
    result = made.result(
        of or made.STUDENT, task, seed, scores["validation"]["score"], scores,
        Settings(given.row, own), **more,
    )  # fmt: skip
    return result, predictions


def put_entities(root, **how):
    result, predictions = of_entities(**how)
    made.put(root, result, said=predictions)
    return next(each for each in find(root).results if each.key == result.key)


def test_predictions_come_back_as_they_were(tmp_path):
    """Prevents tags from being lost or joined in the file that proves a score."""
    saved = put_entities(tmp_path)
    again = read_any_predictions(tmp_path, saved)
    assert again == said(1)


@pytest.mark.parametrize("name", ["conll2003", "places"])
@pytest.mark.parametrize("primary", ["entity_f1", "strict_f1"])
def test_every_metric_of_entities_is_computed_again(tmp_path, name, primary):
    """Prevents a score that the tags beside it contradict from being shown as measured."""
    if name == "conll2003" and primary != "entity_f1":
        pytest.skip("the built-in tasks' score is conlleval's")
    saved = put_entities(tmp_path, task=name, primary=primary)
    assert disagreement(tmp_path, saved) is None
    for metric in ENTITY_METRICS:
        altered = {**saved.scores["test"], metric: 0.123}
        made.rewrite(
            path_of(tmp_path, saved.key),
            lambda record, altered=altered: {
                **record, "scores": {**record["scores"], "test": altered},
            },
        )  # fmt: skip
        (wrong,) = find(tmp_path).results
        assert f"scores.test.{metric} is 0.123, but 0." in disagreement(tmp_path, wrong)


def test_resampled_sentences_are_scored_as_sentences_are():
    """Prevents an interval about a mean of sentences' F1, which is another number than the F1."""
    predictions = [said(seed, splits=("validation",)) for seed in (1, 2, 3)]
    counts = np.stack([all_counts(each.gold, each.tags) for each in predictions], axis=1)
    drawn = next(bootstrap.draws(np.random.default_rng(0), 40, 6))
    for name in ENTITY_METRICS:
        fast = bootstrap.metric_scores((name,), drawn, counts, counts[:, 0, 2])
        assert fast.shape == (6, 3)
        for row, weights in enumerate(drawn):
            chosen = np.repeat(np.arange(40), weights.astype(int))
            for column, each in enumerate(predictions):
                gold, tags = ([of[n] for n in chosen] for of in (each.gold, each.tags))
                assert fast[row, column] == pytest.approx(entity_metrics(gold, tags)[name])


def test_models_are_compared_by_resampled_sentences(tmp_path):
    """Prevents the difference of two taggers from having no interval."""
    for seed in (1, 2):
        put_entities(tmp_path, seed=seed)
    (row,) = rows_of(find(tmp_path))
    scores, examples = task_scores(row, "conll2003", tmp_path, number=0, resamples=200)
    assert scores.examples == 40
    expected = [100 * result.score for result in row.cells["conll2003"].results]
    np.testing.assert_allclose(scores.points, expected)
    assert scores.resampled.shape[0] == 2
    assert examples == task_scores(row, "conll2003", tmp_path, number=0, resamples=200)[1]


def test_python_shows_the_metrics_of_the_score(tmp_path):
    """Prevents the test set's F1 from standing beside the dev set's score as if it were its own."""
    saved = put_entities(tmp_path)
    result, predictions = in_languages([0.8, 0.6, 0.4])
    made.put(tmp_path, result, said=predictions)
    lines = load_results(tmp_path).to_pandas().set_index("task")
    assert lines.loc["conll2003", "entity_f1"] == lines.loc["conll2003", "score"]
    assert lines.loc["conll2003", "score"] == pytest.approx(100 * saved.score)
    assert lines.loc["xnli", "score"] == pytest.approx(60.0)
    assert lines.loc["xnli", ["test.en", "test.ur"]].tolist() == pytest.approx([80.0, 40.0])


def test_entities_have_a_table_of_their_own(tmp_path):
    """Prevents names from standing in GLUE's table, dev for test, or an unsaid counting."""
    saved = put_entities(tmp_path)
    texts = write_by_name(tmp_path)
    row = cells(texts["table-entities"])["distilbert"]
    assert list(row) == ["Model", "n", "CoNLL-2003", "CoNLL-2003 test"]
    assert row["CoNLL-2003"] == f"{100 * saved.score:.1f}"
    assert row["CoNLL-2003 test"] == f"{100 * saved.scores['test']['score']:.1f}"
    assert "conlleval" in note(texts["table-entities"], "F1 of entities")
    assert "table-custom" not in texts
    assert "distilbert" not in cells(texts["table1"])
    path_of(tmp_path, saved.key).write_text("{")
    again = write_by_name(tmp_path)
    assert again["not counted"].endswith("table-entities.md")
    for path in (tmp_path / "runs").rglob("seed-*"):
        path.unlink()
    assert "table-entities" not in write_by_name(tmp_path)
    assert not (tmp_path / "table-entities.md").exists()


def in_languages(shares, languages=LANGUAGES, seed=1):
    """A result on XNLI, and predictions of which these shares are right."""
    labels = np.array([0, 1, 2, 0] * 25)
    answers = []
    for share in shares:
        wrong = labels.copy()
        wrong[round(100 * share) :] = (wrong[round(100 * share) :] + 1) % 3
        answers.append(wrong)
    names = [f"test.{language}" for language in languages]
    predictions = ClassPredictions(
        [name for name in names for _ in labels],
        [str(n) for _ in names for n in range(100)],
        np.tile(labels, len(names)),
        np.eye(3, dtype=np.float32)[np.concatenate(answers)],
    )
    scores = {
        name: {"accuracy": share, "score": share} for name, share in zip(names, shares, strict=True)
    }
    given = made.settings("xnli", labels=list(task_named("xnli").labels))
    result = made.result(
        MULTILINGUAL_STUDENT, "xnli", seed, task_named("xnli").score_of(scores), scores, given
    )
    return result, predictions


def test_xnli_has_a_column_for_each_language(tmp_path):
    """Prevents one language from standing in another's column, or above the published one's."""
    for seed, shares in enumerate(([0.8, 0.6, 0.4], [0.7, 0.62, 0.3]), 1):
        result, predictions = in_languages(shares, seed=seed)
        made.put(tmp_path, result, said=predictions)
    table = write_by_name(tmp_path)["table-xnli"]
    row, published = cells(table)["distilmbert"], cells(table)["DistilmBERT (README)"]
    assert list(row) == ["Model", "n", "Mean", "en", "es", "zh", "de", "ar", "ur"]
    assert (row["en"], row["es"], row["de"]) == ("75.0 (70.0 to 80.0)", "", "61.0 (60.0 to 62.0)")
    assert row["Mean"] == "57.0 (54.0 to 60.0) (3 languages)"
    assert (published["en"], published["ur"], published["Mean"]) == (
        "78.2",
        "54.7",
        "65.2 (6 languages)",
    )
    assert note(table, "XNLI test accuracy, trained on English only")
    assert note(table, "Mean: over the languages that a row has")
    assert "translate-train" not in table


def test_a_mean_of_languages_is_verified(tmp_path):
    """Prevents English's score, or any other number, from being shown as the mean."""
    result, predictions = in_languages([0.8, 0.6, 0.4])
    made.put(tmp_path, result, said=predictions)
    (saved,) = find(tmp_path).results
    assert disagreement(tmp_path, saved) is None
    made.rewrite(path_of(tmp_path, saved.key), lambda record: {**record, "score": 0.8})
    found = agreeing(tmp_path, find(tmp_path))
    assert not found.by_key
    assert found.invalid[0].reason == "score 0.8 is not the mean of its splits"


def test_languages_are_resampled_together(tmp_path):
    """Prevents translations of one example from being drawn as if they were several examples."""
    result, predictions = in_languages([0.8, 0.6, 0.4])
    made.put(tmp_path, result, said=predictions)
    (row,) = rows_of(find(tmp_path))
    scores, _ = task_scores(row, "xnli", tmp_path, number=0, resamples=200)
    assert scores.examples == 100
    np.testing.assert_allclose(scores.points, [60.0])
    drawn = next(bootstrap.draws(np.random.default_rng([0, 0]), 100, 3))
    right = (predictions.logits.argmax(1) == predictions.labels).reshape(3, 100)
    plain = [100 * np.mean([each @ weights / 100 for each in right]) for weights in drawn]
    assert scores.resampled[0, :3] == pytest.approx(plain)


def test_the_family_has_its_other_tasks(tmp_path):
    """Prevents the German and multilingual students of the README from having no row."""
    for model in (GERMAN, GERMAN_STUDENT):
        put_entities(tmp_path, of=model, task="germeval2014")
    text = write_by_name(tmp_path)["family"]
    rows = cells(text)
    assert list(rows)[-2:] == ["bert-german", "distilbert-german"]
    assert "bert-base-german-dbmdz-cased (README)" in rows
    ours, published = rows["distilbert-german"], rows["distilbert-base-german-cased (README)"]
    assert {name for name, cell in ours.items() if cell} == {"Model", "GermEval 2014 test"}
    assert published["CoNLL-2003 de test"] == "83.5"
    assert published["GermEval 2014 test"] == "85.2"
    on_test = scores_of(said(1))["test"]["score"]
    assert (ours["CoNLL-2003 de test"], ours["GermEval 2014 test"]) == ("", f"{100 * on_test:.1f}")
    assert note(text, "F1 of German named entities")
    result, predictions = in_languages([0.8, 0.6, 0.4])
    made.put(tmp_path, result, said=predictions)
    rows = cells(write_by_name(tmp_path)["family"])
    assert rows["distilmbert"]["XNLI mean"] == "60.0"
    assert rows["distilbert-base-multilingual-cased (README)"]["XNLI zh"] == "64.0"
    assert rows["bert-german"]["XNLI en"] == ""


def test_what_was_not_evaluated_is_blank(tmp_path):
    """Prevents a README's number in our row, and a README's model without a row."""
    made.put(tmp_path, *seeds(0.6))
    rows = cells(write_by_name(tmp_path)["family"])
    ours = rows["distilbert"]
    assert {name for name, cell in ours.items() if cell} == {"Model", "RTE"}
    assert rows["distilbert-base-multilingual-cased (README)"]["XNLI zh"] == "64.0"


def test_translate_train_is_a_column_of_its_own(tmp_path):
    """Prevents a model that was trained on German from standing among those that never saw it."""
    result, predictions = in_languages([0.8, 0.6, 0.4])
    made.put(tmp_path, result, said=predictions)
    made.put(tmp_path, *seeds(0.7, of=MULTILINGUAL_STUDENT, task="xnli-translate-train-de"))
    table = write_by_name(tmp_path)["table-xnli"]
    row = cells(table)["distilmbert"]
    assert (row["de"], row["de (translate-train)"]) == ("60.0", "70.0")
    assert row["Mean"] == "60.0 (3 languages)"
    assert note(table, "translate-train: trained on the pairs translated")
