"""Distilling a task: value and gradient against float64, whatever the batch and the masks."""

import pytest
import tiny
import torch
import transformers
import updates
from lessons import WIDTH, Rows, collator_for, pair_for
from torch.nn import functional

from angels_share.errors import UserError
from angels_share.inputs import inputs_of
from distil_trainer import DistilTrainer, DistilTrainingArguments, cache_teacher_outputs
from distil_trainer.objectives.task import TaskObjective, packed

ALPHA_CE, ALPHA_TASK, T = 0.7, 0.3, 3.0


def batch_of(kind, width=None, *, answer_mask=True):
    rows = Rows(kind)
    batch = collator_for(kind, width)([rows[index] for index in range(len(rows))])
    if not answer_mask:
        batch.pop("answer_mask", None)
    return batch


def in_float64(kind):
    teacher, student = (model.double().eval() for model in pair_for(kind))
    return teacher, student


def objective_of(objective, batch, answers):
    """The weighted objective of one batch, by its own counts."""
    soft, hard = objective.counts(batch).tolist()
    return objective(batch, answers, [ALPHA_CE / soft, ALPHA_TASK / hard])


def textbook_answers(student, teacher, batch, *, everywhere):
    """Mean over windows, and over start and end, of T² · KL and of the true labels' CE."""
    ours, theirs = (
        model(**{name: value for name, value in batch.items() if name in inputs_of(model)})
        for model in (student, teacher)
    )
    soft, hard = [], []
    for row in range(len(batch["input_ids"])):
        attended = batch["attention_mask"][row].bool()
        mask = batch["answer_mask"][row] if "answer_mask" in batch else attended
        if everywhere:
            attended = mask = torch.ones_like(attended)
        for end in ("start", "end"):
            z, t = (output[f"{end}_logits"][row] for output in (ours, theirs))
            p = (t[mask].detach() / T).softmax(-1)
            q = (z[mask] / T).log_softmax(-1)
            soft.append(T * T * (p * (p.log() - q)).sum())
            # No padding stands before a token here, so places stay what they are.
            place = batch[f"{end}_positions"][row]
            hard.append(-z[attended].log_softmax(-1)[place])
    return torch.stack(soft).mean(), torch.stack(hard).mean()


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("everywhere", "answer_mask"), [(False, True), (False, False), (True, True)]
)
def test_questions_equal_a_textbook_in_float64(everywhere, answer_mask, kept):
    """Prevents mass on padding or the question, a sum for a mean, T for T², start without end."""
    teacher, student = in_float64("questions")
    batch = batch_of("questions", WIDTH if everywhere else None, answer_mask=answer_mask)
    objective = TaskObjective(student, temperature=T, over_all_positions=everywhere)
    answer = objective.run_teacher(teacher, batch)
    outcome = objective_of(objective, batch, [packed(answer) if kept else answer])
    soft, hard = textbook_answers(student, teacher, batch, everywhere=everywhere)
    rows = 2 * len(batch["input_ids"])
    torch.testing.assert_close(outcome.sums / rows, torch.stack([soft, hard]).detach())
    weights = [value for value in student.parameters() if value.requires_grad]
    ours = torch.autograd.grad(outcome.objective, weights, retain_graph=True)
    theirs = torch.autograd.grad(ALPHA_CE * soft + ALPHA_TASK * hard, weights)
    assert max(gradient.abs().max() for gradient in theirs) > 1e-3
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_padding_counts_over_all_positions_only():
    """Prevents the option from doing nothing, and the default from depending on the padding."""
    teacher, student = in_float64("questions")
    values = {}
    for everywhere in (False, True):
        objective = TaskObjective(student, temperature=T, over_all_positions=everywhere)
        for width in (WIDTH, WIDTH + 8):
            batch = batch_of("questions", width)
            answer = objective.run_teacher(teacher, batch)
            values[everywhere, width] = objective_of(objective, batch, [answer]).objective
    torch.testing.assert_close(values[False, WIDTH], values[False, WIDTH + 8])
    assert abs(values[True, WIDTH] - values[True, WIDTH + 8]) > 1e-3
    assert abs(values[True, WIDTH] - values[False, WIDTH]) > 1e-3


@pytest.mark.parametrize(
    ("kind", "everywhere"),
    [
        ("classification", False),
        ("regression", False),
        ("tokens", False),
        ("questions", False),
        ("questions", True),
    ],
)
def test_a_student_that_is_its_teacher_learns_nothing_from_it(kind, everywhere):
    """Prevents a soft target of another shape, row, order or mask than the student's own."""
    teacher, _ = in_float64(kind)
    batch = batch_of(kind, WIDTH if everywhere else None)
    objective = TaskObjective(teacher, temperature=T, over_all_positions=everywhere)
    kept = packed(objective.run_teacher(teacher, batch))
    outcome = objective(batch, [kept], [1.0, 0.0])
    assert abs(float(outcome.sums[0])) < 1e-12
    gradients = torch.autograd.grad(outcome.objective, list(teacher.parameters()))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-12


def test_a_window_without_an_answer_has_its_place():
    """Prevents [CLS], which stands for no answer, from being masked: its loss would be infinite."""
    teacher, student = in_float64("questions")
    batch = batch_of("questions")
    for name in ("start_positions", "end_positions"):
        batch[name] = torch.zeros_like(batch[name])
    objective = TaskObjective(student, temperature=T)
    outcome = objective_of(objective, batch, [objective.run_teacher(teacher, batch)])
    soft, hard = textbook_answers(student, teacher, batch, everywhere=False)
    torch.testing.assert_close(outcome.objective, ALPHA_CE * soft + ALPHA_TASK * hard)
    assert torch.isfinite(outcome.objective)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_examples_equal_a_textbook_in_float64(kind):
    """Prevents kept outputs from being compared class by class with the wrong example's."""
    teacher, student = in_float64(kind)
    batch = batch_of(kind)
    objective = TaskObjective(student, temperature=T)
    kept = packed(objective.run_teacher(teacher, batch))
    outcome = objective_of(objective, batch, [kept])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    z = student(**inputs).logits
    t = teacher(**inputs, token_type_ids=batch["token_type_ids"]).logits.detach()
    if kind == "regression":
        soft = functional.mse_loss(z, t)
        hard = functional.mse_loss(z[:, 0], batch["labels"].double())
    else:
        p, q = (t / T).softmax(-1), (z / T).log_softmax(-1)
        soft = T * T * functional.kl_div(q, p, reduction="batchmean")
        hard = functional.cross_entropy(z, batch["labels"])
    expected = ALPHA_CE * soft + ALPHA_TASK * hard
    torch.testing.assert_close(outcome.objective, expected)
    weights = [value for value in student.parameters() if value.requires_grad]
    ours = torch.autograd.grad(outcome.objective, weights, retain_graph=True)
    for gradient, wanted in zip(ours, torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)


def one_update(tmp_path, *, kept, everywhere, **settings):
    """The loss and gradient of one update over all windows."""
    teacher, student, _ = updates.pair("questions")
    data = Rows("questions", (4, 21, 9, 30, 13, 6, 17, 25))
    collate = collator_for("questions", WIDTH if everywhere else None)
    arguments = DistilTrainingArguments(
        output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, disable_tqdm=True,
        save_strategy="no", max_steps=1, logging_steps=1, max_grad_norm=1e9,
        kd_over_all_positions=everywhere, **settings,
    )  # fmt: skip
    if kept:
        data = cache_teacher_outputs(
            teacher, data, collate, tmp_path / "kept", over_all_positions=everywhere, batch_size=3
        )
    trainer = DistilTrainer(
        student,
        arguments,
        teacher=None if kept else teacher,
        train_dataset=data,
        data_collator=collate,
    )
    seen = updates.Gradients()
    trainer.add_callback(seen)
    trainer.train()
    return trainer.state.log_history[0]["loss"], seen.last


@pytest.mark.parametrize("everywhere", [False, True])
def test_accumulation_and_keeping_change_nothing(everywhere, tmp_path):
    """Fault 9: prevents means of means, and outputs that follow another order than the windows."""
    whole, gradient = one_update(
        tmp_path, kept=False, everywhere=everywhere, per_device_train_batch_size=8
    )
    for size, steps in ((8, 1), (4, 2), (2, 4)):
        loss, found = one_update(
            tmp_path,
            kept=True,
            everywhere=everywhere,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
        )
        assert loss == pytest.approx(whole, rel=1e-5)
        for name, value in gradient.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kept", [False, True])
def test_batches_of_several_widths_over_all_positions(kept, tmp_path):
    """Prevents a loss that depends on which windows were drawn together."""
    teacher, student = pair_for("questions")
    data = Rows("questions")
    arguments = DistilTrainingArguments(
        output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, disable_tqdm=True,
        save_strategy="no", per_device_train_batch_size=4, kd_over_all_positions=True,
    )  # fmt: skip
    if kept:  # computed at one width, trained at others
        wide = collator_for("questions", WIDTH)
        data = cache_teacher_outputs(
            teacher, data, wide, tmp_path / "kept", over_all_positions=True
        )
    trainer = DistilTrainer(
        student,
        arguments,
        teacher=None if kept else teacher,
        train_dataset=data,
        data_collator=collator_for("questions"),
    )
    with pytest.raises(UserError, match=r"a batch has width \d+, others have"):
        trainer.train()


@pytest.mark.parametrize("kind", ["classification", "masked"])
def test_positions_are_of_questions(kind, tmp_path):
    """Fault 15: prevents an option that would do nothing."""
    with pytest.raises(UserError, match="kd_over_all_positions is for question answering"):
        updates.trainer_for(kind, tmp_path, kd_over_all_positions=True)


def test_a_model_with_one_token_type_gets_none():
    """Prevents an index error from a RoBERTa, or words for types in a GPT-2."""
    made = {
        tiny.bert: transformers.BertForSequenceClassification,
        tiny.roberta: transformers.RobertaForSequenceClassification,
        tiny.gpt2: transformers.GPT2ForSequenceClassification,
        tiny.distilbert: transformers.DistilBertForSequenceClassification,
    }
    given = [
        make.__name__
        for make, model_class in made.items()
        if "token_type_ids" in inputs_of(make(model_class=model_class))
    ]
    assert given == ["bert"]
