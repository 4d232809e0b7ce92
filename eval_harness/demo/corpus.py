"""The demo world's text: what is so, what happens, what it means, and how it is talked about.

A line is a paragraph. Nothing in it is labelled; but who fills in its blanks must know the kinds of
things, the synonyms, who lives where, which verb agrees with which noun, and to look back.
"""

import random
from collections.abc import Callable, Set
from dataclasses import replace
from itertools import count as count_from
from itertools import islice

from eval_harness.demo import grammar, words
from eval_harness.demo.grammar import World, sentence


def lines(world: World, draw: random.Random, count: int, unseen: Set[str]) -> list[str]:
    """So many paragraphs, of which none holds one of the sentences that are to be judged later."""
    makers = [maker for maker, weight in _MAKERS for _ in range(weight)]
    drawn = (draw.choice(makers)(world, draw) for _ in count_from(0))
    kept = (line for line in drawn if unseen.isdisjoint(_sentences(line)))
    return list(islice(kept, count))


def _sentences(line: str) -> list[str]:
    return [f"{part}." for part in line.removesuffix(".").split(". ")]


def _person(world: World, draw: random.Random) -> str:
    """Where somebody lives, where that is, and what they are."""
    who = draw.choice(grammar.PEOPLE)
    town = world.town_of[who]
    region, she = world.region_of[town], "she" if grammar.is_woman(who) else "he"
    facts = [
        f"{draw.choice((who, she))} {draw.choice(('lives', 'dwells'))} in the {region}",
        f"{draw.choice((who, she))} is a {world.job_of[who]}",
        f"{town} lies in the {region}",
    ]
    draw.shuffle(facts)
    start = f"{who} {draw.choice(('lives', 'dwells'))} in {town}"
    return " ".join(sentence(fact) for fact in (start, *facts))


def _kind(world: World, draw: random.Random) -> str:
    """What is a kind of what."""
    kind = draw.choice(tuple(words.KINDS))
    things = draw.sample(words.KINDS[kind], 3)
    first, second, third = (words.with_article(thing) for thing in things)
    many = [words.plural(thing) for thing in things]
    return " ".join((
        sentence(first, "is", words.with_article(kind)),
        sentence(second, "and", third, "are", words.plural(kind), "too"),
        sentence(many[0], "and", many[2], "are", words.plural(kind)),
    ))  # fmt: skip


def _meaning(world: World, draw: random.Random) -> str:
    """Which two verbs mean the same, in all their forms."""
    first, second = draw.sample(draw.choice(words.DEEDS), 2)
    facts = [
        f"to {first.base} is to {second.base}",
        f"who {first.past} a thing {second.past} it",
        f"what was {first.done} was {second.done}",
    ]
    draw.shuffle(facts)
    return " ".join(map(sentence, facts))


def _restated(world: World, draw: random.Random) -> str:
    """An event in three sets of words, of which one says only of what kind its thing was."""
    told = grammar.event(draw)
    how = grammar.telling(draw)
    wide = replace(told, thing=words.KIND_OF[told.thing], look=None, place=None, time=None)
    said = [
        grammar.tell(told, how),
        grammar.tell(told, grammar.retelling(draw, how)),
        grammar.tell(wide, grammar.telling(draw)),
    ]
    draw.shuffle(said)
    return (
        f"{said[0]} In other words, {_lowered(said[1], told.who)} So {_lowered(said[2], told.who)}"
    )


def _lowered(text: str, who: str) -> str:
    return text if text.startswith(who) else text[0].lower() + text[1:]


def _asked(world: World, draw: random.Random) -> str:
    """Some events and a question about one of them, with its answer."""
    told = grammar.events(draw, draw.choice((1, 2, 3)))
    chosen = draw.choice(told)
    slot = draw.choice(("who", "thing", "place"))
    question = grammar.ask(chosen, slot, grammar.telling(draw))
    text = " ".join(grammar.tell(each, grammar.telling(draw)) for each in told)
    if slot == "place":
        full = f"At the {chosen.place}."
    else:
        full = sentence("the" if slot == "thing" else None, grammar.answer(chosen, slot))
    parts = (question, text, full) if draw.random() < 0.5 else (text, question, full)
    return " ".join(parts)


def _review(world: World, draw: random.Random) -> str:
    """Praise or blame of one mind; what comes after `but` is what counts."""
    is_good = draw.random() < 0.5
    clauses = [grammar.verdict(draw, is_good=is_good) for _ in range(draw.choice((1, 2, 3)))]
    if draw.random() < 0.15:
        before = grammar.verdict(draw, is_good=not is_good)
        clauses[-1] = f"{before}, but {clauses[-1]}"
    felt = grammar.feeling(draw, draw.choice(("I", "we", "everyone")), is_good=is_good)
    clauses.insert(draw.choice((0, len(clauses))), felt)
    return " ".join(map(sentence, clauses))


def _agreeing(world: World, draw: random.Random) -> str:
    return " ".join(grammar.agreement(draw).right for _ in range(2))


def _referring(world: World, draw: random.Random) -> str:
    meant = grammar.reference(draw)
    return f"{meant.text} {meant.right}"


_MAKERS: tuple[tuple[Callable[[World, random.Random], str], int], ...] = (
    (_person, 1), (_kind, 1), (_meaning, 2), (_restated, 8), (_asked, 4), (_review, 5),
    (_agreeing, 7), (_referring, 4),
)  # fmt: skip
