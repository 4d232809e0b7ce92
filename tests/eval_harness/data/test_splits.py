"""A task's rows: the same whatever they are read from, and found where they are."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
from tasks_on_disk import (
    SIZES,
    as_csv,
    as_glue,
    as_json,
    as_jsonl,
    as_parquet,
    as_windows,
    expected,
    split_names,
)

from angels_share.errors import UserError
from eval_harness.data.splits import load_task
from eval_harness.tasks.custom import read_task
from eval_harness.tasks.kinds import TEXTS
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import TASKS


def refusal(task, folder):
    with pytest.raises(UserError) as caught:
        load_task(task, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the same rows in every format

WAYS = (as_glue, as_windows, as_parquet, as_csv, as_jsonl, as_json)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name", [task.name for task in TASKS if task.kind == TEXTS and not task.averages]
)
def test_every_format_gives_the_same_rows(name, way, tmp_path):
    """Prevents a format from having another order, label, text or hash: another number."""
    task = task_named(name)
    if task.glue is None and way in (as_glue, as_windows):
        pytest.skip("GLUE has no files of IMDb")
    data = load_task(task, way(tmp_path / "a", task), test=True)
    splits = (data.train, *data.evaluation, *data.test)
    assert [split.name for split in splits] == [*split_names(task)]
    for split in splits:
        texts, labels = expected(task, split.name)
        assert split.texts == texts
        assert (split.labels is None) == (labels is None)
        assert labels is None or split.labels.tolist() == labels
        assert list(split.ids) == [str(number) for number in range(len(texts[0]))]
    assert data.content == load_task(task, as_parquet(tmp_path / "b", task)).content
    assert (data.revision, data.limit, data.overlap) == (None, None, 0)


def test_labels_are_numbers_of_their_kind(tmp_path):
    """Prevents ids that arrive as int32 or numbers as float32 from being another array."""
    for name, kind in (("rte", np.int64), ("stsb", np.float64)):
        task = task_named(name)
        assert load_task(task, as_parquet(tmp_path, task)).train.labels.dtype == kind


def test_class_ids_go_by_the_files_own_names(tmp_path):
    """Prevents a copy of MNLI with another order of labels from being scored as noise."""
    task = task_named("mnli")
    usual = load_task(task, as_parquet(tmp_path / "a", task))
    other = as_parquet(tmp_path / "b", task, names=("contradiction", "entailment", "neutral"))
    found = load_task(task, other)
    assert found.train.labels.tolist() == usual.train.labels.tolist()
    assert found.content == usual.content
    strange = as_parquet(tmp_path / "c", replace(task, labels=("yes", "maybe", "no")))
    with pytest.raises(UserError, match=r"row 1: unknown label 0 \(the file calls it 'yes'\)"):
        load_task(task, strange)


def test_numbers_that_stand_for_names_are_refused_in_mnlis_own_files(tmp_path):
    """Prevents a TSV whose labels are ids, in nobody knows which order, from being believed."""
    folder = as_glue(tmp_path, task_named("rte"))
    path = folder / "RTE" / "train.tsv"
    path.write_text(path.read_text().replace("\tnot_entailment", "\t1"))
    with pytest.raises(UserError, match=r"train\.tsv:3: unknown label '1'; known: entailment"):
        load_task(task_named("rte"), folder)


def test_mrpc_as_microsoft_gave_it_out(tmp_path):
    """Prevents the held-out pairs from being trained on where GLUE's split wasn't made."""
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    rows = [f"{i % 2}\t{i}\t{i + 1}\tfirst {i}\tsecond {i}" for i in range(6)]
    folder = tmp_path / "MRPC"
    folder.mkdir()
    content = "\r\n".join([header, *rows, ""]).encode()
    (folder / "msr_paraphrase_train.txt").write_bytes(b"\xef\xbb\xbf" + content)
    (folder / "msr_paraphrase_test.txt").write_bytes(content)
    (folder / "dev_ids.tsv").write_text("4\t5\n1\t2\n")
    data = load_task(task_named("mrpc"), tmp_path, test=True)
    assert data.train.texts[0] == [f"first {i}" for i in (0, 2, 3, 5)]
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    dev = data.evaluation[0]
    assert (dev.texts[1], list(dev.ids)) == (["second 1", "second 4"], ["1", "4"])
    assert data.test[0].labels is None
    (folder / "dev_ids.tsv").write_text("4\t5\n7\t7\n")
    with pytest.raises(UserError, match=r"dev_ids\.tsv:2: msr_paraphrase_train\.txt has no pair 7"):
        load_task(task_named("mrpc"), tmp_path)
    # GLUE's own script leaves both kinds in one folder: what it made goes first.
    as_glue(tmp_path, task_named("mrpc"))
    assert len(load_task(task_named("mrpc"), tmp_path).train) == 8


# --- where it is


def test_what_is_not_there_is_named(tmp_path):
    """Prevents "file not found" without the names under which a task is looked for."""
    message = refusal(task_named("rte"), tmp_path)
    for place in ("RTE/train.tsv", "rte/train.parquet", "glue/rte/train.parquet", ".jsonl"):
        assert place in message
    as_glue(tmp_path, task_named("rte"))
    (tmp_path / "RTE" / "dev.tsv").unlink()
    assert refusal(task_named("rte"), tmp_path).startswith(f"{tmp_path / 'RTE' / 'dev.tsv'}: ")
    as_csv(tmp_path, task_named("sst2"))
    (tmp_path / "sst2" / "validation.csv").unlink()
    assert "sst2: validation split missing or incomplete" in refusal(task_named("sst2"), tmp_path)
    assert "no such folder" in refusal(task_named("rte"), tmp_path / "absent")


def test_what_is_there_twice_is_refused(tmp_path):
    """Prevents two copies that differ from taking turns by the order of a folder's names."""
    task = task_named("rte")
    as_parquet(as_glue(tmp_path / "a", task), task)
    assert "RTE is in two places" in refusal(task, tmp_path / "a")
    as_parquet(as_csv(tmp_path / "b", task), task)
    assert "train.parquet and train.csv are the same split" in refusal(task, tmp_path / "b")


def test_sources_tell_no_path(tmp_path):
    """Prevents the folders of somebody's machine from being published with a result."""
    task = task_named("rte")
    assert load_task(task, as_glue(tmp_path / "a", task)).source == "RTE"
    assert load_task(task, as_jsonl(tmp_path / "b", task)).source == "glue/rte"


def test_shards_as_the_hub_writes_them(tmp_path):
    """Prevents a copy of the Hub's repository from being read without its last part."""
    task = task_named("imdb")
    as_parquet(tmp_path, task)
    folder = tmp_path / "imdb" / "plain_text"
    folder.mkdir()
    whole = pyarrow.parquet.read_table(tmp_path / "imdb" / "train.parquet").drop_columns("idx")
    parts = [folder / f"train-0000{i}-of-00002.parquet" for i in range(2)]
    pyarrow.parquet.write_table(whole.slice(0, 5), parts[0])
    (tmp_path / "imdb" / "test.parquet").rename(folder / "test-00000-of-00001.parquet")
    (tmp_path / "imdb" / "train.parquet").unlink()
    assert "no IMDb found" in refusal(task, tmp_path)
    pyarrow.parquet.write_table(whole.slice(5), parts[1])
    data = load_task(task, tmp_path)
    assert data.train.texts == expected(task, "train")[0]
    assert list(data.train.ids) == [str(number) for number in range(8)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_custom_task(ending, tmp_path):
    """Prevents a custom task from needing anything but its files, wherever it is read from."""
    lines = {
        "csv": 'review,stars\n"a ""b""",low\nc,high\n',
        "tsv": 'review\tstars\na "b"\tlow\nc\thigh\n',
        "jsonl": '{"review": "a \\"b\\"", "stars": "low"}\n{"review": "c", "stars": "high"}\n',
    }
    for name in ("t", "d"):
        (tmp_path / f"{name}.{ending}").write_text(lines[ending])
    path = tmp_path / "stars.yml"
    path.write_text(
        "name: stars\ncolumns: review\nlabels: [high, low]\nprimary: accuracy\n"
        f"label_column: stars\nfiles: {{train: t.{ending}, validation: d.{ending}}}\n"
    )
    task = read_task(path)
    for folder in (None, tmp_path / "of GLUE"):
        data = load_task(task, folder, test=True)
        assert (data.train.texts, data.train.labels.tolist()) == ((['a "b"', "c"],), [1, 0])
        assert (data.source, data.test, data.overlap) == ("files of stars", (), 2)


# --- limit, hash, overlap


@pytest.mark.parametrize("name", ["imdb", "mnli"])
def test_a_limit_is_spread_over_the_file(name, tmp_path):
    """Prevents the first 3 of IMDb, which is sorted by label, from being all negative."""
    task = task_named(name)
    folder = as_parquet(tmp_path, task)
    data, whole = load_task(task, folder, limit=3, test=True), load_task(task, folder)
    assert list(data.train.ids) == ["0", "2", "5"]
    assert data.train.texts[0] == [whole.train.texts[0][i] for i in (0, 2, 5)]
    assert data.train.labels.tolist() == whole.train.labels[[0, 2, 5]].tolist()
    assert [len(split) for split in data.evaluation] == [3] * len(task.evaluation)
    assert [len(split) for split in data.test] == [SIZES[name] for name in task.test]
    assert data.limit == 3
    assert data.content != whole.content
    assert load_task(task, folder, limit=8).content == whole.content


def test_the_hash_follows_texts_labels_and_order(tmp_path):
    """Prevents other data from passing for the same, and an id from making the same another."""
    task = task_named("cola")
    rows = [{"idx": i, "sentence": f"s{i}", "label": i % 2} for i in range(4)]

    def content(rows, name="train"):
        as_jsonl(tmp_path, task)
        path = tmp_path / "glue" / "cola" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_task(task, tmp_path).content

    first = content(rows)
    assert content([{**row, "idx": row["idx"] + 9} for row in rows]) == first
    others = [
        content(rows[::-1]),
        content([*rows[:3], {**rows[3], "label": 0}]),
        content([*rows[:3], {**rows[3], "sentence": "s3 "}]),
        content(rows[:3]),
        content(rows, "validation"),
        content([{**rows[0], "sentence": "s0s1"}, {**rows[1], "sentence": ""}, *rows[2:]]),
    ]
    assert len({first, *others}) == 7
    assert len(first) == 16


def test_the_hash_knows_where_a_text_ends(tmp_path):
    """Prevents a word that moved from one text to the other from leaving the hash as it was."""
    found = set()
    for pair in (("ab", "c"), ("a", "bc")):
        as_jsonl(tmp_path, task_named("rte"))
        row = {**dict(zip(("sentence1", "sentence2"), pair, strict=True)), "label": 0}
        (tmp_path / "glue" / "rte" / "train.jsonl").write_text(json.dumps(row))
        found.add(load_task(task_named("rte"), tmp_path).content)
    assert len(found) == 2


def test_the_overlap_counts_evaluation_examples_by_all_their_texts(tmp_path):
    """Prevents shared premises, of which MNLI is full, from being counted as leaks."""
    task = task_named("rte")
    as_jsonl(tmp_path, task)
    for name, pairs in (("train", ["ab", "cd", "ab"]), ("validation", ["ab", "ab", "ad", "cd"])):
        rows = [{"sentence1": a, "sentence2": b, "label": 0} for a, b in pairs]
        path = tmp_path / "glue" / "rte" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_task(task, tmp_path).overlap == 3


# --- the Hub (what it gives: tests/hub)


def test_a_revision_of_what_is_not_on_the_hub(tmp_path):
    """Prevents a pin from being ignored where the data are the user's own files."""
    folder = as_glue(tmp_path, task_named("rte"))
    with pytest.raises(UserError, match=r"RTE is read from .*, not from the Hub"):
        load_task(task_named("rte"), folder, revision="f" * 40)


def test_no_network_and_no_copy():
    """Prevents a long wait: the answer comes at once and names the local ways."""
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set.*; or use --data_dir"):
        load_task(task_named("rte"), None)


# --- real data


@pytest.mark.parametrize("name", ["cola", "rte", "stsb", "wnli"])
def test_glues_files_and_parquet_are_the_same_rows(name, real_data):
    """Prevents a number from depending on which copy of a task somebody has."""
    task = task_named(name)
    ours = load_task(task, real_data / "data" / "glue_data", test=True)
    theirs = load_task(task, real_data / "data" / "hub", test=True)
    pairs = zip(
        (ours.train, *ours.evaluation, *ours.test),
        (theirs.train, *theirs.evaluation, *theirs.test),
        strict=True,
    )
    for mine, other in pairs:
        assert (list(mine.ids), mine.texts) == (list(other.ids), other.texts)
        assert (mine.labels is None) == (other.labels is None)
        assert mine.labels is None or mine.labels.tolist() == other.labels.tolist()
    assert (ours.content, ours.overlap) == (theirs.content, theirs.overlap)


SIZES_OF = {
    "cola": (8551, 1043, 1063), "sst2": (67349, 872, 1821), "mrpc": (3668, 408, 1725),
    "stsb": (5749, 1500, 1379), "rte": (2490, 277, 3000), "wnli": (635, 71, 146),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES_OF)
def test_the_published_sizes(name, real_data):
    """Prevents rows from being lost or split on the way in."""
    data = load_task(task_named(name), real_data / "data" / "hub", test=True)
    assert (len(data.train), len(data.evaluation[0]), len(data.test[0])) == SIZES_OF[name]


def test_all_of_imdb(real_data):
    """Prevents a limit on IMDb, which is sorted by label, from leaving one label."""
    task = task_named("imdb")
    data = load_task(task, real_data / "data" / "hub", limit=100)
    assert [len(data.train), len(data.evaluation[0])] == [100, 100]
    assert data.train.labels.mean() == data.evaluation[0].labels.mean() == 0.5
    assert len(load_task(task, real_data / "data" / "hub").evaluation[0]) == 25_000
