"""Files of `probe`: sealed records, their examples, and the list of what Table 0 shows."""

import json
from dataclasses import replace

import made_results as made
import numpy as np
import pytest

from angels_share.errors import RunFailed
from eval_harness.results.probes import (
    ProbeResult,
    Shown,
    key_of,
    read,
    read_examples,
    read_shown,
    withhold,
    write,
    write_shown,
)
from eval_harness.results.store import Invalid, InvalidResult
from eval_harness.runs.run import Training

EXAMPLES = {
    "id": np.array(["a:1", "a:2", "ä:3"], dtype=object),
    "words": np.array([1.0, 2.0, 1.0]),
    "loss": np.array([0.1, 1 / 3, 5.25]),
    "label": np.array([0, 1, 1]),
}
RESULT = ProbeResult(
    model=made.STUDENT,
    training=Training("00112233445566ff", 7),
    probe="text",
    settings={
        "version": 1,
        "content": "0123456789abcdef",
        "hidden": 0.15,
        "seed": 0,
        "teacher": None,
    },
    scores={"loss": 1.42, "perplexity": None},
    facts={"files": ["a.txt"], "count": 3},
    provenance=made.PROVENANCE,
    seconds=0.25,
    finished="2026-01-01T00:00:00+00:00",
)
KEY = RESULT.key


def write_and_find(root, result=RESULT, examples=EXAMPLES):
    write(root, result, examples)
    path = root / "probes" / f"{result.key}.json"
    (parquet,) = path.parent.glob(f"{path.stem}.*.parquet")
    return path, parquet


def reason(root, key=KEY):
    """Why a result is refused."""
    with pytest.raises(InvalidResult) as refused:
        read_examples(root, read(root, key))
    return refused.value


def test_what_is_written_is_read_again(tmp_path):
    """Prevents a field or a digit that is lost between the measurement and the table."""
    path, parquet = write_and_find(tmp_path)
    found = read(tmp_path, KEY)
    assert replace(found, examples=None, seal=None) == RESULT
    assert found.examples["name"] == parquet.name
    assert found.examples["size"] == parquet.stat().st_size
    examples = read_examples(tmp_path, found)
    assert examples.keys() == EXAMPLES.keys()
    for name, values in EXAMPLES.items():
        assert examples[name].tolist() == values.tolist()
        assert examples[name].dtype.kind == values.dtype.kind
    assert path.parent.name == made.STUDENT.key
    without = replace(RESULT, training=None, model=made.BERT)
    write(tmp_path, without, EXAMPLES)
    assert read(tmp_path, without.key).training is None


def test_a_key_is_of_model_probe_and_settings():
    """Prevents two settings, or two models, that overwrite each other's numbers."""
    settings = dict(RESULT.settings)
    same = key_of(made.STUDENT, "text", dict(reversed(settings.items())))
    assert same == KEY
    others = {
        key_of(made.BERT, "text", settings),
        key_of(made.STUDENT, "pairs", settings),
        key_of(made.STUDENT, "text", {**settings, "seed": 1}),
        key_of(made.STUDENT, "text", {**settings, "teacher": made.BERT.key}),
    }
    assert len(others | {KEY}) == 5


def test_measured_again_it_replaces_what_was_there(tmp_path):
    """Prevents examples of an earlier measurement from staying, or from being read."""
    _, before = write_and_find(tmp_path)
    other = {**EXAMPLES, "loss": EXAMPLES["loss"] + 1}
    task = {**RESULT.settings, "measures": ["accuracy"]}
    other_probe = replace(RESULT, probe="text-2", settings=task)
    write(tmp_path, other_probe, EXAMPLES)
    _, after = write_and_find(tmp_path, examples=other)
    assert before != after
    assert not before.exists()
    assert read_examples(tmp_path, read(tmp_path, KEY))["loss"].tolist() == other["loss"].tolist()
    assert len(read_examples(tmp_path, read(tmp_path, other_probe.key))) == 4


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_score_that_is_no_number(tmp_path, odd):
    """Prevents a record that is no JSON, or one in the place of a good one."""
    path, _ = write_and_find(tmp_path)
    before = path.read_bytes()
    with pytest.raises(RunFailed, match="not saved"):
        write(tmp_path, replace(RESULT, scores={"loss": odd}), EXAMPLES)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("1.42", "1.24"),
        lambda text: text.replace('"count": 3', '"count": 4'),
        lambda text: text.replace('"seed": 7', '"seed": 8'),
        lambda text: text.replace('"seal": "', '"seal": "0'),
    ],
)
def test_an_altered_record_is_refused(tmp_path, change):
    """Prevents an edited score, or a flipped bit, from becoming a number of Table 0."""
    path, _ = write_and_find(tmp_path)
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text
    refused = reason(tmp_path)
    assert refused.reason == "was altered after it was saved (its checksum differs)"
    assert refused.path == path


def test_a_record_laid_out_anew_is_the_same(tmp_path):
    """Prevents a file that a tool indented from being called altered."""
    path, _ = write_and_find(tmp_path)
    before = read(tmp_path, KEY)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert read(tmp_path, KEY) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b'{"schema": 1', "is torn"),
        (b"[]", "is not a probe's result: it has no schema"),
        (b"\xff\xfe", "codec can't decode"),
        (b'{"schema": 1}', "is missing"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, content, said):
    """Prevents half a file from stopping a table, or from saying nothing of why."""
    path, _ = write_and_find(tmp_path)
    path.write_bytes(content)
    refused = reason(tmp_path)
    assert said in refused.reason
    assert "\n" not in refused.reason


def test_a_record_of_a_newer_version_says_so(tmp_path):
    """Prevents numbers of unknown meaning, and a call of damage where an update is due."""
    path, _ = write_and_find(tmp_path)
    made.rewrite(path, lambda record: {**record, "schema": 3})
    assert "newer version (schema 3, known up to 2): update" in reason(tmp_path).reason


def test_a_record_of_the_first_version_is_read(tmp_path):
    """Prevents measurements from being lost to an update of the program."""
    path, _ = write_and_find(tmp_path)

    def first(record):
        return {**{name: record[name] for name in record if name != "withheld"}, "schema": 1}

    made.rewrite(path, first)
    found = read(tmp_path, KEY)
    assert replace(found, examples=None, seal=None) == RESULT
    assert read_examples(tmp_path, found)


def test_withheld_examples_are_said_to_be(tmp_path):
    """Prevents labels from being published, and a record that names a file which isn't there."""
    path, parquet = write_and_find(tmp_path)
    saved = read(tmp_path, KEY)
    withhold(tmp_path, saved)
    assert not parquet.exists()
    found = read(tmp_path, KEY)
    assert (found.examples, found.withheld) == (None, saved.examples)
    with pytest.raises(InvalidResult, match="withheld"):
        read_examples(tmp_path, found)
    made.rewrite(path, lambda record: {**record, "withheld": None})
    assert "neither named nor withheld" in reason(tmp_path).reason


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("scores"),
        lambda record: record.update(more=1),
        lambda record: record.update(scores={"loss": "low"}),
        lambda record: record.update(scores={"loss": True}),
        lambda record: record.update(training={"group": "a"}),
        lambda record: record.update(training={"group": "a", "seed": "1"}),
        lambda record: record.update(seconds=None),
        lambda record: record.update(examples={"name": "x.parquet"}),
        lambda record: record["provenance"].update(threads="two"),
    ],
)
def test_another_shape_is_refused(tmp_path, change):
    """Prevents a sealed record of somebody else's from making a table fail."""
    path, _ = write_and_find(tmp_path)

    def changed(record):
        change(record)
        return record

    made.rewrite(path, changed)
    assert reason(tmp_path).reason


def test_a_record_in_another_place_is_refused(tmp_path):
    """Prevents one model's numbers from standing in another's row."""
    path, _ = write_and_find(tmp_path)
    elsewhere = path.with_name("text-00000000.json")
    elsewhere.write_bytes(path.read_bytes())
    refused = reason(tmp_path, f"{made.STUDENT.key}/text-00000000")
    assert refused.reason == f"belongs at probes/{KEY}.json"


@pytest.mark.parametrize("name", ["../../secret.parquet", "/etc/passwd", "a/b.parquet"])
def test_a_path_out_of_the_folder_is_refused(tmp_path, name):
    """Prevents a stranger's record from having any file of this machine read."""
    path, parquet = write_and_find(tmp_path)
    (tmp_path / "secret.parquet").write_bytes(parquet.read_bytes())
    made.rewrite(path, lambda record: {**record, "examples": {**record["examples"], "name": name}})
    assert reason(tmp_path).reason == f"names {name!r} as its examples"


@pytest.mark.parametrize("name", ["", ".", "..", "missing.parquet", "a\0b"])
def test_a_name_of_no_file(tmp_path, name):
    """Prevents a name that no file can have from stopping every table."""
    path, _ = write_and_find(tmp_path)
    made.rewrite(path, lambda record: {**record, "examples": {**record["examples"], "name": name}})
    assert reason(tmp_path).reason


def test_altered_examples_are_refused(tmp_path):
    """Prevents an interval of examples that are not those that were measured."""
    _, parquet = write_and_find(tmp_path)
    data = parquet.read_bytes()
    parquet.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    refused = reason(tmp_path)
    assert refused.path == parquet
    assert refused.reason == "is not what the result was saved with (sha256 differs)"
    parquet.unlink()
    assert reason(tmp_path).reason == "No such file or directory"


def test_what_is_shown(tmp_path):
    """Prevents Table 0 from another order of models, or from a teacher that isn't one."""
    assert read_shown(tmp_path) == Shown()
    shown = Shown(({"text": "b-1/text-2", "pairs": "b-1/pairs-2"}, {"text": "a-1/text-2"}), "b-1")
    write_shown(tmp_path, shown)
    assert read_shown(tmp_path) == shown
    write_shown(tmp_path, Shown(({"text": KEY},)))
    assert read_shown(tmp_path) == Shown(({"text": KEY},), None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("{}", "it has no schema"),
        ('{"schema": 2, "models": [], "teacher": null}', "newer version"),
        ('{"schema": 1, "models": [["a"]], "teacher": null}', "models"),
        ('{"schema": 1, "models": [{"text": 1}], "teacher": null}', "models"),
        ('{"schema": 1, "models": []}', "teacher"),
    ],
)
def test_a_damaged_list_of_what_is_shown(tmp_path, content, said):
    """Prevents a torn list from stopping all tables, or from passing for an empty one."""
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "table.json").write_text(content)
    found = read_shown(tmp_path)
    assert isinstance(found, Invalid)
    assert found.path == "probes/table.json"
    assert said in found.reason
