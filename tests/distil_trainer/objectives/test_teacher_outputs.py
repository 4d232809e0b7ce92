"""What a teacher says is computed once, kept whole, and equal to asking it at every step."""

import json
import random
from functools import partial

import numpy as np
import pytest
import tiny
import torch
import transformers
import updates
from lessons import WIDTH, Rows, collator_for, pair_for, saved_teacher

from angels_share.errors import RunFailed, UserError
from distil_trainer import (
    DistilTrainer,
    DistilTrainingArguments,
    TaughtDataset,
    cache_teacher_outputs,
    harness,
)
from distil_trainer.objectives import teacher_outputs
from eval_harness.training.encoding import Encoded

KINDS = ("classification", "regression", "tokens", "questions")


@pytest.fixture
def saved(tmp_path):
    return partial(saved_teacher, tmp_path)


def arguments(tmp_path, **settings):
    return {
        "output_dir": str(tmp_path / "out"), "report_to": [], "use_cpu": True,
        "disable_tqdm": True, "save_strategy": "no", "max_steps": 6, "learning_rate": 0.1,
        "per_device_train_batch_size": 4, "max_grad_norm": 1.0,
        # Adam makes a step of any gradient, of the rounding of one that is zero too.
        "optim": "sgd", **settings,
    }  # fmt: skip


OPTIONS = {"alpha_ce": 0.5, "alpha_task": 0.5, "temperature": 2.0}


def trainer_for(kind, tmp_path, folders, *, data=None, width=None, options=None, **settings):
    """The harness' own way."""
    return harness.make_trainer(
        pair_for(kind)[1],
        arguments(tmp_path, **settings),
        options=OPTIONS | (options or {}),
        folders=folders,
        train_dataset=Rows(kind) if data is None else data,
        data_collator=collator_for(kind, width),
    )


def trained(kind, tmp_path, folders, **rest):
    """The student's weights after a few steps, dropout and all."""
    trainer = trainer_for(kind, tmp_path, folders, **rest)
    trainer.train()
    return {name: value.detach().clone() for name, value in trainer.student.named_parameters()}


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
    taught = cache_teacher_outputs(teacher, data, collator_for(kind), tmp_path, batch_size=5)
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
        assert all(learned[name] is example[name] for name in example)
        assert isinstance(learned["teacher_outputs"].base.base, np.memmap)
    assert len(list(taught)) == len(data)
    with pytest.raises(IndexError):
        taught[-1]


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
    taught = cache_teacher_outputs(teacher, rows, collate, tmp_path)
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
    taught = cache_teacher_outputs(teacher, rows, collate, tmp_path / "kept")
    settings |= {"teacher": [], "data": taught, "eval_data": rows, "student": student}
    kept, kept_gradient, trainer = updates.one_update(
        kind, tmp_path, **settings, gradient_accumulation_steps=2
    )
    assert trainer.teachers == []
    assert kept == pytest.approx(loss, rel=1e-5)
    for name, value in gradient.items():
        torch.testing.assert_close(kept_gradient[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert trainer.evaluate()["eval_loss"] > 0


def test_the_old_name_still_works():
    """Prevents a release from breaking scripts that import `remember`."""
    with pytest.warns(FutureWarning, match="remember was renamed to cache_teacher_outputs") as seen:
        from distil_trainer import remember
    assert remember is cache_teacher_outputs
    assert {warning.filename for warning in seen} == {__file__}, "the user's line is shown"


def test_a_second_seed_needs_no_teacher(tmp_path, saved, monkeypatch):
    """Prevents a teacher that is loaded, and data that are read, again for every seed."""
    folders = {"teacher": saved("classification"), "outputs": str(tmp_path / "kept")}
    data, read = Rows("classification"), []
    trained("classification", tmp_path, folders, data=data, seed=1)
    monkeypatch.setattr(teacher_outputs, "load_fine_tuned", None)
    content = teacher_outputs._hash_data
    monkeypatch.setattr(teacher_outputs, "_hash_data", lambda rows: read.append(1) or content(rows))
    trained("classification", tmp_path, folders, data=data, seed=2)
    assert not read, "the data set that was seen last is known"
    trained("classification", tmp_path, folders, seed=2)
    assert len(read) == 1, "another one of the same content is read, and nobody is asked"


def test_what_was_looked_up_last_is_of_the_same_teacher_and_settings(tmp_path, saved):
    """Prevents a seed from learning what was computed for the seeds before it, of something else.

    A teacher that was trained again is another, in the same folder too.
    """
    data, kept = Rows("questions"), str(tmp_path / "kept")
    first, second = saved("questions"), saved("questions", teacher_seed=5)

    def last(teacher, **rest):
        folders = {"teacher": teacher, "outputs": kept}
        return trainer_for("questions", tmp_path, folders, data=data, **rest).train_dataset

    everywhere = {"options": {"kd_over_all_positions": True}}
    variants = [
        (first, {}), (second, {}), (first, {"bf16": True}), (first, {}),
        (first, {"width": WIDTH, **everywhere}), (first, {"width": 40, **everywhere}),
    ]  # fmt: skip
    seen = []
    for teacher, rest in variants:
        seen.append(last(teacher, **rest))
        assert last(teacher, **rest) is seen[-1]
    pair_for("questions", teacher_seed=7)[0].save_pretrained(first)
    seen.append(last(first, width=40, **everywhere))
    keys = [json.dumps(taught.source, sort_keys=True) for taught in seen]
    assert keys[3] == keys[0]
    assert len(set(keys)) == len(keys) - 1


def test_a_teacher_in_memory_is_loaded_again_once_it_was_trained_again(tmp_path, saved):
    """Prevents the folder's old teacher from being asked, for as long as the process lives."""
    folder = saved("questions")
    teachers = [
        trainer_for("questions", tmp_path, {"teacher": folder}).teachers[0] for _ in range(2)
    ]
    pair_for("questions", teacher_seed=5)[0].save_pretrained(folder)
    teachers += trainer_for("questions", tmp_path, {"teacher": folder}).teachers
    assert teachers[0] is teachers[1]
    weights = [teacher.qa_outputs.weight for teacher in teachers]
    assert not torch.equal(weights[1], weights[2])


def test_no_random_number_is_drawn(tmp_path, saved):
    """Prevents a run that computes outputs from seeing other dropout than one that opens them."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    cache_teacher_outputs(
        saved("questions"), Rows("questions"), collator_for("questions"), tmp_path / "kept"
    )
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    assert np.array_equal(before[2], after[2])


def test_a_teacher_in_training_is_asked_without_dropout(tmp_path):
    """Prevents soft targets with noise in them, from a model that was being trained."""
    teacher, _ = pair_for("questions")
    right = cache_teacher_outputs(
        teacher, Rows("questions"), collator_for("questions"), tmp_path / "right"
    )
    taught = cache_teacher_outputs(
        teacher.train(), Rows("questions"), collator_for("questions"), tmp_path / "kept"
    )
    assert np.array_equal(taught.values, right.values)


@pytest.mark.parametrize(
    ("kind", "of", "settings", "teacher", "said"),
    [
        ("classification", "questions", {}, None, "the student's task is ForSequenceClassif"),
        ("classification", "regression", {}, None, "the student's labels are"),
        ("classification", "classification", {}, "one too many", "so pass no teacher"),
        ("classification", "classification", {"kd_over_all_positions": True}, None, "for question"),
        (
            "questions",
            "questions",
            {"kd_over_all_positions": True},
            None,
            "the same value for both",
        ),
    ],
)
def test_outputs_that_do_not_fit(kind, of, settings, teacher, said, tmp_path):
    """Prevents soft targets of another task, with other labels, or of other positions."""
    theirs, _ = pair_for(of)
    _, student = pair_for(kind)
    taught = cache_teacher_outputs(theirs, Rows(of), collator_for(of), tmp_path / "kept")
    with pytest.raises(UserError, match=said):
        DistilTrainer(
            student,
            DistilTrainingArguments(**arguments(tmp_path, **settings)),
            teacher=theirs if teacher else None,
            train_dataset=taught,
            data_collator=collator_for(kind),
        )


def test_a_language_model_learns_from_no_kept_outputs(tmp_path):
    """Prevents outputs of a task from being handed to a trainer that would pass them by."""
    teacher, _ = pair_for("classification")
    taught = cache_teacher_outputs(
        teacher, Rows("classification"), collator_for("classification"), tmp_path
    )
    assert isinstance(taught, TaughtDataset)
    with pytest.raises(UserError, match="the student's task is DistilBertForMaskedLM"):
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
                train_dataset=cache_teacher_outputs(
                    teacher, data, collator_for("classification"), tmp_path / "kept"
                ),
                data_collator=collator_for("classification"),
            )
        )
    runs[0].train()
    assert runs[0].train(resume_from_checkpoint=True).global_step == 6
    with pytest.raises(UserError, match="teachers"):
        runs[1].train(resume_from_checkpoint=True)


def roberta_for(folder):
    """Of whose 66 positions two stand before the first token's."""
    tiny.roberta(
        1, model_class=transformers.RobertaForSequenceClassification, num_labels=3
    ).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("make", "longest", "width", "said"),
    [
        ("bert", 70, None, "the longest text has 70"),
        ("bert", 65, 80, "the longest text has 65"),
        ("bert", 64, 65, "all are padded to 65"),
        ("bert", 64, 64, None),
        ("roberta", 65, None, "the longest text has 65"),
        ("roberta", 64, 64, None),
    ],
)
@pytest.mark.parametrize("outputs", [False, True])
def test_the_harness_tells_which_length_a_teacher_reads(
    make, longest, width, said, outputs, tmp_path, saved
):
    """Prevents an index error from the teacher's position table, deep inside a batch."""
    folder = saved("classification") if make == "bert" else roberta_for(tmp_path / make)
    folders = {"teacher": folder, **({"outputs": str(tmp_path / "kept")} if outputs else {})}
    settings = {"data": Rows("classification", [longest, 12]), "width": width}
    if said is None:
        trainer = trainer_for("classification", tmp_path, folders, **settings)
        assert len(trainer.train_dataset) == 2
        return
    with pytest.raises(UserError, match=f"the teacher takes at most 64 tokens and {said}: set"):
        trainer_for("classification", tmp_path, folders, **settings)


def test_the_harness_knows_its_options(tmp_path, saved):
    """Fault 15: prevents a misspelt weight from leaving the weight as it is; a name is none."""
    folders = {"teacher": saved("classification")}
    with pytest.raises(UserError, match=r"unknown option 'alpha_cee'; .*did you mean 'alpha_ce'\?"):
        trainer_for("classification", tmp_path, folders, options={"alpha_cee": 1.0})
    options = {"teacher_model": "bert-0"}
    assert trainer_for("classification", tmp_path, folders, options=options).weights["alpha_ce"]


def test_a_batch_that_lost_its_outputs(tmp_path):
    """Prevents a training without any teacher, and with a loss that looks like any other's."""
    teacher, student = pair_for("classification")
    collate = collator_for("classification")
    trainer = DistilTrainer(
        student,
        DistilTrainingArguments(**arguments(tmp_path)),
        train_dataset=cache_teacher_outputs(
            teacher, Rows("classification"), collate, tmp_path / "kept"
        ),
        data_collator=collate,
    )
    trainer.data_collator = collate
    with pytest.raises(RunFailed, match="batch has no `teacher_outputs`"):
        trainer.train()


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
