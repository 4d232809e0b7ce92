"""Entities: which there are and how many are right, against a slow count and by hand."""

import random

import numpy as np
import pytest

from eval_harness.metrics import load_metric
from eval_harness.tasks.entities import (
    ENTITY_METRICS,
    all_counts,
    counts_of,
    entities_of,
    entity_metrics,
)

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def is_entity(tags, kind, start, end, *, strict):
    """Whether exactly these words are an entity, from its definition rather than by walking."""

    def tag(place):
        return tags[place] if 0 <= place < len(tags) else "O"

    def begins(place):
        if tag(place) == f"B-{kind}":
            return True
        continues = tag(place - 1) in (f"B-{kind}", f"I-{kind}")
        return tag(place) == f"I-{kind}" and not continues and not strict

    inside = all(tag(place) == f"I-{kind}" for place in range(start + 1, end))
    return begins(start) and inside and tag(end) != f"I-{kind}"


def brute_force(tags, *, strict):
    """All entities, found by asking of every stretch of words whether it is one."""
    size = len(tags)
    return {
        (kind, start, end)
        for kind in ("PER", "LOC")
        for start in range(size)
        for end in range(start + 1, size + 1)
        if is_entity(tags, kind, start, end, strict=strict)
    }


@pytest.mark.parametrize("strict", [False, True])
def test_entities_are_those_of_a_slow_search(strict):
    """Prevents an entity from being split, joined, lost at an end, or begun where none begins."""
    draw = random.Random(1)
    for _ in range(3000):
        tags = draw.choices(TAGS, k=draw.randint(0, 8))
        found = entities_of(tags, strict=strict)
        assert len(set(found)) == len(found)
        assert set(found) == brute_force(tags, strict=strict), tags


def test_counts_and_metrics_are_those_of_a_slow_search():
    """Prevents precision for recall, a mean of sentences for sums, and strict for lenient."""
    draw = random.Random(2)
    for _ in range(300):
        sizes = [draw.randint(1, 7) for _ in range(draw.randint(1, 6))]
        gold, said = ([draw.choices(TAGS, k=size) for size in sizes] for _ in range(2))
        metrics = entity_metrics(gold, said)
        assert tuple(metrics) == ENTITY_METRICS
        for how, strict in (("entity", False), ("strict", True)):
            right = predicted = there = 0
            for theirs, ours in zip(gold, said, strict=True):
                a, b = brute_force(ours, strict=strict), brute_force(theirs, strict=strict)
                right, predicted, there = right + len(a & b), predicted + len(a), there + len(b)
            precision = right / predicted if predicted else 0.0
            recall = right / there if there else 0.0
            f1 = 2 * precision * recall / (precision + recall) if right else 0.0
            assert metrics[f"{how}_precision"] == pytest.approx(precision)
            assert metrics[f"{how}_recall"] == pytest.approx(recall)
            assert metrics[f"{how}_f1"] == pytest.approx(f1)


GOLD = [["B-PER", "O", "B-LOC", "I-LOC", "O", "B-ORG"], ["O", "B-MISC", "O", "O"]]
SAID = [["B-PER", "O", "B-LOC", "I-LOC", "O", "I-ORG"], ["O", "O", "I-MISC", "B-PER"]]


def test_the_two_countings_by_hand():
    """Prevents the published counting and the strict one from being taken for each other.

    Of four entities the lenient one finds PER, LOC and ORG, and MISC and PER where none are: 3
    right of 5, of 4. By IOB2 the two I- that continue nothing are none: 2 right of 3, of 4.
    """
    assert all_counts(GOLD, SAID).sum(axis=0).tolist() == [3, 5, 4, 2, 3, 4]
    metrics = entity_metrics(GOLD, SAID)
    assert metrics["entity_f1"] == pytest.approx(6 / 9)  # .667
    assert metrics["strict_f1"] == pytest.approx(4 / 7)  # .571
    assert (metrics["entity_precision"], metrics["entity_recall"]) == (3 / 5, 3 / 4)


@pytest.mark.parametrize(
    ("gold", "said", "counts"),
    [
        (["O", "O"], ["O", "O"], [0, 0, 0]),
        (["B-PER", "B-PER"], ["B-PER", "I-PER"], [0, 1, 2]),
        (["B-PER", "I-PER"], ["B-LOC", "I-LOC"], [0, 1, 1]),
        (["B-PER", "I-PER", "I-PER"], ["B-PER", "I-PER", "O"], [0, 1, 1]),
        (["B-PER", "O"], ["I-PER", "I-LOC"], [1, 2, 1]),
        (["B-A-B", "I-A-B"], ["B-A-B", "I-A-B"], [1, 1, 1]),
    ],
)
def test_an_entity_is_right_as_a_whole(gold, said, counts):
    """Prevents half an entity, or one of another type, from counting."""
    assert counts_of(gold, said)[:3] == counts


def test_nothing_to_find_is_no_division_by_zero():
    """Prevents NaN, which no result may hold, where a small model finds no name at all."""
    assert set(entity_metrics([["O"]], [["O"]]).values()) == {0.0}
    with pytest.raises(ValueError, match="other lengths"):
        entity_metrics([["O"]], [["O", "O"]])
    assert all_counts([], []).shape == (0, 6)


def test_they_are_a_metric_of_evaluate():
    """Prevents a Trainer of one's own from being scored otherwise than the tables."""
    pytest.importorskip("evaluate")
    found = load_metric("conll2003").compute(predictions=SAID, references=GOLD)
    assert found == {**entity_metrics(GOLD, SAID), "score": pytest.approx(6 / 9)}
    single = load_metric("strict_f1").compute(predictions=SAID, references=GOLD)
    assert np.isclose(single.pop("strict_f1"), 4 / 7)
    assert not single
