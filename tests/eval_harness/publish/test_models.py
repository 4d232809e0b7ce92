"""Results and models for others: what is said, what is kept back, what is refused."""

from dataclasses import replace

import pytest
from made_results import model, result, rewrite, scoring

from angels_share.errors import UserError
from angels_share.hub.push import Destination
from eval_harness.publish.models import published, push_models
from eval_harness.publish.results_data import row_of, upload_of_results
from eval_harness.results.record import from_text
from eval_harness.results.store import find, path_of, publish

PLACE = Destination("me/numbers", "dataset")


@pytest.fixture
def root(tmp_path):
    """A folder of results of a model that lies on this machine."""
    ours = replace(model("student", teacher="bert"), source="/srv/secret/student", revision=None)
    for seed, score in ((2, 0.6), (1, 0.7)):
        publish(tmp_path, result(ours, seed=seed, score=score), scoring(score))
    return tmp_path


def test_a_published_record_keeps_its_secrets_and_its_seal(root):
    """Prevents a path of this machine, or predictions, from going up; or an unreadable record."""
    for each in find(root).results:
        text = published(each)
        assert "/srv" not in text
        again = from_text(text.encode())
        assert (again.key, again.score, again.predictions) == (each.key, each.score, None)
        assert again.withheld == each.predictions


def test_a_row_says_what_the_run_was(root):
    """Prevents rows that can't be told apart or traced."""
    files = upload_of_results(root, PLACE).files
    rows = [row_of(each) for each in find(root).results]
    assert {row["seed"]: row["score"] for row in rows} == {1: 0.7, 2: 0.6}
    for row in rows:
        assert (row["model"], row["model_source"], row["teacher"]) == ("student", "student", "bert")
        assert row["data_revision"] == "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
        assert row["record"] in files
    other = replace(model(), revision="f" * 40)
    limited = result(other, given=replace(result().settings, row={"limit": 7}))
    assert (row_of(limited)["model_revision"], row_of(limited)["limit"]) == ("f" * 40, 7)


def test_nothing_but_records_tables_and_rows_goes_up(root):
    """Prevents predictions from being published, and a look at it from writing tables."""
    before = sorted(path.name for path in root.rglob("*"))
    upload = upload_of_results(root, PLACE)
    assert {name.rpartition(".")[2] for name in upload.files} == {"json", "parquet"}
    assert "student" in upload.card(None)
    assert sorted(path.name for path in root.rglob("*")) == before


def test_a_score_that_is_not_its_predictions_is_not_published(root):
    """Prevents a forged score from going up without the predictions that would prove it wrong."""
    key = find(root).results[0].key

    def forge(record):
        return {**record, "score": 0.9, "scores": {"validation": {"accuracy": 0.9, "score": 0.9}}}

    rewrite(path_of(root, key), forge)
    with pytest.raises(UserError, match=f"^{key}: .*rerun or remove it before it is published"):
        upload_of_results(root, PLACE)


class Planned:
    """What pushing reads of a plan."""

    seeds = (1, 2)


def test_a_model_of_too_few_seeds_is_not_pushed():
    """Prevents a median of the seeds that happened to end from being published as all."""
    (line,) = push_models(Planned(), [], {("key", "rte"): Destination("me/x")})
    assert line == "me/x: not pushed: there is no saved model for rte"
