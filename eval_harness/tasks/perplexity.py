"""Perplexity by three conventions, and its names. Imports no torch.

A text's negative log-likelihood is shared out over the model's tokens, over the words of the
original text, or over its bytes. Only the last two compare models of different tokenizers. Of a
masked language model it is a pseudo-perplexity, which has names of its own: the two never compare.
"""

import math
import re
from collections.abc import Mapping

PERPLEXITIES = ("token_perplexity", "word_perplexity", "bits_per_byte")
"""The metrics, the first of which is the score; all of them are better the lower they are."""
PSEUDO = "pseudo_"
"""What the names of a masked language model's begin with."""
NEXT_TOKEN, MASKED_TOKEN = "next token", "pseudo: each token masked in turn"
"""How the tokens of a text are scored: the setting `scoring`."""

_UNBOUNDED = frozenset({*PERPLEXITIES, *(f"{PSEUDO}{name}" for name in PERPLEXITIES)})


def names_of(scoring: str) -> tuple[str, ...]:
    """Return the names of the three metrics under a way of scoring."""
    return tuple(_named(name, scoring) for name in PERPLEXITIES)


def _named(name: str, scoring: str) -> str:
    return f"{PSEUDO}{name}" if scoring == MASKED_TOKEN else name


def words_in(text: str) -> int:
    """Return the number of words of a text, split at white space as lm-eval's `wikitext` does.

    There white space at an end of the text has an empty word beyond it, which counts.
    """
    return len(re.split(r"\s+", text))


def perplexities(
    scoring: str, nll: float, *, tokens: int, words: int, size: int
) -> dict[str, float | None]:
    """Return the three metrics and the score, which is the first; None where one overflows.

    Args:
        scoring: how tokens were scored.
        nll: the summed negative log-likelihood, in nats.
        tokens: the number of scored tokens.
        words: the number of words of the original text.
        size: its bytes in UTF-8.
    """
    by_token, by_word, of_bytes = names_of(scoring)
    measures = {
        by_token: _exp(nll, tokens),
        by_word: _exp(nll, words),
        of_bytes: nll / math.log(2) / size if size else None,
    }
    return {**measures, "score": measures[by_token]}


def _exp(nll: float, count: int) -> float | None:
    try:
        return math.exp(nll / count) if count else None
    except OverflowError:
        return None


def is_of_perplexity(scores: Mapping[str, object]) -> bool:
    """Return whether the scores of a split are perplexities, which are no shares of 1."""
    return not _UNBOUNDED.isdisjoint(scores)
