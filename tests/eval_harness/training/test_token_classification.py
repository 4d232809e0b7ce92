"""Tagged words: labels at first tokens, words without one, a run from data to verified score."""

import copy

import numpy as np
import pytest
import tagged
import tiny
import torch
import transformers
import worlds
from made_results import put

from angels_share.errors import UserError
from eval_harness.data.splits import load_task
from eval_harness.data.tagged_words import TaggedSplit
from eval_harness.results.store import find
from eval_harness.results.verify import disagreement
from eval_harness.runs.run import Method
from eval_harness.tasks.entities import entity_metrics
from eval_harness.tasks.lookup import task_named
from eval_harness.training import runner
from eval_harness.training.encoding import Collator
from eval_harness.training.fine_tuner import make_trainer
from eval_harness.training.runner import run_task
from eval_harness.training.token_classification import answers_of, count_labels, encode, loss

CONLL = task_named("conll2003")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DISTIL = "distil_trainer.harness:make_trainer"


def split_of(*sentences):
    words = [sentence.split() for sentence in sentences]
    tags = [np.arange(len(each)) % 9 for each in words]
    return TaggedSplit("validation", [str(n) for n in range(len(words))], words, tags)


def labelled(rows, index, tokenizer):
    """The labelled tokens of a sentence, with their labels."""
    example = rows[index]
    tokens = tokenizer.convert_ids_to_tokens(example["input_ids"])
    return [(t, int(n)) for t, n in zip(tokens, example["labels"], strict=True) if n != -100]


def test_a_word_is_labelled_at_its_first_token():
    """Prevents pieces that count as words, special tokens with a label, or labels one word off."""
    tokenizer = tiny.wordpiece(worlds.WORDS)
    rows = encode(split_of("old barrelsx river", "angels"), tokenizer, 32)
    assert labelled(rows, 0, tokenizer) == [("old", 0), ("barrels", 1), ("river", 2)]
    assert labelled(rows, 1, tokenizer) == [("angels", 0)]
    assert (rows.cut, rows.dropped) == (0, 0)
    assert len(rows[0]["labels"]) == len(rows[0]["input_ids"]) == rows.lengths[0]


@pytest.mark.parametrize("roberta", [True, False])
def test_byte_level_words_begin_with_their_blank(roberta):
    """Prevents words from being read as the inside of longer ones, as no pre-training did."""
    tokenizer = tiny.byte_bpe(roberta=roberta)
    before = tokenizer("the river")["input_ids"]
    rows = encode(split_of("the river the"), tokenizer, 32)
    plain = tokenizer(" the river the")["input_ids"]
    assert rows[0]["input_ids"].tolist() == plain
    first, *others = labelled(rows, 0, tokenizer)
    assert first[0].startswith("Ġ")
    assert len(others) == 2
    assert tokenizer("the river")["input_ids"] == before  # the caller's is as it was


def test_words_without_a_token_are_counted():
    """Prevents cut words from vanishing from the score, or unreadable ones from passing for cut."""
    split = split_of("the old river and more", "the \u200b river", "the old")
    rows = encode(split, tiny.wordpiece(["the old river and more"]), 5)
    assert (rows.cut, rows.dropped) == (2, 1)
    assert [(rows[index]["labels"] != -100).sum() for index in range(3)] == [3, 2, 2]
    with pytest.raises(UserError, match="--max_seq_length 2: 2 of them are special tokens"):
        encode(split, tiny.wordpiece(), 2)


def tagger(**config):
    head = transformers.BertForTokenClassification
    return tiny.bert(2, model_class=head, num_labels=9, **config)


def test_answers_are_read_at_their_tokens():
    """Prevents answers of one batch or width from landing at another sentence's words."""
    model, tokenizer = tagger(), tiny.wordpiece(worlds.WORDS)
    rows = encode(split_of("old river", "angels share the old barrels", "dark"), tokenizer, 32)
    for batch_size in (1, 2, 3):
        found = answers_of(model, rows, 0, batch_size=batch_size, bf16=False)
        for index in range(3):
            with torch.no_grad():
                alone = model(input_ids=torch.tensor(rows[index]["input_ids"])[None].long())
            part = found[rows.starts[index] : rows.starts[index + 1]]
            assert part.tolist() == alone.logits[0].argmax(-1).tolist()
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    assert answers_of(model, rows, 0, batch_size=2, bf16=False) is None


def one_step(model, rows, folder, batch_size, accumulation, method=None):
    arguments = {
        "output_dir": str(folder), "max_steps": 1, "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation, "optim": "sgd", "learning_rate": 0.1,
        "max_grad_norm": 0.0, "logging_steps": 1, "report_to": "none", "disable_tqdm": True,
        "lr_scheduler_type": "constant", "remove_unused_columns": False, "save_strategy": "no",
        "use_cpu": True,
    }  # fmt: skip
    model = copy.deepcopy(model)
    make, options, folders = method or (make_trainer, {}, {})
    make(
        model, arguments, options=options, folders=folders, train_dataset=rows,
        data_collator=Collator(0),
    ).train()  # fmt: skip
    return dict(model.named_parameters())


def lesson():
    """Eight sentences of very different lengths, so that a mean of means would be wrong."""
    draw = np.random.default_rng(0)
    sentences = [" ".join(draw.choice(worlds.WORDS, size)) for size in (1, 2, 3, 4, 9, 12, 14, 20)]
    return encode(split_of(*sentences), tiny.wordpiece(worlds.WORDS), 32)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_the_loss_is_a_mean_of_words_however_it_is_accumulated(accumulation, tmp_path):
    """Prevents sentences, or micro-batches of few words, from counting as much as long ones."""
    model, rows = tagger(**NO_DROPOUT), lesson()
    stepped = one_step(model, rows, tmp_path, 8 // accumulation, accumulation)
    textbook = copy.deepcopy(model).double().train()
    batch = Collator(0)([rows[index] for index in range(8)])
    mask = batch["labels"] != -100
    assert count_labels(batch) == int(mask.sum()) == 65
    read = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits = textbook(**read).logits
    expected = torch.nn.functional.cross_entropy(logits[mask], batch["labels"][mask])
    expected.backward()
    for name, weight in textbook.named_parameters():
        moved = (model.get_parameter(name) - stepped[name]).detach().double() / 0.1
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        np.testing.assert_allclose(moved, gradient, atol=2e-5, err_msg=name)
    ours = loss(textbook(**read), batch)
    assert ours.item() / 65 == pytest.approx(expected.item(), rel=1e-6)


def test_an_update_without_a_word_changes_nothing(tmp_path):
    """Prevents a sentence of characters that the tokenizer drops from ending a run in 0 / 0."""
    model, rows = tagger(**NO_DROPOUT), encode(split_of("\u200b"), tiny.wordpiece(), 32)
    stepped = one_step(model, rows, tmp_path, 1, 1)
    for name, weight in model.named_parameters():
        assert torch.equal(stepped[name], weight)


@pytest.mark.parametrize("cached", [True, False])
def test_a_teacher_is_learned_from_at_first_tokens(cached, tmp_path):
    """(D). Prevents soft targets at pieces and padding, of other tokens, or weighted by batch."""
    from distil_trainer.harness import make_trainer as distil

    teacher, rows = tagger(seed=3), lesson()
    with torch.no_grad():
        teacher.classifier.weight.mul_(20)
    teacher.save_pretrained(tmp_path / "teacher")
    student = tiny.distilbert(
        1, model_class=transformers.DistilBertForTokenClassification, num_labels=9,
        dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    folders = {"teacher": str(tmp_path / "teacher")}
    folders |= {"outputs": str(tmp_path / "outputs")} if cached else {}
    options = {"alpha_ce": 0.7, "alpha_task": 0.3, "temperature": 2.0}
    method = (distil, options, folders)
    whole = one_step(student, rows, tmp_path / "a", 8, 1, method)
    parts = one_step(student, rows, tmp_path / "b", 4, 2, method)

    textbook, theirs = copy.deepcopy(student).double().train(), teacher.double().eval()
    batch = Collator(0)([rows[index] for index in range(8)])
    read = {name: batch[name] for name in ("input_ids", "attention_mask")}
    mask = batch["labels"] != -100
    z = textbook(**read).logits[mask]
    with torch.no_grad():
        t = theirs(**read).logits[mask]
    p, q = (t / 2).softmax(-1), (z / 2).log_softmax(-1)
    soft = 4 * (p * (p.log() - q)).sum(-1).mean()
    hard = torch.nn.functional.cross_entropy(z, batch["labels"][mask])
    (0.7 * soft + 0.3 * hard).backward()
    for name, weight in textbook.named_parameters():
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        for stepped in (whole, parts):
            moved = (student.get_parameter(name) - stepped[name]).detach().double() / 0.1
            np.testing.assert_allclose(moved, gradient, atol=5e-5, err_msg=name)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = worlds.make(tmp_path_factory.mktemp("world"))
    tagged.folder(root / "tagged")
    return root


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch):
    """Every test begins as a new worker does."""
    monkeypatch.setattr(runner, "_last_of_each", {})


def ran(world, model="bert", **how):
    run = worlds.run_on(world / "tagged", world / model, "conll2003", **how)
    return run, *run_task(run, lambda _share: None)


def test_a_run_finds_names_and_its_file_proves_it(world, tmp_path):
    """Prevents a result whose score, counting or predictions don't belong together."""
    run, result, predictions = ran(world, given={"num_train_epochs": 15})
    assert result.score == result.scores["validation"]["entity_f1"] > 0.8
    assert list(result.scores) == ["validation", "test"]
    data = load_task(CONLL, world / "tagged")
    gold = [[CONLL.labels[tag] for tag in tags] for tags in data.evaluation[0].tags]
    assert predictions.gold[:20] == gold
    again = entity_metrics(gold, predictions.tags[:20])
    assert result.scores["validation"] == {**again, "score": again["entity_f1"]}
    assert result.marks == ()
    put(tmp_path, result, said=predictions)
    (saved,) = find(tmp_path).results
    assert saved.key == run.key
    assert disagreement(tmp_path, saved) is None


def test_cut_words_are_told_and_judged(world):
    """Prevents a short length from raising a score by leaving out what it can't see."""
    _, result, predictions = ran(world, given={"max_seq_length": 6})
    data = load_task(CONLL, world / "tagged")
    words = data.evaluation[0].words
    lost = sum(max(0, len(each) - 4) for each in words)
    assert f"words of validation cut off by the length and so judged as O: {lost}" in result.marks
    assert [len(tags) for tags in predictions.tags[:20]] == [len(each) for each in words]
    assert all(set(tags[4:]) <= {"O"} for tags in predictions.tags)


def test_the_best_epoch_is_chosen_on_dev(world):
    """Prevents an epoch from being chosen by the test set that it is then reported on."""
    _, result, _ = ran(world, choose="best")
    assert any(mark.endswith("the best on dev") for mark in result.marks)
    assert result.score == result.scores["validation"]["score"]


def test_a_distilled_run_differs_by_its_teacher_alone(world, tmp_path):
    """Prevents (D) from being skipped without a word for this kind of task."""
    model = transformers.BertForTokenClassification.from_pretrained(world / "bert", num_labels=9)
    names = dict(enumerate(CONLL.labels))
    model.config.id2label, model.config.label2id = names, {v: k for k, v in names.items()}
    model.save_pretrained(tmp_path / "teacher")
    folders = {"teacher": str(tmp_path / "teacher"), "outputs": str(tmp_path / "outputs")}
    _, plain, _ = ran(world, "distilbert")
    method = Method("distil", DISTIL, {"alpha_ce": 0.5, "alpha_task": 0.5}, folders)
    run, taught, _ = ran(world, "distilbert", method=method)
    assert run.key != plain.key
    assert taught.history != plain.history
    assert len(list((tmp_path / "outputs").glob("*.npy"))) == 1
