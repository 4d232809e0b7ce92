import copy

import numpy as np
import pytest
import tiny
import torch
import transformers

from angels_share.errors import UserError
from angels_share.inputs import chosen, inputs_of
from eval_harness.data.texts import Split
from eval_harness.training.classification import logits_of
from eval_harness.training.encoding import Collator, Encoded, by_length, encode
from eval_harness.training.fine_tuner import FineTuner, make_trainer

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def classifier(labels=2, **config):
    return tiny.bert(
        2, model_class=transformers.BertForSequenceClassification, num_labels=labels, **config
    )


def examples(count=8, labels=2, seed=0):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 20, count)
    answers = draw.integers(0, 2, count) if labels > 1 else draw.uniform(0, 5, count)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = draw.integers(5, 150, starts[-1]).astype(np.int32)
    types = (np.arange(len(ids)) % 2).astype(np.uint8)
    return Encoded(ids, types, starts, answers)


def one_step(model, data, batch_size, accumulation, tmp_path):
    """The weights after one plain gradient step, and the loss that was logged."""
    arguments = {
        "output_dir": str(tmp_path), "max_steps": 1, "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation, "optim": "sgd", "learning_rate": 0.1,
        "max_grad_norm": 0.0, "logging_steps": 1, "report_to": "none", "disable_tqdm": True,
        "lr_scheduler_type": "constant", "remove_unused_columns": False, "save_strategy": "no",
        "train_sampling_strategy": "group_by_length", "use_cpu": True,
    }  # fmt: skip
    model = copy.deepcopy(model)
    trainer = make_trainer(
        model, arguments, options={}, folders={}, train_dataset=data, data_collator=Collator(0)
    )
    trainer.train()
    return model, trainer.state.log_history[0]["loss"]


@pytest.mark.parametrize("labels", [2, 1])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (4, 2), (2, 4), (1, 8)])
def test_accumulation_changes_nothing(labels, batch_size, accumulation, tmp_path):
    """Fault 9. Prevents the Trainer's silent multiplication of loss and gradient.

    Value and gradient are those of a float64 textbook computation over all examples at once.
    """
    model = classifier(labels, **NO_DROPOUT)
    data = examples(labels=labels)
    stepped, loss = one_step(model, data, batch_size, accumulation, tmp_path)
    textbook = copy.deepcopy(model).double().train()
    batch = Collator(0)([data[index] for index in range(len(data))])
    logits = textbook(**{name: batch[name] for name in batch if name != "labels"}).logits
    if labels == 1:
        expected = (logits[:, 0] - batch["labels"].double()).square().mean()
    else:
        expected = torch.nn.functional.cross_entropy(logits, batch["labels"])
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    for name, weight in textbook.named_parameters():
        moved = model.get_parameter(name) - stepped.get_parameter(name)
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        np.testing.assert_allclose(moved.detach().double() / 0.1, gradient, atol=1e-5, err_msg=name)


def test_every_weight_learns(tmp_path):
    """Prevents a part of the model from being left out of the training."""
    model = classifier()
    stepped, _ = one_step(model, examples(), 8, 1, tmp_path)
    still = [
        name for name, weight in model.named_parameters()
        if torch.equal(weight, stepped.get_parameter(name))
        # A bias of keys moves no softmax.
        and "key.bias" not in name
    ]  # fmt: skip
    assert still == []


def test_token_types_reach_only_those_who_have_them():
    """Prevents a DistilBERT that chokes on token types, and a BERT that never gets them."""
    distil = tiny.distilbert(1, model_class=transformers.DistilBertForSequenceClassification)
    assert "token_type_ids" not in inputs_of(distil)
    assert "token_type_ids" in inputs_of(classifier())
    assert "token_type_ids" not in inputs_of(
        tiny.roberta(1, model_class=transformers.RobertaForSequenceClassification)
    )
    data = examples()
    none = Encoded(data.ids, None, data.starts, data.labels)
    with_types, without = (logits_of(classifier(), part, 0) for part in (data, none))
    assert not np.allclose(with_types, without)
    assert np.allclose(logits_of(distil, data, 0), logits_of(distil, none, 0))


def test_predictions_do_not_depend_on_padding():
    """Prevents batching by length from changing an answer, or from mixing up the order."""
    model, data = classifier(), examples(100)
    alone = np.concatenate([
        logits_of(model, Encoded(item["input_ids"], item["token_type_ids"],
                                 np.array([0, len(item["input_ids"])]), None), 0)
        for item in (data[index] for index in range(len(data)))
    ])  # fmt: skip
    np.testing.assert_allclose(logits_of(model, data, 0), alone, atol=1e-6)


def test_evaluation_batches_hold_everything_once_and_little_padding():
    """Prevents a lost example, and padding to the longest of a random batch."""
    data = examples(150)
    batches = list(by_length(data, 64))
    assert sorted(np.concatenate(batches)) == list(range(150))
    lengths = np.concatenate([data.lengths[batch] for batch in batches])
    assert (np.diff(lengths) <= 0).all()


def test_encoding_is_the_tokenizers_own():
    """Prevents ids that differ from what the tokenizer says of each example alone."""
    tokenizer = tiny.wordpiece()
    firsts, seconds = list(tiny.LINES), list(reversed(tiny.LINES))
    split = Split("train", list("012345"), (firsts, seconds), np.arange(6))
    encoded = encode(split, tokenizer, 24)
    for index, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        wanted = tokenizer(first, second, truncation=True, max_length=24)
        assert encoded[index]["input_ids"].tolist() == wanted["input_ids"]
        assert encoded[index]["token_type_ids"].tolist() == wanted["token_type_ids"]
        assert encoded[index]["labels"] == index
    alone = encode(Split("train", list("012345"), (firsts,), None), tokenizer, 24)
    assert alone.types is None  # of one sentence there is nothing to tell
    assert "labels" not in alone[0]


def test_a_batch_is_as_wide_as_its_longest():
    """Prevents padding to a fixed length, and padding that is attended to."""
    data = examples(4)
    batch = Collator(9)([data[index] for index in range(4)])
    assert batch["input_ids"].shape == (4, data.lengths.max())
    for row, length in enumerate(data.lengths):
        assert (batch["input_ids"][row, length:] == 9).all()
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (
            data.lengths.max() - length
        )


def test_features_leave_the_labels_out():
    """Prevents a head from computing a second loss that nobody reads."""
    batch = Collator(0)([examples()[0]])
    names = inputs_of(classifier())
    assert set(chosen(batch, names)) == {"input_ids", "attention_mask", "token_type_ids"}


def test_a_trainer_that_divides_again_changes_nothing(monkeypatch, tmp_path):
    """Prevents a quarter of the gradient with transformers that knows no `loss_is_scaled_for_ga`.

    Such a version divides whatever a trainer says of its loss; a newer one does so if told to.
    """
    model, data = classifier(**NO_DROPOUT), examples()
    whole, loss = one_step(model, data, 8, 1, tmp_path)
    assert FineTuner.loss_is_scaled_for_ga is True
    monkeypatch.setattr(FineTuner, "loss_is_scaled_for_ga", False)
    stepped, logged = one_step(model, data, 2, 4, tmp_path)
    assert logged == pytest.approx(loss, rel=1e-4)
    for name, weight in whole.named_parameters():
        torch.testing.assert_close(stepped.get_parameter(name), weight, atol=1e-6, rtol=0, msg=name)


def test_too_few_tokens_are_refused():
    """Prevents a length that leaves no word, which the tokenizer takes without complaint."""
    split = Split("train", list("012345"), (tiny.LINES, tiny.LINES), None)
    with pytest.raises(UserError, match="--max_seq_length 4: 3 of them"):
        encode(split, tiny.wordpiece(), 4)
    assert max(encode(split, tiny.wordpiece(), 5).lengths) == 5
