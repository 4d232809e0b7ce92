"""The demo world's grammar: facts, and sentences about events, opinions, agreement and pronouns."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from eval_harness.demo import words

_Any = TypeVar("_Any")

PASSIVE = 0.3
NEGATED = 0.15

PEOPLE = (*words.WOMEN, *words.MEN)


@dataclass(frozen=True)
class Event:
    """A person acted on a thing; `action` and `adjective` are row numbers of the word tables.

    A detail that is None is not mentioned.
    """

    who: str
    action: int
    thing: str
    adjective: int | None = None
    place: str | None = None
    time: str | None = None


@dataclass(frozen=True)
class Phrasing:
    """One way to put an event: which of two synonyms, and which voice.

    Questions have no adjective; there its number picks one of two question words.
    """

    verb: int
    adjective: int
    passive: bool


@dataclass(frozen=True)
class World:
    """The fixed facts: each person's town and job, and each town's region."""

    town_of: dict[str, str]
    job_of: dict[str, str]
    region_of: dict[str, str]

    @classmethod
    def create(cls, rng: random.Random) -> "World":
        """Spread towns evenly over regions, and people over towns and jobs."""
        towns, people = list(words.TOWNS), list(PEOPLE)
        rng.shuffle(towns)
        rng.shuffle(people)
        jobs = rng.sample(words.JOBS, len(words.JOBS))
        return cls(
            town_of={who: towns[n % len(towns)] for n, who in enumerate(people)},
            job_of={who: jobs[n % len(jobs)] for n, who in enumerate(people)},
            region_of={town: words.REGIONS[n % 4] for n, town in enumerate(towns)},
        )


def is_woman(who: str) -> bool:
    """Return whether a person is one of the women."""
    return who in words.WOMEN


def draw_other(rng: random.Random, values: Sequence[_Any], taken: _Any) -> _Any:
    """Return one of the values, but not the one that is taken.

    Args:
        rng: the source of chance.
        values: what to choose from.
        taken: the value to leave out.
    """
    return rng.choice([value for value in values if value != taken])


def draw_other_kind(rng: random.Random, thing: str) -> str:
    """Return a thing of another kind."""
    kind = words.KIND_OF[thing]
    return rng.choice([other for other in words.THINGS if words.KIND_OF[other] != kind])


def draw_event(
    rng: random.Random, *, adjective: float = 0.1, place: float = 0.4, time: float = 0.05
) -> Event:
    """Return a random event.

    Args:
        rng: the source of every choice.
        adjective: probability that the thing has an adjective.
        place: probability that the place is mentioned.
        time: probability that the time is mentioned.
    """
    return Event(
        rng.choice(PEOPLE),
        rng.randrange(len(words.ACTIONS)),
        rng.choice(words.THINGS),
        rng.randrange(len(words.ADJECTIVES)) if rng.random() < adjective else None,
        rng.choice(words.PLACES) if rng.random() < place else None,
        rng.choice(words.TIMES) if rng.random() < time else None,
    )


def draw_events(rng: random.Random, count: int) -> list[Event]:
    """Return events that share no person, thing or place, so that a question has one answer."""
    people = rng.sample(PEOPLE, count)
    things = rng.sample(words.THINGS, count)
    places = rng.sample(words.PLACES, count)
    return [
        replace(draw_event(rng, place=1), who=who, thing=thing, place=where)
        for who, thing, where in zip(people, things, places, strict=True)
    ]


def keep_only(event: Event, *slots: str) -> Event:
    """Return the event with its place and time dropped unless they are among the slots."""
    return replace(
        event,
        place=event.place if "place" in slots else None,
        time=event.time if "time" in slots else None,
    )


def with_other_action(rng: random.Random, event: Event) -> Event:
    """Return the event with another action."""
    return replace(event, action=draw_other(rng, range(len(words.ACTIONS)), event.action))


def with_other_thing(rng: random.Random, event: Event) -> Event:
    """Return the event with a thing of another kind."""
    return replace(event, thing=draw_other_kind(rng, event.thing))


def draw_phrasing(rng: random.Random) -> Phrasing:
    """Return a random phrasing."""
    return Phrasing(rng.randrange(2), rng.randrange(2), rng.random() < PASSIVE)


def draw_rephrasing(rng: random.Random, first: Phrasing) -> Phrasing:
    """Return a phrasing with the other verb, mostly, or else with the other voice."""
    verb = 1 - first.verb if rng.random() < 0.7 else first.verb
    passive = rng.random() < PASSIVE if verb != first.verb else not first.passive
    return Phrasing(verb, rng.randrange(2), passive)


def sentence(*parts: str | None) -> str:
    """Join the parts that are not empty, with a capital and a full stop."""
    text = " ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."


def tell(event: Event, phrasing: Phrasing) -> str:
    """Return a sentence like `Ada bought a big hammer at the mill in spring.`, or its passive."""
    verb = words.ACTIONS[event.action][phrasing.verb]
    thing = event.thing
    if event.adjective is not None:
        thing = f"{words.ADJECTIVES[event.adjective][phrasing.adjective]} {thing}"
    thing = words.with_article(thing)
    rest = _where_and_when(event)
    if phrasing.passive:
        return sentence(thing, "was", verb.done, "by", event.who, *rest)
    return sentence(event.who, verb.past, thing, *rest)


def _where_and_when(event: Event) -> tuple[str | None, str | None]:
    return f"at the {event.place}" if event.place else None, event.time


def ask(event: Event, slot: str, phrasing: Phrasing) -> str:
    """Return a question about an event.

    Args:
        event: what the question is about.
        slot: what is asked for: `who`, `thing` or `place`.
        phrasing: which verb and which question word.
    """
    verb = words.ACTIONS[event.action][phrasing.verb]
    place = f" at the {event.place}" if event.place and slot != "place" else ""
    first = phrasing.adjective == 0
    if slot == "who":
        return f"{'Who' if first else 'Which person'} {verb.past} the {event.thing}{place}?"
    if slot == "thing":
        return f"{'What' if first else 'Which thing'} did {event.who} {verb.base}{place}?"
    start = "Where" if first else "At which place"
    return f"{start} did {event.who} {verb.base} the {event.thing}?"


def answer(event: Event, slot: str) -> str:
    """Return the answer to a question that asks for this slot."""
    return {"who": event.who, "thing": event.thing, "place": str(event.place)}[slot]


# --- opinions


def draw_opinion(rng: random.Random, *, is_good: bool) -> str:
    """Return a clause like `the soup was not very bad`; a negation reverses the adjective."""
    negated = rng.random() < NEGATED
    adjective = rng.choice(words.GOOD if is_good != negated else words.BAD)
    degree = rng.choice(words.DEGREES) if rng.random() < 0.3 else ""
    negation = rng.choice(words.NEGATIONS) if negated else ""
    parts = ("the", rng.choice(words.REVIEWED), "was", negation, degree, adjective)
    return " ".join(part for part in parts if part)


def draw_feeling(rng: random.Random, who: str, *, is_good: bool) -> str:
    """Return a clause like `everyone loved it`.

    Args:
        rng: the source of chance.
        who: the clause's subject.
        is_good: whether the feeling is a good one.
    """
    return f"{who} {rng.choice(words.LIKED if is_good else words.DISLIKED)} it"


# --- agreement


@dataclass(frozen=True)
class Agreement:
    """A grammatical sentence, and the same one with one word that does not agree."""

    right: str
    wrong: str


def draw_agreement(rng: random.Random) -> Agreement:
    """Return a sentence pair of one of the constructions, most with distant agreement."""
    make = rng.choice((_act, _act, _state, _reflexive))
    return make(rng)


def _noun(rng: random.Random, nouns: Sequence[str], *, many: bool) -> str:
    noun = rng.choice(nouns)
    return words.plural(noun) if many else noun


def _act(rng: random.Random) -> Agreement:
    """Return a pair like `The bakers near the cart sing every morning`."""
    many = rng.random() < 0.5
    between = None
    if rng.random() < 0.6:
        misleads = rng.random() < 0.7  # the noun next to the verb has the other number
        attractor = _noun(rng, (*words.THINGS, *words.JOBS), many=many != misleads)
        between = f"{rng.choice(words.NEAR)} the {attractor}"
    pair = rng.choice(words.ACTS)
    often = rng.choice(words.OFTEN) if rng.random() < 0.5 else None
    start = ("the", _noun(rng, words.JOBS, many=many), between)
    return Agreement(sentence(*start, pair[many], often), sentence(*start, pair[not many], often))


def _state(rng: random.Random) -> Agreement:
    """Return a pair like `The carts that Ada sold are red`."""
    many = rng.random() < 0.5
    verb = rng.choice(words.ACTIONS)[rng.randrange(2)].past
    who = rng.choice((rng.choice(PEOPLE), f"the {_noun(rng, words.JOBS, many=not many)}"))
    start = ("the", _noun(rng, words.THINGS, many=many), "that", who, verb)
    state = rng.choice(words.STATES)
    be = ("is", "are")
    return Agreement(sentence(*start, be[many], state), sentence(*start, be[not many], state))


def _reflexive(rng: random.Random) -> Agreement:
    """Return a pair like `Ada hurt herself at the mill`."""
    who = rng.choice(PEOPLE)
    start = (who, rng.choice(("hurt", "saw", "helped")))
    selves = ("himself", "herself")
    rest = _where_and_when(draw_event(rng, place=0.5, time=0.5))
    right = is_woman(who)
    return Agreement(
        sentence(*start, selves[right], *rest), sentence(*start, selves[not right], *rest)
    )


# --- reference


@dataclass(frozen=True)
class Reference:
    """A sentence with a pronoun, and what it implies of the right and of the wrong person."""

    text: str
    right: str
    wrong: str


def draw_reference(rng: random.Random) -> Reference:
    """Return a sentence like `Ada met Ben before she went home`, and who went home."""
    pair = [rng.choice(words.WOMEN), rng.choice(words.MEN)]
    rng.shuffle(pair)
    woman = rng.random() < 0.5
    right, wrong = sorted(pair, key=lambda who: is_woman(who) != woman)
    action = rng.choice(("thanked", "met", "saw", "helped", "called"))
    when, then = rng.choice(("before", "after")), rng.choice(("went home", "was tired", "slept"))
    text = f"{pair[0]} {action} {pair[1]} {when} {'she' if woman else 'he'} {then}."
    return Reference(text, sentence(right, then), sentence(wrong, then))
