"""Answers from logits: the best span over all windows of a question. No torch.

Logits are flat, one per token of `Windows.ids`. They need no convention about padding, and each
window has its own slice, whatever batch it was evaluated in.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from eval_harness.data.squad_files import Questions
from eval_harness.squad.windows import Windows

_ROWS = 64  # windows at a time: their table of scores then fits a core's cache

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """An answer per question, in the order of the questions.

    Attributes:
        texts: parts of the contexts; empty for "no answer".
        null_odds: the score of "no answer" minus that of the best answer; infinite if the context
            has no token. SQuAD's own scripts call it the null score difference.
    """

    texts: list[str]
    null_odds: Floats


class _Spans(NamedTuple):
    """The best span of each window: its score, and its first and last token as rows of offsets."""

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
    """Return the best answer to each question: the highest start + end logit in its windows.

    A window's spans pair its `n_best` best starts with its `n_best` best ends; if no such pair is a
    span, all pairs are considered. Ties go to the earliest window, in it to the first start, and
    then to the shortest span.

    The original's script picked its candidates from the question's tokens, too, before it dropped
    these, and took a start only from the window with most context around it. Here candidates are
    tokens of the context, and the logits decide between windows.

    Args:
        questions: the questions.
        windows: their windows.
        start_logits: one per token of `windows.ids`.
        end_logits: likewise.
        version2: answer "no answer" if it scores more than `null_threshold` above the best answer.
            Otherwise an answer is empty only if its context has no token.
        n_best: start/end candidates per window.
        max_answer_length: maximum length of an answer in tokens.
        null_threshold: the margin by which "no answer" must outscore the best answer.

    Raises:
        ValueError: logits don't match the windows or aren't finite.
    """
    for logits in (start_logits, end_logits):
        if logits.shape != windows.ids.shape or not np.isfinite(logits).all():
            raise ValueError(
                f"logits of shape {logits.shape}; expected {windows.ids.shape}, all finite"
            )
    spans = _best_spans(windows, start_logits, end_logits, n_best, max_answer_length)
    firsts = np.searchsorted(windows.question, np.arange(len(questions)))
    # By question, best score first; the sort is stable, so ties go to the earliest window.
    order = np.lexsort((-spans.scores, windows.question))
    best = order[firsts]
    # "No answer" is [CLS] as start and end; the least confident of a question's windows counts.
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
    """Return the best span of each window; windows of similar sizes are scored together."""
    has_text = windows.offsets[:, 0] < windows.offsets[:, 1]  # unlike tokens of blanks alone
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
        inside &= has_text[rows]
        places = np.where(
            inside, (windows.starts[part] + windows.place[part])[:, None] + columns, 0
        )
        starts, ends = (
            np.where(inside, logits[places], -np.inf).astype(np.float64)
            for logits in (start_logits, end_logits)
        )
        score, begin, size = _best_pairs(_top(starts, n_best), _top(ends, n_best), longest)
        # Where no candidates make a span, because all ends come before all starts or too far after
        # them, every pair is considered: SQuAD 1.1 has no empty answers.
        spanless = np.isinf(score)
        score[spanless], begin[spanless], size[spanless] = _best_pairs(
            starts[spanless], ends[spanless], longest
        )
        found.scores[part] = score
        found.begins[part] = windows.first[part] + begin
        found.ends[part] = windows.first[part] + begin + size
    return found


def _top(logits: Floats, count: int) -> Floats:
    """Keep the `count` best logits of each row, and ties with the last; set the others to -inf."""
    width = logits.shape[1]
    if width <= count:
        return logits
    least = np.partition(logits, width - count, axis=1)[:, width - count]
    return np.where(logits >= least[:, None], logits, -np.inf)


def _best_pairs(starts: Floats, ends: Floats, longest: int) -> tuple[Floats, Ints, Ints]:
    """Return the best score of each row, its start, and the distance from there to its end."""
    longest = min(longest, starts.shape[1])
    rows = np.arange(len(starts))
    padded = np.pad(ends, ((0, 0), (0, longest - 1)), constant_values=-np.inf)
    reach = sliding_window_view(padded, longest, axis=1)
    # Flattened by start and then by distance, so that argmax breaks ties as `answers_of` says.
    sums = (starts[:, :, None] + reach).reshape(len(starts), starts.shape[1] * longest)
    best = sums.argmax(axis=1)
    return sums[rows, best], *np.divmod(best, longest)
