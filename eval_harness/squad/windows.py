"""Questions and contexts as windows of token ids, with the positions of answers. No torch.

A context that is too long is cut into overlapping windows, each with the question in front. Every
context is tokenized once, however many questions it has, and numpy assembles the windows. They
equal what the tokenizer itself would make of question and context (tested).

`doc_stride` is the stride of transformers' tokenizers: the number of tokens that two consecutive
windows share. In the original SQuAD scripts, DistilBERT's second distillation step among them, it
is the distance between the starts of two windows; these overlap more, and a long context has more.
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

_CHUNK = 1_000  # texts at a time: the tokenizer's own objects are far larger than the ids
_WINDOWS = 10_000  # windows at a time: int64 indices take twice the memory of the int32 ids

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Windows(TokenRows):
    """Windows in the order of their questions.

    A window is special tokens, its question, special tokens, its part of the context, special
    tokens. Its first token ([CLS]) stands for "no answer".

    Attributes:
        question: the question of each window.
        place: the position in each window at which its part of the context begins.
        size: the number of tokens of that part.
        first: the row of `offsets` of that part's first token; the others follow.
        offsets: begin and end of each token of every context, in the context's characters. A
            token of blanks alone has begin = end; no other begins or ends with a blank.
        positions: first and last token of the first gold answer in each window; 0, 0 unless the
            window has all of it, as in the official scripts.
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
        """A mask of `ids`: the tokens of contexts, and each window's [CLS]."""
        edges = np.zeros(len(self.ids) + 1, dtype=np.int8)
        # +1 where a part of a context begins, -1 where it ends: the running sum is 1 inside.
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
    """Cut all questions and their contexts into windows.

    Args:
        questions: the questions.
        tokenizer: a fast tokenizer that puts a token before the question.
        max_seq_length: maximum length of a window in tokens.
        doc_stride: overlap of two consecutive windows of a question, in tokens of the context.
        max_query_length: length in tokens to which questions are truncated.

    Raises:
        UserError: see `require_room`.
    """
    frame = require_room(tokenizer, max_seq_length, doc_stride, max_query_length)
    contexts, offsets = _context_tokens(questions.contexts, tokenizer)
    texts = _question_tokens(questions.texts, tokenizer, max_query_length)
    room = max_seq_length - frame.size - texts.lengths
    question, first, size = _cut(contexts, questions.context_of, room, doc_stride)
    spans = _answer_rows(questions, contexts, offsets)
    place = frame.before(texts.lengths)[question]
    ids, types, lengths = _assemble(frame, texts, contexts, (question, first, size))
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
    """Sequences one after another; `starts` has where each begins, and the end of the last one."""

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
    """The special tokens that a tokenizer puts before, between and after two texts.

    They are read from an example, which works for every tokenizer of this form.

    Attributes:
        ids: the ids of the three groups.
        types: their token types.
        question_type: the token type of the first text.
        context_type: the token type of the second text.
    """

    ids: tuple[Sequence[int], Sequence[int], Sequence[int]]
    types: tuple[Sequence[int], Sequence[int], Sequence[int]]
    question_type: int
    context_type: int

    @property
    def size(self) -> int:
        return sum(map(len, self.ids))

    def before(self, question: Ints) -> Ints:
        """Return the number of tokens before the context, given the question's."""
        return len(self.ids[0]) + question + len(self.ids[1])


def require_room(
    tokenizer: Any, max_seq_length: int, doc_stride: int, max_query_length: int
) -> _Frame:
    """Return the tokenizer's special tokens, if the lengths leave room for a context.

    Args:
        tokenizer: a fast tokenizer.
        max_seq_length: maximum length of a window in tokens.
        doc_stride: overlap of two consecutive windows, in tokens of the context.
        max_query_length: maximum length of a question in tokens.

    Raises:
        UserError: too little room, or the tokenizer has no token that can mean "no answer".
    """
    frame = _frame_of(tokenizer)
    room = max_seq_length - frame.size - max_query_length
    if room <= doc_stride:  # the next window would begin no later than this one
        raise UserError(
            f"--max_seq_length {max_seq_length}: a question of {max_query_length} tokens "
            f"(--max_query_length) leaves {max(room, 0)} for the context; must be more than "
            f"--doc_stride {doc_stride}"
        )
    return frame


def _frame_of(tokenizer: Any) -> _Frame:
    example = tokenizer("a", "b", padding=False, truncation=False, return_token_type_ids=True)
    sides = example.sequence_ids(0)
    ids, types = example["input_ids"], example["token_type_ids"]
    question, context = sides.index(0), sides.index(1)
    if not 0 < question < context:
        raise UserError(
            "the model's tokenizer puts nothing before a question that could mean 'no answer'; "
            "use a model with a [CLS] or <s>"
        )
    before, after = slice(question), slice(context + sides.count(1), None)
    between = slice(question + sides.count(0), context)
    return _Frame(
        ids=(ids[before], ids[between], ids[after]),
        types=(types[before], types[between], types[after]),
        question_type=types[question],
        context_type=types[context],
    )


def _question_tokens(texts: Sequence[str], tokenizer: Any, longest: int) -> _Ragged:
    """Tokenize questions without the blanks around them, which some in SQuAD have."""
    rows: list[list[int]] = []
    for part in _chunks(texts):
        stripped = [text.strip() for text in part]
        rows += [ids[:longest] for ids in _tokenized(tokenizer, stripped)["input_ids"]]
    return _ragged(rows)


def _context_tokens(texts: Sequence[str], tokenizer: Any) -> tuple[_Ragged, NDArray[np.int32]]:
    """Tokenize contexts; return their tokens, and each token's begin and end in characters."""
    ids, lengths, offsets = [], [], []
    for part in _chunks(texts):
        encoded = _tokenized(tokenizer, part, return_offsets_mapping=True)
        tokens = _ragged(encoded["input_ids"])
        pairs = chain.from_iterable(chain.from_iterable(encoded["offset_mapping"]))
        numbers = np.fromiter(pairs, dtype=np.int64, count=2 * len(tokens.values))
        offsets.append(_trim_and_extend(numbers.reshape(-1, 2), tokens.lengths, part))
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
        verbose=False,  # no warning of texts longer than the model's limit: they are cut later
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

# U+3000 is the last blank; the False at the end stands for all characters after it.
_SPACE = np.array([chr(code).isspace() for code in range(0x3001)] + [False])


def _trim_and_extend(offsets: Ints, lengths: Ints, texts: Sequence[str]) -> NDArray[np.int32]:
    """Trim the blanks off each token's offsets; extend them over characters that have no token.

    Byte-level tokens include the blank before them. BERT's normalizer drops lone accents and
    invisible characters: an answer that ends with one would lose it.

    Args:
        offsets: begin and end of each token in its own text.
        lengths: the number of tokens of each text.
        texts: the texts.
    """
    # All texts as one, with a blank between, so that no token is extended into the next text.
    joined = " ".join([*texts, ""])
    characters = np.frombuffer(joined.encode("utf-32-le"), dtype="<u4")
    space = _SPACE[np.minimum(characters, len(_SPACE) - 1)]
    base = np.repeat(_bases(texts), lengths)
    begins, ends = offsets[:, 0] + base, offsets[:, 1] + base
    begins = np.minimum(_next(~space)[begins], ends)
    ends = np.maximum(_after_last(~space)[ends], begins)
    # To the right up to the next blank or token; then to the left, up to the token before.
    has_text = begins < ends
    following = np.append(begins[1:], len(joined))
    longer = np.maximum(ends, np.minimum(_next(space)[ends], following))
    ends = np.where(has_text, longer, ends)
    before = np.append(0, ends[:-1])
    earlier = np.minimum(begins, np.maximum(_after_last(space)[begins], before))
    begins = np.where(has_text, earlier, begins)
    return np.stack([begins - base, ends - base], axis=1).astype(np.int32)


def _bases(texts: Sequence[str]) -> Ints:
    """Return where each text begins in the texts joined by blanks."""
    return _starts([len(text) + 1 for text in texts])[:-1]


def _next(flags: Bools) -> Ints:
    """Return, for each place and the end, the first flagged place from there on, or the end."""
    places = np.append(np.where(flags, np.arange(len(flags)), len(flags)), len(flags))
    return np.minimum.accumulate(places[::-1])[::-1]


def _after_last(flags: Bools) -> Ints:
    """Return, for each place and the end, the last place up to there that follows a flag, or 0."""
    places = np.append(0, np.where(flags, np.arange(1, len(flags) + 1), 0))
    return np.maximum.accumulate(places)


# --- windows


def _cut(contexts: _Ragged, context_of: NDArray[Any], room: Ints, stride: int) -> tuple[Ints, ...]:
    """Return each window's question, its first token among the contexts', and their number."""
    lengths = contexts.lengths[context_of]
    # A window, and more for what exceeds it, rounded up: each adds `room - stride` new tokens.
    count = 1 + -(-np.maximum(lengths - room, 0) // (room - stride))
    question = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(question)) - np.repeat(_starts(count)[:-1], count)
    skipped = number * (room - stride)[question]
    size = np.minimum(room[question], lengths[question] - skipped)
    return question, contexts.starts[context_of][question] + skipped, size


def _assemble(
    frame: _Frame, texts: _Ragged, contexts: _Ragged, cut: tuple[Ints, ...]
) -> tuple[NDArray[np.int32], NDArray[np.uint8], Ints]:
    """Return the ids, types and lengths of all windows.

    All tokens lie in one pool, so a window is five slices of it: before, question, between, part of
    the context, after.

    Args:
        frame: the special tokens.
        texts: the questions' tokens.
        contexts: the contexts' tokens.
        cut: question, first token and size of each window, as `_cut` returns them.
    """
    pool = np.concatenate([*frame.ids, texts.values, contexts.values]).astype(np.int32)
    text_types = [frame.question_type, frame.context_type]
    types = np.concatenate(
        [*frame.types, np.repeat(text_types, [len(texts.values), len(contexts.values)])]
    )
    at = _starts([*map(len, frame.ids), len(texts.values)])
    question, first, size = cut
    begins, lengths = np.empty((2, len(question), 5), dtype=np.int64)
    begins[:, [0, 2, 4]] = at[:3]
    lengths[:, [0, 2, 4]] = [len(ids) for ids in frame.ids]
    begins[:, 1], lengths[:, 1] = at[3] + texts.starts[question], texts.lengths[question]
    begins[:, 3], lengths[:, 3] = at[4] + first, size
    found_ids, found_types = [], []
    for window in range(0, len(question), _WINDOWS):
        part = slice(window, window + _WINDOWS)
        places = _slices(begins[part].ravel(), lengths[part].ravel())
        found_ids.append(pool[places])
        found_types.append(types.astype(np.uint8)[places])
    return np.concatenate(found_ids), np.concatenate(found_types), lengths.sum(axis=1)


def _slices(begins: Ints, lengths: Ints) -> Ints:
    """Return the indices of several slices, one slice after another."""
    starts = _starts(lengths)
    return np.arange(starts[-1]) + np.repeat(begins - starts[:-1], lengths)


# --- answers


def _answer_rows(questions: Questions, contexts: _Ragged, offsets: NDArray[np.int32]) -> Ints:
    """Return the first and last token of each question's first answer, as rows of offsets.

    Questions without an answer have -1. An answer that begins or ends inside a token takes the
    whole token. Blanks around an answer don't count.
    """
    base = _bases(questions.contexts)
    shift = np.repeat(base, contexts.lengths)
    # searchsorted needs sorted values. Tokens are nearly always in order, and then the running
    # maximum and minimum change nothing.
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
    """Return an answer's position in a window that has all of it, else that of [CLS]."""
    is_inside = (spans[:, 0] >= first) & (spans[:, 1] < first + size)
    shifted = spans - (first - place)[:, None]
    return np.where(is_inside[:, None], shifted, 0).astype(np.int32)
