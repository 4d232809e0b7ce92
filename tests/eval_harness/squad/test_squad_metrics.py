"""Exact match and F1 against another implementation and against answers worked out by hand."""

import random

import numpy as np
import pytest
from torchmetrics.functional.text import squad

from eval_harness.squad.metrics import normalized, scores_of, summary

WORDS = [
    *("the", "a", "an", "The", "AN", "theatre", "another", "Área", "naïve", "1920s", "1,000.5"),
    *("river", "river", "River,", "(river)", "the-river", "angels'", "angels", "—", "“angels”"),
    *("...", "-", "10", "ten", "İstanbul", "小猫", "👍", "a.", "U.S.", "\u00a0river", "\tten\n"),
]


def phrase(draw, longest=6):
    return " ".join(draw.choices(WORDS, k=draw.randint(0, longest)))


def theirs(texts, answers):
    """One question at a time: torchmetrics only gives means."""
    for text, golds in zip(texts, answers, strict=True):
        found = squad(
            {"prediction_text": text, "id": "0"},
            {"answers": {"text": list(golds), "answer_start": [0] * len(golds)}, "id": "0"},
        )
        yield float(found["exact_match"]) / 100, float(found["f1"]) / 100


def cases(count, *, empty):
    draw = random.Random(count)
    while count:
        text = phrase(draw)
        golds = [phrase(draw) for _ in range(draw.randint(1, 3))]
        golds += [text] * (draw.random() < 0.2)
        draw.shuffle(golds)
        says_something = all(map(normalized, [text, *golds]))
        if says_something or empty:
            yield text, golds
            count -= 1


@pytest.mark.parametrize("version2", [False, True])
def test_thousands_of_cases_agree_with_torchmetrics(version2):
    """Prevents a normalisation, an overlap or a maximum of our own.

    Where a side says nothing torchmetrics follows SQuAD 2.0, which drops such gold answers before.
    """
    texts, answers = zip(*cases(3_000, empty=version2), strict=True)
    ours = scores_of(texts, answers, version2=version2)
    meant = [[gold for gold in golds if normalized(gold)] or [""] for golds in answers]
    expected = np.array(list(theirs(texts, meant if version2 else answers)))
    assert np.abs(ours.exact - expected[:, 0]).max() == 0
    assert np.abs(ours.f1 - expected[:, 1]).max() < 1e-6
    assert 0.1 < ours.exact.mean() < ours.f1.mean() < 0.9
    if version2:
        assert sum(not normalized(text) for text in texts) > 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The River", "river"),
        ("a river, an angel and the barrel", "river angel and barrel"),
        ("theatre another Athens", "theatre another athens"),
        ("the-river", "theriver"),  # punctuation goes first, so that this is one word
        ("U.S.A.", "usa"),
        ("1,000.5 km", "10005 km"),
        ("$40%", "40"),
        ("“angels” — share…", "“angels” — share…"),  # only ASCII's punctuation is known
        ("l'an", "lan"),
        ("an—a", "—"),  # a dash is no letter, so these are articles
        ("sea—the—river", "sea— —river"),  # an article leaves a blank: F1 counts two words
        ("the", ""),
        ("?!", ""),
        ("", ""),
        (" \t two\u00a0\u2003words\n", "two words"),
        ("ÉCOLE İ", "école i̇"),
        ("a_b the_", "ab"),
        ("A A river a", "river"),
    ],
)
def test_normalisation_is_the_official_one(text, expected):
    """Prevents a tidier rule than the one that published numbers were made with."""
    assert normalized(text) == expected


@pytest.mark.parametrize(
    ("text", "golds", "exact", "f1"),
    [
        ("the Denver Broncos", ["Denver Broncos"], 1, 1),
        ("Denver", ["Denver Broncos"], 0, 2 / 3),
        ("river river", ["river"], 0, 2 / 3),
        ("river river", ["river bank river"], 0, 4 / 5),
        ("river", ["bank", "the River!", "sea"], 1, 1),
        ("one two", ["one", "two three four"], 0, 2 / 3),
        ("1,000", ["1000"], 1, 1),
        ("1920s", ["1920"], 0, 0),
        ("bank river", ["river bank"], 0, 1),
        ("", ["river"], 0, 0),
    ],
)
@pytest.mark.parametrize("version2", [False, True])
def test_hand_made_cases(text, golds, exact, f1, version2):
    """Prevents a score that no one would have worked out from the words."""
    found = scores_of([text], [golds], version2=version2)
    assert found.exact.tolist() == [exact]
    assert found.f1.tolist() == pytest.approx([f1])


@pytest.mark.parametrize(
    ("text", "golds", "version1", "version2"),
    [
        ("", [""], (1, 0), (1, 1)),
        ("the", ["a"], (1, 0), (1, 1)),
        ("river", ["the"], (0, 0), (0, 0)),
        ("the", ["a", "river"], (1, 0), (0, 0)),
        ("river", ["the", "river"], (1, 1), (1, 1)),
    ],
)
def test_the_versions_differ_where_nothing_is_said(text, golds, version1, version2):
    """Prevents one version's rule for empty sides from being used for the other."""
    for version, (exact, f1) in ((False, version1), (True, version2)):
        found = scores_of([text], [golds], version2=version)
        assert (found.exact.tolist(), found.f1.tolist()) == ([exact], [f1])


def test_no_answer_is_right_only_where_there_is_none():
    """Prevents SQuAD 2.0's half without answers from being scored as wrong, or always right."""
    answers = [(), (), ("river",), ("river", "bank")]
    found = scores_of(["", "river", "", "bank"], answers, version2=True)
    assert found.exact.tolist() == [1, 0, 0, 1]
    assert found.f1.tolist() == [1, 0, 0, 1]


def test_a_summary_has_the_parts_that_are_there():
    """Prevents the two halves of SQuAD 2.0 from being mixed up, or a mean over nothing."""
    answers = [(), ("river bank",), ("river",), ("the",)]
    found = scores_of(["", "river", "river", ""], answers, version2=True)
    said = summary(found, answers, version2=True)
    assert said == {
        "exact_match": 3 / 4,
        "f1": pytest.approx((3 + 2 / 3) / 4),
        "has_answer_exact_match": 2 / 3,
        "has_answer_f1": pytest.approx((2 + 2 / 3) / 3),
        "no_answer_exact_match": 1.0,
        "no_answer_f1": 1.0,
    }
    first = scores_of(["river"], [("river",)], version2=False)
    assert summary(first, [("river",)], version2=False) == {"exact_match": 1.0, "f1": 1.0}
    assert "no_answer_f1" not in summary(first, [("river",)], version2=True)


def test_every_question_needs_its_answer():
    """Prevents answers that slipped against their questions from being scored."""
    with pytest.raises(ValueError, match="1 answers to 2 questions"):
        scores_of(["river"], [("river",), ("bank",)], version2=False)
