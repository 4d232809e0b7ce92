"""What users of the Trainer hand in: batches of any collator, collators, subclasses, data sets."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import tiny
import torch
import transformers
import updates
from torch.nn import functional
from torch.utils.data import IterableDataset

from angels_share.errors import UserError
from distil_trainer import DistilTrainer, DistilTrainingArguments
from distil_trainer.data.batches import TextStream
from distil_trainer.training import honoured

LANGUAGE_MODELS = ("masked", "restricted", "causal")


def raw_batches(trainer):
    """Return the batches of the trainer's own loader as any collator would make them."""
    names = ("input_ids", "attention_mask", "labels")
    return [{name: batch[name] for name in names} for batch in trainer.get_eval_dataloader()]


def tokenizer_for(kind):
    return tiny.byte_bpe() if kind == "causal" else tiny.wordpiece()


def collator_for(kind, **settings):
    return transformers.DataCollatorForLanguageModeling(
        tokenizer_for(kind), mlm=kind != "causal", **settings
    )


def trainer_with(kind, folder, *, collator=None, data=None, eval_data=None, cls=None, **settings):
    """Return a trainer of the class `cls`, with a user's collator."""
    teacher, student, made = updates.pair(kind)
    extra = {} if collator is None else {"data_collator": collator}
    arguments = {
        "output_dir": str(folder),
        "max_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
    }
    return (cls or DistilTrainer)(
        student,
        DistilTrainingArguments(**(arguments | settings)),
        teacher=teacher,
        train_dataset=made if data is None else data,
        eval_dataset=eval_data,
        processing_class=tokenizer_for(kind),
        **extra,
    )


# --- compute_loss


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_batch_of_any_collator(kind, training, tmp_path):
    """Prevents a batch that the trainer's own loader did not make from being a KeyError."""
    trainer = updates.trainer_for(kind, tmp_path, eval_data=updates.sequences(160))
    (batch,) = raw_batches(trainer)
    expected = trainer.evaluate()["eval_loss"]
    trainer.model.train(training)  # no dropout here: the same value in both modes
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss.requires_grad
    loss.backward()
    assert all(p.grad is not None for p in trainer.student.parameters())
    del batch["attention_mask"]  # as a collator of unpadded text may
    assert torch.isfinite(trainer.compute_loss(trainer.model, batch))


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_outputs_of_a_language_model(kind, tmp_path):
    """Prevents outputs of a type that users of the Trainer don't know, or silent logits."""
    trainer = updates.trainer_for(kind, tmp_path, eval_data=updates.sequences(160))
    (batch,) = raw_batches(trainer)
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert isinstance(outputs, transformers.utils.ModelOutput)
    assert outputs.loss is loss is outputs["loss"]
    assert outputs.logits is None
    counted = trainer.objective.counts(trainer.objective.prepare(batch))
    again, outputs = trainer.compute_loss(
        trainer.model, batch, return_outputs=True, num_items_in_batch=counted
    )
    assert again.item() == pytest.approx(loss.item())
    assert outputs.loss is again
    alone, _, labels = trainer.prediction_step(trainer.model, batch, prediction_loss_only=False)
    assert alone.item() == pytest.approx(loss.item())
    assert torch.equal(labels, batch["labels"])


@pytest.mark.parametrize("kind", ["classification", "tokens", "questions"])
def test_outputs_of_a_task(kind, tmp_path):
    """Prevents the objective of a training batch without counts from lacking the teacher's term."""
    trainer = updates.trainer_for(kind, tmp_path)
    (batch,) = trainer.get_eval_dataloader(trainer.train_dataset)
    trainer.model.train()
    counts = trainer.objective.counts(batch)
    whole = trainer.compute_loss(trainer.model, batch, num_items_in_batch=counts)
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert loss.item() == pytest.approx(whole.item())
    assert outputs.loss is loss
    names = ("start_logits", "end_logits") if kind == "questions" else ("logits",)
    expected = trainer.student(**{name: batch[name] for name in ("input_ids", "attention_mask")})
    assert all(torch.equal(outputs[name], expected[name]) for name in names)
    trainer.model.eval()
    labels_alone = trainer.compute_loss(trainer.model, batch).item()
    assert labels_alone != pytest.approx(loss.item())
    metrics = trainer.evaluate(trainer.train_dataset)
    assert metrics["eval_loss"] == pytest.approx(labels_alone)


def test_the_student_itself_as_model(tmp_path):
    """Prevents the model that was handed in, rather than its wrapper, from being called wrongly."""
    trainer = updates.trainer_for("masked", tmp_path, eval_data=updates.sequences(160))
    (batch,) = raw_batches(trainer)
    expected = trainer.compute_loss(trainer.model, batch).item()
    assert trainer.compute_loss(trainer.student, batch).item() == expected
    with pytest.raises(UserError, match="compute_loss: the model is a BertForMaskedLM"):
        trainer.compute_loss(trainer.teachers[0], batch)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": None}, "a batch has input_ids, attention_mask, but no labels"),
        ({"position_ids": torch.zeros(8, 32)}, "position_ids.* not supported"),
        ({"attention_mask": torch.ones(8, 1, 32, 32)}, "attention_mask of 4 dimensions"),
        ({"token_type_ids": torch.full((8, 32), 2)}, "token_type_ids 2, but the bert has 2"),
        ({"token_type_ids": torch.full((8, 32), -1)}, "token_type_ids -1, but the bert has 2"),
        ({"loss_weights": torch.zeros(8, 32)}, "loss_weights, of which .* makes no use"),
        ({"attention_mask": torch.full((8, 32), 0.5)}, "attention_mask of other values"),
        (
            dict.fromkeys(("input_ids", "attention_mask", "labels"), torch.full((8, 72), 1)),
            "72 tokens, but the distilbert reads 64",
        ),
    ],
)
def test_batches_that_cannot_be_used(change, said, tmp_path):
    """Prevents a batch that would be read as something else from being trained on."""
    trainer = updates.trainer_for("masked", tmp_path, eval_data=updates.sequences(160))
    (batch,) = raw_batches(trainer)
    with pytest.raises(UserError, match=said):
        trainer.compute_loss(trainer.model, {**batch, **change})


def test_counts_of_another_kind(tmp_path):
    """Prevents one count, as the Trainer's own models take, from normalising four terms."""
    trainer = updates.trainer_for("masked", tmp_path, eval_data=updates.sequences(160))
    (batch,) = raw_batches(trainer)
    with pytest.raises(UserError, match="num_items_in_batch: 1 number for 5 terms"):
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(12))


# --- subclasses


class WithATerm(DistilTrainer):
    """Adds a term to the loss, as the Trainer's documentation shows."""

    def compute_loss(self, model, inputs, return_outputs=False, **more):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **more)
        penalty = sum(p.square().sum() for p in self.student.parameters())
        return (loss + penalty, outputs) if return_outputs else loss + penalty


class WithoutCounts(DistilTrainer):
    """Doesn't pass the counts on, as subclasses written for older versions."""

    def compute_loss(self, model, inputs, return_outputs=False, **_):
        return super().compute_loss(model, inputs, return_outputs)


def gradient_of(trainer):
    seen = updates.Gradients()
    trainer.add_callback(seen)
    trainer.train()
    return seen.last


@pytest.mark.parametrize("kind", ["masked", "causal", "classification"])
def test_a_subclass_that_adds_a_term(kind, tmp_path):
    """Prevents a term that a subclass adds from being lost, scaled, or failing."""
    data = updates.pair(kind)[2]
    settings = {"max_grad_norm": 1e9, "eval_data": data}
    if kind == "classification":
        settings["collator"] = transformers.DataCollatorWithPadding(tiny.wordpiece())
    plain = trainer_with(kind, tmp_path / "plain", **settings)
    more = trainer_with(kind, tmp_path / "more", cls=WithATerm, **settings)
    before = {name: p.detach().clone() for name, p in more.objective.named_parameters()}
    ours, theirs = gradient_of(plain), gradient_of(more)
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name] - value, 2 * before[name], rtol=1e-3, atol=1e-4)
    if kind == "classification":
        more.model.load_state_dict(plain.model.state_dict())
        penalty = sum(p.detach().square().sum().item() for p in plain.student.parameters())
        losses = [trainer.evaluate()["eval_loss"] for trainer in (plain, more)]
        assert losses[1] - losses[0] == pytest.approx(penalty, rel=1e-3)
    else:
        assert np.isfinite(more.evaluate()["eval_loss"])


@pytest.mark.parametrize("kind", ["masked", "causal", "classification"])
def test_a_subclass_that_drops_the_counts(kind, tmp_path):
    """Prevents an update of a subclass that takes no counts from being scaled by accumulation."""
    settings = {"max_grad_norm": 1e9, "per_device_train_batch_size": 2, "logging_steps": 1}
    settings["gradient_accumulation_steps"] = 4
    if kind == "classification":
        settings["collator"] = transformers.DataCollatorWithPadding(tiny.wordpiece())
    plain = trainer_with(kind, tmp_path / "plain", **settings)
    less = trainer_with(kind, tmp_path / "less", cls=WithoutCounts, **settings)
    ours, theirs = gradient_of(plain), gradient_of(less)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    logs = [trainer.state.log_history[0] for trainer in (plain, less)]
    assert logs[0]["loss_ce"] == logs[1]["loss_ce"]


# --- a user's collator


class Spy:
    """A collator that remembers the batches it made."""

    def __init__(self, collate):
        self.collate = collate
        self.made = []

    def __call__(self, rows):
        self.made.append(self.collate(rows))
        return self.made[-1]


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_the_labels_are_the_collators(kind, tmp_path):
    """Prevents a user's collator from being called, and its masks from being drawn again."""
    spy = Spy(collator_for(kind))
    data = datasets.Dataset.from_list(updates.sequences(160))
    trainer = trainer_with(kind, tmp_path, collator=spy, data=data, logging_steps=1)
    seen = []
    forward = trainer.objective.forward
    trainer.objective.forward = lambda batch, *rest: seen.append(batch) or forward(batch, *rest)
    trainer.train()
    (made,), (used,) = spy.made, seen
    for name in ("input_ids", "labels"):
        assert torch.equal(made[name], used[name])
    (attended,) = made["attention_mask"].view(-1).nonzero(as_tuple=True)
    assert torch.equal(attended, used["attended_rows"])
    assert trainer.state.log_history[0]["loss"] > 0


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_evaluation_by_the_users_collator(kind, tmp_path):
    """Prevents evaluation from using other batches than the collator's, or another mean."""
    data = updates.sequences(160)
    spy = Spy(collator_for(kind, **({} if kind == "causal" else {"seed": 5})))
    trainer = trainer_with(
        kind, tmp_path, collator=spy, eval_data=data, per_device_eval_batch_size=3, alpha_ce=0,
        alpha_cos=0, **{"alpha_clm" if kind == "causal" else "alpha_mlm": 1},
    )  # fmt: skip
    metrics = trainer.evaluate()
    assert [len(batch["input_ids"]) for batch in spy.made] == [3, 3, 2]
    total = count = 0
    for batch in spy.made:
        labels = batch["labels"]
        with torch.no_grad():
            logits = trainer.student(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
        if kind == "causal":
            logits, labels = logits[:, :-1], labels[:, 1:]
        total += functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="sum"
        ).item()
        count += (labels != -100).sum().item()
    assert metrics["eval_loss"] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dataloader_drop_last": True},
        {"train_sampling_strategy": "group_by_length"},
        {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "spawn"},
        {"train_sampling_strategy": "batch_rebalance"},
        {"train_sampling_strategy": "sequential"},
        {"accelerator_config": {"even_batches": False}},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "plain",
)
def test_a_run_with_a_collator_without_masks_resumes_bit_by_bit(settings, tmp_path):
    """Prevents the Trainer's own order of rows from being another one after a resume."""
    settings = settings | {
        "max_steps": 6,
        "per_device_train_batch_size": 3,
        "save_strategy": "steps",
        "save_steps": 4,
    }
    whole = trainer_with("causal", tmp_path, collator=collator_for("causal"), **settings)
    whole.train()
    again = trainer_with("causal", tmp_path, collator=collator_for("causal"), **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    ours, theirs = (trainer.student.state_dict() for trainer in (whole, again))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    if settings.keys() & honoured.OF_OUR_LOADER.keys():
        return
    other = trainer_with("causal", tmp_path, **settings)
    with pytest.raises(UserError, match="data_collator"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_a_users_collator_leaves_the_loader_to_the_trainer(tmp_path):
    """Prevents a field of the Trainer's loader from being refused, or dropped, where it is used."""
    sizes = {}
    for drop_last in (False, True):
        spy = Spy(collator_for("causal"))
        settings = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 3}
        trainer = trainer_with(
            "causal", tmp_path, collator=spy, dataloader_drop_last=drop_last, **settings
        )
        trainer.train()
        sizes[drop_last] = sorted(len(batch["labels"]) for batch in spy.made)
    assert sizes[False][0] == len(trainer.train_dataset) % 3 > 0
    assert sizes[True] == sizes[False][1:]


def test_whole_words(tmp_path):
    """Prevents the library's whole-word masking from failing here."""
    tokenizer = tiny.wordpiece()
    padding = {"padding": "max_length", "max_length": 32, "return_offsets_mapping": True}
    data = [dict(tokenizer(line, **padding)) for line in tiny.LINES]
    collator = collator_for("masked", whole_word_mask=True)
    trainer = trainer_with("masked", tmp_path, collator=collator, data=data, max_steps=2)
    assert trainer.train().global_step == 2


def test_what_is_said_and_recorded_of_a_users_masks(tmp_path, caplog):
    """Prevents a run that cannot be resumed bit by bit from promising that it can."""
    trainer = trainer_with("masked", tmp_path, collator=collator_for("masked"))
    said = [r for r in caplog.records if "data_collator" in r.message]
    assert len(said) == 1
    assert said[0].levelno == logging.WARNING
    assert "not bit-equal" in said[0].message
    assert trainer.result_settings()["masks"] == "data_collator"
    caplog.clear()
    trainer = trainer_with("causal", tmp_path, collator=collator_for("causal"))
    assert "data_collator" not in caplog.text
    assert "masks" not in trainer.result_settings()
    assert "DataCollatorForLanguageModeling" in trainer.result_settings()["data_collator"]
    settings = updates.trainer_for("masked", tmp_path).result_settings()
    assert {"masks", "data_collator"}.isdisjoint(settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tokens_per_batch": 100}, "tokens_per_batch"),
        ({"mlm_probability": 0.3}, "mlm_probability"),
        ({"mask_scope": "batch"}, "mask_scope"),
        ({"data": TextStream([], None)}, "stream"),
    ],
)
def test_what_a_users_collator_would_leave_without_effect(settings, said, tmp_path):
    """Prevents a setting of our masks from having no effect where the masks are the user's."""
    with pytest.raises(UserError, match=said):
        trainer_with("masked", tmp_path, collator=collator_for("masked"), **settings)


def test_a_corpus_with_a_users_collator(tmp_path):
    """Prevents prepared sequences, which are arrays, from being unusable to a collator of rows."""
    sequences = updates.trainer_for("masked", tmp_path).train_dataset
    assert hasattr(sequences, "lengths")
    trainer = trainer_with("masked", tmp_path, collator=collator_for("masked"), data=sequences)
    assert trainer.train().global_step == 1


# --- data sets without a length


class Endless(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def iterable(form, rows):
    if form == "torch":
        return Endless(rows)
    return datasets.IterableDataset.from_generator(lambda: iter(rows))


@pytest.mark.parametrize("form", ["torch", "hub"])
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_iterable_data_sets(kind, form, tmp_path):
    """Prevents a data set without a length from being a traceback, or from being read otherwise."""
    rows = updates.sequences(160)
    named = {"eval_data": rows, "per_device_eval_batch_size": 3}
    expected = trainer_with(kind, tmp_path, **named).evaluate()
    trainer = trainer_with(
        kind,
        tmp_path,
        data=iterable(form, rows),
        **(named | {"eval_data": iterable(form, rows)}),
        max_steps=5,
        per_device_train_batch_size=4,
    )
    trainer._loaders._token_counts = (
        np.bincount(  # the training data's, as above: none was given there
            np.concatenate([row["input_ids"] for row in updates.pair(kind)[2]]), minlength=160
        )
    )
    ours = trainer.evaluate()
    for name in ("eval_loss", "eval_perplexity", "eval_agreement"):
        assert ours[name] == pytest.approx(expected[name], rel=1e-5), name
    assert trainer.train().global_step == 5  # two and a half passes


def test_an_iterable_data_set_resumes_bit_by_bit(tmp_path):
    """Prevents a resumed run from reading other rows, or masking them otherwise."""
    settings = {
        "data": Endless(updates.sequences(160)),
        "max_steps": 5,
        "per_device_train_batch_size": 3,
        "save_strategy": "steps",
        "save_steps": 3,
    }
    whole = trainer_with("masked", tmp_path, **settings)
    whole.train()
    again = trainer_with("masked", tmp_path, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    ours, theirs = (trainer.student.state_dict() for trainer in (whole, again))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_iterable_data_sets_with_a_users_collator(tmp_path):
    """Prevents a stream of rows from being refused where the Trainer itself would read it."""
    trainer = trainer_with(
        "causal",
        tmp_path,
        collator=collator_for("causal"),
        data=iterable("hub", updates.sequences(160)),
        max_steps=3,
        per_device_train_batch_size=4,
    )
    assert trainer.train().global_step == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_steps": -1}, "max_steps"),
        ({"dataloader_num_workers": 2}, "dataloader_num_workers"),
    ],
)
def test_iterable_data_sets_need(settings, said, tmp_path):
    """Prevents an endless run, and workers that each read all rows."""
    with pytest.raises(UserError, match=said):
        trainer_with("masked", tmp_path, data=Endless(updates.sequences(160)), **settings).train()


def test_a_generator_can_be_read_only_once(tmp_path):
    """Prevents a run from hanging in its second pass over a generator."""
    rows = (row for row in updates.sequences(160))
    trainer = trainer_with(
        "causal", tmp_path, data=rows, max_steps=5, per_device_train_batch_size=4
    )
    with pytest.raises(UserError, match="no rows in pass 2"):
        trainer.train()


def test_counting_does_not_use_up_a_generator(tmp_path):
    """Prevents the rows that are counted for a masked model from never being trained on."""
    rows = (row for row in updates.sequences(160))
    trainer = trainer_with("masked", tmp_path, data=rows, max_steps=1)
    with pytest.raises(UserError, match=r"only once, and counting .* pass token_counts"):
        trainer.train()


def test_resuming_on_an_iterable_data_set_says_what_is_not_checked(tmp_path, caplog):
    """Prevents other rows than the interrupted run's from passing without a word."""
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer_with("causal", tmp_path, data=Endless(updates.sequences(160)), **settings).train()
    trainer = trainer_with("causal", tmp_path, data=Endless(updates.sequences(160)), **settings)
    trainer.train(resume_from_checkpoint=True)
    assert "can't be checked; with others, the result is another" in caplog.text


def test_rows_of_a_stream_that_are_too_long(tmp_path):
    """Prevents an index error from deep inside the position table, as for other data sets."""
    data = Endless([{"input_ids": [7] * 70}, {"input_ids": [7] * 9}])
    with pytest.raises(UserError, match="70 tokens, but the gpt2 reads 64"):
        trainer_with("causal", tmp_path, data=data).train()


@pytest.mark.parametrize("longest", [57, 60])
def test_a_position_table_that_is_no_multiple_of_eight(longest, tmp_path):
    """Prevents padding from reaching beyond the last position that a model has."""
    teacher = tiny.bert(layers=2, max_position_embeddings=60)
    data = [{"input_ids": [2, *[7] * (size - 2), 3]} for size in (9, longest)]
    trainer = updates.trainer_for(
        "masked",
        tmp_path,
        teacher=teacher,
        student=updates.make_student(teacher, num_layers=1),
        data=data,
    )
    assert trainer.train().global_step == 1


# --- prediction


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_predict(kind, own, tmp_path):
    """Prevents predict() of a language model from being a KeyError."""
    rows = updates.sequences(160)
    collator = None if own else collator_for(kind, **({} if kind == "causal" else {"seed": 1}))
    trainer = trainer_with(kind, tmp_path, collator=collator, eval_data=rows)
    expected = trainer.evaluate()
    output = trainer.predict(rows)
    if own or kind == "causal":
        assert output.metrics["test_loss"] == pytest.approx(expected["eval_loss"])
    assert output.metrics["test_perplexity"] > 1
    assert output.predictions is None  # the logits of all tokens are never built
    batches = list(trainer.get_test_dataloader(rows))
    assert sum(len(batch["input_ids"]) for batch in batches) == len(rows)


# --- several processes


def held_out_metrics(folder):
    """Return what is measured on 11 rows, by a user's collator and as an iterable data set."""
    rows = updates.sequences(160, count=11)
    ways = {"collator": (rows, collator_for("causal")), "iterable": (Endless(rows), None)}
    found = {}
    for way, (data, collator) in ways.items():
        trainer = trainer_with(
            "causal",
            folder / way,
            collator=collator,
            eval_data=data,
            data=data,
            per_device_eval_batch_size=3,
            per_device_train_batch_size=2,
        )
        found[way] = {
            name: value
            for name, value in trainer.evaluate().items()
            if name.startswith(("eval_loss", "eval_agree"))
        }
        trainer.train()
    if trainer.args.process_index == 0:
        (folder / "found.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_processes_count_every_row_once(tmp_path):
    """Prevents rows that fill up the last batch, or are read by both processes, from counting."""
    held_out_metrics(tmp_path)
    expected = json.loads((tmp_path / "found.json").read_text())
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", __file__,
        str(tmp_path / "two"),
    ]  # fmt: skip
    (tmp_path / "two").mkdir()
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads((tmp_path / "two" / "found.json").read_text())
    for way, metrics in expected.items():
        assert found[way] == pytest.approx(metrics, rel=1e-5)


if __name__ == "__main__":
    held_out_metrics(Path(sys.argv[1]))
