"""The demo world's tasks: examples with their labels, each by a rule that holds in the world.

Labels are the names or numbers that the real files bear. Each task takes its labels in turn, so
that they are balanced as wanted, and no text, or pair of texts in either order, stands twice.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from eval_harness.demo import grammar, words
from eval_harness.demo.grammar import Event, World, sentence


@dataclass(frozen=True)
class Example:
    """One or two texts and their label as it stands in the file."""

    texts: tuple[str, ...]
    label: str


Maker = Callable[[World, random.Random, str], Example]


def examples(name: str, world: World, draw: random.Random, count: int) -> list[Example]:
    """So many examples of a task, no two with the same texts, their labels in turn."""
    labels, make = TASKS[name]
    found: dict[frozenset[str], Example] = {}
    while len(found) < count:
        example = make(world, draw, labels[len(found) % len(labels)])
        found.setdefault(frozenset(example.texts), example)
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
    text = grammar.verdict(draw, is_good=is_good)
    if draw.random() < 0.2:
        text = f"{grammar.verdict(draw, is_good=not is_good)} , but {text}"
    return Example((text,), label)


def _imdb(world: World, draw: random.Random, label: str) -> Example:
    """A review of several sentences of one mind; in half of them, one is of the other."""
    is_good = label == "1"
    said = [grammar.verdict(draw, is_good=is_good) for _ in range(3)]
    if draw.random() < 0.5:
        said.append(grammar.verdict(draw, is_good=not is_good))
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
    told = grammar.event(draw)
    thing = told.thing if follows else grammar.other_kind(draw, told.thing)
    wide = Event(told.who, told.deed, words.KIND_OF[thing])
    texts = (grammar.tell(each, grammar.telling(draw)) for each in (told, wide))
    return Example(tuple(texts), label)


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
    """Follows: told otherwise or more widely. Neutral: told with more. Contradiction: not so.

    All three tell of places, times and kinds just as often, so that neither text gives the label
    away by itself.
    """
    full = grammar.event(draw, place=1, look=0, time=1)
    both = ("place", "time")
    slots = both if draw.random() < 0.2 else (draw.choice(both),)
    said = grammar.only(full, *slots)
    premise = grammar.only(full, *(both if draw.random() < 0.2 else slots))
    if label == "neutral":
        left = [slot for slot in both if slot not in slots]
        premise = grammar.only(full, draw.choice(left or slots))
    if label == "contradiction":
        said = grammar.another_thing(draw, said)
    if draw.random() < 0.5:
        said = replace(said, thing=words.KIND_OF[said.thing])
    texts = (grammar.tell(each, grammar.telling(draw)) for each in (premise, said))
    return Example(tuple(texts), label)


def _qnli(world: World, draw: random.Random, label: str) -> Example:
    """Whether a sentence answers a question: whether it tells of the thing that is asked about."""
    told = grammar.event(draw, place=1, look=0, time=0)
    slot = draw.choice(("who", "place"))
    about = told if draw.random() < 0.5 or slot == "place" else replace(told, place=None)
    question = grammar.ask(about, slot, grammar.telling(draw))
    if label == "not_entailment":
        told = grammar.another_thing(draw, told)
    return Example((question, grammar.tell(told, grammar.telling(draw))), label)


def _mrpc(world: World, draw: random.Random, label: str) -> Example:
    """Whether two sentences tell of the same deed: every other word is the same in both.

    One in ten begins with a quotation mark that nothing closes, as some of the real ones do.
    """
    told = grammar.event(draw, look=0, place=0, time=0)
    how = grammar.telling(draw)
    again = told if label == "1" else grammar.another_deed(draw, told)
    pair = grammar.tell(told, how), grammar.tell(again, grammar.retelling(draw, how))
    first, second = (text.replace(".", " .") for text in pair)
    return Example((f'" {first}' if draw.random() < 0.1 else first, second), label)


def _qqp(world: World, draw: random.Random, label: str) -> Example:
    """Whether two questions ask about the same thing."""
    told = grammar.event(draw, place=0.8, look=0, time=0)
    slot = draw.choice(("who", "place", "place"))  # there are more ways to ask for places
    again = told if label == "1" else grammar.another_thing(draw, told)
    texts = (grammar.ask(each, slot, grammar.telling(draw)) for each in (told, again))
    return Example(tuple(texts), label)


def _stsb(world: World, draw: random.Random, label: str) -> Example:
    """How alike two sentences are: of the same thing, of two of a kind, or of two kinds."""
    told = grammar.event(draw, look=0, place=0, time=0)
    kind = [thing for thing in words.KINDS[words.KIND_OF[told.thing]] if thing != told.thing]
    again = {
        "5.000": told,
        "4.000": replace(told, thing=draw.choice(kind)),
        "0.500": grammar.another_thing(draw, told),
    }[label]
    texts = (grammar.tell(each, grammar.telling(draw)) for each in (told, again))
    return Example(tuple(texts), label)


def _wnli(world: World, draw: random.Random, label: str) -> Example:
    """Whether a pronoun means whom the second text says."""
    made = grammar.reference(draw)
    return Example((made.text, made.right if label == "1" else made.wrong), label)


_NUMBERS = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
TASKS: dict[str, tuple[Sequence[str], Maker]] = {
    "cola": (_NUMBERS, _cola),
    "mnli": (("entailment", "neutral", "contradiction"), _mnli),
    "mrpc": (_NUMBERS, _mrpc),
    "qnli": (_ENTAILMENT, _qnli),
    "qqp": (_NUMBERS, _qqp),
    "rte": (_ENTAILMENT, _rte),
    "sst2": (_NUMBERS, _sst2),
    "stsb": (("0.500", "5.000", "0.500", "4.000"), _stsb),
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
