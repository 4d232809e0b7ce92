"""What is measured of a model, against a plain computation: float64, one text, all logits."""

import copy
import json

import numpy as np
import pytest
import tiny
import torch
import transformers
import worlds

from angels_share.errors import UserError
from eval_harness.data.splits import load_task
from eval_harness.probe import linear
from eval_harness.probe.hidden_words import differing_word, hidden_words
from eval_harness.probe.measure import (
    LanguageModel,
    load,
    measure_pairs,
    measure_task,
    measure_text,
)
from eval_harness.probe.request import HeldOutText, MinimalPair, MinimalPairs
from eval_harness.results.measures import MEASURES
from eval_harness.runs.models import identify
from eval_harness.tasks.lookup import task_named

LONGEST = 24
TEXTS = (
    *tiny.LINES,
    "angels",
    "Barrels: 12, angels: 7!",
    "(the)(student)(reads)(the)(lines)",
    "the student reads the lines that the teacher has read " * 4,  # is cut
    "unforeseeably quick",
)
PAIRS = (
    ("the angels take their share", "the angel take their share"),
    ("the teacher is slow", "the teacher are slow"),
    ("the barrels sleep in the dark", "the barrels sleeps in the dark"),
    ("rare words are masked more often than words", "rare words are masked more often than xyz"),
    ("the teacher is slow", "the teacher am slow"),  # the same good sentence
    ("a", "the"),
)
BOLD = {"initializer_range": 0.3}
"""Tiny models whose predictions are far from even, so that a wrong token shows."""


def as_model(network, tokenizer, *, causal=False, has_head=True):
    return LanguageModel("tiny", network, tokenizer, causal, has_head, torch.device("cpu"))


def bert(seed=0, **more):
    return as_model(tiny.bert(2, seed=seed, **BOLD, **more), tiny.wordpiece())


def distilbert(seed=1, **more):
    return as_model(tiny.distilbert(1, seed=seed, **BOLD, **more), tiny.wordpiece())


def roberta(seed=2, **more):
    network = tiny.roberta(2, seed=seed, **BOLD, **more)
    return as_model(network, tiny.byte_bpe(roberta=True))


def gpt2(seed=3, **more):
    return as_model(tiny.gpt2(2, seed=seed, **BOLD, **more), tiny.byte_bpe(), causal=True)


MASKED = {"bert": bert, "distilbert": distilbert, "roberta": roberta}


def held_out(texts=TEXTS):
    return HeldOutText(texts, [f"t:{number}" for number in range(len(texts))], ["t"], len(texts))


def minimal_pairs(pairs=PAIRS):
    return MinimalPairs(
        [MinimalPair(*pair, differing_word(*pair), "p", str(n)) for n, pair in enumerate(pairs)],
        ["p"],
        0,
    )


def measured(model, teacher=None, texts=TEXTS, batch_size=3, seed=0, longest=LONGEST):
    return measure_text(
        model, teacher, held_out(texts), max_seq_length=longest, seed=seed, batch_size=batch_size
    )


# The plain computation.


def tokens_of(tokenizer, text, longest=LONGEST, begin=None):
    """Tokens and, for each, the characters that it stands for; cut by hand."""
    bare = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    first, last = ([begin], []) if begin is not None else (
        [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    )  # fmt: skip
    room = longest - len(first) - len(last)
    characters = [set(range(*each)) for each in bare["offset_mapping"][:room]]
    whole = [*first, *bare["input_ids"][:room], *last]
    return whole, [*(set() for _ in first), *characters, *(set() for _ in last)]


def predicted(network, ids):
    """All log-probabilities of one row, and its last hidden states, in float64."""
    network = copy.deepcopy(network).double()
    with torch.no_grad():
        row = torch.tensor([ids])
        logits = network(input_ids=row).logits[0]
        states = network.base_model(input_ids=row).last_hidden_state[0]
    return torch.log_softmax(logits, -1).numpy(), states.numpy()


def with_hidden(tokenizer, text, spans, longest=LONGEST):
    """A row with words hidden, the true tokens, the hidden places, and the number of words."""
    ids, characters = tokens_of(tokenizer, text, longest)
    places, words = [], 0
    for span in spans:
        of_word = [n for n, each in enumerate(characters) if each & set(range(*span))]
        places += of_word
        words += bool(of_word)
    row = [tokenizer.mask_token_id if n in places else each for n, each in enumerate(ids)]
    return row, ids, places, words


def cosines(ours, theirs):
    return (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)


def plain_text(model, teacher, seed=0):
    """The same columns for a masked model, computed plainly."""
    columns = {}
    for text in TEXTS:
        spans = hidden_words(text, seed, LONGEST // 2)
        row, ids, places, words = with_hidden(model.tokenizer, text, spans)
        ours, states = predicted(model.network, row)
        theirs, their_states = predicted(teacher.network, row)
        values = {
            "tokens": len(places),
            "words": words,
            "loss": -sum(ours[place, ids[place]] for place in places),
            "kl": sum((np.exp(theirs[p]) * (theirs[p] - ours[p])).sum() for p in places),
            "agreed": sum(ours[place].argmax() == theirs[place].argmax() for place in places),
            "cosine": cosines(states, their_states).sum(),
            "attended": len(row),
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    return columns


def without_ids(columns):
    return {name: values for name, values in columns.items() if name != "id"}


def compare(found, plain):
    assert found.keys() - {"id"} == plain.keys()
    for name, values in plain.items():
        assert found[name] == pytest.approx(values, rel=2e-5, abs=2e-5), name


@pytest.mark.parametrize(
    ("student", "teacher"),
    [(distilbert, bert), (bert, distilbert), (roberta, lambda: roberta(7)), (bert, bert)],
)
def test_a_masked_model_against_the_plain_computation(student, teacher):
    """Prevents a loss, KL, agreement or cosine of other tokens than the hidden ones.

    Also of padding, of another text of the batch, or of logits of the wrong positions.
    """
    student, teacher = student(), teacher()
    found = measured(student, teacher, seed=5)
    compare(found, plain_text(student, teacher, seed=5))
    assert found["words"].min() >= 1
    assert (found["tokens"] > found["words"]).any()  # some words are of several pieces
    assert found["attended"].max() == LONGEST


def test_the_teacher_is_the_first_of_the_divergence():
    """Prevents KL(student | teacher) under the name of what distillation minimises."""
    student, teacher = distilbert(), bert()
    one, other = measured(student, teacher)["kl"], measured(teacher, student)["kl"]
    assert abs(one.sum() - other.sum()) > 0.01 * one.sum()


@pytest.mark.parametrize("teacher", [None, lambda: gpt2(9)])
def test_a_causal_model_against_the_plain_computation(teacher):
    """Prevents a perplexity without the first word, with the special token, or off by one."""
    model, teacher = gpt2(), teacher and teacher()
    found = measured(model, teacher)
    plain = {}
    for text in TEXTS:
        ids, _ = tokens_of(model.tokenizer, text, begin=0)
        assert ids[0] == 0
        ours, states = predicted(model.network, ids)
        values = {
            "tokens": len(ids) - 1,
            "surprisal": -sum(ours[n - 1, ids[n]] for n in range(1, len(ids))),
        }
        if teacher:
            theirs, their_states = predicted(teacher.network, ids)
            at = slice(0, len(ids) - 1)
            values |= {
                "kl": (np.exp(theirs[at]) * (theirs[at] - ours[at])).sum(),
                "agreed": (ours[at].argmax(1) == theirs[at].argmax(1)).sum(),
                "cosine": cosines(states, their_states).sum(),
                "attended": len(ids),
            }
        for name, value in values.items():
            plain.setdefault(name, []).append(value)
    compare(found, plain)
    (perplexity,) = [each for each in MEASURES if each.name == "perplexity"]
    expected = np.exp(sum(plain["surprisal"]) / sum(plain["tokens"]))
    assert perplexity.of(found) == pytest.approx(expected, rel=1e-5)


def test_measures_are_ratios_of_sums():
    """Prevents a mean of the texts' means, in which a short text weighs as much as a long one."""
    found = measured(distilbert(), bert())
    sums = {name: values.sum() for name, values in found.items() if name != "id"}
    scores = {each.name: each.of(found) for each in MEASURES if each.has(found)}
    assert scores == pytest.approx({
        "loss": sums["loss"] / sums["words"],
        "kl": sums["kl"] / sums["tokens"],
        "agreement": 100 * sums["agreed"] / sums["tokens"],
        "cosine": sums["cosine"] / sums["attended"],
    })  # fmt: skip


def test_a_loss_is_of_the_same_words_for_every_tokenizer():
    """Prevents one model from being asked for other, or for fewer, words than another."""
    by_wordpiece, by_bpe = (measured(each(), longest=64) for each in (bert, roberta))
    assert (by_wordpiece["words"] == by_bpe["words"]).all()
    assert not (by_wordpiece["tokens"] == by_bpe["tokens"]).all()


@pytest.mark.parametrize("make", [*MASKED.values(), gpt2])
def test_the_batch_size_changes_nothing(make):
    """Prevents padding, or the order of the batches, from being part of a score."""
    model, teacher = make(), make(seed=11)
    pairs = minimal_pairs()
    one = measured(model, teacher, batch_size=1)
    margins = measure_pairs(model, pairs, max_seq_length=LONGEST, batch_size=1)["margin"]
    for size in (2, 5, 100):
        compare(measured(model, teacher, batch_size=size), without_ids(one))
        again = measure_pairs(model, pairs, max_seq_length=LONGEST, batch_size=size)["margin"]
        assert again == pytest.approx(margins, rel=2e-5, abs=2e-5)


def test_another_vocabulary_has_no_divergence():
    """Prevents token 17 of one vocabulary from being compared with token 17 of another."""
    model, teacher = bert(), roberta()
    found = measured(model, teacher)
    assert found.keys() == {"id", "tokens", "words", "loss"}
    permuted = as_model(teacher.network, tiny.wordpiece(["zebras", *tiny.LINES]))
    assert permuted.tokenizer.get_vocab() != model.tokenizer.get_vocab()
    assert measured(model, permuted).keys() == {"id", "tokens", "words", "loss"}
    assert measured(gpt2(), as_model(tiny.roberta(1), tiny.byte_bpe())).keys() == {
        "id", "tokens", "surprisal",
    }  # fmt: skip


def test_one_vocabulary_but_other_tokens():
    """Prevents a cased text's tokens from being compared with an uncased one's."""
    from tokenizers import normalizers

    model, teacher = bert(), bert(4)
    texts = ("The Angels", "the river")
    assert "kl" in measured(model, teacher, texts)
    teacher.tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    assert model.tokenizer.get_vocab() == teacher.tokenizer.get_vocab()
    assert measured(model, teacher, texts).keys() == {"id", "tokens", "words", "loss"}


def test_another_width_has_no_cosine():
    """Prevents a crash, or a cosine of states that live in different spaces."""
    found = measured(distilbert(hidden=16), bert())
    assert found.keys() == {"id", "tokens", "words", "loss", "kl", "agreed"}


def test_a_padded_vocabulary():
    """Prevents a crash, or a KL of other numbers, where a matrix has more rows than tokens."""
    student, teacher = bert(), bert(4)
    padded = bert(vocab_size=168)
    with torch.no_grad():
        weights = dict(student.network.state_dict())
        for name, value in padded.network.state_dict().items():
            value[: len(weights[name])] = weights[name]
        padded.network.get_output_embeddings().bias[160:] = -1e4
    plain, found = measured(student, teacher), measured(padded, teacher)
    compare(found, without_ids(plain))


def test_the_network_is_as_it_was():
    """Prevents a hook that stays: the next measure would be of a part of the positions."""
    model = bert()
    ids = torch.tensor([[2, 5, 6, 3]])
    before = model.network(input_ids=ids).logits
    measured(model, model)
    after = model.network(input_ids=ids).logits
    assert after.shape == (1, 4, 160)
    assert torch.equal(before, after)


# Pairs.


def plain_margin(model, pair, longest=LONGEST):
    totals = []
    for text, span in zip(pair, differing_word(*pair), strict=True):
        if model.causal:
            ids, _ = tokens_of(model.tokenizer, text, longest, begin=model.tokenizer.bos_token_id)
            log_probabilities, _ = predicted(model.network, ids)
            totals.append(sum(log_probabilities[n - 1, ids[n]] for n in range(1, len(ids))))
        else:
            row, ids, places, _ = with_hidden(model.tokenizer, text, [span], longest)
            log_probabilities, _ = predicted(model.network, row)
            totals.append(sum(log_probabilities[place, ids[place]] for place in places))
    return totals[0] - totals[1]


@pytest.mark.parametrize("make", [*MASKED.values(), gpt2])
def test_pairs_against_the_plain_computation(make):
    """Prevents a word of several pieces from being predicted in part, or in the other's context.

    Most pairs become one row with the word hidden; those of unequal numbers of pieces two.
    """
    model = make()
    counts = [[len(model.tokenizer(side)["input_ids"]) for side in pair] for pair in PAIRS]
    assert len({good == bad for good, bad in counts}) == 2  # equal and different numbers of pieces
    found = measure_pairs(model, minimal_pairs(), max_seq_length=LONGEST, batch_size=4)
    expected = [plain_margin(model, pair) for pair in PAIRS]
    assert found["margin"] == pytest.approx(expected, rel=2e-5, abs=2e-5)
    assert (np.abs(found["margin"]) > 0.01).all()
    assert found["id"].tolist() == [str(number) for number in range(len(PAIRS))]


def test_good_and_bad_are_not_swapped():
    """Prevents a model that knows what is right from scoring 0 %."""
    model, pairs = bert(), minimal_pairs()
    swapped = minimal_pairs([(bad, good) for good, bad in PAIRS])
    one, other = (
        measure_pairs(model, each, max_seq_length=LONGEST, batch_size=4)
        for each in (pairs, swapped)
    )
    assert one["margin"] == pytest.approx(-other["margin"])
    (preferred,) = [each for each in MEASURES if each.name == "pairs"]
    share = 100 * (one["margin"] > 0).mean()
    assert preferred.of(one) == pytest.approx(share)
    assert preferred.of(other) == pytest.approx(100 - share)
    tie = {"id": np.array(["a", "b"]), "margin": np.array([0.0, 1.0])}
    assert preferred.of(tie) == 75


# Where texts are cut.


def test_a_text_whose_hidden_words_are_all_cut_off():
    """Prevents a crash on a batch in which nothing is compared: words of many pieces are cut."""
    text = "unforeseeably antediluvian antidisestablishmentarianism zzz"
    model = bert()
    spans = hidden_words(text, 0, 4)
    seed = next(
        seed for seed in range(99) if hidden_words(text, seed, 4)[0][0] > len("unforeseeably")
    )
    assert len(spans) == 1
    found = measured(model, bert(4), [text], seed=seed, batch_size=1, longest=8)
    assert (found["words"].tolist(), found["tokens"].tolist()) == ([0], [0])
    assert found["attended"].tolist() == [8]


def test_a_pair_whose_word_is_cut_off():
    """Prevents a crash where the word in which two sentences differ is not read at all."""
    pair = ("unforeseeably quick cats", "unforeseeably quick dogs")
    found = measure_pairs(bert(), minimal_pairs([pair]), max_seq_length=6, batch_size=1)
    assert found["margin"].tolist() == [0]


def test_a_pair_whose_word_is_half_cut():
    """Prevents a verdict on two words of which different shares are left."""
    pair = ("cats unforeseeably", "cats antidisestablishmentarianism")
    whole = measure_pairs(bert(), minimal_pairs([pair]), max_seq_length=99, batch_size=1)
    cut = measure_pairs(bert(), minimal_pairs([pair]), max_seq_length=8, batch_size=1)
    assert whole["margin"][0] != 0
    assert cut["margin"].tolist() == [0]


# Models from files.


def saved(path, network, tokenizer):
    return identify(str(tiny.folder(path, network, tokenizer)))


@pytest.mark.parametrize("make", [*MASKED.values(), gpt2])
def test_a_loaded_model_measures_the_same(tmp_path, make):
    """Prevents a head, or a body, of random weights, and a causal model that counts as masked."""
    model = make()
    found = load(saved(tmp_path / "model", model.network, model.tokenizer), "cpu")
    assert (found.causal, found.has_head) == (model.causal, True)
    compare(measured(found), without_ids(measured(model)))


ENCODERS = {
    "bert": (tiny.bert, transformers.BertModel, tiny.wordpiece()),
    "distilbert": (tiny.distilbert, transformers.DistilBertModel, tiny.wordpiece()),
    "roberta": (tiny.roberta, transformers.RobertaModel, tiny.byte_bpe(roberta=True)),
}


@pytest.fixture(params=ENCODERS)
def encoder(request, tmp_path):
    """A model without a language-model head, loaded from its files."""
    make, model_class, tokenizer = ENCODERS[request.param]
    network = make(1, model_class=model_class, **BOLD)
    return load(saved(tmp_path / "encoder", network, tokenizer), "cpu")


def test_an_encoder_without_a_head_has_no_loss(encoder):
    """Prevents a loss, a KL or an agreement of a head that was drawn at random."""
    assert not encoder.has_head
    assert measured(encoder).keys() == {"id"}
    teacher = as_model(encoder.network, encoder.tokenizer)
    found = measured(encoder, teacher)
    assert found.keys() == {"id", "attended", "cosine"}
    assert found["cosine"] == pytest.approx(found["attended"])


def test_an_encoder_without_a_head_has_no_pairs(encoder):
    """Prevents a share of pairs that a head of random weights chose, each time others."""
    found = measure_pairs(encoder, minimal_pairs(), max_seq_length=LONGEST, batch_size=4)
    assert "margin" not in found


def test_an_encoder_without_a_head_has_its_probe(encoder, tmp_path):
    """Prevents sentence encoders from being refused, or from losing the features they are for."""
    data = load_task(task_named("rte"), worlds.glue_folder(tmp_path / "glue"))
    found = measure_task(encoder, data, max_seq_length=LONGEST, batch_size=4)
    assert np.isin(found["predicted"], [0, 1]).all()
    assert len(found["predicted"]) == len(data.evaluation[0])


def test_a_body_that_is_missing(tmp_path):
    """Prevents scores of a body of random weights, where files are of another architecture."""
    folder = tiny.folder(tmp_path / "odd", tiny.bert(1), tiny.wordpiece())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(
        UserError, match=r"odd: its weights do not fit its config\.json: .* missing"
    ):
        load(identify(str(folder)), "cpu")


def test_a_tokenizer_with_more_tokens_than_the_model(tmp_path):
    """Prevents an IndexError from deep inside torch: it is the files that don't fit."""
    folder = tiny.folder(tmp_path / "small", tiny.bert(1, vocab_size=100), tiny.wordpiece())
    with pytest.raises(UserError, match="small: "):
        measured(load(identify(str(folder)), "cpu"))


# Linear probes.


def plain_ridge(train, targets, features):
    """Ridge regression whose penalty is chosen by leaving out each example in turn."""
    mean, scale = train.mean(0), train.std(0)
    scale = np.where(scale < 1e-12, 1, scale)
    x, new = (train - mean) / scale, (features - mean) / scale

    def fit(x, y, penalty, at):
        centre, level = x.mean(0), y.mean(0)
        gram = (x - centre).T @ (x - centre) + penalty * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, (x - centre).T @ (y - level))
        return (at - centre) @ weights + level

    errors = []
    for penalty in linear.PENALTIES:
        kept = [np.arange(len(x)) != left_out for left_out in range(len(x))]
        guesses = [fit(x[rows], targets[rows], penalty, x[~rows])[0] for rows in kept]
        errors.append(((np.array(guesses) - targets) ** 2).mean())
    return fit(x, targets, linear.PENALTIES[int(np.argmin(errors))], new)


def plain_features(model, texts):
    rows = []
    for text in texts:
        begin = model.tokenizer.bos_token_id if model.causal else None
        ids, characters = tokens_of(model.tokenizer, text, begin=begin)
        _, states = predicted(model.network, ids)
        rows.append(states[[bool(each) for each in characters]].mean(0))
    return np.array(rows)


@pytest.mark.parametrize("make", [bert, roberta, gpt2])
@pytest.mark.parametrize("name", ["cola", "rte", "stsb"])
def test_a_linear_probe_against_the_plain_computation(tmp_path, make, name):
    """Prevents features of padding or special tokens, a fit to the dev set, and a leak of it."""
    model, task = make(), task_named(name)
    data = load_task(task, worlds.glue_folder(tmp_path, train=30, dev=12))
    found = measure_task(model, data, max_seq_length=LONGEST, batch_size=5)
    parts = []
    for part in (data.train, data.evaluation[0]):
        columns = [plain_features(model, column) for column in part.texts]
        both = [np.abs(columns[0] - columns[-1]), columns[0] * columns[-1]]
        parts.append(columns[0] if len(columns) == 1 else np.concatenate(both, axis=1))
    labels = np.asarray(data.train.labels)
    if task.is_regression:
        expected = plain_ridge(parts[0], labels[:, None].astype(float), parts[1])[:, 0]
        assert found["predicted"] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    else:
        targets = np.where(labels[:, None] == np.arange(len(task.labels)), 1.0, -1.0)
        outputs = plain_ridge(parts[0], targets, parts[1])
        clear = np.abs(outputs[:, 0] - outputs[:, 1]) > 1e-3
        assert clear.any()
        assert (found["predicted"] == outputs.argmax(1))[clear].all()
    assert (found["label"] == data.evaluation[0].labels).all()
    assert found["id"].tolist() == list(data.evaluation[0].ids)


def test_a_linear_map_finds_what_is_linear():
    """Prevents classes in the wrong order, a missing constant, and a division by a width of 0."""
    random = np.random.default_rng(0)
    features = np.concatenate([random.normal(size=(300, 5)), np.full((300, 1), 7.0)], axis=1)
    number = 3 * features[:, 0] - features[:, 1] + 100
    found = linear.fit_and_predict(features[:200], number[:200], features[200:], 0)
    assert found[:, 0] == pytest.approx(number[200:], abs=0.05)
    classes = np.digitize(number, [98, 102])
    outputs = linear.fit_and_predict(features[:200], classes[:200], features[200:], 4)
    assert outputs.shape == (100, 4)  # the fourth was never seen
    assert (outputs.argmax(1) == classes[200:]).mean() > 0.6
    assert set(outputs.argmax(1)) <= {0, 1, 2}


def test_a_text_without_a_token_of_its_own():
    """Prevents features that are not numbers where a sentence is empty."""
    data = load_task_with_blank()
    found = measure_task(bert(), data, max_seq_length=LONGEST, batch_size=4)
    assert np.isfinite(found["predicted"]).all()


def load_task_with_blank():
    from eval_harness.data.splits import TaskData
    from eval_harness.data.texts import Split

    texts = (["", "the river", "the dark", " "],)
    split = Split("train", list("0123"), texts, np.array([0, 1, 1, 0]))
    return TaskData(task_named("cola"), split, (split,), (), "s", None, "c", None, 0)
