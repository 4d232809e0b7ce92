"""The demo world's pre-training corpus: facts, events, paraphrases, questions and reviews.

Each line is a paragraph. Nothing is labelled, but to predict masked words a model must learn which
thing is of which kind, the synonyms, who lives where, agreement, and to look back in the text.
"""

import random
import re
from collections.abc import Callable, Set
from dataclasses import replace
from itertools import count as count_from
from itertools import islice

from eval_harness.demo import grammar, words
from eval_harness.demo.grammar import World, sentence


def lines(world: World, rng: random.Random, count: int, unseen: Set[str]) -> list[str]:
    """Return paragraphs for pre-training.

    Args:
        world: the facts that paragraphs state.
        rng: the source of every choice.
        count: number of paragraphs.
        unseen: sentences reserved for evaluation; a paragraph with one of them is dropped.
    """
    makers = [maker for maker, weight in _MAKERS for _ in range(weight)]
    drawn = (rng.choice(makers)(world, rng) for _ in count_from(0))
    allowed = (line for line in drawn if unseen.isdisjoint(_sentences(line)))
    return list(islice(allowed, count))


def _sentences(line: str) -> list[str]:
    """Return a paragraph's sentences as they would stand alone, also behind `In other words,`."""
    told = (re.sub(r"^(In other words, |So )", "", part) for part in re.split(r"(?<=[.?]) ", line))
    return [f"{part[:1].upper()}{part[1:]}" for part in told]


def _person(world: World, rng: random.Random) -> str:
    """Tell where a person lives, the region of that town, and the person's job."""
    who = rng.choice(grammar.PEOPLE)
    town = world.town_of[who]
    region, she = world.region_of[town], "she" if grammar.is_woman(who) else "he"
    facts = [
        f"{rng.choice((who, she))} {rng.choice(('lives', 'dwells'))} in the {region}",
        f"{rng.choice((who, she))} is a {world.job_of[who]}",
        f"{town} lies in the {region}",
    ]
    rng.shuffle(facts)
    start = f"{who} {rng.choice(('lives', 'dwells'))} in {town}"
    return " ".join(sentence(fact) for fact in (start, *facts))


def _kind(world: World, rng: random.Random) -> str:
    """Tell that three things are of one kind."""
    kind = rng.choice(tuple(words.KINDS))
    things = rng.sample(words.KINDS[kind], 3)
    first, second, third = (words.with_article(thing) for thing in things)
    plurals = [words.plural(thing) for thing in things]
    facts = (
        sentence(first, "is", words.with_article(kind)),
        sentence(second, "and", third, "are", words.plural(kind), "too"),
        sentence(plurals[0], "and", plurals[2], "are", words.plural(kind)),
    )
    return " ".join(facts)


def _synonyms(world: World, rng: random.Random) -> str:
    """Tell that two verbs are synonyms, in all their forms."""
    first, second = rng.sample(rng.choice(words.ACTIONS), 2)
    facts = [
        f"to {first.base} is to {second.base}",
        f"who {first.past} a thing {second.past} it",
        f"what was {first.done} was {second.done}",
    ]
    rng.shuffle(facts)
    return " ".join(map(sentence, facts))


def _paraphrases(world: World, rng: random.Random) -> str:
    """Tell an event in three ways, one of which names only the kind of its thing."""
    event = grammar.draw_event(rng)
    phrasing = grammar.draw_phrasing(rng)
    general = replace(
        event, thing=words.KIND_OF[event.thing], adjective=None, place=None, time=None
    )
    tellings = [
        grammar.tell(event, phrasing),
        grammar.tell(event, grammar.draw_rephrasing(rng, phrasing)),
        grammar.tell(general, grammar.draw_phrasing(rng)),
    ]
    rng.shuffle(tellings)
    first, second, third = tellings
    return f"{first} In other words, {_lowered(second, event)} So {_lowered(third, event)}"


def _lowered(text: str, event: grammar.Event) -> str:
    """Return the sentence as it is written after other words; a name keeps its capital."""
    return text if text.startswith(event.who) else text[0].lower() + text[1:]


def _question(world: World, rng: random.Random) -> str:
    """Tell some events, and a question about one of them with its answer."""
    events = grammar.draw_events(rng, rng.choice((1, 2, 3)))
    chosen = rng.choice(events)
    slot = rng.choice(("who", "thing", "place"))
    question = grammar.ask(chosen, slot, grammar.draw_phrasing(rng))
    text = " ".join(grammar.tell(event, grammar.draw_phrasing(rng)) for event in events)
    if slot == "place":
        answer = f"At the {chosen.place}."
    else:
        answer = sentence("the" if slot == "thing" else None, grammar.answer(chosen, slot))
    parts = (question, text, answer) if rng.random() < 0.5 else (text, question, answer)
    return " ".join(parts)


def _review(world: World, rng: random.Random) -> str:
    """Write a review of one sentiment; of two clauses, the one after `but` counts."""
    is_good = rng.random() < 0.5
    clauses = [grammar.draw_opinion(rng, is_good=is_good) for _ in range(rng.choice((1, 2, 3)))]
    if rng.random() < 0.15:
        opposite = grammar.draw_opinion(rng, is_good=not is_good)
        clauses[-1] = f"{opposite}, but {clauses[-1]}"
    feeling = grammar.draw_feeling(rng, rng.choice(("I", "we", "everyone")), is_good=is_good)
    clauses.insert(rng.choice((0, len(clauses))), feeling)
    return " ".join(map(sentence, clauses))


def _agreement(world: World, rng: random.Random) -> str:
    return " ".join(grammar.draw_agreement(rng).right for _ in range(2))


def _reference(world: World, rng: random.Random) -> str:
    reference = grammar.draw_reference(rng)
    return f"{reference.text} {reference.right}"


_MAKERS: tuple[tuple[Callable[[World, random.Random], str], int], ...] = (
    (_person, 1),
    (_kind, 1),
    (_synonyms, 1),
    (_paraphrases, 4),
    (_question, 2),
    (_review, 5),
    (_agreement, 14),
    (_reference, 8),
)
"""Each kind of paragraph and its weight in the corpus."""
