"""Students, teachers and data that would be trained on in another way than they look."""

import copy
import logging

import numpy as np
import pytest
import tiny
import torch
import updates

from angels_share.errors import UserError
from distil_trainer import DistilTrainer, DistilTrainingArguments, make_student
from distil_trainer.training.checks import check_tokenizers


def trainer(tmp_path, kind="masked", **settings):
    return updates.trainer_for(kind, tmp_path, **settings)


def trained(model):
    return sum(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_a_model_with_adapters(whose, tmp_path):
    """Prevents LoRA on the decoder, which the head bypasses, from never being trained."""
    teacher, student, _ = updates.pair("masked")
    model = {"student": student, "teacher": teacher}[whose]
    body = model.distilbert if whose == "student" else model.bert
    adapter = type("LoraLayer", (torch.nn.Linear,), {"__module__": "peft.tuners.lora.layer"})
    body.embeddings.adapter = adapter(2, 2)
    with pytest.raises(UserError, match=rf"the {whose} has peft adapters.*{whose}\.merge_and_unl"):
        trainer(tmp_path, student=student, teacher=teacher)


def test_modules_shared_with_the_teacher(tmp_path):
    """Prevents a student most of whose parameters are frozen with its teacher."""
    teacher = tiny.bert(layers=2)
    student = tiny.bert(layers=2, seed=1)
    student.bert.encoder = teacher.bert.encoder
    before = trained(student)
    said = r"share 32 of the student's 42 parameters, e\.g\. bert\.encoder\.layer\.0\..*deepcopy"
    with pytest.raises(UserError, match=said):
        trainer(tmp_path, student=student, teacher=teacher)
    assert trained(student) == before, "refused before anything was frozen"
    student.bert.encoder = copy.deepcopy(teacher.bert.encoder)
    trainer(tmp_path, student=student, teacher=teacher)


def test_memory_shared_with_the_teacher(tmp_path):
    """Prevents a teacher that changes as its student is trained."""
    teacher = tiny.bert(layers=2)
    student = make_student(teacher, num_layers=1)
    weight = student.distilbert.embeddings.word_embeddings.weight
    weight.data = teacher.bert.embeddings.word_embeddings.weight.data
    with pytest.raises(UserError, match=r"share 1 of .*word_embeddings"):
        trainer(tmp_path, student=student, teacher=[tiny.bert(layers=2, seed=4), teacher])


def test_a_student_in_float16(tmp_path):
    """Prevents gradients that underflow to 0 in half precision."""
    _, student, _ = updates.pair("masked")
    with pytest.raises(UserError, match=r"float16, .*dtype=torch\.float32.*bf16=True"):
        trainer(tmp_path, student=student.half())


def test_a_student_in_bfloat16(tmp_path, caplog):
    """Prevents small updates from being lost without a word."""
    _, student, _ = updates.pair("masked")
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path)
        assert "bfloat16" not in caplog.text
        trainer(tmp_path, student=student.bfloat16())
    assert caplog.text.count("updates below 1/256 of a weight are lost") == 1


def permuted():
    """A tokenizer with as many tokens as `wordpiece`, two of them exchanged."""
    lines = [line.replace("teacher", "tutor") for line in tiny.LINES]
    return tiny.wordpiece(lines)


def test_another_vocabulary_of_the_same_size():
    """Prevents soft targets for other words than the student's."""
    ours, theirs, teacher = tiny.wordpiece(), permuted(), tiny.bert()
    assert len(ours.get_vocab()) == len(theirs.get_vocab())
    check_tokenizers(ours, [teacher], tiny.wordpiece())
    check_tokenizers(ours, [teacher])
    with pytest.raises(UserError, match="the tokenizers differ: token"):
        check_tokenizers(ours, [teacher], theirs)
    with pytest.raises(UserError, match="the tokenizers differ: token"):
        check_tokenizers(ours, [teacher, teacher], [ours, theirs])
    with pytest.raises(UserError, match="1 teacher_tokenizer for 2 teachers"):
        check_tokenizers(ours, [teacher, teacher], [ours])
    with pytest.raises(UserError, match="pass that as well"):
        check_tokenizers(None, [teacher], theirs)


def test_the_teachers_folder_tells_its_vocabulary(tmp_path):
    """Prevents a teacher with another vocabulary from being used because nobody said so."""
    folder = tiny.folder(tmp_path / "teacher", tiny.bert(layers=3), permuted())
    teacher = tiny.transformers.BertForMaskedLM.from_pretrained(folder)
    with pytest.raises(UserError, match="the tokenizers differ"):
        trainer(tmp_path / "out", teacher=teacher)
    with pytest.raises(UserError, match="the tokenizers differ"):
        check_tokenizers(tiny.wordpiece(), [tiny.bert()], folder)
    same = tiny.folder(tmp_path / "same", tiny.bert(layers=3), tiny.wordpiece())
    trainer(tmp_path / "out", teacher=tiny.transformers.BertForMaskedLM.from_pretrained(same))


@pytest.mark.parametrize(
    ("kind", "counts", "said"),
    [
        ("masked", np.ones(159), "token_counts has 159 numbers, .* 160 tokens"),
        ("masked", np.ones(161), "token_counts has 161 numbers, .* 160 tokens"),
        ("masked", np.full(160, np.nan), "other than finite numbers of 0 and more"),
        ("masked", np.full(160, -1), "other than finite numbers of 0 and more"),
        ("masked", ["many"] * 160, "other than finite numbers of 0 and more"),
        ("causal", np.ones(400), "would be ignored: only a masked"),
        ("classification", [1, 2], "would be ignored: only a masked"),
    ],
)
def test_token_counts_that_cannot_be_used(kind, counts, said, tmp_path):
    """Prevents tokens from another vocabulary, masks that mask nothing, and counts of no effect."""
    teacher, student, data = updates.pair(kind)
    arguments = DistilTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(UserError, match=said):
        DistilTrainer(
            student,
            arguments,
            teacher=teacher,
            train_dataset=data,
            processing_class=None if kind == "causal" else tiny.wordpiece(),
            token_counts=counts,
        )


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_weights_that_are_no_numbers(whose, tmp_path):
    """Prevents "lower the learning rate" where a model was damaged before it came here."""
    teacher, student, _ = updates.pair("masked")
    damaged = student if whose == "student" else teacher
    with torch.no_grad():
        next(damaged.parameters()).view(-1)[3] = float("nan")
    with pytest.raises(UserError, match=rf"the {whose}'s .*word_embeddings.* contains NaN"):
        trainer(tmp_path, student=student, teacher=teacher)


@pytest.mark.parametrize(
    ("kind", "wrong", "vocabulary"),
    [("masked", 160, 160), ("masked", -3, 160), ("causal", 400, 400), ("classification", 999, 160)],
)
def test_ids_beyond_the_vocabulary(kind, wrong, vocabulary, tmp_path):
    """Prevents an index error from an embedding, and on a GPU an abort that names nothing."""
    data = updates.pair(kind)[2]
    data[3]["input_ids"][2] = wrong
    with pytest.raises(UserError, match=f"token id {wrong}, but .* {vocabulary} tokens"):
        trainer(tmp_path, kind, data=data).train()


def test_token_counts_that_are_given_do_not_hide_wrong_ids(tmp_path):
    """Prevents ids from being checked only where they happen to be counted."""
    made = trainer(tmp_path)
    batch = {"input_ids": torch.tensor([[2, 5, 160]]), "labels": torch.tensor([[-100, 5, -100]])}
    with pytest.raises(UserError, match="token id 160"):
        made.objective.prepare(batch)
    batch = {"input_ids": torch.tensor([[2, 5, 3]]), "labels": torch.tensor([[-100, 170, -100]])}
    with pytest.raises(UserError, match="label 170"):
        made.objective.prepare(batch)


def test_several_labels_per_example(tmp_path):
    """Prevents 0s and 1s of several labels from being read as class numbers."""
    data = updates.pair("classification")[2]
    for row in data:
        row["labels"] = [1.0, 0.0, 1.0]
    with pytest.raises(UserError, match=r"labels are floating-point numbers .*not supported"):
        trainer(tmp_path, "classification", data=data).train()


def test_a_class_that_the_student_does_not_have(tmp_path):
    """Prevents a GPU's abort that names nothing where a label is out of range."""
    data = updates.pair("classification")[2]
    data[0]["labels"] = 3
    with pytest.raises(UserError, match="label 3, but the student has 3 classes, 0 to 2"):
        trainer(tmp_path, "classification", data=data).train()


@pytest.mark.parametrize(("shared", "warns"), [("True", True), ("False", False)])
def test_restarts_that_would_look_for_the_dead(tmp_path, monkeypatch, caplog, shared, warns):
    """Prevents a first restart, days into a run, that fails for a reason nobody could know of."""
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", shared)
    trainer(tmp_path)
    assert ("export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in caplog.text) is warns
