"""The demo world's words: who, where, what, how they are inflected and what means the same.

Every word that the world ever writes stands in this file, so its vocabulary is complete by reading
it, and so a test can check an example against the table rather than against what wrote it.
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
    """A thing that people do with things; `done` is what stands in the passive."""

    base: str
    past: str
    done: str


# Each row is one deed; its two verbs mean the same.
DEEDS = tuple(
    (Verb(*first.split()), Verb(*second.split()))
    for first, second in (
        ("buy bought bought", "purchase purchased purchased"),
        ("find found found", "discover discovered discovered"),
        ("repair repaired repaired", "mend mended mended"),
        ("clean cleaned cleaned", "wash washed washed"),
    )
)
# Each row is one look; its two words mean the same.
LOOKS = (("big", "large"), ("small", "little"), ("old", "ancient"))

# What somebody does who is alone: as one does it, and as several do.
ACTS = tuple((f"{base}s", base) for base in _spelled("sing sleep wait smile work laugh"))
STATES = ("red", "blue", "green", "white")
OFTEN = ("every morning", "every evening", "at night", "at noon")
NEAR = ("near", "behind", "beside", "with")

GOOD = _spelled("good great lovely superb")
BAD = _spelled("bad awful terrible dull")
SHOWN = _spelled("play song meal story soup dance")
LIKED = ("liked", "loved")
LOATHED = ("hated", "loathed")
DEGREES = ("very", "really")
# What turns a word of praise into blame, and the other way round.
NEGATIONS = ("not", "never", "hardly")

_LITTLE_WORDS = _spelled(
    "a an the that is are was did it he she himself herself who what where which by in at and "
    "but so to too before after went home lives dwells lies person thing place other words i "
    "we everyone thanked met hurt saw helped called tired slept br"
)


def plural(noun: str) -> str:
    """Several of a thing."""
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def with_article(noun: str) -> str:
    """`a hammer`, `an apple`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def vocabulary() -> list[str]:
    """Every word in lower case, each once."""
    nouns = [*THINGS, *KINDS, *JOBS]
    verbs = [word for deed in DEEDS for verb in deed for word in (verb.base, verb.past, verb.done)]
    pairs = [word for pair in (*LOOKS, *ACTS) for word in pair]
    spaced = " ".join((*TIMES, *OFTEN)).split()
    words = [
        *WOMEN, *MEN, *TOWNS, *REGIONS, *PLACES, *SHOWN, *nouns, *map(plural, nouns), *verbs,
        *pairs, *spaced, *STATES, *NEAR, *GOOD, *BAD, *LIKED, *LOATHED, *DEGREES, *NEGATIONS,
        *_LITTLE_WORDS,
    ]  # fmt: skip
    return list(dict.fromkeys(word.lower() for word in words))
