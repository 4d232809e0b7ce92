"""The demo world's words: names, places, things, verbs, their inflections and synonyms.

Every word that the world writes is in this file, so the vocabulary is complete, and tests can check
an example against these tables rather than against the code that wrote it.
"""

from dataclasses import dataclass


def _spelled(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WOMEN = _spelled("Ada Bella Clara Dora Emma Flora")
MEN = _spelled("Ben Carl David Felix George Henry")
TOWNS = _spelled("Ashby Birkdale Calder Dunmore Elmwick Glenrock Harwood Kelton")
REGIONS = ("north", "south", "east", "west")

KINDS = {
    "tool": _spelled("hammer saw rake"),
    "fruit": _spelled("apple pear plum"),
    "animal": _spelled("goat horse dog"),
    "vehicle": _spelled("cart wagon boat"),
}
THINGS = tuple(thing for things in KINDS.values() for thing in things)
KIND_OF = {thing: kind for kind, things in KINDS.items() for thing in things}

JOBS = _spelled("baker smith cooper weaver potter miller")
PLACES = _spelled("market mill inn bridge")
TIMES = ("yesterday", "today", "in spring", "in winter")


@dataclass(frozen=True)
class Verb:
    """A transitive verb; `done` is its participle."""

    base: str
    past: str
    done: str


# Each row is one action and its two verbs, which are synonyms.
ACTIONS = tuple(
    (Verb(*first.split()), Verb(*second.split()))
    for first, second in (
        ("buy bought bought", "purchase purchased purchased"),
        ("find found found", "discover discovered discovered"),
        ("repair repaired repaired", "mend mended mended"),
        ("clean cleaned cleaned", "wash washed washed"),
    )
)
# Each row holds two synonyms.
ADJECTIVES = (("big", "large"), ("small", "little"), ("old", "ancient"))

# Intransitive verbs, each in the singular and the plural.
ACTS = tuple((f"{base}s", base) for base in _spelled("sing sleep wait smile work laugh"))
STATES = ("red", "blue", "green", "white")
OFTEN = ("every morning", "every evening", "at night", "at noon")
NEAR = ("near", "behind", "beside", "with")

GOOD = _spelled("good great lovely superb")
BAD = _spelled("bad awful terrible dull")
REVIEWED = _spelled("play song meal story soup dance")
LIKED = ("liked", "loved")
DISLIKED = ("hated", "loathed")
DEGREES = ("very", "really")
# Each turns praise into blame, and blame into praise.
NEGATIONS = ("not", "never", "hardly")

_LITTLE_WORDS = _spelled(
    "a an the that is are was did it he she himself herself who what where which by in at and "
    "but so to too before after went home lives dwells lies person thing place other words i "
    "we everyone thanked met hurt saw helped called tired slept br"
)


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def with_article(noun: str) -> str:
    """Return the noun with its article: `a hammer`, `an apple`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def vocabulary() -> list[str]:
    """Return every word once, in lower case."""
    nouns = [*THINGS, *KINDS, *JOBS]
    verbs = [
        word for action in ACTIONS for verb in action for word in (verb.base, verb.past, verb.done)
    ]
    pairs = [word for pair in (*ADJECTIVES, *ACTS) for word in pair]
    phrases = " ".join((*TIMES, *OFTEN)).split()
    # Token ids follow this order: models that were trained with another one are of no use.
    words = [
        *WOMEN, *MEN, *TOWNS, *REGIONS, *PLACES, *REVIEWED, *nouns, *map(plural, nouns), *verbs,
        *pairs, *phrases, *STATES, *NEAR, *GOOD, *BAD, *LIKED, *DISLIKED, *DEGREES, *NEGATIONS,
        *_LITTLE_WORDS,
    ]  # fmt: skip
    return list(dict.fromkeys(word.lower() for word in words))
