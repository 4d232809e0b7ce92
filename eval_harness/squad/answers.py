"""From logits to answers: the best span over all windows of a question. No torch.

Logits are flat, one for each token of `Windows.ids`: windows are as long as they are, so nothing
needs to be agreed about padding, and a window evaluated in any batch writes to its own place.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from eval_harness.data.squad_files import Questions
from eval_harness.squad.windows import Windows

_ROWS = 64  # windows at a time: what is looked at then fits a core's cache

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """An answer for each question, in their order.

    Attributes:
        texts: parts of the contexts; empty where there is none.
        null_odds: how much "no answer" scores above the best answer; infinite where no token could
            be one. SQuAD's own scripts call it the difference of the null score.
    """

    texts: list[str]
    null_odds: Floats


class _Spans(NamedTuple):
    """A window's best span: its score, and its first and last token as rows of the offsets."""

    scores: Floats
    begins: Ints
    ends: Ints


def answers_of(
    questions: Questions,
    windows: Windows,
    start_logits: NDArray[np.float32],
    end_logits: NDArray[np.float32],
    *,
    version2: bool,
    n_best: int = 20,
    max_answer_length: int = 30,
    null_threshold: float = 0.0,
) -> Answers:
    """The best answer to each question: start + end logit, over all of its windows.

    A window's spans begin at one of its `n_best` best starts and end at one of its best ends; where
    no pair of these makes a span, all pairs are looked at. Of equal ones the earliest window's
    counts, there the first one, and there the shortest.

    The original's script took its best starts and ends from the question too, before it threw those
    away, and a start only from the window that shows most around it. Here the best are of the
    context alone, and the logits decide between windows.

    Args:
        questions: what was asked.
        windows: what the model saw.
        start_logits: one for each token of `windows.ids`.
        end_logits: the same.
        version2: whether "no answer" is one: where it scores more than `null_threshold` above the
            best answer. Else an answer is empty only where a context has no token at all.
        n_best: starts and ends of a window that are looked at.
        max_answer_length: tokens of the longest answer.
        null_threshold: what "no answer" must be better by.

    Raises:
        ValueError: logits that don't fit the windows or aren't finite.
    """
    for logits in (start_logits, end_logits):
        if logits.shape != windows.ids.shape or not np.isfinite(logits).all():
            raise ValueError(f"logits {logits.shape} of {windows.ids.shape} tokens, all finite")
    spans = _best_spans(windows, start_logits, end_logits, n_best, max_answer_length)
    firsts = np.searchsorted(windows.question, np.arange(len(questions)))
    order = np.lexsort((-spans.scores, windows.question))  # stable: the earliest window of equals
    best = order[firsts]
    heads = windows.starts[:-1]
    nulls = start_logits[heads].astype(np.float64) + end_logits[heads]
    null_odds = np.minimum.reduceat(nulls, firsts) - spans.scores[best]
    empty = np.isinf(null_odds)
    if version2:
        empty |= null_odds > null_threshold
    texts = [""] * len(questions)
    for number in np.flatnonzero(~empty):
        begin, end = windows.offsets[spans.begins[best[number]], 0], spans.ends[best[number]]
        context = questions.contexts[questions.context_of[number]]
        texts[number] = context[begin : windows.offsets[end, 1]]
    return Answers(texts, null_odds)


def _best_spans(
    windows: Windows,
    start_logits: NDArray[np.float32],
    end_logits: NDArray[np.float32],
    n_best: int,
    longest: int,
) -> _Spans:
    """Each window's; windows of like sizes are looked at together."""
    holds = windows.offsets[:, 0] < windows.offsets[:, 1]
    found = _Spans(
        np.full(len(windows), -np.inf),
        np.zeros(len(windows), dtype=np.int64),
        np.zeros(len(windows), dtype=np.int64),
    )
    order = np.argsort(windows.size, kind="stable")
    order = order[windows.size[order] > 0]
    for row in range(0, len(order), _ROWS):
        part = order[row : row + _ROWS]
        columns = np.arange(windows.size[part].max())
        inside = columns < windows.size[part][:, None]
        rows = np.where(inside, windows.first[part][:, None] + columns, 0)
        inside &= holds[rows]
        places = np.where(
            inside, (windows.starts[part] + windows.place[part])[:, None] + columns, 0
        )
        starts, ends = (
            np.where(inside, logits[places], -np.inf).astype(np.float64)
            for logits in (start_logits, end_logits)
        )
        score, begin, size = _best_pairs(_top(starts, n_best), _top(ends, n_best), longest)
        without = np.isinf(score)
        score[without], begin[without], size[without] = _best_pairs(
            starts[without], ends[without], longest
        )
        found.scores[part] = score
        found.begins[part] = windows.first[part] + begin
        found.ends[part] = windows.first[part] + begin + size
    return found


def _top(logits: Floats, count: int) -> Floats:
    """The best of each row, and whatever equals the last of these; the others are out."""
    width = logits.shape[1]
    if width <= count:
        return logits
    least = np.partition(logits, width - count, axis=1)[:, width - count]
    return np.where(logits >= least[:, None], logits, -np.inf)


def _best_pairs(starts: Floats, ends: Floats, longest: int) -> tuple[Floats, Ints, Ints]:
    """Of each row the best score, its start, and how many tokens its end comes after that."""
    longest = min(longest, starts.shape[1])
    rows = np.arange(len(starts))
    padded = np.pad(ends, ((0, 0), (0, longest - 1)), constant_values=-np.inf)
    reach = sliding_window_view(padded, longest, axis=1)
    sums = (starts[:, :, None] + reach).reshape(len(starts), starts.shape[1] * longest)
    best = sums.argmax(axis=1)
    return sums[rows, best], *np.divmod(best, longest)
