"""Questions and their contexts as windows of token ids, with the answers' places. No torch.

A context that is too long is cut into windows that overlap; each holds its question too. Every
context is tokenized once, however many questions ask about it, and windows are put together by
numpy. They are what the tokenizer itself would make of question and context (tested).

`doc_stride` is what transformers' tokenizers call stride: the tokens that two consecutive windows
share. The original SQuAD scripts, the second step of DistilBERT's among them, meant the distance
from a window to the next one: theirs overlap more, and a long context has more of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angels_share.errors import UserError
from eval_harness.data.squad_files import Questions
from eval_harness.data.token_rows import TokenRows

_CHUNK = 1_000  # texts at a time: the tokenizer's own objects are far larger than their ids
_WINDOWS = 10_000  # windows at a time: places in the pool are wider than the ids that lie there

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Windows(TokenRows):
    """Windows in the order of their questions.

    A window is special tokens, its question, special tokens, its part of the context, special
    tokens. Its first token ([CLS]) stands for "no answer".

    Attributes:
        question: which question each window asks.
        place: where in each window its part of the context begins.
        size: of how many tokens that part is.
        first: which row of `offsets` its first token is; the others follow.
        offsets: begin and end of each token of every context, in the context's characters. A
            token of blanks alone has begin = end; no other begins or ends with a blank.
        positions: first and last token of the first answer in each window; 0, 0 where the window
            doesn't hold all of it, as in the official scripts.
    """

    question: NDArray[np.int32]
    place: NDArray[np.int32]
    size: NDArray[np.int32]
    first: Ints
    offsets: NDArray[np.int32]
    positions: NDArray[np.int32]

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = super().__getitem__(index)
        example["answer_mask"] = self.answerable[self.starts[index] : self.starts[index + 1]]
        example["start_positions"], example["end_positions"] = self.positions[index]
        return example

    @cached_property
    def answerable(self) -> Bools:
        """Of each token in `ids`: can an answer begin or end there, or is it a window's [CLS]?"""
        edges = np.zeros(len(self.ids) + 1, dtype=np.int8)
        edges[self.starts[:-1] + self.place] += 1
        edges[self.starts[:-1] + self.place + self.size] -= 1
        found = np.cumsum(edges[:-1], dtype=np.int8).astype(bool)
        found[self.starts[:-1]] = True
        return found


def make_windows(
    questions: Questions,
    tokenizer: Any,
    *,
    max_seq_length: int = 384,
    doc_stride: int = 128,
    max_query_length: int = 64,
) -> Windows:
    """Windows of all questions.

    Args:
        questions: what is asked about what.
        tokenizer: a fast one that puts something before the question.
        max_seq_length: tokens of the longest window.
        doc_stride: tokens of the context that two consecutive windows of a question share.
        max_query_length: a longer question is cut to so many tokens.

    Raises:
        UserError: the lengths leave no room, or the tokenizer has nothing that means "no answer".
    """
    frame = require_room(tokenizer, max_seq_length, doc_stride, max_query_length)
    contexts, offsets = _contexts_of(questions.contexts, tokenizer)
    asked = _asked(questions.texts, tokenizer, max_query_length)
    room = max_seq_length - frame.size - asked.lengths
    question, first, size = _cut(contexts, questions.context_of, room, doc_stride)
    spans = _answer_rows(questions, contexts, offsets)
    place = frame.before(asked.lengths)[question]
    ids, types, lengths = _joined(frame, asked, contexts, (question, first, size))
    return Windows(
        ids=ids,
        types=types if types.any() else None,
        starts=_starts(lengths),
        question=question.astype(np.int32),
        place=place.astype(np.int32),
        size=size.astype(np.int32),
        first=first,
        offsets=offsets,
        positions=_positions(spans[question], place, first, size),
    )


@dataclass(frozen=True)
class _Ragged:
    """Sequences behind one another; `starts` has where each begins, and at last their end."""

    values: NDArray[np.int32]
    starts: Ints

    @property
    def lengths(self) -> Ints:
        return np.diff(self.starts)


def _starts(lengths: Sequence[int] | Ints) -> Ints:
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


# --- what the tokenizer says


@dataclass(frozen=True)
class _Frame:
    """What a tokenizer puts before, between and after two texts: ids and types; the texts' types.

    Read from an example, so that every tokenizer that has such a frame is known.
    """

    ids: tuple[Sequence[int], Sequence[int], Sequence[int]]
    types: tuple[Sequence[int], Sequence[int], Sequence[int]]
    question_type: int
    context_type: int

    @property
    def size(self) -> int:
        return sum(map(len, self.ids))

    def before(self, question: Ints) -> Ints:
        """How many tokens stand before the context, given the question's."""
        return len(self.ids[0]) + question + len(self.ids[1])


def require_room(
    tokenizer: Any, max_seq_length: int, doc_stride: int, max_query_length: int
) -> _Frame:
    """What the tokenizer puts around question and context, if these lengths leave room for it.

    Raises:
        UserError: they don't, or the tokenizer has nothing that means "no answer".
    """
    frame = _frame_of(tokenizer)
    room = max_seq_length - frame.size - max_query_length
    if room <= doc_stride:
        raise UserError(
            f"--max_seq_length {max_seq_length}: a question of {max_query_length} tokens "
            f"(--max_query_length) leaves {max(room, 0)} for the context, more than --doc_stride "
            f"{doc_stride} are wanted"
        )
    return frame


def _frame_of(tokenizer: Any) -> _Frame:
    example = tokenizer("a", "b", padding=False, truncation=False, return_token_type_ids=True)
    sides = example.sequence_ids(0)
    ids, types = example["input_ids"], example["token_type_ids"]
    question, context = sides.index(0), sides.index(1)
    if not 0 < question < context:
        raise UserError(
            "the model's tokenizer puts nothing before a question that could mean 'no answer': "
            "take a model with a [CLS] or <s>"
        )
    before, after = slice(question), slice(context + sides.count(1), None)
    between = slice(question + sides.count(0), context)
    return _Frame(
        ids=(ids[before], ids[between], ids[after]),
        types=(types[before], types[between], types[after]),
        question_type=types[question],
        context_type=types[context],
    )


def _asked(texts: Sequence[str], tokenizer: Any, longest: int) -> _Ragged:
    """The questions' tokens; blanks around a question, which some have, are no part of it."""
    rows: list[list[int]] = []
    for part in _chunks(texts):
        stripped = [text.strip() for text in part]
        rows += [ids[:longest] for ids in _tokenized(tokenizer, stripped)["input_ids"]]
    return _ragged(rows)


def _contexts_of(texts: Sequence[str], tokenizer: Any) -> tuple[_Ragged, NDArray[np.int32]]:
    """The contexts' tokens, and each one's begin and end in characters."""
    ids, lengths, offsets = [], [], []
    for part in _chunks(texts):
        encoded = _tokenized(tokenizer, part, return_offsets_mapping=True)
        tokens = _ragged(encoded["input_ids"])
        pairs = chain.from_iterable(chain.from_iterable(encoded["offset_mapping"]))
        numbers = np.fromiter(pairs, dtype=np.int64, count=2 * len(tokens.values))
        offsets.append(_tidied(numbers.reshape(-1, 2), tokens.lengths, part))
        ids.append(tokens.values)
        lengths.append(tokens.lengths)
    return _Ragged(np.concatenate(ids), _starts(np.concatenate(lengths))), np.concatenate(offsets)


def _tokenized(tokenizer: Any, texts: Sequence[str], **more: bool) -> Any:
    return tokenizer(
        list(texts),
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # of a text longer than the model's limit, which is cut here
        **more,
    )


def _ragged(rows: Sequence[Sequence[int]]) -> _Ragged:
    starts = _starts([len(row) for row in rows])
    values = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(starts[-1]))
    return _Ragged(values, starts)


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(texts), _CHUNK):
        yield texts[first : first + _CHUNK]


# --- characters

_SPACE = np.array([chr(code).isspace() for code in range(0x3001)] + [False])  # none comes after it


def _tidied(offsets: Ints, lengths: Ints, texts: Sequence[str]) -> NDArray[np.int32]:
    """Offsets without the blanks that a token includes, with the characters that belong to none.

    Byte-level tokens begin with their blank. BERT's normalizer drops accents that stand alone and
    characters that aren't seen: an answer that ends with one would lose it.
    """
    joined = " ".join([*texts, ""])
    characters = np.frombuffer(joined.encode("utf-32-le"), dtype="<u4")
    space = _SPACE[np.minimum(characters, len(_SPACE) - 1)]
    base = np.repeat(_bases(texts), lengths)
    begins, ends = offsets[:, 0] + base, offsets[:, 1] + base
    begins = np.minimum(_next(~space)[begins], ends)
    ends = np.maximum(_after_last(~space)[ends], begins)
    holds = begins < ends
    following = np.append(begins[1:], len(joined))
    longer = np.maximum(ends, np.minimum(_next(space)[ends], following))
    ends = np.where(holds, longer, ends)
    before = np.append(0, ends[:-1])
    earlier = np.minimum(begins, np.maximum(_after_last(space)[begins], before))
    begins = np.where(holds, earlier, begins)
    return np.stack([begins - base, ends - base], axis=1).astype(np.int32)


def _bases(texts: Sequence[str]) -> Ints:
    """Where each text begins, were they joined with a blank between."""
    return _starts([len(text) + 1 for text in texts])[:-1]


def _next(flags: Bools) -> Ints:
    """For each place, and the end, the nearest one from there on that has the flag; or the end."""
    places = np.append(np.where(flags, np.arange(len(flags)), len(flags)), len(flags))
    return np.minimum.accumulate(places[::-1])[::-1]


def _after_last(flags: Bools) -> Ints:
    """For each place, and the end, the nearest one up to there that follows a flag; or 0."""
    places = np.append(0, np.where(flags, np.arange(1, len(flags) + 1), 0))
    return np.maximum.accumulate(places)


# --- windows


def _cut(contexts: _Ragged, context_of: NDArray[Any], room: Ints, stride: int) -> tuple[Ints, ...]:
    """Each window's question, and the first and the number of its tokens among the contexts'."""
    lengths = contexts.lengths[context_of]
    count = 1 + -(-np.maximum(lengths - room, 0) // (room - stride))
    question = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(question)) - np.repeat(_starts(count)[:-1], count)
    skipped = number * (room - stride)[question]
    size = np.minimum(room[question], lengths[question] - skipped)
    return question, contexts.starts[context_of][question] + skipped, size


def _joined(
    frame: _Frame, asked: _Ragged, contexts: _Ragged, cut: tuple[Ints, ...]
) -> tuple[NDArray[np.int32], NDArray[np.uint8], Ints]:
    """All windows' ids, types and lengths: five slices each of one pool of tokens."""
    pool = np.concatenate([*frame.ids, asked.values, contexts.values]).astype(np.int32)
    texts = [frame.question_type, frame.context_type]
    types = np.concatenate(
        [*frame.types, np.repeat(texts, [len(asked.values), len(contexts.values)])]
    )
    at = _starts([*map(len, frame.ids), len(asked.values)])
    question, first, size = cut
    begins, lengths = np.empty((2, len(question), 5), dtype=np.int64)
    begins[:, [0, 2, 4]] = at[:3]
    lengths[:, [0, 2, 4]] = [len(ids) for ids in frame.ids]
    begins[:, 1], lengths[:, 1] = at[3] + asked.starts[question], asked.lengths[question]
    begins[:, 3], lengths[:, 3] = at[4] + first, size
    found_ids, found_types = [], []
    for window in range(0, len(question), _WINDOWS):
        part = slice(window, window + _WINDOWS)
        places = _slices(begins[part].ravel(), lengths[part].ravel())
        found_ids.append(pool[places])
        found_types.append(types.astype(np.uint8)[places])
    return np.concatenate(found_ids), np.concatenate(found_types), lengths.sum(axis=1)


def _slices(begins: Ints, lengths: Ints) -> Ints:
    """The places of several slices, behind one another."""
    starts = _starts(lengths)
    return np.arange(starts[-1]) + np.repeat(begins - starts[:-1], lengths)


# --- answers


def _answer_rows(questions: Questions, contexts: _Ragged, offsets: NDArray[np.int32]) -> Ints:
    """First and last token of each question's first answer, as rows of offsets; -1 for none.

    An answer that begins or ends inside of a token takes the whole token. Blanks around an answer
    are no part of it.
    """
    base = _bases(questions.contexts)
    shift = np.repeat(base, contexts.lengths)
    # Running extremes change nothing where tokens are in order, and searching needs the order.
    ends = np.maximum.accumulate(offsets[:, 1] + shift)
    begins = np.minimum.accumulate((offsets[:, 0] + shift)[::-1])[::-1]
    golds = [answers[0] if answers else "" for answers in questions.answers]
    blanks = np.array([len(gold) - len(gold.lstrip()) for gold in golds])
    sizes = np.array([len(gold.strip()) for gold in golds])
    begin = base[questions.context_of] + questions.answer_starts + blanks
    rows = np.stack(
        [
            np.searchsorted(ends, begin, side="right"),
            np.searchsorted(begins, begin + sizes, side="left") - 1,
        ],
        axis=1,
    )
    rows[(sizes == 0) | (rows[:, 0] > rows[:, 1])] = -1
    return rows


def _positions(spans: Ints, place: Ints, first: Ints, size: Ints) -> NDArray[np.int32]:
    """Where an answer stands in a window that holds all of it, else at [CLS]."""
    holds = (spans[:, 0] >= first) & (spans[:, 1] < first + size)
    found = spans - (first - place)[:, None]
    return np.where(holds[:, None], found, 0).astype(np.int32)
