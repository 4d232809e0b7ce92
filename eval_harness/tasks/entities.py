"""Named entities in a sentence's tags, and how well they are found. Needs numpy alone.

A tag is `O`, or `B-` or `I-` and a type. Entities are counted twice: leniently, as conlleval does,
where an `I-` that continues nothing begins an entity; and strictly by IOB2, where it is none.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from eval_harness.tasks.registry import EntityMetric

OUTSIDE = "O"
ENTITY_METRICS: tuple[EntityMetric, ...] = get_args(EntityMetric)
COUNTS = 6
"""The counts of a sentence: right, predicted and gold entities, leniently and then strictly."""


class Entity(NamedTuple):
    """An entity: its type, its first word, and the word after its last."""

    kind: str
    start: int
    end: int


def entities_of(tags: Sequence[str], *, strict: bool = False) -> list[Entity]:
    """Return the entities of a sentence.

    Args:
        tags: one per word.
        strict: whether an `I-` that continues no entity of its type is none itself.
    """
    found: list[Entity] = []
    kind, start = "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, name = tag.partition("-")
        if prefix == "I" and kind and name == kind:
            continue
        if kind:
            found.append(Entity(kind, start, place))
        begins = prefix == "B" or (prefix == "I" and not strict)
        kind, start = name if begins else "", place
    return found


def counts_of(gold: Sequence[str], predicted: Sequence[str]) -> list[int]:
    """Return the six counts of one sentence; an entity is right if type and both ends are."""
    counts = []
    for strict in (False, True):
        ours, theirs = (set(entities_of(tags, strict=strict)) for tags in (predicted, gold))
        counts += [len(ours & theirs), len(ours), len(theirs)]
    return counts


def all_counts(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> NDArray[np.int64]:
    """Return the counts of all sentences, [sentences, 6]."""
    rows = [counts_of(*pair) for pair in zip(gold, predicted, strict=True)]
    return np.array(rows, dtype=np.int64).reshape(-1, COUNTS)


def measure(name: EntityMetric, counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return a metric of summed counts, [..., 6] → [...]; 0 where nothing could be found.

    Args:
        name: which metric.
        counts: sums over sentences.
    """
    how, _, what = name.partition("_")
    right, predicted, gold = np.moveaxis(counts, -1, 0)[_PLACES[how]]
    below = {"precision": predicted, "recall": gold, "f1": (predicted + gold) / 2}[what]
    zero = np.zeros(np.shape(below))
    result: NDArray[np.float64] = np.divide(right, below, out=zero, where=below > 0)
    return result


_PLACES = {"entity": slice(0, 3), "strict": slice(3, 6)}


def entity_metrics(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Return all metrics of tagged sentences, by name.

    Args:
        gold: the tags of each sentence.
        predicted: likewise.

    Raises:
        ValueError: no sentences, or another number of sentences or of words.
    """
    if not len(gold) or list(map(len, gold)) != list(map(len, predicted)):
        raise ValueError(f"tags of {len(predicted)} sentences for {len(gold)}, or of other lengths")
    sums = all_counts(gold, predicted).sum(axis=0)
    return {name: float(measure(name, sums)) for name in ENTITY_METRICS}
