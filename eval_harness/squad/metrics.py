"""SQuAD's metrics, exact match and F1, as its official scripts compute them. No torch.

The two versions differ where nothing is left of an answer without articles and punctuation: if
both sides are empty, SQuAD 1.1 gives an F1 of 0, SQuAD 2.0 one of 1.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Scores:
    """Scores of each question, in order; 1 is perfect."""

    exact: NDArray[np.float64]
    f1: NDArray[np.float64]


def normalized(text: str) -> str:
    """Lowercase; drop ASCII punctuation and English articles; collapse white space."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def scores_of(texts: Sequence[str], answers: Sequence[Sequence[str]], *, version2: bool) -> Scores:
    """Score each answer against the gold answer of its question that suits it best.

    Args:
        texts: the answers; empty for "no answer".
        answers: the gold answers of each question; empty if it has none.
        version2: whether SQuAD 2.0's rules apply; in SQuAD 1.1 every question has gold answers.

    Raises:
        ValueError: not one answer per question.
    """
    if len(texts) != len(answers):
        raise ValueError(f"{len(texts)} answers to {len(answers)} questions")
    pairs = [
        _best(normalized(text), _golds(golds, version2=version2), version2=version2)
        for text, golds in zip(texts, answers, strict=True)
    ]
    exact, f1 = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return Scores(exact, f1)


def summary(
    scores: Scores, answers: Sequence[Sequence[str]], *, version2: bool
) -> dict[str, float]:
    """Return means over all questions; for SQuAD 2.0 also over those with and without an answer.

    A mean over no questions is left out.

    Args:
        scores: exact match and F1 of each question.
        answers: each question's answers, none where it has none; in the same order.
        version2: whether the data are SQuAD 2.0.
    """
    parts = {"": np.ones(len(answers), dtype=bool)}
    if version2:
        has_answer = np.array([bool(golds) for golds in answers], dtype=bool)
        parts |= {"has_answer_": has_answer, "no_answer_": ~has_answer}
    return {
        f"{part}{name}": float(values[chosen].mean())
        for part, chosen in parts.items()
        if chosen.any()
        for name, values in (("exact_match", scores.exact), ("f1", scores.f1))
    }


def _golds(answers: Iterable[str], *, version2: bool) -> list[str]:
    """Normalize gold answers, each once.

    SQuAD 2.0 drops empty ones; if none is left, "no answer", the empty text, is the gold answer.
    """
    golds = dict.fromkeys(normalized(answer) for answer in answers)
    return [gold for gold in golds if gold] or [""] if version2 else list(golds)


def _best(text: str, golds: Sequence[str], *, version2: bool) -> tuple[float, float]:
    exact = float(text in golds)
    return exact, max(_f1(text.split(), gold.split(), version2=version2) for gold in golds)


def _f1(text: Sequence[str], gold: Sequence[str], *, version2: bool) -> float:
    """Return the F1 of two bags of words."""
    if version2 and not (text and gold):
        return float(text == gold)
    common = (Counter(text) & Counter(gold)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(text), common / len(gold)
    return 2 * precision * recall / (precision + recall)
