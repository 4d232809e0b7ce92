"""The demo world's tasks: examples with their labels, each by a rule that holds in the world.

Labels are the names or numbers that the real files bear. Each task takes its labels in turn, so
that they are balanced as wanted, and no text stands in two splits.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from eval_harness import demo_grammar as grammar
from eval_harness import demo_words as words
from eval_harness.demo_grammar import Event, Telling, World, sentence


@dataclass(frozen=True)
class Example:
    """One or two texts and their label as it stands in the file."""

    texts: tuple[str, ...]
    label: str


Maker = Callable[[World, random.Random, str], Example]


def examples(name: str, world: World, draw: random.Random, count: int) -> list[Example]:
    """So many examples of a task, no two with the same texts, their labels in turn."""
    labels, make = TASKS[name]
    found: dict[tuple[str, ...], Example] = {}
    while len(found) < count:
        example = make(world, draw, labels[len(found) % len(labels)])
        found.setdefault(example.texts, example)
    shuffled = list(found.values())
    draw.shuffle(shuffled)
    return shuffled


def _cola(world: World, draw: random.Random, label: str) -> Example:
    """Whether what must agree does."""
    made = grammar.agreement(draw)
    return Example((made.right if label == "1" else made.wrong,), label)


def _sst2(world: World, draw: random.Random, label: str) -> Example:
    """A clause of praise or blame, or two, of which the one after `but` counts."""
    is_good = label == "1"
    text = grammar.verdict(draw, is_good=is_good).text
    if draw.random() < 0.4:
        text = f"{grammar.verdict(draw, is_good=not is_good).text} , but {text}"
    return Example((text,), label)


def _imdb(world: World, draw: random.Random, label: str) -> Example:
    """A review of several sentences; most are of one mind."""
    is_good = label == "1"
    said = [grammar.verdict(draw, is_good=is_good).text for _ in range(draw.choice((2, 3)))]
    said.append(grammar.verdict(draw, is_good=not is_good).text)
    draw.shuffle(said)
    said = [sentence(each) for each in said]
    where = f"at the {draw.choice(words.PLACES)}"
    start = sentence("I saw the", draw.choice(words.SHOWN), where, draw.choice(words.TIMES))
    said.insert(draw.randrange(1, len(said)), "<br /><br />" if draw.random() < 0.3 else "")
    return Example((" ".join(part for part in (start, *said) if part),), label)


def _rte(world: World, draw: random.Random, label: str) -> Example:
    """Whether one text follows from the other and from what kind a thing is, or a town's region."""
    follows = label == "entailment"
    if draw.random() < 0.3:
        return _region(world, draw, follows=follows)
    told, also = grammar.events(draw, 2, place=0.2)
    thing = told.thing if follows else grammar.other_kind(draw, told.thing)
    wide = Event(told.who, told.deed, words.KIND_OF[thing])
    said = [grammar.tell(each, grammar.telling(draw)) for each in (told, also)]
    draw.shuffle(said)
    return Example((" ".join(said), grammar.tell(wide, grammar.telling(draw))), label)


def _region(world: World, draw: random.Random, *, follows: bool) -> Example:
    who = draw.choice(grammar.PEOPLE)
    town = draw.choice(words.TOWNS)
    region = world.region_of[town]
    named = region if follows else grammar.other(draw, words.REGIONS, region)
    verbs = draw.sample(("lives", "dwells"), 2)
    job = f"the {draw.choice(words.JOBS)}"
    who = draw.choice((who, job))
    texts = sentence(who, verbs[0], "in", town), sentence(who, verbs[1], f"in the {named}")
    return Example(texts, "entailment" if follows else "not_entailment")


def _mnli(world: World, draw: random.Random, label: str) -> Example:
    """Follows: told otherwise or more widely. Neutral: told with more. Contradiction: not so."""
    told = grammar.event(draw, place=0.4, time=0)
    how, again = grammar.telling(draw), grammar.telling(draw)
    premise = grammar.tell(told, how)
    if label == "entailment":
        wide = replace(told, thing=draw.choice((told.thing, words.KIND_OF[told.thing])), look=None)
        wide = replace(wide, place=draw.choice((told.place, None)))
        return Example((premise, grammar.tell(wide, again)), label)
    if label == "neutral":
        more = replace(told, look=None, place=told.place or draw.choice(words.PLACES))
        if told.place or draw.random() < 0.5:
            more = replace(more, time=draw.choice(words.TIMES))
        return Example((premise, grammar.tell(more, again)), label)
    if draw.random() < 0.5:
        return Example((premise, grammar.deny(replace(told, look=None), again)), label)
    not_so = replace(told, look=None, thing=grammar.other_kind(draw, told.thing))
    wide = replace(not_so, thing=draw.choice((not_so.thing, words.KIND_OF[not_so.thing])))
    return Example((premise, grammar.tell(wide, again)), label)


def _qnli(world: World, draw: random.Random, label: str) -> Example:
    """Whether a sentence answers a question: tells of that event, and of what is asked."""
    told = grammar.event(draw, place=1, look=0)
    slot = draw.choice(("who", "thing", "place"))
    question = grammar.ask(told, slot, grammar.telling(draw))
    if label == "not_entailment":
        told = grammar.changed(draw, told, draw.choice((1, 2, 2)), but=slot)
    return Example((question, grammar.tell(told, grammar.telling(draw))), label)


def _mrpc(world: World, draw: random.Random, label: str) -> Example:
    """Whether two sentences tell of the same event, in whatever words and voice."""
    told = grammar.event(draw, place=1)
    how = grammar.telling(draw)
    again = told if label == "1" else grammar.changed(draw, told, draw.choice((1, 2, 3)))
    pair = grammar.tell(told, how), grammar.tell(again, grammar.retelling(draw, how))
    first, second = (text.replace(".", " .") for text in pair)
    return Example((first, second), label)


def _qqp(world: World, draw: random.Random, label: str) -> Example:
    """Whether two questions ask the same."""
    told = grammar.event(draw, place=0.5, look=0, time=0)
    slot = draw.choice(("who", "thing", "place"))
    how = grammar.telling(draw)
    same = Telling(1 - how.verb, draw.randrange(2))
    if label == "1":
        return Example((grammar.ask(told, slot, how), grammar.ask(told, slot, same)), label)
    again = grammar.changed(draw, told, draw.choice((1, 2)), but=slot)
    return Example((grammar.ask(told, slot, how), grammar.ask(again, slot, same)), label)


def _stsb(world: World, draw: random.Random, label: str) -> Example:
    """How alike two sentences are: 5, and less for each of the three things that differ."""
    told = grammar.event(draw, place=1, look=0, time=0)
    again = grammar.changed(draw, told, round(3 * (5 - float(label)) / 5))
    how = grammar.telling(draw)
    return Example((grammar.tell(told, how), grammar.tell(again, grammar.telling(draw))), label)


def _wnli(world: World, draw: random.Random, label: str) -> Example:
    """Whether a pronoun means whom or what the second text says."""
    made = grammar.reference(draw)
    return Example((made.text, made.right if label == "1" else made.wrong), label)


_NUMBERS = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
# Labels are taken in turn: MRPC and QQP are as lopsided as the real ones.
TASKS: dict[str, tuple[Sequence[str], Maker]] = {
    "cola": (_NUMBERS, _cola),
    "mnli": (("entailment", "neutral", "contradiction"), _mnli),
    "mrpc": (("1", "1", "0"), _mrpc),
    "qnli": (_ENTAILMENT, _qnli),
    "qqp": (("0", "0", "0", "1", "1"), _qqp),
    "rte": (_ENTAILMENT, _rte),
    "sst2": (_NUMBERS, _sst2),
    "stsb": (("0.000", "1.667", "3.333", "5.000"), _stsb),
    "wnli": (_NUMBERS, _wnli),
    "imdb": (_NUMBERS, _imdb),
}


@dataclass(frozen=True)
class Asked:
    """A question about a paragraph, with its answers and where each stands."""

    text: str
    answers: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Paragraph:
    """Some events, and questions about them."""

    title: str
    context: str
    asked: tuple[Asked, ...]


def paragraphs(draw: random.Random) -> Iterator[Paragraph]:
    """Paragraphs of events whose people, things and places differ; no end of them."""
    while True:
        yield _paragraph(draw)


def _paragraph(draw: random.Random) -> Paragraph:
    told = grammar.events(draw, draw.choice((2, 3)))
    context = " ".join(grammar.tell(each, grammar.telling(draw)) for each in told)
    slots = ("who", "thing", "place")
    asked = tuple(_about(draw, each, draw.choice(slots), context) for each in told)
    return Paragraph(draw.choice(words.TOWNS), context, asked)


def _about(draw: random.Random, told: Event, slot: str, context: str) -> Asked:
    """The shortest answer, and the one with its article; each stands in the context once."""
    text = grammar.answer(told, slot)
    start = _find(context, text)
    answers = [(text, start)]
    if slot == "place":
        answers.append((f"the {text}", start - 4))
    return Asked(grammar.ask(told, slot, grammar.telling(draw)), tuple(answers))


def _find(context: str, word: str) -> int:
    """Where a word stands as a word: `coach` is not in `coached`."""
    padded = "".join(letter if letter.isalpha() else " " for letter in f" {context} ").lower()
    return padded.index(f" {word.lower()} ")
