"""Which words of a text are hidden from every model alike. Imports no torch.

Words are found in the text, not in its tokens: models with different tokenizers then predict the
same words, and a loss per word compares them. Where a language has no blanks between words, each
character of Chinese or Japanese counts as one.
"""

import math
import random
import re
from collections.abc import Sequence
from itertools import islice
from unicodedata import category

Span = tuple[int, int]
"""The offsets of a word's first character and of the one after its last."""

SHARE = 0.15
"""The share of a text's words that are hidden, as in BERT's pre-training."""

_IDEOGRAM = "\u3041-\u30fa\u30fc-\u30ff\u3400-\u9fff\uf900-\ufaff"
_MARKS = "".join(sign for sign in map(chr, range(0x300, 0x3000)) if category(sign).startswith("M"))
"""Accents and vowel signs that are characters of their own: they belong to the letter before."""
_LETTER = rf"[^\W_{_IDEOGRAM}]"
_WORD = re.compile(rf"[{_IDEOGRAM}]|{_LETTER}(?:{_LETTER}|[{_MARKS}])*")


def words_of(text: str, most: int | None = None) -> list[Span]:
    """Return the words of a text, or the first ones: runs of letters and digits."""
    return [match.span() for match in islice(_WORD.finditer(text), most)]


def beginning_of(text: str, words: int) -> str:
    """Return a text up to the end of some number of words: no more of an article is ever read."""
    found = words_of(text, words + 1)
    return text if len(found) <= words else text[: found[words][0]]


def hidden_words(text: str, seed: int, most: int) -> list[Span]:
    """Return the words to hide, in their order: 15 % of them, at least one if there is any.

    Args:
        text: the text.
        seed: of the choice, which depends on nothing but it and the text.
        most: number of words from the start that are hidden from; the rest may be cut off.
    """
    words = words_of(text, most)
    count = math.ceil(SHARE * len(words))
    return sorted(random.Random(f"{seed}/{text}").sample(words, count))  # noqa: S311


def differing_word(first: str, second: str) -> tuple[Span, Span] | None:
    """Return where two texts differ, if it is in one word; None if it isn't.

    Args:
        first: a text.
        second: the other one.
    """
    ours, theirs = (_pieces(text) for text in (first, second))
    if len(ours) != len(theirs):
        return None
    differing = [pair for pair in zip(ours, theirs, strict=True) if pair[0][0] != pair[1][0]]
    if len(differing) != 1 or not all(word[0].isalnum() for word, _ in differing[0]):
        return None
    (_, span), (_, other) = differing[0]
    return span, other


def _pieces(text: str) -> Sequence[tuple[str, Span]]:
    """Return the words and, in between, whatever else is not blank."""
    found = re.finditer(rf"{_WORD.pattern}|[^\s]", text)
    return [(match.group(), match.span()) for match in found]
