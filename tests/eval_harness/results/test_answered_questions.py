"""Answers to questions on disk: what was said is what is read, and nothing else passes for it."""

from dataclasses import fields, replace

import made_results as made
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from angels_share.errors import RunFailed
from eval_harness.results import predictions as results
from eval_harness.results import store
from eval_harness.results.predictions import AnsweredQuestions, ClassPredictions, Predictions
from eval_harness.results.store import (
    InvalidResult,
    find,
    publish,
    read_predictions,
)


def test_answers_are_read_as_they_were_saved(tmp_path):
    """Prevents an answer's blanks, its accents or infinite odds from being lost on the disk."""
    (saved,) = made.on_squad(0.4667)
    said = made.answers(texts=["  ein Größe\u3000\n", "", "🐕 狗"])
    assert publish(tmp_path, saved, said)
    (read,) = find(tmp_path).results
    again = read_predictions(tmp_path, read, Predictions)
    assert type(again) is results.AnsweredQuestions
    for field in fields(said):
        here, there = getattr(said, field.name), getattr(again, field.name)
        assert np.array_equal(here, there), field.name
        assert type(there) is type(here)
        assert getattr(there, "dtype", None) == getattr(here, "dtype", None)
    assert np.isinf(again.null_odds[1])
    assert results.to_parquet(again) == results.to_parquet(said)


def test_answers_are_no_logits(tmp_path):
    """Prevents an interval of classes from stumbling over answers, or a command over logits."""
    made.put(tmp_path, *made.on_squad(0.4), said=made.answers())
    made.put(tmp_path, made.result())
    by_task = {each.task: each for each in find(tmp_path).results}
    assert read_predictions(tmp_path, by_task["squad"], AnsweredQuestions).texts[0] == "a dog"
    assert read_predictions(tmp_path, by_task["rte"], ClassPredictions).logits.shape == (4, 2)
    with pytest.raises(InvalidResult, match=r"squad/.*parquet: holds AnsweredQuestions instead"):
        read_predictions(tmp_path, by_task["squad"], ClassPredictions)
    with pytest.raises(InvalidResult, match=r"rte/.*parquet: holds ClassPredictions instead of"):
        read_predictions(tmp_path, by_task["rte"], AnsweredQuestions)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"exact": np.array([1.0, np.nan, 0.0])}, "predictions of 'q1' are not finite"),
        ({"f1": np.array([1.0, 0.0, np.inf])}, "predictions of 'q2' are not finite"),
        ({"null_odds": np.array([np.nan, 0.0, 0.0])}, "predictions of 'q0' are not finite"),
        ({"null_odds": np.array([0.0, -np.inf, 0.0])}, "predictions of 'q1' are not finite"),
    ],
)
def test_no_nan_is_saved_of_an_answer(tmp_path, odd, reason):
    """Fault 8: prevents a NaN of one question from entering a paired test."""
    with pytest.raises(RunFailed, match=reason):
        publish(tmp_path, *made.on_squad(0.4), replace(made.answers(), **odd))
    assert find(tmp_path) == store.Found()


@pytest.mark.parametrize(
    "short", ["split", "ids", "texts", "exact", "f1", "null_odds", "labels", "logits"]
)
def test_every_example_has_everything(tmp_path, short):
    """Prevents an answer from being scored as its neighbour's."""
    said = made.predictions() if short in ("labels", "logits") else made.answers()
    less = replace(said, **{short: getattr(said, short)[:-1]})
    with pytest.raises(ValueError, match="unequal lengths"):
        publish(tmp_path, made.result(), less)
    assert find(tmp_path) == store.Found()


def foreign(**columns):
    """A parquet file of other columns."""
    stream = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), stream)
    return bytes(stream.getvalue())


FOREIGN = {
    "no parquet": (lambda data: b"x" * 99, "Parquet magic bytes not found"),
    "cut": (lambda data: data[:-9], "[Pp]arquet"),
    "empty": (lambda data: b"", "[Pp]arquet"),
    "columns": (
        lambda data: foreign(id=["1"], said=[2]),
        r"predictions: id \(string\), said \(int64\)",
    ),
    "types": (
        lambda data: foreign(
            split=["x"], id=["1"], text=["y"], exact=[True], f1=[1.0], null_odds=[0.0]
        ),
        r"contains no known kind of predictions: .*exact \(bool\)",
    ),
}


@pytest.mark.parametrize("how", FOREIGN)
@pytest.mark.parametrize("task", ["squad", "rte"])
def test_what_is_no_predictions_is_named(tmp_path, monkeypatch, how, task):
    """Fault 20: prevents a foreign file from stopping a table with a traceback of pyarrow's."""
    change, reason = FOREIGN[how]
    said = made.answers() if task == "squad" else made.predictions()
    monkeypatch.setattr(store, "to_parquet", lambda said: change(results.to_parquet(said)))
    made.put(tmp_path, made.result(task=task), said=said)
    (read,) = find(tmp_path).results
    with pytest.raises(InvalidResult, match=reason) as caught:
        read_predictions(tmp_path, read, Predictions)
    assert caught.value.path.suffix == ".parquet"
    assert "\n" not in caught.value.reason
