"""The files in which a teacher's outputs are kept: whole, of the right thing, or refused."""

import json
import multiprocessing
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers
from disks import file_size_limit, fill, small_disk
from lessons import WIDTH, Rows, collator_for, pair_for, saved_teacher

from angels_share.errors import RunFailed, UserError
from distil_trainer import cache_teacher_outputs
from distil_trainer.objectives import teacher_outputs
from eval_harness.training.encoding import Collator


@pytest.fixture
def saved(tmp_path):
    return partial(saved_teacher, tmp_path)


def folder_content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("damage", [
    "torn", "longer", "changed", "gone", "foreign", "empty", "torn record", "no record",
    "record of other labels", "another's record", "no such field",
])  # fmt: skip
def test_what_isnt_whole_is_made_again(damage, tmp_path, caplog):
    """Prevents half a file, or another's, from being learned from, and from ending a sweep."""
    teacher, _ = pair_for("questions")
    data, kept = Rows("questions"), tmp_path / "kept"
    cache_teacher_outputs(teacher, data, collator_for("questions"), kept)
    before = folder_content(kept)
    path, about = next(kept.glob("*.npy")), next(kept.glob("*.json"))
    content, record = path.read_bytes(), json.loads(about.read_text())
    if damage == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "longer":
        path.write_bytes(content + b"\0")
    elif damage == "changed":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif damage == "gone":
        path.unlink()
    elif damage == "foreign":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "torn record":
        about.write_text(about.read_text()[:40])
    elif damage == "no record":
        about.unlink()
    elif damage == "record of other labels":
        about.write_text(json.dumps({**record, "labels": ["a", "b"]}))
    elif damage == "another's record":
        about.write_text(json.dumps({**record, "source": {**record["source"], "data": "0"}}))
    elif damage == "no such field":
        about.write_text("[]")
    cache_teacher_outputs(teacher, data, collator_for("questions"), kept)
    assert folder_content(kept) == before
    lines = [entry.getMessage() for entry in caplog.records]
    assert len(lines) == (0 if damage == "no record" else 1)
    assert all(str(path) in line and "\n" not in line for line in lines)
    caplog.clear()
    cache_teacher_outputs(teacher, data, collator_for("questions"), kept)
    assert not caplog.records


def test_rows_of_another_data_set_are_never_taken(tmp_path):
    """Prevents a file with a right checksum and a wrong number of rows from shifting all others."""
    teacher, _ = pair_for("questions")
    data = Rows("questions")
    taught = cache_teacher_outputs(teacher, data, collator_for("questions"), tmp_path)
    right = np.array(taught.values)
    path, about = next(tmp_path.glob("*.npy")), next(tmp_path.glob("*.json"))
    np.save(path, np.zeros((3, 2), np.float32))
    record = json.loads(about.read_text())
    record["sha256"] = teacher_outputs.sha256_of_file(path)
    about.write_text(json.dumps(record))
    again = cache_teacher_outputs(teacher, data, collator_for("questions"), tmp_path)
    assert np.array_equal(again.values, right)


def test_each_of_what_changes_the_outputs_has_its_own_file(tmp_path, saved, monkeypatch):
    """Prevents a student from learning what another teacher said, or of other data."""
    first, data, collate = saved("questions"), Rows("questions"), collator_for("questions")
    shuffled = Rows("questions")
    shuffled.examples.reverse()
    moved = Rows("questions")
    ids = moved.examples[0]["input_ids"], moved.examples[1]["input_ids"]
    joined = np.concatenate(ids)
    moved.examples[0]["input_ids"], moved.examples[1]["input_ids"] = joined[:5], joined[5:]
    types = Rows("questions")
    types.examples[3]["token_type_ids"] = 1 - types.examples[3]["token_type_ids"]
    for example in moved.examples:
        del example["token_type_ids"]
    bare = Rows("questions")
    for example in bare.examples:
        del example["token_type_ids"]
    lists = [{"input_ids": example["input_ids"].tolist()} for example in data.examples]
    whole, cut = (
        [{**row, "attention_mask": [1] * (len(row["input_ids"]) - n) + [0] * n} for row in lists]
        for n in (0, 1)
    )
    moved_on = [{**row, "position_ids": [5] * len(row["input_ids"])} for row in lists]
    by_tokenizer = transformers.DataCollatorWithPadding(tiny.wordpiece())
    other_config = shutil.copytree(first, tmp_path / "other")
    config = json.loads((other_config / "config.json").read_text())
    (other_config / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    model, same_weights = (pair_for("questions")[0] for _ in range(2))
    same_weights.config.hidden_act = "relu"
    wide = collator_for("questions", WIDTH)
    calls = [
        (first, data, collate, {}),
        (saved("questions", teacher_seed=1), data, collate, {}),
        (first, Rows("questions", seed=1), collate, {}),
        (first, shuffled, collate, {}),
        (first, types, collate, {}),
        (first, bare, collate, {}),
        (first, moved, collate, {}),
        (first, data, collate, {"bf16": True}),
        (first, data, wide, {"over_all_positions": True}),
        (first, data, collator_for("questions", 40), {"over_all_positions": True}),
        (first, data, Collator(7, WIDTH), {"over_all_positions": True}),
        (first, whole, by_tokenizer, {}),
        (first, cut, by_tokenizer, {}),
        (first, moved_on, collate, {}),
        (other_config, data, collate, {}),
        (model, data, collate, {}),
        (same_weights, data, collate, {}),
    ]
    for number, (teacher, rows, collator, settings) in enumerate(calls, 1):
        cache_teacher_outputs(teacher, rows, collator, tmp_path / "kept", **settings)
        assert len(list((tmp_path / "kept").glob("*.npy"))) == number
    for teacher, rows, collator, settings in calls:
        cache_teacher_outputs(teacher, rows, collator, tmp_path / "kept", **settings)
    assert len(list((tmp_path / "kept").glob("*.npy"))) == len(calls)
    monkeypatch.setattr(teacher_outputs, "_RECIPE", 0)
    cache_teacher_outputs(first, data, collate, tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("*.npy"))) == len(calls) + 1


def test_the_padding_is_read_wherever_there_is_some(tmp_path):
    """Prevents what padding is made of from going unseen since the first example has none."""
    teacher, _ = pair_for("questions")
    data = Rows("questions", [WIDTH, 9])
    first, second = (
        cache_teacher_outputs(
            teacher, data, Collator(pad, WIDTH), tmp_path, over_all_positions=True
        )
        for pad in (0, 1)
    )
    assert np.array_equal(first.values[:WIDTH], second.values[:WIDTH])
    assert not np.array_equal(first.values[WIDTH:], second.values[WIDTH:])


def test_labels_do_not_matter_and_neither_do_types_of_numbers(tmp_path):
    """Prevents a second computation for the same ids in lists, or with another label."""
    teacher, _ = pair_for("classification")
    data, listed = Rows("classification"), []
    for example in data.examples:
        ids = {name: example[name].tolist() for name in ("input_ids", "token_type_ids")}
        listed.append({**ids, "labels": 0})
    cache_teacher_outputs(teacher, data, collator_for("classification"), tmp_path)
    cache_teacher_outputs(teacher, listed, collator_for("classification"), tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 1


def _cache(teacher, folder, start):
    start.wait()
    taught = cache_teacher_outputs(teacher, Rows("questions"), collator_for("questions"), folder)
    return np.array(taught.values)


def _work(teacher, folder, start, ended):
    made = []
    compute = teacher_outputs._TeacherPass.outputs
    teacher_outputs._TeacherPass.outputs = lambda *a, **k: made.append(1) or compute(*a, **k)
    ended.put((len(made), _cache(teacher, folder, start).tobytes(), len(made)))


def test_two_processes_at_once_compute_once(tmp_path, saved):
    """Prevents every worker of a sweep from asking the teacher, or from reading half a file."""
    context = multiprocessing.get_context("fork")
    start, ended = context.Barrier(2), context.Queue()
    settings = (saved("questions"), str(tmp_path / "kept"), start, ended)
    workers = [context.Process(target=_work, args=settings) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [ended.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert sorted(computed for _, _, computed in found) == [0, 1]
    assert found[0][1] == found[1][1]


def test_what_may_only_be_read_is_opened(tmp_path):
    """Prevents a shared folder's outputs from being refused since no lock can be had there."""
    teacher, _ = pair_for("questions")
    data = Rows("questions")
    made = cache_teacher_outputs(teacher, data, collator_for("questions"), tmp_path)
    lock = next(tmp_path.glob("*.npy")).with_suffix(".lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()  # nobody can open it, root neither
    opened = cache_teacher_outputs(teacher, data, collator_for("questions"), tmp_path)
    assert np.array_equal(opened.values, made.values)
    next(tmp_path.glob("*.json")).unlink()
    with pytest.raises(UserError, match=f"{lock}: that path is a folder, not a file"):
        cache_teacher_outputs(teacher, data, collator_for("questions"), tmp_path)


def test_what_a_killed_process_left_is_removed(tmp_path):
    """Prevents gigabytes of half files that nobody would ever look for."""
    teacher, _ = pair_for("questions")
    cache_teacher_outputs(teacher, Rows("questions"), collator_for("questions"), tmp_path)
    path = next(tmp_path.glob("*.npy"))
    path.with_suffix(".json").unlink()
    names = (f".{path.name}.7-ab.tmp", f".{path.stem}.json.7-ab.tmp", ".another.npy.7-ab.tmp")
    for name in names:
        (tmp_path / name).write_text("half")
    cache_teacher_outputs(teacher, Rows("questions"), collator_for("questions"), tmp_path)
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [".another.npy.7-ab.tmp"]


# --- what is refused


def test_a_teacher_that_says_nan(tmp_path, saved):
    """Fault 8: prevents NaN from being kept, to be found by every later run."""
    kept = tmp_path / "kept"
    model, _ = pair_for("questions")
    with torch.no_grad():
        model.qa_outputs.bias[1] = float("nan")
    for teacher in (model, tmp_path / "broken"):
        model.save_pretrained(tmp_path / "broken")
        with pytest.raises(RunFailed, match="not finite"):
            cache_teacher_outputs(teacher, Rows("questions"), collator_for("questions"), kept)
        assert folder_content(kept) == {}


def test_a_folder_that_cannot_be_written_to(tmp_path):
    """Prevents a traceback instead of a line where a file stands in the way."""
    teacher, _ = pair_for("classification")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        cache_teacher_outputs(
            teacher, Rows("classification"), collator_for("classification"), tmp_path / "file" / "x"
        )


def test_no_room(tmp_path):
    """Prevents the one word OSError instead of why: numpy alone would say no more of half a write.

    The limit holds the header, and not all that follows.
    """
    teacher, _ = pair_for("questions")
    with (
        file_size_limit(1000),
        pytest.raises(RunFailed, match=f"^{tmp_path}: a file size limit is reached"),
    ):
        cache_teacher_outputs(teacher, Rows("questions"), collator_for("questions"), tmp_path)
    assert folder_content(tmp_path) == {}


@pytest.mark.parametrize("leave", [0, 4096])
def test_a_really_full_disk(tmp_path, leave):
    """Prevents half of a teacher's outputs, and a line without the folder or "disk full"."""
    teacher, _ = pair_for("questions")
    with small_disk(tmp_path / "small", "64k") as folder:
        filler = fill(folder, leave)
        with pytest.raises(RunFailed, match=f"^{folder}: the disk is full"):
            cache_teacher_outputs(teacher, Rows("questions"), collator_for("questions"), folder)
        filler.unlink()
        assert folder_content(folder) == {}


def test_a_folder_in_the_place_of_the_outputs_is_named(tmp_path):
    """Prevents "that path is a folder, not a file" of a path that has to be a folder."""
    teacher, _ = pair_for("questions")
    cache_teacher_outputs(teacher, Rows("questions"), collator_for("questions"), tmp_path)
    path = next(tmp_path.glob("*.npy"))
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=f"^{path}: that path is a folder, not a file"):
        cache_teacher_outputs(teacher, Rows("questions"), collator_for("questions"), tmp_path)


def test_data_that_cannot_be_read_are_not_the_folders_fault(tmp_path):
    """Prevents a line that sends people to the wrong folder."""
    teacher, _ = pair_for("questions")
    data, read = Rows("questions"), []

    class Torn(Rows):
        def __getitem__(self, index):
            read.append(index)
            if len(read) > len(data) + 3:  # once they are read, and while they are asked about
                raise PermissionError(13, "Permission denied", "/data/rows.arrow")
            return super().__getitem__(index)

    with pytest.raises(PermissionError, match=r"/data/rows\.arrow"):
        cache_teacher_outputs(teacher, Torn("questions"), collator_for("questions"), tmp_path)
    assert folder_content(tmp_path) == {}
    assert len(cache_teacher_outputs(teacher, data, collator_for("questions"), tmp_path)) == len(
        data
    )


def test_a_teacher_in_no_folder(tmp_path, saved, monkeypatch):
    """Prevents a model's name from being looked for on the Hub, and ~ from being a folder's."""
    settings = (Rows("classification"), collator_for("classification"), tmp_path / "kept")
    with pytest.raises(UserError, match="distilbert: no such folder; pass"):
        cache_teacher_outputs("distilbert", *settings)
    folder = Path(saved("classification"))
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(cache_teacher_outputs(f"~/{folder.name}", *settings)) == len(Rows("classification"))


@pytest.mark.parametrize("over", [False, True])
def test_no_examples(over, tmp_path):
    """Prevents an index error for a data set in which nothing was left."""
    teacher, _ = pair_for("questions")
    settings = {"over_all_positions": over}
    with pytest.raises(UserError, match="has no examples"):
        cache_teacher_outputs(teacher, [], collator_for("questions", WIDTH), tmp_path, **settings)


def test_a_teacher_that_is_none(tmp_path):
    """Prevents a traceback for a folder that holds no model, or no weights."""
    (tmp_path / "empty").mkdir()
    for kind, said in (("empty", "config cannot be used"), ("body", "holds no weights")):
        (tmp_path / "body").mkdir(exist_ok=True)
        pair_for("classification")[0].config.save_pretrained(tmp_path / "body")
        with pytest.raises(UserError, match=said):
            cache_teacher_outputs(
                tmp_path / kind,
                Rows("classification"),
                collator_for("classification"),
                tmp_path / "kept",
            )
    assert not list(tmp_path.glob("kept/*.npy"))


def test_a_model_without_a_task(tmp_path):
    """Prevents a language model's logits, a whole vocabulary wide, from filling the disk."""
    with pytest.raises(UserError, match="a BertForMaskedLM, which has no task head"):
        cache_teacher_outputs(tiny.bert(1), Rows("questions"), collator_for("questions"), tmp_path)


def test_outputs_over_all_positions_want_questions_and_one_width(tmp_path):
    """Prevents a soft target that depends on which examples were asked about together."""
    teacher, _ = pair_for("classification")
    settings = {"over_all_positions": True}
    with pytest.raises(UserError, match="for question answering"):
        cache_teacher_outputs(
            teacher, Rows("classification"), collator_for("classification"), tmp_path, **settings
        )
    teacher, _ = pair_for("questions")
    with pytest.raises(UserError, match="a batch has width"):
        cache_teacher_outputs(
            teacher, Rows("questions"), collator_for("questions"), tmp_path, **settings
        )
    assert folder_content(tmp_path) == {}
