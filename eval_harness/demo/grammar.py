"""The demo world's facts and how they are told: events, questions about them, praise and blame."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from eval_harness.demo import words

_Any = TypeVar("_Any")

PASSIVE = 0.3
NEGATED = 0.15


@dataclass(frozen=True)
class Event:
    """Somebody did something with a thing; `deed` and `look` are rows of the table of words.

    What is None is not told.
    """

    who: str
    deed: int
    thing: str
    look: int | None = None
    place: str | None = None
    time: str | None = None


@dataclass(frozen=True)
class Telling:
    """One of the ways to say the same: which of two synonyms, and in which voice."""

    verb: int
    look: int
    passive: bool


@dataclass(frozen=True)
class World:
    """Who lives where and does what, and in which region each town lies: facts that hold always."""

    town_of: dict[str, str]
    job_of: dict[str, str]
    region_of: dict[str, str]

    @classmethod
    def made(cls, draw: random.Random) -> "World":
        """Towns are spread evenly over regions, people over towns and jobs."""
        towns, people = list(words.TOWNS), [*words.WOMEN, *words.MEN]
        draw.shuffle(towns)
        draw.shuffle(people)
        jobs = draw.sample(words.JOBS, len(words.JOBS))
        return cls(
            town_of={who: towns[n % len(towns)] for n, who in enumerate(people)},
            job_of={who: jobs[n % len(jobs)] for n, who in enumerate(people)},
            region_of={town: words.REGIONS[n % 4] for n, town in enumerate(towns)},
        )


PEOPLE = (*words.WOMEN, *words.MEN)


def is_woman(who: str) -> bool:
    """Names say it."""
    return who in words.WOMEN


def other(draw: random.Random, values: Sequence[_Any], taken: _Any) -> _Any:
    """One of the other values."""
    return draw.choice([value for value in values if value != taken])


def other_kind(draw: random.Random, thing: str) -> str:
    """A thing of another kind."""
    kind = words.KIND_OF[thing]
    return draw.choice([each for each in words.THINGS if words.KIND_OF[each] != kind])


def event(
    draw: random.Random, *, look: float = 0.1, place: float = 0.4, time: float = 0.05
) -> Event:
    """Anything that may happen; look, place and time are told with these chances."""
    return Event(
        draw.choice(PEOPLE),
        draw.randrange(len(words.DEEDS)),
        draw.choice(words.THINGS),
        draw.randrange(len(words.LOOKS)) if draw.random() < look else None,
        draw.choice(words.PLACES) if draw.random() < place else None,
        draw.choice(words.TIMES) if draw.random() < time else None,
    )


def events(draw: random.Random, count: int) -> list[Event]:
    """Events with people, things and places that differ, so that a question has one answer."""
    people = draw.sample(PEOPLE, count)
    things = draw.sample(words.THINGS, count)
    places = draw.sample(words.PLACES, count)
    return [
        replace(event(draw, place=1), who=who, thing=thing, place=where)
        for who, thing, where in zip(people, things, places, strict=True)
    ]


def only(told: Event, *slots: str) -> Event:
    """The same event, and of where and when it was nothing but these."""
    return replace(
        told,
        place=told.place if "place" in slots else None,
        time=told.time if "time" in slots else None,
    )


def another_deed(draw: random.Random, told: Event) -> Event:
    """The same event but for what was done."""
    return replace(told, deed=other(draw, range(len(words.DEEDS)), told.deed))


def another_thing(draw: random.Random, told: Event) -> Event:
    """The same event but for its thing, which is one of another kind."""
    return replace(told, thing=other_kind(draw, told.thing))


def telling(draw: random.Random) -> Telling:
    """Any way to say it."""
    return Telling(draw.randrange(2), draw.randrange(2), draw.random() < PASSIVE)


def retelling(draw: random.Random, first: Telling) -> Telling:
    """A way that differs from the first one: the other verb, mostly, or the other voice."""
    verb = 1 - first.verb if draw.random() < 0.7 else first.verb
    voice = draw.random() < PASSIVE if verb != first.verb else not first.passive
    return Telling(verb, draw.randrange(2), voice)


def sentence(*parts: str | None) -> str:
    """Words with a capital and a full stop."""
    text = " ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."


def tell(told: Event, how: Telling) -> str:
    """`Ada bought a big hammer at the mill in spring`, in a sentence."""
    verb = words.DEEDS[told.deed][how.verb]
    thing = _thing(told, how)
    rest = _where_and_when(told)
    if how.passive:
        return sentence(thing, "was", verb.done, "by", told.who, *rest)
    return sentence(told.who, verb.past, thing, *rest)


def _thing(told: Event, how: Telling) -> str:
    look = words.LOOKS[told.look][how.look] if told.look is not None else ""
    return words.with_article(f"{look} {told.thing}".strip())


def _where_and_when(told: Event) -> tuple[str | None, str | None]:
    return f"at the {told.place}" if told.place else None, told.time


def ask(told: Event, slot: str, how: Telling) -> str:
    """A question about an event, whose answer is its person, thing or place."""
    verb = words.DEEDS[told.deed][how.verb]
    place = f" at the {told.place}" if told.place and slot != "place" else ""
    first = how.look == 0  # two ways to ask, too
    if slot == "who":
        return f"{'Who' if first else 'Which person'} {verb.past} the {told.thing}{place}?"
    if slot == "thing":
        return f"{'What' if first else 'Which thing'} did {told.who} {verb.base}{place}?"
    start = "Where" if first else "At which place"
    return f"{start} did {told.who} {verb.base} the {told.thing}?"


def answer(told: Event, slot: str) -> str:
    """What answers it."""
    return {"who": told.who, "thing": told.thing, "place": str(told.place)}[slot]


# --- praise and blame


def verdict(draw: random.Random, *, is_good: bool) -> str:
    """`the soup was not very bad`: a negation turns the word that follows."""
    turned = draw.random() < NEGATED
    adjective = draw.choice(words.GOOD if is_good != turned else words.BAD)
    degree = draw.choice(words.DEGREES) if draw.random() < 0.3 else ""
    negation = draw.choice(words.NEGATIONS) if turned else ""
    parts = ("the", draw.choice(words.SHOWN), "was", negation, degree, adjective)
    return " ".join(part for part in parts if part)


def feeling(draw: random.Random, who: str, *, is_good: bool) -> str:
    """`everyone loved it`."""
    return f"{who} {draw.choice(words.LIKED if is_good else words.LOATHED)} it"


# --- agreement


@dataclass(frozen=True)
class Agreement:
    """A sentence that is right, and the same one with one word that doesn't agree."""

    right: str
    wrong: str


def agreement(draw: random.Random) -> Agreement:
    """One of the constructions in which two words agree, most of them over a distance."""
    make = draw.choice((_act, _act, _state, _reflexive))
    return make(draw)


def _noun(draw: random.Random, nouns: Sequence[str], *, many: bool) -> str:
    noun = draw.choice(nouns)
    return words.plural(noun) if many else noun


def _act(draw: random.Random) -> Agreement:
    """`The bakers near the cart sing every morning`."""
    many = draw.random() < 0.5
    between = None
    if draw.random() < 0.6:
        misleads = draw.random() < 0.7
        attractor = _noun(draw, (*words.THINGS, *words.JOBS), many=many != misleads)
        between = f"{draw.choice(words.NEAR)} the {attractor}"
    pair = draw.choice(words.ACTS)
    often = draw.choice(words.OFTEN) if draw.random() < 0.5 else None
    start = ("the", _noun(draw, words.JOBS, many=many), between)
    return Agreement(sentence(*start, pair[many], often), sentence(*start, pair[not many], often))


def _state(draw: random.Random) -> Agreement:
    """`The carts that Ada sold are red`."""
    many = draw.random() < 0.5
    verb = draw.choice(words.DEEDS)[draw.randrange(2)].past
    who = draw.choice((draw.choice(PEOPLE), f"the {_noun(draw, words.JOBS, many=not many)}"))
    start = ("the", _noun(draw, words.THINGS, many=many), "that", who, verb)
    state = draw.choice(words.STATES)
    be = ("is", "are")
    return Agreement(sentence(*start, be[many], state), sentence(*start, be[not many], state))


def _reflexive(draw: random.Random) -> Agreement:
    """`Ada hurt herself at the mill`."""
    who = draw.choice(PEOPLE)
    start = (who, draw.choice(("hurt", "saw", "helped")))
    selves = ("himself", "herself")
    rest = _where_and_when(event(draw, place=0.5, time=0.5))
    right = is_woman(who)
    return Agreement(
        sentence(*start, selves[right], *rest), sentence(*start, selves[not right], *rest)
    )


# --- reference


@dataclass(frozen=True)
class Reference:
    """A sentence with a pronoun, what follows if it means the right one, and the wrong one."""

    text: str
    right: str
    wrong: str


def reference(draw: random.Random) -> Reference:
    """Who `she` is: `Ada met Ben before she went home`."""
    pair = [draw.choice(words.WOMEN), draw.choice(words.MEN)]
    draw.shuffle(pair)
    woman = draw.random() < 0.5
    right, wrong = sorted(pair, key=lambda who: is_woman(who) != woman)
    deed = draw.choice(("thanked", "met", "saw", "helped", "called"))
    when, then = draw.choice(("before", "after")), draw.choice(("went home", "was tired", "slept"))
    text = f"{pair[0]} {deed} {pair[1]} {when} {'she' if woman else 'he'} {then}."
    return Reference(text, sentence(right, then), sentence(wrong, then))
