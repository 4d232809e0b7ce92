"""Seals of results: what was altered after it was saved is seen; what is withheld says so."""

import json
from dataclasses import replace

import made_results as made
import pytest
from places import GOLDEN

from eval_harness.results import record as results
from eval_harness.results.predictions import Predictions
from eval_harness.results.store import (
    InvalidResult,
    find,
    load,
    path_of,
    publish,
    read_predictions,
    withhold,
)
from eval_harness.results.verify import disagreement

ALTERED = r"was altered after it was saved \(its checksum differs\)"


@pytest.fixture
def one(tmp_path):
    """A folder with one result in it."""
    made.put(tmp_path, made.result())
    return path_of(tmp_path, made.result().key)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("0.6", "0.9"),
        lambda text: text.replace('"finished": "2026', '"finished": "2027'),
        lambda text: text.replace('"loss": 0.7', '"loss": 0.8'),
        lambda text: text.replace('"seal": "', '"seal": "0'),
        lambda text: json.dumps({**json.loads(text), "marks": ["sound"]}),
    ],
)
def test_what_was_altered_is_named_and_not_counted(one, tmp_path, change):
    """Prevents an edited score, or a flipped bit, from becoming a number of a table."""
    text = one.read_text()
    one.write_text(change(text))
    assert one.read_text() != text
    with pytest.raises(InvalidResult, match=ALTERED):
        load(one)
    assert find(tmp_path).results == ()
    assert publish(tmp_path, made.result(score=0.7), made.predictions())
    assert load(one).score == 0.7


def test_a_record_laid_out_anew_is_the_same(one):
    """Prevents a file that a tool indented or sorted from being called altered."""
    before = load(one)
    one.write_text(json.dumps(json.loads(one.read_text()), indent=4))
    assert load(one) == before


def test_the_seal_is_the_hash_of_the_rest(one):
    """Prevents a seal that nobody else could check."""
    text = one.read_text()
    record = json.loads(text)
    assert record.pop("seal") == load(one).seal
    rest = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert results.sealed(record) == text
    assert results._sha256(rest.encode()) == load(one).seal


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ({"seal": None}, "seal is a NoneType"),
        ({"schema": 3}, "replaces is no field of a result of schema 3 or earlier"),
        ({"predictions": None}, "predictions are neither named nor withheld"),
    ],
)
def test_a_seal_is_not_lost(one, lost, reason):
    """Prevents a sealed result from passing for one of before there were seals."""
    one.write_text(json.dumps({**json.loads(one.read_text()), **lost}))
    with pytest.raises(InvalidResult, match=reason):
        load(one)


def test_results_without_a_seal_keep_their_keys():
    """Prevents older results from being lost, or from passing for sealed ones."""
    for schema in (1, 2, 3):
        found = find(GOLDEN / f"results-{schema}")
        assert found.results
        assert found.invalid == ()
        for key, each in found.by_key.items():
            assert (each.key, each.seal, each.withheld) == (key, None, None)
            assert disagreement(GOLDEN / f"results-{schema}", each) is None


def test_results_of_schema_4_load():
    """Prevents results of this version from being lost by the next: the first with a seal."""
    found = find(GOLDEN / "results-4")
    assert found.invalid == ()
    whole, without = found.results
    assert whole.seal == "58dd6706e96f5ecddf69bb9d9807f35f37cb2fcd3f0427bc7764c2592011f272"
    assert (whole.model.weights, whole.withheld) == ("5" * 64, None)
    assert without.predictions is None
    assert without.withheld["sha256"] == whole.predictions["sha256"]
    assert [disagreement(GOLDEN / "results-4", each) for each in found.results] == [None, None]


def test_withheld_predictions_are_a_state_of_their_own(one, tmp_path):
    """Prevents predictions that may not be published from being taken for lost ones."""
    saved = load(one)
    withhold(tmp_path, saved)
    read = load(one)
    assert not list(one.parent.glob("*.parquet"))
    assert replace(read, predictions=saved.predictions, withheld=None, seal=saved.seal) == saved
    with pytest.raises(InvalidResult, match=r"seed-1\.json: predictions not published"):
        read_predictions(tmp_path, read, Predictions)
    assert find(tmp_path).results == (read,)
    assert disagreement(tmp_path, read) is None
    assert not publish(tmp_path, made.result(score=0.7), made.predictions())
    one.write_text(one.read_text().replace('"withheld": {', '"withheld": null, "x": {'))
    with pytest.raises(InvalidResult):
        load(one)


def test_damaged_predictions_are_not_withheld(one, tmp_path):
    """Prevents a result that nothing proves any more from being sealed as sound."""
    (file,) = one.parent.glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9] + b"x" + file.read_bytes()[-8:])
    with pytest.raises(InvalidResult, match="sha256 differs"):
        withhold(tmp_path, load(one))
    assert file.exists()


def test_what_was_run_again_settles_a_contradiction(one, tmp_path):
    """Prevents a stray copy from undoing a run for ever, however often it is repeated."""
    copy = one.with_name("seed-1 (copy).json")
    copy.write_text(one.read_text())
    made.rewrite(copy, lambda record: {**record, "score": 0.5})
    assert find(tmp_path).results == ()
    assert publish(tmp_path, made.result(score=0.7), made.predictions(), replace=True)
    found = find(tmp_path)
    assert [each.score for each in found.results] == [0.7]
    (named,) = found.invalid
    assert named.reason == f"is older than {one.relative_to(tmp_path)}, which was run again"
    made.rewrite(copy, lambda record: {**record, "finished": "2026-01-02T00:00:00+00:00"})
    assert find(tmp_path).results == ()
