"""What a teacher says is computed once, kept whole, and equal to asking it at every step."""

import json
import multiprocessing
import random

import numpy as np
import pytest
import tiny
import torch
import transformers
import updates
from lessons import WIDTH, Rows, collator_for, pair_for

from angels_share.errors import RunFailed, UserError
from distil_trainer import (
    DistilTrainer,
    DistilTrainingArguments,
    TaughtDataset,
    harness,
    remember,
    teacher_outputs,
)
from eval_harness.encoding import Encoded

KINDS = ("classification", "regression", "tokens", "questions")


@pytest.fixture
def saved(tmp_path):
    def save(kind, **settings):
        folder = tmp_path / f"teacher-{kind}-{settings}"
        pair_for(kind, **settings)[0].save_pretrained(folder)
        return str(folder)

    return save


def arguments(tmp_path, **settings):
    return {
        "output_dir": str(tmp_path / "out"), "report_to": [], "use_cpu": True,
        "disable_tqdm": True, "save_strategy": "no", "max_steps": 6, "learning_rate": 0.1,
        "per_device_train_batch_size": 4, "max_grad_norm": 1.0,
        # Adam makes a step of any gradient, of the rounding of one that is zero too.
        "optim": "sgd", **settings,
    }  # fmt: skip


OPTIONS = {"alpha_ce": 0.5, "alpha_task": 0.5, "temperature": 2.0}


def trained(kind, tmp_path, folders, *, data=None, width=None, options=None, **settings):
    """The student's weights after a few steps in the harness' own way, dropout and all."""
    _, student = pair_for(kind)
    trainer = harness.make_trainer(
        student,
        arguments(tmp_path, **settings),
        options=OPTIONS | (options or {}),
        folders=folders,
        train_dataset=Rows(kind) if data is None else data,
        data_collator=collator_for(kind, width),
    )
    trainer.train()
    return {name: value.detach().clone() for name, value in student.named_parameters()}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, {}) for kind in KINDS),
        ("questions", {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}),
        ("questions", {"bf16": True}),
        ("questions", {"dataloader_num_workers": 1}),
        ("classification", {"train_sampling_strategy": "group_by_length"}),
        ("questions", {"over": True}),
    ],
)
def test_training_is_the_same_with_and_without_kept_outputs(kind, settings, tmp_path, saved):
    """Prevents outputs of another example, at another place, or of a teacher with dropout.

    Six steps are two epochs, so that most outputs are used twice.
    """
    settings = dict(settings)
    over = settings.pop("over", False)
    more = {"width": WIDTH, "options": {"kd_over_all_positions": True}} if over else {}
    folders = {"teacher": saved(kind)}
    asked = trained(kind, tmp_path, folders, **settings, **more)
    kept_in = {**folders, "outputs": str(tmp_path / "kept")}
    kept = trained(kind, tmp_path, kept_in, **settings, **more)
    again = trained(kind, tmp_path, kept_in, **settings, **more)
    other = trained(kind, tmp_path, {"teacher": saved(kind, teacher_seed=5)}, **settings, **more)
    loose = "bf16" in settings  # where a rounding is 2**-8 of a number
    for name, value in asked.items():
        torch.testing.assert_close(
            kept[name], value, rtol=1e-5, atol=2e-4 if loose else 1e-6, msg=name
        )
        assert torch.equal(again[name], kept[name]), f"{name} differs from one seed to the next"
    assert any((other[name] - value).abs().max() > 1e-3 for name, value in asked.items())


@pytest.mark.parametrize("kind", KINDS)
def test_without_padding_it_is_the_same_to_the_bit(kind, tmp_path, saved):
    """Prevents outputs that are rounded when they are kept: float32 holds what was computed."""
    data = Rows(kind, [16] * 4)
    folders = {"teacher": saved(kind)}
    asked = trained(kind, tmp_path, folders, data=data)
    kept = trained(kind, tmp_path, {**folders, "outputs": str(tmp_path / "kept")}, data=data)
    assert all(torch.equal(kept[name], value) for name, value in asked.items())


@pytest.mark.parametrize("kind", KINDS)
def test_each_example_bears_what_its_teacher_says_of_it(kind, tmp_path):
    """Prevents rows that are off by one example, or padding among them."""
    teacher, _ = pair_for(kind)
    data = Rows(kind)
    taught = remember(teacher, data, collator_for(kind), tmp_path, batch_size=5)
    assert len(taught) == len(data)
    for example, learned in zip(data.examples, map(taught.__getitem__, range(12)), strict=True):
        inputs = {
            name: torch.as_tensor(example[name], dtype=torch.int64)[None]
            for name in ("input_ids", "token_type_ids")
        }
        with torch.no_grad():
            output = teacher(**inputs)
        if kind == "questions":
            alone = torch.stack([output.start_logits, output.end_logits], -1)[0]
        else:
            alone = output.logits[0] if kind == "tokens" else output.logits
        found = torch.from_numpy(np.array(learned["teacher_outputs"]))
        torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)
        assert {name: learned[name] is example[name] for name in example}
        assert isinstance(learned["teacher_outputs"].base.base, np.memmap)


def test_padding_on_the_left_and_masks_of_ones_own(tmp_path):
    """Prevents rows that are put to the tokens at the wrong end of a batch, in a user's script."""
    teacher, _ = pair_for("questions")
    tokenizer = tiny.wordpiece()
    tokenizer.padding_side = "left"
    rows = [
        {"input_ids": [2] + [7 + n] * (3 + 4 * n) + [3], "attention_mask": [1] * (5 + 4 * n),
         "start_positions": 1, "end_positions": 2}
        for n in range(4)
    ]  # fmt: skip
    rows[0] = {**rows[0], "input_ids": [*rows[0]["input_ids"], 0, 0],
               "attention_mask": [*rows[0]["attention_mask"], 0, 0]}  # fmt: skip
    collate = transformers.DataCollatorWithPadding(tokenizer)
    taught = remember(teacher, rows, collate, tmp_path)
    batch = taught.collator(collate)([taught[n] for n in range(4)])
    outputs = batch.pop("teacher_outputs")
    with torch.no_grad():
        asked = teacher(**{name: batch[name] for name in ("input_ids", "attention_mask")})
    attended = batch["attention_mask"].bool()
    torch.testing.assert_close(
        outputs[attended],
        torch.stack([asked.start_logits, asked.end_logits], -1)[attended],
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    assert not outputs[~attended].any()


@pytest.mark.parametrize("kind", ["classification", "tokens", "questions"])
def test_a_script_of_ones_own(kind, tmp_path):
    """Prevents the public way from being another than the harness': lists, the Trainer's collator.

    Evaluation's examples bear no outputs and need none.
    """
    teacher, student, rows = updates.pair(kind)
    tokenizer = tiny.wordpiece()
    kinds = {"tokens": transformers.DataCollatorForTokenClassification}
    collate = kinds.get(kind, transformers.DataCollatorWithPadding)(tokenizer)
    settings = {"teacher": teacher, "data": rows, "per_device_train_batch_size": 4}
    loss, gradient, _ = updates.one_update(
        kind, tmp_path, **settings, gradient_accumulation_steps=2
    )
    taught = remember(teacher, rows, collate, tmp_path / "kept")
    settings |= {"teacher": [], "data": taught, "eval_data": rows, "student": student}
    kept, kept_gradient, trainer = updates.one_update(
        kind, tmp_path, **settings, gradient_accumulation_steps=2
    )
    assert trainer.teachers == []
    assert kept == pytest.approx(loss, rel=1e-5)
    for name, value in gradient.items():
        torch.testing.assert_close(kept_gradient[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert trainer.evaluate()["eval_loss"] > 0


def test_a_second_seed_needs_no_teacher(tmp_path, saved, monkeypatch):
    """Prevents a teacher that is loaded, and data that are read, again for every seed."""
    folders = {"teacher": saved("classification"), "outputs": str(tmp_path / "kept")}
    data, read = Rows("classification"), []
    trained("classification", tmp_path, folders, data=data, seed=1)
    monkeypatch.setattr(teacher_outputs, "load_fine_tuned", None)
    content = teacher_outputs._content_of_data
    monkeypatch.setattr(
        teacher_outputs, "_content_of_data", lambda rows: read.append(1) or content(rows)
    )
    trained("classification", tmp_path, folders, data=data, seed=2)
    assert not read, "the data set that was seen last is known"
    trained("classification", tmp_path, folders, seed=2)
    assert len(read) == 1, "another one of the same content is read, and nobody is asked"


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
    remember(teacher, data, collator_for("questions"), kept)
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
    remember(teacher, data, collator_for("questions"), kept)
    assert folder_content(kept) == before
    lines = [entry.getMessage() for entry in caplog.records]
    assert len(lines) == (0 if damage == "no record" else 1)
    assert all(str(path) in line and "\n" not in line for line in lines)
    caplog.clear()
    remember(teacher, data, collator_for("questions"), kept)
    assert not caplog.records


def test_rows_of_another_data_set_are_never_taken(tmp_path):
    """Prevents a file with a right checksum and a wrong number of rows from shifting all others."""
    teacher, _ = pair_for("questions")
    data = Rows("questions")
    taught = remember(teacher, data, collator_for("questions"), tmp_path)
    right = np.array(taught.values)
    path, about = next(tmp_path.glob("*.npy")), next(tmp_path.glob("*.json"))
    np.save(path, np.zeros((3, 2), np.float32))
    record = json.loads(about.read_text())
    record["sha256"] = teacher_outputs.sha256_of_file(path)
    about.write_text(json.dumps(record))
    again = remember(teacher, data, collator_for("questions"), tmp_path)
    assert np.array_equal(again.values, right)


def test_each_of_what_changes_the_outputs_has_its_own_file(tmp_path, saved):
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
    ]
    for number, (teacher, rows, collator, settings) in enumerate(calls, 1):
        remember(teacher, rows, collator, tmp_path / "kept", **settings)
        assert len(list((tmp_path / "kept").glob("*.npy"))) == number
    for teacher, rows, collator, settings in calls:
        remember(teacher, rows, collator, tmp_path / "kept", **settings)
    assert len(list((tmp_path / "kept").glob("*.npy"))) == len(calls)


def test_labels_do_not_matter_and_neither_do_types_of_numbers(tmp_path):
    """Prevents a second computation for the same ids in lists, or with another label."""
    teacher, _ = pair_for("classification")
    data, listed = Rows("classification"), []
    for example in data.examples:
        ids = {name: example[name].tolist() for name in ("input_ids", "token_type_ids")}
        listed.append({**ids, "labels": 0})
    remember(teacher, data, collator_for("classification"), tmp_path)
    remember(teacher, listed, collator_for("classification"), tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_a_teacher_that_says_nan(tmp_path, saved):
    """Fault 8: prevents NaN from being kept, to be found by every later run."""
    kept = tmp_path / "kept"
    model, _ = pair_for("questions")
    with torch.no_grad():
        model.qa_outputs.bias[1] = float("nan")
    for teacher in (model, tmp_path / "broken"):
        model.save_pretrained(tmp_path / "broken")
        with pytest.raises(RunFailed, match="not finite"):
            remember(teacher, Rows("questions"), collator_for("questions"), kept)
        assert folder_content(kept) == {}


def test_no_random_number_is_drawn(tmp_path, saved):
    """Prevents a run that computes outputs from seeing other dropout than one that opens them."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    remember(saved("questions"), Rows("questions"), collator_for("questions"), tmp_path / "kept")
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    assert np.array_equal(before[2], after[2])


def _remember(teacher, folder, start):
    start.wait()
    taught = remember(teacher, Rows("questions"), collator_for("questions"), folder)
    return np.array(taught.values)


def _work(teacher, folder, start, ended):
    made = []
    compute = teacher_outputs._Asking.all
    teacher_outputs._Asking.all = lambda *a, **k: made.append(1) or compute(*a, **k)
    ended.put((len(made), _remember(teacher, folder, start).tobytes(), len(made)))


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


# --- what is refused


def test_a_folder_that_cannot_be_written_to(tmp_path):
    """Prevents a traceback instead of a line where a file stands in the way."""
    teacher, _ = pair_for("classification")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        remember(
            teacher, Rows("classification"), collator_for("classification"), tmp_path / "file" / "x"
        )


def test_a_teacher_that_is_none(tmp_path):
    """Prevents a traceback for a folder that holds no model, or no weights."""
    (tmp_path / "empty").mkdir()
    for kind, said in (("empty", "config cannot be used"), ("body", "holds no weights")):
        (tmp_path / "body").mkdir(exist_ok=True)
        pair_for("classification")[0].config.save_pretrained(tmp_path / "body")
        with pytest.raises(UserError, match=said):
            remember(
                tmp_path / kind,
                Rows("classification"),
                collator_for("classification"),
                tmp_path / "kept",
            )
    assert not list(tmp_path.glob("kept/*.npy"))


@pytest.mark.parametrize(
    ("kind", "of", "settings", "teacher", "said"),
    [
        ("classification", "questions", {}, None, "the student's task is ForSequenceClassif"),
        ("classification", "regression", {}, None, "the student's labels are"),
        ("classification", "classification", {}, "one too many", "leave teacher out"),
        ("classification", "classification", {"kd_over_all_positions": True}, None, "for question"),
        ("questions", "questions", {"kd_over_all_positions": True}, None, "say the same to both"),
    ],
)
def test_outputs_that_do_not_fit(kind, of, settings, teacher, said, tmp_path):
    """Prevents soft targets of another task, with other labels, or of other positions."""
    theirs, _ = pair_for(of)
    _, student = pair_for(kind)
    taught = remember(theirs, Rows(of), collator_for(of), tmp_path / "kept")
    with pytest.raises(UserError, match=said):
        DistilTrainer(
            student,
            DistilTrainingArguments(**arguments(tmp_path, **settings)),
            teacher=theirs if teacher else None,
            train_dataset=taught,
            data_collator=collator_for(kind),
        )


def test_a_model_without_a_task(tmp_path):
    """Prevents a language model's logits, a whole vocabulary wide, from filling the disk."""
    with pytest.raises(UserError, match="a BertForMaskedLM has no task's head"):
        remember(tiny.bert(1), Rows("questions"), collator_for("questions"), tmp_path)


def test_outputs_over_all_positions_want_questions_and_one_width(tmp_path):
    """Prevents a soft target that depends on which examples were asked about together."""
    teacher, _ = pair_for("classification")
    settings = {"over_all_positions": True}
    with pytest.raises(UserError, match="for question answering"):
        remember(
            teacher, Rows("classification"), collator_for("classification"), tmp_path, **settings
        )
    teacher, _ = pair_for("questions")
    with pytest.raises(UserError, match="a batch of width"):
        remember(teacher, Rows("questions"), collator_for("questions"), tmp_path, **settings)
    assert folder_content(tmp_path) == {}


def test_a_language_model_learns_from_no_kept_outputs(tmp_path):
    """Prevents outputs of a task from being handed to a trainer that would pass them by."""
    teacher, _ = pair_for("classification")
    taught = remember(teacher, Rows("classification"), collator_for("classification"), tmp_path)
    assert isinstance(taught, TaughtDataset)
    with pytest.raises(UserError, match="the student's task is none of these"):
        updates.trainer_for("masked", tmp_path, teacher=[], data=taught)


def test_a_resumed_run_has_the_same_teacher(tmp_path):
    """Prevents a run from going on with what another teacher said."""
    data, runs = Rows("classification"), []
    for seed in (0, 1):
        teacher, student = pair_for("classification", teacher_seed=seed)
        runs.append(
            DistilTrainer(
                student,
                DistilTrainingArguments(**arguments(tmp_path, save_strategy="steps", save_steps=3)),
                train_dataset=remember(
                    teacher, data, collator_for("classification"), tmp_path / "kept"
                ),
                data_collator=collator_for("classification"),
            )
        )
    runs[0].train()
    assert runs[0].train(resume_from_checkpoint=True).global_step == 6
    with pytest.raises(UserError, match="teachers"):
        runs[1].train(resume_from_checkpoint=True)


def test_the_harness_tells_which_length_a_teacher_reads(tmp_path, saved):
    """Prevents an index error from the teacher's position table, deep inside a batch."""
    data = Rows("classification", [70, 12])
    with pytest.raises(UserError, match="the teacher reads 64 tokens and the longest text has 70"):
        trained(
            "classification", tmp_path,
            {"teacher": saved("classification"), "outputs": str(tmp_path / "kept")}, data=data,
        )  # fmt: skip


def test_the_harness_own_data_sets_are_taken(tmp_path, saved):
    """Prevents a cache that only the tests' data sets can use."""
    rows = Rows("classification")
    ids = np.concatenate([example["input_ids"] for example in rows.examples])
    labels = np.array([example["labels"] for example in rows.examples])
    data = Encoded(ids, None, np.concatenate([[0], np.cumsum(rows.lengths)]), labels)
    folders = {"teacher": saved("classification")}
    asked = trained("classification", tmp_path, folders, data=data)
    kept = trained(
        "classification", tmp_path, {**folders, "outputs": str(tmp_path / "kept")}, data=data
    )
    for name, value in asked.items():
        torch.testing.assert_close(kept[name], value, rtol=1e-5, atol=1e-6, msg=name)
