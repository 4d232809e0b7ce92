"""From logits to answers: the rules of SQuAD's own scripts, over all windows of a question."""

import math

import numpy as np
import pytest
import tiny
from squad_made import questions

from eval_harness.squad.answers import answers_of
from eval_harness.squad.windows import make_windows

CONTEXT = "the old distillery stands by the river and the barrels sleep in the dark"
SIZES = {"max_seq_length": 40, "doc_stride": 6, "max_query_length": 8}


def made(folder, contexts, tokenizer=None, **sizes):
    asked = questions(folder, [(context, "where the angels?", []) for context in contexts], "v2.0")
    return asked, make_windows(asked, tokenizer or tiny.wordpiece(), **SIZES | sizes)


def flat(windows, *marks):
    """Logits of zero but for (window, place, value)."""
    logits = np.zeros(len(windows.ids), np.float32)
    for window, place, value in marks:
        logits[windows.starts[window] + place] = value
    return logits


def by_hand(asked, windows, starts, ends, *, n_best, longest):
    """One window after another, in plain loops: every question's best span and null score."""
    best, nulls = {}, {}
    for window, question in enumerate(windows.question.tolist()):
        head = windows.starts[window]
        null = float(starts[head]) + float(ends[head])
        nulls[question] = min(nulls.get(question, math.inf), null)
        tokens = []
        for number in range(windows.size[window]):
            begin, end = windows.offsets[windows.first[window] + number]
            place = head + windows.place[window] + number
            if begin < end:
                tokens.append((number, float(starts[place]), float(ends[place]), begin, end))
        by_start = sorted(tokens, key=lambda token: -token[1])
        by_end = sorted(tokens, key=lambda token: -token[2])
        for first, last in ((by_start[:n_best], by_end[:n_best]), (tokens, tokens)):
            pairs = [(a, b) for a in first for b in last if 0 <= b[0] - a[0] < longest]
            if pairs:
                break
        context = asked.contexts[asked.context_of[question]]
        for a, b in pairs:
            if a[1] + b[2] > best.get(question, (-math.inf, ""))[0]:
                best[question] = (a[1] + b[2], context[a[3] : b[4]])
    every = range(len(asked))
    return [best[i][1] for i in every], [nulls[i] - best[i][0] for i in every]


@pytest.mark.parametrize("n_best", [1, 3, 20])
@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
def test_answers_are_those_of_plain_loops(kind, n_best, tmp_path):
    """Prevents the arrays from looking at other spans than the rules do."""
    tokenizer = tiny.wordpiece() if kind == "wordpiece" else tiny.byte_bpe(roberta=True)
    words = CONTEXT.split()
    contexts = [f"{i} " + " ".join((words * 14)[i : i + 2 + 3 * i]) for i in range(44)]
    asked, windows = made(tmp_path, contexts, tokenizer)
    assert len(windows) > 2 * 64  # more than are looked at together
    starts, ends = np.random.default_rng(n_best).normal(size=(2, len(windows.ids)))
    starts, ends = starts.astype(np.float32), ends.astype(np.float32)
    options = {"n_best": n_best, "max_answer_length": 4}
    found = answers_of(asked, windows, starts, ends, version2=False, **options)
    texts, odds = by_hand(asked, windows, starts, ends, n_best=n_best, longest=4)
    assert found.texts == texts
    assert found.null_odds.tolist() == pytest.approx(odds, abs=1e-12)
    assert all(found.texts)
    threshold = float(np.median(odds))
    second = answers_of(
        asked, windows, starts, ends, version2=True, null_threshold=threshold, **options
    )
    expected = ["" if o > threshold else text for text, o in zip(texts, odds, strict=True)]
    assert second.texts == expected
    assert 0 < expected.count("") < len(expected)


def test_the_question_and_cls_are_no_answers(tmp_path):
    """Prevents a model that points at the question from answering with it, or with nothing."""
    asked, windows = made(tmp_path, [CONTEXT])
    (place,) = windows.place.tolist()
    high = [(0, number, 9.0) for number in range(place)]
    last = (0, windows.lengths[0] - 1, 9.0)
    starts, ends = flat(windows, *high, last, (0, place + 2, 1)), flat(windows, *high, last)
    found = answers_of(asked, windows, starts, ends, version2=False)
    assert found.texts == ["distillery"]
    assert found.null_odds.tolist() == [17.0]


def test_an_answer_ends_after_it_begins_and_is_not_too_long(tmp_path):
    """Prevents an answer that runs backwards, or over half of the context."""
    asked, windows = made(tmp_path, [CONTEXT])
    place = int(windows.place[0])
    starts = flat(windows, (0, place + 6, 5.0), (0, place, 3.0))
    ends = flat(windows, (0, place + 3, 5.0), (0, place + 9, 4.0))

    def best(longest):
        answers = answers_of(
            asked, windows, starts, ends, version2=False, max_answer_length=longest
        )
        return answers.texts

    assert best(4) == ["river and the barrels"]  # not from "river" back to "stands"
    assert best(3) == ["old distillery stands"]  # the first of equals: "river" scores 5, too
    ends[windows.starts[0] + place + 3] = 7
    assert best(4) == ["the old distillery stands"]


def test_twenty_candidates_and_thirty_tokens_unless_told(tmp_path):
    """Prevents a default that isn't the original's: every score was made with them."""
    context = " ".join(["the", "old", "river", "barrels", "sleep", "dark", "and", "by"] * 5)
    asked, windows = made(tmp_path, [context], max_seq_length=60)
    place, size = int(windows.place[0]), int(windows.size[0])
    assert (len(windows), size) == (1, 40)
    starts = flat(windows, *[(0, place + i, float(i)) for i in range(size)])
    ends = flat(windows, *[(0, place + i, -2.0 * i) for i in range(size)])
    # The 21 last tokens as starts and the 21 first as ends share two; of 20 and 20 none are shared.
    found = answers_of(asked, windows, starts, ends, version2=False, n_best=21)
    assert found.null_odds.tolist() == [19.0]
    found = answers_of(asked, windows, starts, ends, version2=False)
    assert (found.texts, found.null_odds.tolist()) == (["the"], [0.0])  # so all pairs count
    starts = flat(windows, (0, place, 9.0))
    for last, length in ((29, 30), (30, 1)):
        ends = flat(windows, (0, place + last, 5.0))
        (text,) = answers_of(asked, windows, starts, ends, version2=False).texts
        assert len(text.split()) == length


def test_version_1_is_never_empty_though_no_best_pair_is_a_span(tmp_path):
    """Prevents an empty answer, which is always wrong, where the best starts follow all ends."""
    asked, windows = made(tmp_path, [CONTEXT])
    place, size = int(windows.place[0]), int(windows.size[0])
    starts = flat(windows, *[(0, place + i, float(i)) for i in range(size)])
    ends = -starts
    found = answers_of(asked, windows, starts, ends, version2=False, n_best=2)
    assert found.texts == ["the"]
    assert found.null_odds.tolist() == [0.0]


def test_the_best_window_answers_and_the_least_null_counts(tmp_path):
    """Prevents the last window's answer, or one window's doubt, from standing for the question."""
    words = " ".join(f"{word} {letter}" for letter in "abcdefg" for word in CONTEXT.split()[:6])
    asked, windows = made(tmp_path, [words, CONTEXT])
    assert np.bincount(windows.question).tolist() == [4, 1]
    place = int(windows.place[0])
    starts = flat(windows, (0, place + 1, 2.0), (1, place + 2, 3.0), (3, place + 3, 2.5))
    for window, null in enumerate([5.0, 1.0, 4.0, 6.0, 0.5]):
        starts[windows.starts[window]] = null
    ends = flat(windows)
    found = answers_of(asked, windows, starts, ends, version2=False)
    token = windows.first[1] + 2
    assert found.texts == [words[slice(*windows.offsets[token])], "the"]
    assert found.null_odds.tolist() == [1.0 - 3.0, 0.5]
    assert answers_of(asked, windows, starts, ends, version2=True).texts == [found.texts[0], ""]
    later = answers_of(asked, windows, starts, ends, version2=True, null_threshold=0.5)
    assert later.texts == found.texts


def test_equal_scores_go_to_the_first(tmp_path):
    """Prevents an answer that depends on how a machine sorts."""
    words = " ".join(CONTEXT.split() * 4)
    asked, windows = made(tmp_path, [words])
    assert len(windows) > 1
    zeros = flat(windows)
    assert answers_of(asked, windows, zeros, zeros, version2=False).texts == ["the"]


@pytest.mark.parametrize("version2", [False, True])
@pytest.mark.parametrize("contexts", [["\u200e"], ["\u200e", CONTEXT], [CONTEXT, "\u200e"]])
def test_a_context_without_a_token_has_no_answer(contexts, version2, tmp_path):
    """Prevents a span of nothing; it is the one case in which SQuAD 1.1's answer is empty."""
    asked, windows = made(tmp_path, contexts)
    zeros = flat(windows)
    found = answers_of(asked, windows, zeros, zeros, version2=version2, null_threshold=math.inf)
    assert found.texts == ["the" if context == CONTEXT else "" for context in contexts]
    odds = [0.0 if context == CONTEXT else math.inf for context in contexts]
    assert found.null_odds.tolist() == odds


def test_blank_tokens_are_no_answers(tmp_path):
    """Prevents a byte-level tokenizer's lone blank from being an answer that looks empty."""
    asked, windows = made(tmp_path, ["the   barrels"], tiny.byte_bpe(roberta=True))
    blank = np.flatnonzero(windows.offsets[:, 0] == windows.offsets[:, 1])
    assert len(blank) > 1
    place = int(windows.place[0])
    starts = flat(windows, *[(0, place + int(i), 3.0) for i in blank])
    found = answers_of(asked, windows, starts, starts, version2=False, max_answer_length=1)
    assert found.texts == ["the"]


@pytest.mark.parametrize("fault", ["nan", "inf", "short"])
def test_logits_that_make_no_sense_are_refused(fault, tmp_path):
    """Prevents a NaN from becoming an empty answer, and padded logits from being read as flat."""
    asked, windows = made(tmp_path, [CONTEXT])
    good = flat(windows)
    bad = good[:-1] if fault == "short" else flat(windows, (0, 5, float(fault)))
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match="logits"):
            answers_of(asked, windows, *pair, version2=False)
