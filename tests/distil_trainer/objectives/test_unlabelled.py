"""Rows without labels: the teacher's answers count there, and the labels' loss knows nothing."""

import numpy as np
import pytest
import torch
import transformers
import updates
from lessons import LENGTHS, Rows, collator_for, pair_for, saved_teacher
from torch.nn import functional

from angels_share.errors import UserError
from angels_share.inputs import UNLABELLED, inputs_of
from distil_trainer import DistilTrainer, DistilTrainingArguments, cache_teacher_outputs, harness
from distil_trainer.objectives.task import TaskObjective, packed
from eval_harness.data.token_rows import TokenRows
from eval_harness.training.encoding import WithUnlabelled

ALPHA_CE, ALPHA_TASK, T = 0.7, 0.3, 3.0
KINDS = ("classification", "regression", "tokens")
SIZES = (3, 1, 5, 3)
"""Micro-batches of one update."""
LABELLED = (0, 1, 4, 9)
"""Rows with labels: two of the first micro-batch, none of the second and of the last but one."""


class Marked(Rows):
    """A task's rows of which some have no label; `there` stands where it would be."""

    def __init__(self, kind, labelled=LABELLED, there=None, **rest):
        super().__init__(kind, **rest)
        for number, example in enumerate(self.examples):
            labels = np.asarray(example["labels"])
            example[UNLABELLED] = np.full(labels.shape, number not in labelled)
            if number not in labelled and there is not None:
                example["labels"] = np.full(labels.shape, there, labels.dtype)


def batches_of(data, kind):
    ends = np.cumsum(SIZES)
    rows = [data[number] for number in range(len(data))]
    return [collator_for(kind)(rows[end - size : end]) for size, end in zip(SIZES, ends)]  # noqa: B905


def accumulated(objective, teacher, batches):
    """The objective and the gradient of an update, as the trainer normalises it."""
    soft, hard = sum(objective.counts(batch) for batch in batches).tolist()
    weights = [ALPHA_CE / soft, ALPHA_TASK / max(hard, 1)]
    total = sum(
        objective(batch, [packed(objective.run_teacher(teacher, batch))], weights).objective
        for batch in batches
    )
    return total, torch.autograd.grad(total, list(objective.student.parameters()))


def textbook(kind, student, teacher, data):
    """Mean of soft targets over all rows, and of the labels' loss over those that have one."""
    soft, hard = [], []
    for number in range(len(data)):
        batch = collator_for(kind)([data[number]])
        z, t = (
            model(
                **{name: value for name, value in batch.items() if name in inputs_of(model)}
            ).logits.flatten(0, -2)
            for model in (student, teacher)
        )
        t = t.detach()
        labels, has_label = batch["labels"].flatten(), number in LABELLED
        if kind == "regression":
            soft.append((z - t).square()[0, 0])
            hard += [(z[0, 0] - labels[0].double()).square()] if has_label else []
            continue
        p, q = (t / T).softmax(-1), (z / T).log_softmax(-1)
        soft += [*(T * T * (p * (p.log() - q)).sum(-1))]
        hard += [*functional.cross_entropy(z, labels, reduction="none")] if has_label else []
    return ALPHA_CE * torch.stack(soft).mean() + ALPHA_TASK * torch.stack(hard).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_equals_a_textbook_in_float64(kind):
    """Prevents a term that is divided by the other's count, or by that of its micro-batch alone."""
    teacher, student = (model.double().eval() for model in pair_for(kind))
    data = Marked(kind)
    objective = TaskObjective(student, temperature=T)
    total, ours = accumulated(objective, teacher, batches_of(data, kind))
    expected = textbook(kind, student, teacher, data)
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=0)
    theirs = torch.autograd.grad(expected, list(student.parameters()))
    assert max(gradient.abs().max() for gradient in theirs) > 1e-3
    for gradient, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "there"),
    [("classification", 2), ("classification", 99), ("tokens", 1), ("regression", float("nan"))],
)
def test_what_stands_in_a_labels_place_is_not_read(kind, there):
    """Prevents a file's label, or our filler, from being learned; NaN would reach everything."""
    teacher, student = (model.double().eval() for model in pair_for(kind))
    objective = TaskObjective(student, temperature=T)
    found = []
    for data in (Marked(kind), Marked(kind, there=there)):
        batches = [objective.prepare(batch) for batch in batches_of(data, kind)]
        found.append(accumulated(objective, teacher, batches))
    (one, gradient), (other, same) = found
    assert torch.isfinite(one)
    assert torch.equal(one, other)
    assert all(torch.equal(a, b) for a, b in zip(gradient, same, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_is_its_teacher_learns_nothing_from_texts_alone(kind):
    """Prevents a labels' loss on rows that have none, and soft targets of another row's."""
    teacher = pair_for(kind)[0].double().eval()
    objective = TaskObjective(teacher, temperature=T)
    data = Marked(kind, labelled=())
    total, gradients = accumulated(objective, teacher, batches_of(data, kind))
    assert abs(float(total.detach())) < 1e-12
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-12
    assert all(objective.counts(batch)[1] == 0 for batch in batches_of(data, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_marks_no_row_is_one_without_marks(kind):
    """Prevents the marks themselves from changing a number."""
    teacher, student = (model.double().eval() for model in pair_for(kind))
    objective = TaskObjective(student, temperature=T)
    marked = batches_of(Marked(kind, labelled=range(len(LENGTHS))), kind)
    plain = [{k: v for k, v in batch.items() if k != UNLABELLED} for batch in marked]
    (one, gradient), (other, same) = (
        accumulated(objective, teacher, batches) for batches in (marked, plain)
    )
    assert torch.equal(one, other)
    assert all(torch.equal(a, b) for a, b in zip(gradient, same, strict=True))


def test_questions_cannot_be_marked():
    """Prevents answers that nobody gave from being learned as if they had been."""
    _, student = pair_for("questions")
    batch = collator_for("questions")(Rows("questions").examples)
    batch[UNLABELLED] = torch.ones(len(batch["input_ids"]), dtype=torch.bool)
    with pytest.raises(UserError, match="'unlabelled', but every question needs its answer"):
        TaskObjective(student, temperature=T).prepare(batch)


def test_accumulation_changes_no_gradient(tmp_path):
    """Prevents a trainer that normalises the two terms by one count, or batch by batch."""
    data = updates.pair("classification")[2]
    for number, row in enumerate(data):
        row[UNLABELLED] = number not in (0, 5, 6)
    found = []
    for size in (8, 2):
        given = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        found.append(updates.one_update("classification", tmp_path, data=data, **given)[1])
    for name, whole in found[0].items():
        torch.testing.assert_close(found[1][name], whole, rtol=1e-4, atol=1e-6, msg=name)


class Encoded(TokenRows):
    """Rows as the harness has them."""

    def __init__(self, rows):
        ids = [example["input_ids"] for example in rows.examples]
        starts = np.concatenate([[0], np.cumsum([len(each) for each in ids])]).astype(np.int64)
        types = [example["token_type_ids"] for example in rows.examples]
        flat = (np.concatenate(each) if each else np.zeros(0, int) for each in (ids, types))
        super().__init__(*flat, starts)
        object.__setattr__(self, "rows", rows)

    def __getitem__(self, index):
        return dict(self.rows[index]) if 0 <= index < len(self) else super().__getitem__(index)


def weights_after(kind, tmp_path, teacher, data):
    trainer = harness.make_trainer(
        pair_for(kind)[1],
        {
            "output_dir": str(tmp_path / "out"), "report_to": [], "use_cpu": True, "max_steps": 4,
            "disable_tqdm": True, "save_strategy": "no", "per_device_train_batch_size": 4,
            "learning_rate": 0.1, "optim": "sgd", "gradient_accumulation_steps": 2,
        },
        options={"alpha_ce": 0.5, "alpha_task": 0.5, "temperature": 2.0, "transfer_set": "0" * 16},
        folders={"teacher": teacher, "outputs": str(tmp_path / "outputs")},
        train_dataset=data,
        data_collator=collator_for(kind),
    )  # fmt: skip
    trainer.train()
    return {name: value.detach().clone() for name, value in trainer.student.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_transfer_set_of_no_rows_is_none(kind, tmp_path):
    """Prevents a number that depends on how the training set is put together; dropout included."""
    teacher = saved_teacher(tmp_path, kind)
    rows, more = Encoded(Rows(kind)), Encoded(Rows(kind, [7, 12, 5, 9], seed=3))
    plain = weights_after(kind, tmp_path, teacher, rows)
    none = weights_after(kind, tmp_path, teacher, WithUnlabelled(rows, Encoded(Rows(kind, []))))
    some = weights_after(kind, tmp_path, teacher, WithUnlabelled(rows, more))
    assert all(torch.equal(none[name], value) for name, value in plain.items())
    assert any(not torch.equal(some[name], value) for name, value in plain.items())
    assert len(list((tmp_path / "outputs").glob("*.npy"))) == 2


def test_the_cache_has_the_teachers_answers_to_texts_without_labels(tmp_path):
    """Prevents outputs of the labelled rows alone, or those of another transfer set."""
    kind, rows = "classification", Encoded(Rows("classification"))
    teacher, _ = pair_for(kind)
    sources = set()
    for seed in (3, 4):
        more = Encoded(Rows(kind, [7, 12, 5], seed=seed))
        data = WithUnlabelled(rows, more)
        taught = cache_teacher_outputs(teacher, data, collator_for(kind), tmp_path)
        sources.add(taught.source["data"])
        alone = collator_for(kind)([more[1]])
        with torch.no_grad():
            given = {name: alone[name] for name in alone if name in inputs_of(teacher)}
            expected = teacher(**given).logits
        found = torch.from_numpy(np.array(taught[len(rows) + 1]["teacher_outputs"]))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    plain = cache_teacher_outputs(teacher, rows, collator_for(kind), tmp_path)
    assert len({*sources, plain.source["data"]}) == 3


def test_the_trainer_takes_marks_from_anybodys_collator(tmp_path):
    """Prevents marks that only the harness's own batches may bear."""
    teacher, student, data = updates.pair("classification")
    for number, row in enumerate(data):
        row[UNLABELLED] = number % 2 == 1
    tokenizer = updates.tiny.wordpiece()
    trainer = DistilTrainer(
        student,
        DistilTrainingArguments(
            output_dir=str(tmp_path), max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True,
            save_strategy="no", per_device_train_batch_size=8,
        ),
        teacher=teacher,
        train_dataset=data,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )  # fmt: skip
    batches, counts = trainer.get_batch_samples(
        iter(trainer.get_train_dataloader()), 1, trainer.args.device
    )
    assert counts.tolist() == [8, 4]
    assert batches[0][UNLABELLED].tolist().count(True) == 4
