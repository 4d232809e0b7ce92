"""The demo world's minimal pairs: two sentences that differ in one word, in BLiMP's format.

Agreement, reference and kinds: the rules that the corpus shows but never states. A model that has
learned one finds the good sentence likelier, without any fine-tuning.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from eval_harness.demo import grammar, words
from eval_harness.demo.grammar import sentence


class Pair(NamedTuple):
    """A sentence by the rule, and the same with one word that breaks it."""

    good: str
    bad: str


def draw_pairs(name: str, rng: random.Random, count: int) -> list[Pair]:
    """Return distinct pairs of a phenomenon.

    Args:
        name: a key of `PHENOMENA`.
        rng: the source of every choice.
        count: number of pairs.
    """
    found: dict[str, Pair] = {}
    while len(found) < count:
        pair = PHENOMENA[name](rng)
        found.setdefault(pair.good, pair)
    return list(found.values())


def jsonl(name: str, pairs: Sequence[Pair]) -> str:
    """Return a phenomenon's pairs as JSON lines with BLiMP's columns."""
    rows = (
        {"sentence_good": pair.good, "sentence_bad": pair.bad, "UID": name, "pair_id": str(number)}
        for number, pair in enumerate(pairs)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def _agreement(rng: random.Random) -> Pair:
    """Return a pair like `The bakers near the cart sing.` and `... sings.`."""
    agreement = grammar.draw_agreement(rng)
    return Pair(agreement.right, agreement.wrong)


def _reference(rng: random.Random) -> Pair:
    """Return a pair like `Ada met Ben before she slept. Ada slept.` and `... Ben slept.`."""
    reference = grammar.draw_reference(rng)
    return Pair(f"{reference.text} {reference.right}", f"{reference.text} {reference.wrong}")


def _kinds(rng: random.Random) -> Pair:
    """Return a pair like `Ada bought a plum. So Ada bought a fruit.` and `... a tool.`.

    Kinds with one article only, so that no more than the kind differs.
    """
    event = grammar.draw_event(rng, place=1.0, time=0.5)
    kinds = [kind for kind in words.KINDS if words.with_article(kind).startswith("a ")]
    kind = rng.choice(kinds)
    event = replace(event, thing=rng.choice(words.KINDS[kind]))
    phrasing = replace(grammar.draw_phrasing(rng), passive=False)
    other = grammar.draw_other(rng, kinds, kind)
    verb = words.ACTIONS[event.action][phrasing.verb].past
    start = grammar.tell(event, phrasing)
    good, bad = (sentence("so", event.who, verb, "a", each) for each in (kind, other))
    return Pair(f"{start} {good}", f"{start} {bad}")


PHENOMENA: dict[str, Callable[[random.Random], Pair]] = {
    "agreement": _agreement,
    "reference": _reference,
    "kinds": _kinds,
}
