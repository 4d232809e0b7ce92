"""Results on disk: whole or not there, first come first served, nothing torn ever counted."""

import contextlib
import errno
import json
import multiprocessing
import os
import shutil
import signal
import socket
import stat
from dataclasses import fields, replace
from pathlib import Path

import made_results as made
import numpy as np
import pytest
from disks import fill, small_disk
from places import GOLDEN

from angels_share import files
from angels_share.errors import RunFailed
from eval_harness.results import record as results
from eval_harness.results import store
from eval_harness.results.predictions import AnsweredQuestions, Predictions
from eval_harness.results.speed import find_speeds
from eval_harness.results.store import (
    InvalidResult,
    find,
    load,
    path_of,
    publish,
    read_predictions,
)
from eval_harness.runs.run import Distilled, Model

GOLDEN_1, GOLDEN_2, GOLDEN_3 = (GOLDEN / f"results-{schema}" for schema in (1, 2, 3))
HOW = {"ablation": "none", "loss": {"alpha_ce": 5.0}, "init": "teacher", "rest": "0" * 16}
forks = multiprocessing.get_context("fork")


def made_socket(path):
    """Make a socket; its path may be longer than a socket's address."""
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
        made.bind(path.name)


def made_device(path):
    """Make a device that delivers zeros without end."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except OSError as error:
        pytest.skip(f"devices can't be made here: {error}")


@pytest.fixture
def one(tmp_path):
    """A folder with one result in it."""
    made.put(tmp_path, made.result())
    return path_of(tmp_path, made.result().key)


def test_what_was_saved_is_what_is_read(tmp_path):
    """Prevents a field or a digit from being lost on the way to the disk and back."""
    saved = made.result(score=None, scores={"validation": {"pearson": None, "score": 0.1 + 0.2}})
    said = made.predictions([0.5, 4.75], [0.1, 5.2])
    assert publish(tmp_path, saved, said)
    read = load(path_of(tmp_path, saved.key))
    assert replace(read, predictions=None, seal=None) == saved
    again = read_predictions(tmp_path, read, Predictions)
    assert (again.split, again.ids) == (said.split, said.ids)
    assert np.array_equal(again.labels, said.labels)
    assert again.labels.dtype == np.float64
    assert np.array_equal(again.logits, said.logits)
    assert again.logits.dtype == np.float32
    assert find(tmp_path).results == (read,)
    assert find(tmp_path).invalid == ()


def test_every_field_is_checked():
    """Prevents a new field of a result from being written but never checked."""
    assert results._RESULT.keys() == {field.name for field in fields(results.TaskResult)}
    assert results.MODEL.keys() == {field.name for field in fields(Model)}
    assert results._DISTILLED.keys() == {field.name for field in fields(Distilled)}


def beside(path):
    """The file of a result's predictions."""
    return path.with_name(json.loads(path.read_text())["predictions"]["name"])


def test_the_first_finished_counts(tmp_path, one):
    """Fault 11: prevents a run that came twice from changing a number that was already told."""
    before = one.read_bytes()
    other = made.result(score=0.9)
    assert not publish(tmp_path, other, made.predictions())
    assert one.read_bytes() == before
    assert publish(tmp_path, other, made.predictions(), replace=True)
    assert load(one).score == 0.9
    assert sorted(one.parent.glob("*.parquet")) == [beside(one)]


def test_what_is_torn_is_replaced(tmp_path, one):
    """Prevents a torn file from standing for ever because a result seems to be there."""
    one.write_text(one.read_text()[:100])
    assert publish(tmp_path, made.result(score=0.7), made.predictions())
    assert load(one).score == 0.7


def publish_all(root, number, told):
    """What a worker of the next test does."""
    for seed in range(10):
        if publish(root, made.result(seed=seed, score=number / 10), made.predictions()):
            told.put((seed, number))


def test_many_publish_the_same(tmp_path):
    """Fault 11: prevents two of eight writers from both being told that theirs counts."""
    told = forks.SimpleQueue()
    workers = [forks.Process(target=publish_all, args=(tmp_path, i, told)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    counted = []
    while not told.empty():
        counted.append(told.get())
    assert sorted(seed for seed, _ in counted) == list(range(10))
    found = find(tmp_path)
    assert found.invalid == ()
    assert {(each.seed, round(each.score * 10)) for each in found.results} == set(counted)


def publish_until_killed(root, step, again):
    """Publishes, and dies as by kill -9 before its nth change of the file system."""
    steps = iter(range(1000))

    def dying(function):
        def wrapped(*arguments, **named):
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return wrapped

    for name in ("write_bytes", "write_text", "replace", "unlink"):
        setattr(Path, name, dying(getattr(Path, name)))
    store.sync = files.sync = dying(files.sync)
    other = made.predictions(said=[0, 1, 1, 1])
    publish(root, made.result(score=0.9), other, replace=again)


def unnamed(root, found):
    """The files that neither count nor are named."""
    there = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    counted = {f"runs/{key}.json" for key in found.by_key}
    for key, each in found.by_key.items():
        counted.add(f"runs/{key.rpartition('/')[0]}/{each.predictions['name']}")
    named = {each.path for each in found.invalid}
    return {path for path in there - counted - named if not path.endswith("/.lock")}


@pytest.mark.parametrize("again", [False, True])
def test_killed_at_any_moment(tmp_path, again):
    """Fault 10: prevents a kill -9 from leaving half a result, or neither the old nor the new."""
    deaths, there = 0, []
    for step in range(100):
        root = tmp_path / str(step)
        made.put(root, made.result(seed=2))
        if again:
            made.put(root, made.result())
        worker = forks.Process(target=publish_until_killed, args=(root, step, again))
        worker.start()
        worker.join()
        found = find(root)
        there.append({each.score for each in found.results if each.seed == 1})
        for each in found.results:
            read_predictions(root, each, Predictions)
        assert sum(each.seed == 2 for each in found.results) == 1
        if worker.exitcode == 0:
            break
        deaths += 1
        assert unnamed(root, found) == set()
        assert publish(root, made.result(score=0.8), made.predictions()) == (not there[-1])
        assert find(root).invalid == (), "leftovers stayed"
    assert deaths >= 6
    assert there[0] == ({0.6} if again else set())
    assert there[-1] == {0.9}
    assert all(there) or not again, "a moment without a result"


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failing_disk_leaves_the_old_result(tmp_path, one, monkeypatch, failing):
    """Fault 12: prevents an I/O error between two files from losing the old result and the new."""
    renames, rename = iter(range(1, 100)), Path.replace

    def broken(self, target):
        if next(renames) >= failing:
            raise OSError(5, "Input/output error", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", broken)
    other = made.predictions(said=[0, 1, 1, 1])
    with pytest.raises(OSError, match="Input/output error"):
        publish(tmp_path, made.result(score=0.9), other, replace=True)
    monkeypatch.undo()
    (left,) = find(tmp_path).results
    assert left.score == 0.6
    assert np.array_equal(
        read_predictions(tmp_path, left, Predictions).logits, made.predictions().logits
    )
    assert all("predictions of a result" in each.reason for each in find(tmp_path).invalid)
    assert publish(tmp_path, made.result(score=0.9), other, replace=True)
    assert find(tmp_path).invalid == ()


def test_a_full_disk_leaves_the_old_result(tmp_path, one, monkeypatch):
    """Fault 12: prevents `--rerun always` from losing a result that it could not replace."""

    def no_space(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(store, "sync", no_space)
    with pytest.raises(OSError, match="No space"):
        publish(tmp_path, made.result(score=0.9), made.predictions(), replace=True)
    assert load(one).score == 0.6
    assert find(tmp_path).invalid == ()


def test_a_really_full_disk_leaves_the_old_result(tmp_path):
    """Fault 12: prevents half a result, or half of its predictions, and the loss of the old one."""
    said = made.predictions(np.zeros(40_000), np.zeros(40_000))
    with small_disk(tmp_path / "results", "2m") as root:
        made.put(root, made.result())
        path = path_of(root, made.result().key)
        before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        fill(root, leave=8192)
        said = made.predictions(*np.random.default_rng(0).random((2, 40_000)))
        with pytest.raises(OSError, match="No space left") as caught:
            publish(root, made.result(score=0.9), said, replace=True)
        assert caught.value.errno == errno.ENOSPC
        assert str(path.parent) in caught.value.filename
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_no_nan_is_saved(tmp_path):
    """Fault 8: prevents a NaN from standing in a result, and names where it came from."""
    broken = made.result(scores={"validation": {"pearson": float("nan")}})
    with pytest.raises(RunFailed, match=r"seed-1: scores\.validation\.pearson is nan: not saved"):
        publish(tmp_path, broken, made.predictions())
    infinite = made.predictions()
    infinite.logits[2, 1] = np.inf
    with pytest.raises(RunFailed, match="predictions of '2' are not finite"):
        publish(tmp_path, made.result(), infinite)
    assert find(tmp_path) == store.Found()


def test_a_test_split_has_no_labels(tmp_path):
    """Prevents `--predict_test` from being refused for labels that nobody has."""
    said = made.predictions([0.0, 1.0, np.nan, np.nan], [0.1, 0.2, 0.3, 0.4])
    made.put(tmp_path, made.result(), said=said)
    (read,) = find(tmp_path).results
    assert np.array_equal(
        read_predictions(tmp_path, read, Predictions).labels, said.labels, equal_nan=True
    )


def changed(**more):
    """Change a record and seal it anew, so that the seal isn't what is wrong with it."""

    def change(text):
        return results.sealed({**json.loads(text), **more})

    return change


def inside(*path, **more):
    """Changes something further in."""

    def change(text):
        record = json.loads(text)
        part = record
        for name in path:
            part = part[name]
        part.update(more)
        return results.sealed(record)

    return change


TORN = {
    "empty": (lambda text: "", "is empty"),
    "cut": (lambda text: text[: len(text) // 2], "is torn: line"),
    "no json": (lambda text: "\0" * 20, "is torn: line 1"),
    "another thing": (lambda text: "[1, 2]", "is not a result: it has no schema"),
    "missing": (lambda text: text.replace('"finished"', '"ended"'), "finished is missing"),
    "unknown": (changed(colour="red"), "colour is no field of a result"),
    "type": (changed(seed="1"), "seed is a str"),
    "true": (changed(seed=True), "seed is a bool"),
    "model": (changed(model={"name": "bert"}), "model.digest is missing"),
    "percentage": (changed(score=59.9), "score 59.9 is not between -1 and 1"),
    "nan": (lambda text: text.replace('"score": 0.6', '"score": NaN'), "contains NaN"),
    "huge": (lambda text: text.replace('"score": 0.6', '"score": 1e999'), "inf is not between"),
    "measure": (changed(scores={"dev": {"f1": "x"}}), "scores.dev.f1 is a str"),
    "split": (changed(scores={"dev": 0.5}), "scores.dev is a float"),
    "newer": (changed(schema=99), "written by a newer version (schema 99, known up to 4): update"),
    "older": (changed(schema=0), "has schema 0, which never existed"),
    "settings": (
        lambda text: results.sealed(json.loads(text.replace("3e-05", "4e-05"))),
        "belongs at runs/distilbert-0123abcd",
    ),
    "seed": (changed(seed=7), "belongs at runs/distilbert-0123abcd/rte"),
    "elsewhere": (
        changed(predictions={"name": "../../x.parquet", "size": 1, "sha256": "0"}),
        "names '../../x.parquet' as its predictions instead of seed-1.<hash>.parquet",
    ),
    "hash": (
        changed(predictions={"name": "seed-1./../x.parquet", "size": 1, "sha256": "/../x"}),
        "names 'seed-1./../x.parquet' as its predictions",
    ),
    "deep": (lambda text: "[" * 200_000, "is nested too deep"),
    "endless": (
        lambda text: text.replace('"seed": 1', f'"seed": {"1" * 5000}'),
        "has a number of 5000 digits, on line",
    ),
    "deep settings": (
        inside("settings", "row", overrides={"a": json.loads("[" * 20 + "]" * 20)}),
        "settings are nested too deep",
    ),
    "surrogate": (
        lambda text: text.replace('"name": "distilbert"', r'"name": "\ud800"'),
        "contains an unpaired surrogate",
    ),
    "marks": (changed(marks=[{"a": 1}]), "marks[0] is a dict"),
    "seeds": (inside("provenance", seeds=5), "provenance.seeds is a int"),
    "seeds' letters": (inside("provenance", seeds="12345"), "provenance.seeds is a str"),
    "one of the seeds": (inside("provenance", seeds=["1"]), "provenance.seeds[0] is a str"),
    "libraries": (inside("provenance", libraries=[]), "provenance.libraries is a list"),
    "library": (inside("provenance", libraries={"a": 1}), "provenance.libraries.a is a int"),
    "data's name": (inside("data", name=["x"]), "data.name is a list"),
    "weights": (inside("model", weights=5), "model.weights is a int"),
    "overlap": (inside("data", overlap="6"), "data.overlap is a str"),
    "values": (inside("settings", "task", values=[]), "settings.task.values is a list"),
    "overrides": (inside("settings", "row", overrides=[]), "settings.row.overrides is a list"),
    "method": (
        inside("settings", "row", method={"name": "x", "factory": "a:b"}),
        "settings.row.method.options is missing",
    ),
}


@pytest.mark.parametrize("how", TORN)
def test_what_is_no_result_is_named(tmp_path, one, how):
    """Fault 20: prevents a damaged file from counting, and a sound neighbour from not counting."""
    made.put(tmp_path, made.result(seed=2))
    change, reason = TORN[how]
    text = one.read_text()
    one.write_text(change(text))
    assert one.read_text() != text
    with pytest.raises(InvalidResult) as caught:
        load(one)
    assert reason in caught.value.reason
    found = find(tmp_path)
    assert [each.seed for each in found.results] == [2]
    assert [each.path for each in found.invalid] == [one.relative_to(tmp_path).as_posix()]
    assert reason in found.invalid[0].reason


@pytest.mark.parametrize("task", ["rte", "squad"])
def test_predictions_belong_to_their_result(tmp_path, task):
    """Prevents an interval from being made of other predictions than those that were scored."""
    saved = made.result(task=task)
    made.put(tmp_path, saved, said=made.answers() if task == "squad" else None)
    one = path_of(tmp_path, saved.key)
    file = beside(one)
    data = file.read_bytes()
    result = load(one)
    file.write_bytes(data[:-9] + b"x" + data[-8:])
    assert load(one) == result  # the size is looked at, the hash where they are read
    with pytest.raises(InvalidResult, match="is not what the result was saved with"):
        read_predictions(tmp_path, result, Predictions)
    file.write_bytes(data[:-9])
    assert f"have {len(data) - 9} bytes instead of {len(data)}" in find(tmp_path).invalid[0].reason
    file.unlink()
    assert f"its predictions {file.name}: No such file" in find(tmp_path).invalid[0].reason
    with pytest.raises(InvalidResult, match="No such file"):
        read_predictions(tmp_path, result, Predictions)


def test_predictions_alone_are_named(tmp_path, one):
    """Prevents what a killed process left behind from lying about unnoticed."""
    file = beside(one)
    one.unlink()
    assert f"{file.name}: predictions without a result" in str(find(tmp_path).invalid[0])


def test_a_link_is_not_followed(tmp_path, one):
    """Fault 18: prevents a folder of results from somebody else from having other files read."""
    outside = tmp_path / "secret.json"
    one.rename(outside)
    one.symlink_to(outside)
    (tmp_path / "runs" / "more").symlink_to(tmp_path)
    found = find(tmp_path)
    assert found.results == ()
    assert ["is a link" in each.reason for each in found.invalid] == [True, True]


@pytest.mark.parametrize("make", [os.mkfifo, made_socket, made_device])
def test_what_is_no_file_is_passed_over_and_named(tmp_path, one, make):
    """Prevents a table that waits for ever for somebody to write into a FIFO."""
    (tmp_path / "speed").mkdir()
    strange = [
        one.with_name("seed-77.json"),
        one.with_name("seed-77.0a1b2c3d.parquet"),
        one.with_name("notes"),
        tmp_path / "speed" / "2026.json",
    ]
    for path in strange:
        make(path)
    found = find(tmp_path)
    assert len(found.results) == 1
    named = [each for each in found.invalid if "neither a file nor a folder" in each.reason]
    assert sorted(tmp_path / each.path for each in named) == sorted(strange[:3])
    sessions = find_speeds(tmp_path)
    assert [each.path for each in sessions.invalid] == ["speed/2026.json"]
    assert "neither a file nor a folder" in sessions.invalid[0].reason
    key = made.result(seed=77).key
    assert path_of(tmp_path, key) == strange[0]
    with pytest.raises(InvalidResult, match=r"seed-77\.json: is neither a file nor a folder"):
        load(strange[0])
    made.put(tmp_path, made.result(seed=77))  # the run is made, and takes its place
    assert load(strange[0]).seed == 77


def test_a_copy_changes_nothing(tmp_path, one):
    """Prevents a backup beside a result from counting twice, or from hiding it."""
    shutil.copytree(one.parents[2], tmp_path / "runs" / "backup" / one.parents[2].name)
    shutil.copy(one, one.with_name("seed-1 (copy).json"))
    found = find(tmp_path)
    assert [each.seed for each in found.results] == [1]
    assert all(each.reason == f"is a copy of {one.relative_to(tmp_path)}" for each in found.invalid)
    assert len(found.invalid) == 2


def test_of_two_that_disagree_neither_counts(tmp_path, one):
    """Fault 20: prevents the choice between two numbers for one run from being made by a sort."""
    made.put(tmp_path, made.result(seed=2))
    copy = one.with_name("seed-1 (copy).json")
    copy.write_text(changed(score=0.8)(one.read_text()))
    found = find(tmp_path)
    assert [each.seed for each in found.results] == [2]
    assert [Path(each.path).name for each in found.invalid] == [copy.name, one.name]
    assert all("neither counts" in each.reason for each in found.invalid)


def test_a_result_in_a_wrong_place_does_not_count(tmp_path, one):
    """Prevents a model's results from passing for another's because a folder was renamed."""
    one.parents[2].rename(tmp_path / "runs" / "better-00000000")
    found = find(tmp_path)
    assert found.results == ()
    assert "belongs at runs/distilbert-0123abcd/rte" in found.invalid[0].reason


def test_a_folder_without_results(tmp_path):
    """Prevents the first `tables` of all from failing."""
    assert find(tmp_path) == find(tmp_path / "nowhere") == store.Found()


def test_results_of_schema_1_load():
    """Prevents results of an earlier version, as they were and as they are, from being lost.

    The first of them name no labels, and their predictions are called after the seed alone.
    """
    found = find(GOLDEN_1)
    assert found.invalid == ()
    assert {each.seed: each.predictions["name"] for each in found.results} == {
        11: "seed-11.parquet",
        12: "seed-12.d80a2c00.parquet",
        13: "seed-13.30c75dc4.parquet",
    }
    answered, *classified = sorted(found.results, key=lambda each: each.task, reverse=True)
    assert answered.scores["validation"] == {"exact_match": 0.5, "f1": 0.75, "score": 0.75}
    said = read_predictions(GOLDEN_1, answered, AnsweredQuestions)
    assert (said.ids, said.texts) == (["q0", "q1"], ["Größe", ""])
    assert said.null_odds.tolist() == [-2.5, np.inf]
    assert (said.exact.mean(), said.f1.mean()) == (0.5, 0.75)
    for read in classified:
        assert (read.model.name, read.task, read.score) == ("tiny", "rte", 0.75)
        assert read.scores == {"validation": {"accuracy": 0.75, "score": 0.75}}
        assert read.model.distilled is None
        said = read_predictions(GOLDEN_1, read, Predictions)
        assert said.ids == ["0", "1", "2", "3"]
        assert np.mean(said.logits.argmax(axis=1) == said.labels) == read.score


def test_results_of_schema_2_load():
    """Prevents results of an earlier version from being lost: the first that say how."""
    found = find(GOLDEN_2)
    assert found.invalid == ()
    without, full = found.results
    assert full.model == Model(
        "study/none", "none", "0a1b2c3d", "/models/study/none", None, "tiny",
        Distilled("none", {"alpha_ce": 5.0, "alpha_cos": 1.0, "alpha_mlm": 2.0}, "teacher",
                  "00112233445566ff"),
    )  # fmt: skip
    assert without.model.distilled == replace(
        full.model.distilled, ablation="no-ce", loss={**full.model.distilled.loss, "alpha_ce": 0.0}
    )
    assert {each.schema for each in found.results} == {results.SCHEMA}
    for each in found.results:
        said = read_predictions(GOLDEN_2, each, Predictions)
        assert np.mean(said.logits.argmax(axis=1) == said.labels) == each.score


def test_results_of_schema_3_load():
    """Prevents results of this version from being lost by the next: the first that say whose."""
    found = find(GOLDEN_3)
    assert found.invalid == ()
    (read,) = found.results
    assert (read.model.weights, read.model.teacher_weights) == ("5" * 64, "6" * 64)
    assert read.data["name"] == "a made-up world"
    said = read_predictions(GOLDEN_3, read, Predictions)
    assert np.mean(said.logits.argmax(axis=1) == said.labels) == read.score


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"ablation": "none"}, "model.distilled.init is missing"),
        ({**HOW, "loss": {"alpha_ce": "5"}}, "model.distilled.loss.alpha_ce is a str"),
        ({**HOW, "rest": None}, "model.distilled.rest is a NoneType"),
        ([], "model.distilled is a list"),
    ],
)
def test_a_broken_record_of_a_distillation_is_named(one, odd, reason):
    """Prevents a file that stops Table 4, or is paired with what it never belonged to."""
    one.write_text(inside("model", distilled=odd)(one.read_text()))
    with pytest.raises(InvalidResult, match=reason):
        load(one)


@pytest.mark.parametrize("model", [None, [], "bert"])
def test_an_older_result_without_a_model_is_named(one, model):
    """Prevents an upgrade from stopping at what isn't a record of its time."""
    record = made.unsealed({**json.loads(one.read_text()), "model": model}, schema=1)
    one.write_text(json.dumps(record))
    with pytest.raises(InvalidResult, match="model is a"):
        load(one)


@pytest.mark.parametrize("replace", [False, True])
def test_a_newer_result_is_not_overwritten(tmp_path, one, replace):
    """Prevents an older checkout from doing a run again over a result that it can't read."""
    newer = changed(schema=99)(one.read_text())
    one.write_text(newer)
    with pytest.raises(store.NewerResult, match="newer version"):
        publish(tmp_path, made.result(), made.predictions(), replace=replace)
    assert one.read_text() == newer
    assert list(one.parent.glob("*.parquet"))


def test_older_schemas_are_upgraded_step_by_step(tmp_path, one, monkeypatch):
    """Prevents a change of the record from leaving older files behind."""

    def two(record):
        return {**record, "marks": [*record["marks"], "from 1"]}

    def three(record):
        return {**record, "marks": [*record["marks"], "from 2"]}

    now = results.SCHEMA
    monkeypatch.setattr(results, "SCHEMA", now + 2)
    monkeypatch.setattr(results, "UPGRADES", {now: two, now + 1: three})
    assert load(one).marks == ("from 1", "from 2")
