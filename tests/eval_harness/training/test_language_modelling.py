"""Perplexity: windows, float64 loops over whole documents, masks, a run from text to score."""

import math
import random
import re
from itertools import pairwise

import letters
import numpy as np
import pytest
import tiny
import torch
import worlds
from made_results import put

from angels_share.flags import parse
from eval_harness.commands import glue
from eval_harness.data.documents import Documents
from eval_harness.results.store import find
from eval_harness.results.verify import disagreement
from eval_harness.sweep.plan import jobs, plan
from eval_harness.tasks.perplexity import MASKED_TOKEN, NEXT_TOKEN, perplexities, words_in
from eval_harness.training import language_modelling
from eval_harness.training.language_modelling import (
    MaskedBlocks,
    encode,
    score_documents,
    training_set,
)
from eval_harness.training.runner import run_task

TEXTS = [
    "the angels take their share of the old cask by the river, " * 4,
    "oak",
    "Ünïcode, numbers 1 2 3 and the end.\n \n",
    "barrels of the old river " * 7,
]


def documents(texts=TEXTS, name="test"):
    return Documents(name, [str(number) for number in range(len(texts))], texts)


def causal(tokenizer, context, stride, begin="<|endoftext|>", split=None):
    return encode(
        split or documents(), tokenizer, context, stride, scoring=NEXT_TOKEN, begin_token=begin
    )


def masked(tokenizer, context, stride, split=None):
    return encode(
        split or documents(), tokenizer, context, stride, scoring=MASKED_TOKEN, begin_token=None
    )


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


CASES = [
    (length, context, stride)
    for draw in [random.Random(4)]
    for _ in range(120)
    for context in [draw.randint(1, 12)]
    for stride in [draw.randint(1, context)]
    for length in [draw.randint(1, 40)]
]


@pytest.mark.parametrize("begins", [True, False])
def test_every_token_is_predicted_once_and_with_its_history(begins):
    """Prevents tokens that count twice or never, or are judged with less to go by than is said."""
    for length, context, stride in CASES:
        ids = np.arange(100, 100 + length, dtype=np.int32)  # each stands for its own place
        framed = np.concatenate([[7] if begins else [], ids]).astype(np.int32)
        seen = []
        for number, window, labels in language_modelling._causal_windows([framed], context, stride):
            assert number == 0
            assert len(window) == len(labels) <= context
            for place in np.flatnonzero(labels != -100):
                target = int(labels[place])
                seen.append(target)
                history = window[: place + 1]
                whole = framed[: np.flatnonzero(framed == target)[0]]
                assert history.tolist() == whole[-len(history) :].tolist()
                assert len(history) >= min(len(whole), context - stride)
        expected = ids if begins else ids[1:]
        assert seen == expected.tolist(), (length, context, stride)


def test_every_token_is_masked_once_and_with_its_history():
    """Prevents the same of pseudo-perplexity, and special tokens that count."""
    ends = (np.array([1], dtype=np.int32), np.array([2], dtype=np.int32))
    for length, room, stride in CASES:
        ids = np.arange(100, 100 + length, dtype=np.int32)
        seen = []
        windows = language_modelling._masked_windows([ids], room, stride, ends)
        for _, window, labels in windows:
            assert (window[0], window[-1]) == (1, 2)
            assert len(window) <= room + 2
            for place in np.flatnonzero(labels != -100):
                assert labels[place] == window[place]
                seen.append(int(labels[place]))
                assert place - 1 >= min(int(labels[place]) - 100, room - stride)
        assert seen == ids.tolist(), (length, room, stride)


def log_probabilities(model, ids):
    """The model's log-probabilities after each of these tokens, in float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    return torch.log_softmax(logits, dim=-1)


def loop_over(model, ids, context, stride, begin):
    """The negative log-likelihood of a document, token by token, and how many tokens that is of."""
    sequence = ([] if begin is None else [begin]) + ids
    total, count = 0.0, 0
    for place in range(1, len(sequence)):
        # The window in which this token is the first time a target.
        number = 0 if place <= context else -(-(place - context) // stride)
        end = min(number * stride + context, len(sequence) - 1)
        window = sequence[max(end - context, 0) : place]
        total -= float(log_probabilities(model, window)[-1, sequence[place]])
        count += 1
    return total, count


@pytest.mark.parametrize("begin", ["<|endoftext|>", None])
@pytest.mark.parametrize(("context", "stride"), [(64, 64), (16, 16), (16, 5), (9, 1)])
def test_a_causal_model_against_a_float64_loop(begin, context, stride):
    """Prevents targets one place off, a history that is cut, and sums that lose digits."""
    tokenizer, model = tiny.byte_bpe(), tiny.gpt2(layers=2)
    windows = causal(tokenizer, context, stride, begin)
    nll, tokens = score_documents(model, windows, len(TEXTS), pad_id=0)
    number = None if begin is None else tokenizer.convert_tokens_to_ids(begin)
    model.double()
    for row, text in enumerate(TEXTS):
        ids = ids_of(tokenizer, text)
        expected, count = loop_over(model, ids, context, stride, number)
        assert tokens[row] == count == len(ids) - (begin is None)
        assert nll[row] == pytest.approx(expected, rel=2e-6)
    assert windows.unscored.tolist() == [int(begin is None)] * len(TEXTS)


def test_a_whole_document_is_one_forward():
    """Prevents windows from changing what a model that reads the whole document says of it."""
    tokenizer, model = tiny.byte_bpe(), tiny.gpt2(layers=2, n_positions=512)
    windows = causal(tokenizer, 512, 256)
    nll, _ = score_documents(model, windows, len(TEXTS), pad_id=0)
    model.double()
    for row, text in enumerate(TEXTS):
        sequence = [0, *ids_of(tokenizer, text)]
        found = log_probabilities(model, sequence[:-1])
        expected = -sum(float(found[n, after]) for n, (_, after) in enumerate(pairwise(sequence)))
        assert nll[row] == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "modernbert"])
@pytest.mark.parametrize(("context", "stride"), [(64, 62), (20, 7)])
def test_a_masked_model_against_a_float64_loop(name, context, stride):
    """Prevents a scored token that the model sees, and copies that differ in more than one."""
    tokenizer, make = tiny.tokenizer_for(name), getattr(tiny, name)
    model = make(layers=2)
    texts = TEXTS[:3]
    windows = masked(tokenizer, context, stride, documents(texts))
    nll, tokens = score_documents(model, windows, len(texts), pad_id=tokenizer.pad_token_id)
    model.double()
    room = context - 2
    for row, text in enumerate(texts):
        ids = ids_of(tokenizer, text)
        first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
        expected = 0.0
        for place, target in enumerate(ids):
            number = 0 if place < room else -(-(place + 1 - room) // stride)
            start = max(min(number * stride + room, len(ids)) - room, 0)
            window = list(ids[start : start + room])
            window[place - start] = tokenizer.mask_token_id
            found = log_probabilities(model, [first, *window, last])
            expected -= float(found[place - start + 1, target])
        assert tokens[row] == len(ids)
        assert nll[row] == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_batches_order_and_padding_change_nothing(kind, monkeypatch):
    """Prevents a score that depends on what happens to stand beside a window."""
    if kind == "causal":
        tokenizer, model = tiny.byte_bpe(), tiny.gpt2(layers=2)
        windows = [causal(tokenizer, 16, 5, split=documents(each)) for each in (TEXTS, TEXTS[::-1])]
    else:
        tokenizer, model = tiny.wordpiece(), tiny.bert(layers=2)
        windows = [masked(tokenizer, 16, 5, split=documents(each)) for each in (TEXTS, TEXTS[::-1])]
    alone, _ = score_documents(model, windows[0], len(TEXTS), pad_id=0, batch_size=1)
    for batch_size in (3, 64):
        together, _ = score_documents(model, windows[0], len(TEXTS), 0, batch_size=batch_size)
        assert together == pytest.approx(alone, rel=1e-6)
    padded, _ = score_documents(model, windows[0], len(TEXTS), pad_id=5)
    assert padded == pytest.approx(alone, rel=1e-6)
    backwards, _ = score_documents(model, windows[1], len(TEXTS), pad_id=0)
    assert backwards[::-1] == pytest.approx(alone, rel=1e-6)
    monkeypatch.setattr(language_modelling, "_MOST_LOGITS", 4000)
    little, _ = score_documents(model, windows[0], len(TEXTS), pad_id=0)
    assert little == pytest.approx(alone, rel=1e-6)


def test_bf16_is_an_autocast_whose_sums_are_wide():
    """Prevents bf16 from being ignored, and terms that are added up in it."""
    tokenizer, model = tiny.byte_bpe(), tiny.shaken(tiny.gpt2(layers=2))
    windows = causal(tokenizer, 16, 5)
    plain, tokens = score_documents(model, windows, len(TEXTS), pad_id=0)
    half, same = score_documents(model, windows, len(TEXTS), pad_id=0, bf16=True)
    assert (half != plain).all()
    assert half == pytest.approx(plain, rel=5e-3)
    assert tokens.tolist() == same.tolist()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    again, _ = score_documents(model, windows, len(TEXTS), pad_id=0)
    assert (again == plain).all()


def test_logits_are_of_scored_tokens_alone(monkeypatch):
    """Prevents logits of a whole batch, which would be gigabytes for a large vocabulary."""
    monkeypatch.setattr(language_modelling, "_MOST_LOGITS", 400 * 20)
    tokenizer, model = tiny.byte_bpe(), tiny.gpt2(layers=1)
    sizes = []
    model.lm_head.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape))
    windows = causal(tokenizer, 16, 5)
    _, tokens = score_documents(model, windows, len(TEXTS), pad_id=0)
    assert sum(shape[0] for shape in sizes) == tokens.sum()
    assert max(shape[0] for shape in sizes) <= 20
    assert not model.lm_head._forward_pre_hooks


def test_the_three_conventions():
    """Prevents a convention that divides by another's count."""
    text = " = Cask = \n \n the old Käse . \n"
    nll, size = 12.5, len(text.encode())
    words = len(re.split(r"\s+", text))  # as lm-eval's task counts them
    assert words_in(text) == words == len(text.split()) + 2
    found = perplexities(NEXT_TOKEN, nll, tokens=9, words=words, size=size)
    assert found == {
        "token_perplexity": pytest.approx(math.exp(nll / 9)),
        "word_perplexity": pytest.approx(math.exp(nll / words)),
        "bits_per_byte": pytest.approx(nll / math.log(2) / size),
        "score": pytest.approx(math.exp(nll / 9)),
    }
    pseudo = perplexities(MASKED_TOKEN, nll, tokens=9, words=words, size=size)
    assert set(pseudo) == {*(f"pseudo_{name}" for name in found if name != "score"), "score"}
    assert perplexities(NEXT_TOKEN, 1e6, tokens=9, words=1, size=1)["score"] is None


def test_blocks_to_train_on():
    """Prevents text that no block holds, and documents that run into one another."""
    tokenizer = tiny.byte_bpe()
    rows = causal(tokenizer, 16, 5, split=documents(name="train"))
    whole = [i for text in TEXTS for i in (0, *ids_of(tokenizer, text))]
    assert rows.labels[rows.labels != -100].tolist() == whole[1:]
    assert rows[0]["input_ids"].tolist() == whole[:16]
    assert set(rows.lengths) == {16}
    blocks = masked(tiny.wordpiece(), 16, 5, split=documents(name="train"))
    words = tiny.wordpiece()
    between = words.sep_token_id
    joined = [i for text in TEXTS for i in (*ids_of(words, text), between)][:-1]
    assert blocks.labels[blocks.labels != -100].tolist() == joined
    assert blocks[0]["input_ids"].tolist() == [words.cls_token_id, *joined[:14], between]


def test_masks_are_drawn_by_seed_epoch_and_block():
    """Prevents masks that repeat every epoch, that workers change, or that hide nothing."""
    tokenizer = tiny.wordpiece()
    text = documents([" ".join(TEXTS) * 20], name="train")
    rows = masked(tokenizer, 64, 5, split=text)

    def drawn(seed, epoch):
        blocks = MaskedBlocks(rows, seed, tokenizer)
        blocks.set_epoch(epoch)
        found = [blocks[index] for index in range(len(blocks))]
        return (np.concatenate([each[name] for each in found]) for name in ("input_ids", "labels"))

    ids, labels = drawn(1, 0)
    again, _ = drawn(1, 0)
    assert ids.tolist() == again.tolist()
    for seed, epoch in ((2, 0), (1, 1)):
        assert ids.tolist() != next(iter(drawn(seed, epoch))).tolist()
    hidden = labels != -100
    special = np.isin(rows.ids, tokenizer.all_special_ids)
    assert not (hidden & special).any()
    assert (labels[hidden] == rows.ids[hidden]).all()
    assert (ids[~hidden] == rows.ids[~hidden]).all()
    assert hidden[~special].mean() == pytest.approx(0.15, abs=0.02)
    shown = ids[hidden]
    assert (shown == tokenizer.mask_token_id).mean() == pytest.approx(0.8, abs=0.06)
    assert (shown == rows.ids[hidden]).mean() == pytest.approx(0.1, abs=0.05)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("letters")
    letters.folder(root / "data", train=40, validation=3, test=3)
    lines = [row for row in letters.split(40) if row.strip()]
    tiny.folder(root / "gpt2", tiny.gpt2(layers=1), tiny.byte_bpe(lines))
    tiny.folder(root / "bert", tiny.bert(layers=1), tiny.wordpiece(lines))
    return root


def run_of(world, results, model, *words):
    argv = ["--model", str(world / model), "--data_dir", str(world / "data"), "--results_dir",
            str(results), "--tasks", "wikitext-2-raw", *words]  # fmt: skip
    (job,) = jobs(plan(glue.experiment(parse(glue.COMMAND.flags, argv, takes_training_flags=True))))
    return job.run


TUNED = ("--num_seeds", "1", "--learning_rate", "1e-2", "--num_train_epochs", "2")


@pytest.mark.parametrize("model", ["gpt2", "bert"])
def test_fine_tuning_lowers_perplexity(world, tmp_path, model):
    """Prevents training on other labels than those that are judged, or on masks that never move."""
    before, unchanged = run_task(run_of(world, tmp_path, model, "--eval_only"), lambda _share: None)
    after, found = run_task(run_of(world, tmp_path, model, *TUNED), lambda _share: None)
    assert list(before.scores) == list(after.scores) == ["validation", "test"]
    for split in ("validation", "test"):
        assert after.scores[split]["score"] < 0.7 * before.scores[split]["score"]
    is_pseudo = {name.startswith("pseudo_") for name in after.scores["test"] if name != "score"}
    assert is_pseudo == {model == "bert"}
    assert before.history == []
    assert "train" not in before.data["examples"]
    put(tmp_path, before, said=unchanged)
    put(tmp_path, after, said=found)
    results = find(tmp_path).by_key
    assert len(results) == 2
    assert all(disagreement(tmp_path, result) is None for result in results.values())


def test_the_best_epoch_is_the_lowest(world, tmp_path):
    """Prevents the worst epoch from being kept as the best, as where higher were better."""
    words = ("--num_seeds", "1", "--learning_rate", "1e-2", "--num_train_epochs", "2")
    best, _ = run_task(run_of(world, tmp_path, "gpt2", *words, "--choose", "best"), lambda _s: None)
    last, _ = run_task(run_of(world, tmp_path, "gpt2", *words), lambda _share: None)
    assert "epoch 2 of 2, the best on dev" in best.marks
    assert best.score == last.score


def test_every_epoch_has_masks_of_its_own(world, tmp_path, monkeypatch):
    """Prevents a Trainer that never says when an epoch begins."""
    epochs = []
    monkeypatch.setattr(
        MaskedBlocks, "set_epoch", lambda self, epoch: epochs.append(epoch) or vars(self).update(
            _epoch=epoch
        )
    )  # fmt: skip
    run = run_of(world, tmp_path, "bert", *TUNED, "--limit", "4")
    run_task(run, lambda _share: None)
    assert list(dict.fromkeys(epochs)) == [0, 1]


def test_predictions_that_were_altered_are_found_out(world, tmp_path):
    """Prevents a perplexity that nothing proves."""
    result, found = run_task(
        run_of(world, tmp_path, "gpt2", "--eval_only", "--limit", "2"), lambda _share: None
    )
    found.nll[0] *= 1.01
    put(tmp_path, result, said=found)
    (saved,) = find(tmp_path).by_key.values()
    assert "by its predictions" in disagreement(tmp_path, saved)


def test_training_sets_of_causal_models_are_their_blocks(world, tmp_path):
    """Prevents masks in the text of a model that predicts what comes next."""
    run = run_of(world, tmp_path, "gpt2", "--num_seeds", "1")
    rows = causal(tiny.byte_bpe(), 16, 5, split=documents(name="train"))
    assert training_set(rows, run, None) is rows


def test_a_classifier_is_evaluated_as_it_is(tmp_path):
    """Prevents a new head, or training, where a fine-tuned model is to be judged."""
    world = worlds.make(tmp_path / "world")
    folder = tmp_path / "tuned"
    tuned, found = run_task(
        worlds.run_on(world / "glue", world / "distilbert", save_weights_to=str(folder)),
        lambda _share: None,
    )
    argv = ["--model", str(folder), "--data_dir", str(world / "glue"), "--results_dir",
            str(tmp_path), "--tasks", "rte", "--eval_only"]  # fmt: skip
    (job,) = jobs(plan(glue.experiment(parse(glue.COMMAND.flags, argv, takes_training_flags=True))))
    result, again = run_task(job.run, lambda _share: None)
    assert result.scores == tuned.scores
    assert again.logits == pytest.approx(found.logits, rel=1e-5)
    assert job.run.settings.row["eval_only"] is True
    assert job.run.settings.task["values"] == {"max_seq_length": 128, "bf16": False}
