"""The demo world's tasks: labelled examples, each label following from a rule of the world.

Labels are the names or numbers that the real files contain. Each task cycles through its labels,
which balances them; no text, and no pair of texts in either order, occurs twice.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from eval_harness.demo import grammar, words
from eval_harness.demo.grammar import Event, World, sentence


@dataclass(frozen=True)
class Example:
    """One or two texts and their label as the file spells it."""

    texts: tuple[str, ...]
    label: str


Maker = Callable[[World, random.Random, str], Example]


def examples(name: str, world: World, rng: random.Random, count: int) -> list[Example]:
    """Return distinct examples of a task with balanced labels, in random order.

    Args:
        name: a key of `TASKS`.
        world: the facts that examples rely on.
        rng: the source of every choice.
        count: number of examples.
    """
    labels, make = TASKS[name]
    found: dict[frozenset[str], Example] = {}
    while len(found) < count:
        example = make(world, rng, labels[len(found) % len(labels)])
        found.setdefault(frozenset(example.texts), example)
    shuffled = list(found.values())
    rng.shuffle(shuffled)
    return shuffled


def _cola(world: World, rng: random.Random, label: str) -> Example:
    """Make a sentence in which the words agree, or one of them does not."""
    agreement = grammar.draw_agreement(rng)
    return Example((agreement.right if label == "1" else agreement.wrong,), label)


def _sst2(world: World, rng: random.Random, label: str) -> Example:
    """Make a clause of praise or blame, or two: then the one after `but` decides the label."""
    is_good = label == "1"
    text = grammar.draw_opinion(rng, is_good=is_good)
    if rng.random() < 0.2:
        text = f"{grammar.draw_opinion(rng, is_good=not is_good)} , but {text}"
    return Example((text,), label)


def _imdb(world: World, rng: random.Random, label: str) -> Example:
    """Make a review: two sentences of one sentiment, half the time one of the other too."""
    is_good = label == "1"
    opinions = [grammar.draw_opinion(rng, is_good=is_good) for _ in range(2)]
    if rng.random() < 0.5:
        opinions.append(grammar.draw_opinion(rng, is_good=not is_good))
    rng.shuffle(opinions)
    parts = [sentence(opinion) for opinion in opinions]
    where = f"at the {rng.choice(words.PLACES)}"
    start = sentence("I saw the", rng.choice(words.REVIEWED), where, rng.choice(words.TIMES))
    parts.insert(rng.randrange(1, len(parts)), "<br /><br />" if rng.random() < 0.3 else "")
    return Example((" ".join(part for part in (start, *parts) if part),), label)


def _rte(world: World, rng: random.Random, label: str) -> Example:
    """Make a pair whose second text follows, or not, given a thing's kind or a town's region."""
    follows = label == "entailment"
    if rng.random() < 0.3:
        return _region(world, rng, follows=follows)
    premise = grammar.draw_event(rng)
    thing = premise.thing if follows else grammar.draw_other_kind(rng, premise.thing)
    hypothesis = Event(premise.who, premise.action, words.KIND_OF[thing])
    return Example(_tell_all(rng, premise, hypothesis), label)


def _region(world: World, rng: random.Random, *, follows: bool) -> Example:
    who = rng.choice(grammar.PEOPLE)
    town = rng.choice(words.TOWNS)
    region = world.region_of[town]
    stated = region if follows else grammar.draw_other(rng, words.REGIONS, region)
    verbs = rng.sample(("lives", "dwells"), 2)
    job = f"the {rng.choice(words.JOBS)}"
    who = rng.choice((who, job))
    texts = sentence(who, verbs[0], "in", town), sentence(who, verbs[1], f"in the {stated}")
    return Example(texts, "entailment" if follows else "not_entailment")


def _mnli(world: World, rng: random.Random, label: str) -> Example:
    """Make an entailed (reworded or generalized), neutral (a detail added) or contradictory pair.

    All three labels mention places, times and kinds equally often, so that neither text alone
    gives the label away.
    """
    full = grammar.draw_event(rng, place=1, adjective=0, time=1)
    both = ("place", "time")
    slots = both if rng.random() < 0.2 else (rng.choice(both),)
    hypothesis = grammar.keep_only(full, *slots)
    premise = grammar.keep_only(full, *(both if rng.random() < 0.2 else slots))
    if label == "neutral":  # the premise lacks a detail that the hypothesis states
        left = [slot for slot in both if slot not in slots]
        premise = grammar.keep_only(full, rng.choice(left or slots))
    if label == "contradiction":
        hypothesis = grammar.with_other_thing(rng, hypothesis)
    if rng.random() < 0.5:
        hypothesis = replace(hypothesis, thing=words.KIND_OF[hypothesis.thing])
    return Example(_tell_all(rng, premise, hypothesis), label)


def _qnli(world: World, rng: random.Random, label: str) -> Example:
    """Make a question and a sentence that answers it, or tells of another thing."""
    event = grammar.draw_event(rng, place=1, adjective=0, time=0)
    slot = rng.choice(("who", "place"))
    about = event if rng.random() < 0.5 or slot == "place" else replace(event, place=None)
    question = grammar.ask(about, slot, grammar.draw_phrasing(rng))
    if label == "not_entailment":
        event = grammar.with_other_thing(rng, event)
    return Example((question, grammar.tell(event, grammar.draw_phrasing(rng))), label)


def _mrpc(world: World, rng: random.Random, label: str) -> Example:
    """Make two sentences about one action or two, by the same person on the same thing.

    One first sentence in ten begins with an unclosed quotation mark, as some real ones do.
    """
    event = grammar.draw_event(rng, adjective=0, place=0, time=0)
    phrasing = grammar.draw_phrasing(rng)
    again = event if label == "1" else grammar.with_other_action(rng, event)
    pair = (
        grammar.tell(event, phrasing),
        grammar.tell(again, grammar.draw_rephrasing(rng, phrasing)),
    )
    first, second = (text.replace(".", " .") for text in pair)
    return Example((f'" {first}' if rng.random() < 0.1 else first, second), label)


def _qqp(world: World, rng: random.Random, label: str) -> Example:
    """Make two questions about the same thing, or about things of two kinds."""
    event = grammar.draw_event(rng, place=0.8, adjective=0, time=0)
    slot = rng.choice(("who", "place", "place"))  # there are more questions about places
    again = event if label == "1" else grammar.with_other_thing(rng, event)
    texts = (grammar.ask(asked, slot, grammar.draw_phrasing(rng)) for asked in (event, again))
    return Example(tuple(texts), label)


def _stsb(world: World, rng: random.Random, label: str) -> Example:
    """Make two sentences about the same thing, two things of one kind, or things of two kinds."""
    event = grammar.draw_event(rng, adjective=0, place=0, time=0)
    siblings = [thing for thing in words.KINDS[words.KIND_OF[event.thing]] if thing != event.thing]
    # All three are drawn whatever the label, so the world's bytes depend on their order.
    again = {
        "5.000": event,
        "4.000": replace(event, thing=rng.choice(siblings)),
        "0.500": grammar.with_other_thing(rng, event),
    }[label]
    return Example(_tell_all(rng, event, again), label)


def _wnli(world: World, rng: random.Random, label: str) -> Example:
    """Make a sentence with a pronoun, and one that resolves it rightly or wrongly."""
    reference = grammar.draw_reference(rng)
    second = reference.right if label == "1" else reference.wrong
    return Example((reference.text, second), label)


def _tell_all(rng: random.Random, *events: Event) -> tuple[str, ...]:
    """Return a sentence about each event, in a random phrasing."""
    return tuple(grammar.tell(event, grammar.draw_phrasing(rng)) for event in events)


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
class Question:
    """A question about a paragraph, with its answers and the offset of each in characters."""

    text: str
    answers: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Paragraph:
    """Sentences about some events and some opinions, and a question about each event."""

    title: str
    context: str
    questions: tuple[Question, ...]


def paragraphs(rng: random.Random) -> Iterator[Paragraph]:
    """Yield paragraphs without end; people, things and places differ within each.

    Most tell one event among opinions, so that an answer is found by what is asked for; a third
    tell two, whose sentences must be told apart as well.
    """
    slots = ("who", "thing", "place")
    while True:
        events = grammar.draw_events(rng, rng.choice((1, 1, 2)))
        told = list(_tell_all(rng, *events))
        told += [
            sentence(grammar.draw_opinion(rng, is_good=rng.random() < 0.5))
            for _ in range(rng.choice((1, 2)))
        ]
        rng.shuffle(told)
        context = " ".join(told)
        questions = tuple(_question(rng, event, rng.choice(slots), context) for event in events)
        yield Paragraph(rng.choice(words.TOWNS), context, questions)


def _question(rng: random.Random, event: Event, slot: str, context: str) -> Question:
    """Ask for a slot of an event; the answer occurs once in the context, a place has two forms."""
    text = grammar.answer(event, slot)
    start = _find(context, text)
    answers = [(text, start)]
    if slot == "place":
        answers.append((f"the {text}", start - len("the ")))
    return Question(grammar.ask(event, slot, grammar.draw_phrasing(rng)), tuple(answers))


def _find(context: str, word: str) -> int:
    """Return the offset of a whole word: `coach` is not in `coached`."""
    padded = "".join(letter if letter.isalpha() else " " for letter in f" {context} ").lower()
    return padded.index(f" {word.lower()} ")
