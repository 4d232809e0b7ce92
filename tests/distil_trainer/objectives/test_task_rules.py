"""The objective of a task: what soft targets may touch, what no labels mean, what is refused."""

import pytest
import tiny
import torch
import transformers
import updates
from torch.nn import functional

from angels_share.errors import UserError
from distil_trainer.data.sequences import as_sequences
from distil_trainer.objectives.task import TaskObjective, packed, task_head

TEMPERATURE = 2.0


def batch_of(kind):
    """All examples of a kind padded on the right, as a collator would."""
    rows = updates.pair(kind)[2]
    width = max(len(row["input_ids"]) for row in rows)

    def padded(name, filler):
        cells = [row[name] + [filler] * (width - len(row[name])) for row in rows]
        return torch.tensor(cells)

    batch = {"input_ids": padded("input_ids", 0), "attention_mask": padded("attention_mask", 0)}
    for name in ("labels", "start_positions", "end_positions"):
        if name in rows[0]:
            per_token = isinstance(rows[0][name], list)
            cells = padded(name, -100) if per_token else torch.tensor([row[name] for row in rows])
            batch[name] = cells
    return batch


def taught(kind):
    """An objective in float64, its batch and its teacher's answer."""
    teacher, student, _ = updates.pair(kind)
    objective = TaskObjective(student.double(), temperature=TEMPERATURE).eval()
    batch = batch_of(kind)
    return objective, batch, objective.run_teacher(teacher.double(), batch)


def masked_answers():
    """Questions whose answers may only lie behind the first third of each sequence."""
    objective, batch, answer = taught("questions")
    places = torch.arange(batch["input_ids"].shape[1])
    lengths = batch["attention_mask"].sum(1, keepdim=True)
    batch["answer_mask"] = ((places > lengths // 3) & (places < lengths - 1)).long()
    return objective, batch, answer


def test_soft_targets_stay_inside_the_answer_mask():
    """Prevents a student from being taught to answer with the question, in value or gradient."""
    objective, batch, answer = masked_answers()
    outcome = objective(batch, [answer], [1.0, 0.0])
    outside = batch["answer_mask"] == 0
    expected = torch.zeros((), dtype=torch.float64)
    for ours, theirs in zip(outcome.logits, (answer.start_logits, answer.end_logits), strict=True):
        for row in range(len(ours)):
            z_s, z_t = (z[row][~outside[row]] / TEMPERATURE for z in (ours, theirs))
            p = z_t.softmax(-1)
            expected += TEMPERATURE**2 * (p * (p.log() - z_s.log_softmax(-1))).sum()
    assert outcome.sums[0].item() == pytest.approx(expected.item(), rel=1e-12)
    wanted = torch.autograd.grad(expected, outcome.logits, retain_graph=True)
    gradients = torch.autograd.grad(outcome.objective, outcome.logits)
    for gradient, reference in zip(gradients, wanted, strict=True):
        assert torch.allclose(gradient, reference, rtol=1e-10, atol=1e-14)
        assert gradient[outside].abs().max() == 0
        assert gradient[~outside].abs().max() > 0


def test_hard_labels_know_no_answer_mask():
    """Prevents a true answer outside the mask (a CLS for "none") from costing infinity."""
    objective, batch, answer = masked_answers()
    batch["start_positions"] = torch.zeros_like(batch["start_positions"])  # outside of every mask
    masked = objective(batch, [answer], [0.0, 1.0])
    padding = batch["attention_mask"] == 0
    expected = sum(
        functional.cross_entropy(
            logits.masked_fill(padding, float("-inf")), batch[name], reduction="sum"
        )
        for logits, name in zip(masked.logits, ("start_positions", "end_positions"), strict=True)
    )
    assert masked.sums[1].item() == pytest.approx(expected.item(), rel=1e-12)
    assert masked.objective.isfinite()


@pytest.mark.parametrize("kind", ["classification", "tokens", "questions"])
def test_a_batch_without_labels_gives_logits_alone(kind):
    """Prevents predicting a test split, which has no labels, from ending in a KeyError."""
    objective, batch, _ = taught(kind)
    bare = {name: batch[name] for name in ("input_ids", "attention_mask")}
    labelled, outcome = (objective(each, (), [0.0, 0.0]) for each in (batch, bare))
    logits = outcome.logits if kind == "questions" else (outcome.logits,)
    with_labels = labelled.logits if kind == "questions" else (labelled.logits,)
    assert all(torch.equal(*pair) for pair in zip(logits, with_labels, strict=True))
    assert (outcome.objective.item(), outcome.sums.tolist()) == (0, [0, 0])
    assert objective.counts(bare).tolist() == [0, 0]
    assert objective.counts(batch).min() > 0


def test_training_without_labels_is_refused():
    """Prevents a column under another name from passing for a test split, and training nothing."""
    objective, batch, answer = taught("classification")
    batch["label"] = batch.pop("labels")
    with pytest.raises(UserError, match="has input_ids, attention_mask, label, but no labels"):
        objective.train()(batch, [answer], [0.5, 0.5])


@pytest.mark.parametrize("wrong", [160, -1])
@pytest.mark.parametrize("kind", ["classification", "questions"])
def test_tokens_that_the_student_has_not_are_refused(kind, wrong):
    """Prevents another model's tokenizer from ending in an index error, or a GPU's abort."""
    objective, batch, _ = taught(kind)
    assert objective.prepare(batch) is batch
    batch["input_ids"][2, 1] = wrong
    said = f"token id {wrong}, but the student's vocabulary has 160 tokens"
    with pytest.raises(UserError, match=said):
        objective.prepare(batch)


def test_the_width_of_kept_outputs_counts():
    """Prevents a first batch from being compared over other positions than its kept outputs."""
    objective, batch, answer = taught("questions")
    objective = TaskObjective(objective.student, temperature=2.0, over_all_positions=True)
    rows, width = batch["input_ids"].shape
    batch["teacher_outputs"] = torch.zeros(rows, width + 8, 2)
    with pytest.raises(UserError, match=f"a batch has width {width}, others have {width + 8}"):
        objective.prepare(batch)
    objective = TaskObjective(objective.student, temperature=2.0, over_all_positions=True)
    batch["teacher_outputs"] = packed(answer)
    assert objective.prepare(batch) is batch


def test_a_weight_for_each_term_is_needed():
    """Prevents a term whose weight a caller forgot from being left out in silence."""
    objective, batch, answer = taught("classification")
    with pytest.raises(ValueError, match="argument 2 is longer"):
        objective(batch, [answer], [1.0])


@pytest.mark.parametrize(
    ("labels", "problem_type"), [(3, "multi_label_classification"), (3, "regression")]
)
def test_problems_that_are_not_distilled(labels, problem_type):
    """Prevents several labels an example from being trained as if one excluded the others."""
    student = tiny.distilbert(
        model_class=transformers.DistilBertForSequenceClassification,
        num_labels=labels,
        problem_type=problem_type,
    )
    with pytest.raises(UserError, match=f"{problem_type} is not supported: .* single_label"):
        TaskObjective(student, temperature=TEMPERATURE)


@pytest.mark.parametrize(
    ("labels", "problem_type"), [(1, "regression"), (1, None), (3, "single_label_classification")]
)
def test_problems_that_are(labels, problem_type):
    """Prevents a model that transformers itself has given its problem type from being refused."""
    student = tiny.distilbert(
        model_class=transformers.DistilBertForSequenceClassification,
        num_labels=labels,
        problem_type=problem_type,
    )
    batch = batch_of("classification")
    if labels == 1:
        batch["labels"] = batch["labels"].float()
    outcome = TaskObjective(student, temperature=TEMPERATURE)(batch, (), [0.0, 1.0])
    if labels == 1:
        expected = functional.mse_loss(outcome.logits[:, 0], batch["labels"], reduction="sum")
    else:
        expected = functional.cross_entropy(outcome.logits, batch["labels"], reduction="sum")
    assert outcome.objective.item() == pytest.approx(expected.item(), rel=1e-6)


def test_named_data_sets_are_taken_one_by_one():
    """Prevents a dict of data sets for evaluation from being read as rows of token ids."""
    rows = updates.sequences(160)
    taken = as_sequences({"short": rows[:2], "all": rows})
    assert list(taken) == ["short", "all"]
    assert taken["short"].lengths.tolist() == [len(row["input_ids"]) for row in rows[:2]]
    assert len(taken["all"]) == len(rows)
    assert taken["all"][3].tolist() == rows[3]["input_ids"]


def test_a_heads_labels_are_its_classes():
    """Prevents classes in another order from passing, and positions from being held for classes."""
    names = {0: "no", 1: "yes"}
    classes, answers = (
        tiny.bert(1, model_class=getattr(transformers, f"Bert{task}"), id2label=names)
        for task in ("ForSequenceClassification", "ForQuestionAnswering")
    )
    assert (task_head(classes).task, task_head(classes).labels) == (
        "ForSequenceClassification",
        names,
    )
    assert (task_head(answers).task, task_head(answers).labels) == ("ForQuestionAnswering", {})
