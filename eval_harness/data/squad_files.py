"""SQuAD's files: questions read strictly, predictions written in SQuAD's own format. No torch.

Whatever is not clean raises a one-line error with its place: `file: article 'Title' / paragraph 3 /
question id: reason`. A truncated file, or an answer that isn't where the file says, would give a
score that looks like any other.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from angels_share.errors import UserError
from angels_share.files import write_atomically
from angels_share.readers.columns import Columns, read_columns
from angels_share.readers.text_files import JsonFault, fault_in_text, parse_json, read_lines

_COLUMNS = ("id", "question", "context", "answers")

_Golds = list[tuple[str, int]]
"""Gold answers, and where each begins in its context."""


@dataclass(frozen=True)
class Questions:
    """Questions in the order of their file, with each distinct context once.

    Attributes:
        ids: the file's ids of the questions.
        texts: the questions.
        contexts: the texts that the questions are about.
        context_of: the index of each question's context.
        answers: the gold answers of each question; empty if its context has no answer.
        answer_starts: where the first answer begins in its context, in characters; -1 for none.
        content: a hash of contexts, questions and answers in order; it is the same for all file
            formats, and ids are no part of it.
        name: the split of a task, if they are one.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    contexts: Sequence[str]
    context_of: NDArray[np.int32]
    answers: Sequence[tuple[str, ...]]
    answer_starts: NDArray[np.int32]
    content: str
    name: str = ""

    def __len__(self) -> int:
        return len(self.ids)


def read_squad(path: Path, *, limit: int | None = None, for_training: bool = False) -> Questions:
    """Read SQuAD 1.1 or 2.0: its own JSON, or parquet, json or jsonl with the Hub's columns.

    Args:
        path: a .json is one object, like SQuAD's own files, or rows.
        limit: the maximum number of questions, evenly spaced.
        for_training: accept duplicate ids, as in TyDi's training file: nothing is scored by them.

    Raises:
        UserError: the file is missing, isn't clean, or has no questions.
    """
    found = _Collector(for_training=for_training)
    document = _document(path) if path.suffix == ".json" else None
    if document is None:
        _add_columns(found, read_columns(path, _COLUMNS, optional=()))
    else:
        _add_document(found, path, document)
    if not found.ids:
        raise UserError(f"{path}: no questions in it")
    return _limited(found, limit)


def questions_from_columns(
    parts: Sequence[Columns], *, limit: int | None = None, for_training: bool = False
) -> Questions:
    """Return the questions in rows that were read already, in the Hub's columns.

    Args:
        parts: the columns of each shard.
        limit: the maximum number of questions, evenly spaced.
        for_training: accept duplicate ids.

    Raises:
        UserError: a row isn't clean.
    """
    found = _Collector(for_training=for_training)
    for part in parts:
        _add_columns(found, part)
    return _limited(found, limit)


def write_predictions(path: Path, ids: Sequence[str], texts: Sequence[str]) -> Path:
    """Write `{id: answer}` for SQuAD's own evaluation script, atomically.

    The file is ASCII, because that script opens it in the machine's default encoding.

    Args:
        path: the file.
        ids: the questions' ids.
        texts: the answers.

    Raises:
        ValueError: duplicate ids, or another number of answers.
    """
    predictions = dict(zip(ids, texts, strict=True))
    if len(predictions) != len(ids):
        raise ValueError(f"{len(ids)} predictions have {len(predictions)} ids")
    return write_atomically(path, json.dumps(predictions, indent=1) + "\n")


class _Where(NamedTuple):
    """A place in one of SQuAD's own files, for messages; numbers count from 1."""

    path: Path
    article: int
    title: object = None
    paragraph: int | None = None
    question: object = None

    def __str__(self) -> str:
        title = repr(self.title) if isinstance(self.title, str) and self.title else self.article
        parts = [f"{self.path}: article {title}"]
        if self.paragraph is not None:
            parts.append(f"paragraph {self.paragraph}")
        if self.question is not None:
            parts.append(f"question {self.question}")
        return " / ".join(parts)


class _Collector:
    """The questions read so far, each checked when it is added."""

    def __init__(self, *, for_training: bool) -> None:
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.contexts: dict[str, int] = {}
        self.context_of: list[int] = []
        self.answers: list[tuple[str, ...]] = []
        self.starts: list[int] = []
        self._seen_ids: set[str] | None = None if for_training else set()

    def add(self, where: object, name: str, text: Any, context: str, answers: _Golds) -> None:
        if not name.strip():
            raise UserError(f"{where}: blank id; predictions are keyed by id")
        if self._seen_ids is not None:
            if name in self._seen_ids:
                raise UserError(f"{where}: duplicate id; predictions are keyed by id")
            self._seen_ids.add(name)
        self.ids.append(name)
        self.texts.append(_text(text, "question", where))
        self.context_of.append(self.contexts.setdefault(context, len(self.contexts)))
        self.answers.append(tuple(text for text, _ in answers))
        self.starts.append(answers[0][1] if answers else -1)


# --- SQuAD's own files


def _document(path: Path) -> dict[str, Any] | None:
    """Return the object in a file of SQuAD's own format; None for a file of rows."""
    lines = [line for _, line in read_lines(path)]
    if lines and lines[0].lstrip().startswith("["):
        return None
    text = "\n".join(lines)
    try:
        document = parse_json(text)
    except JsonFault as fault:
        cause = fault.cause
        if cause is None:
            raise fault.within(path) from fault
        if cause.msg == "Extra data":  # one object per line
            return None
        is_cut = cause.pos >= len(text.rstrip()) or cause.msg.startswith("Unterminated")
        hint = "; is the file truncated?" if is_cut else ""
        reason = f"not JSON ({cause.msg}, column {cause.colno}){hint}"
        raise UserError(f"{path}:{cause.lineno}: {reason}") from fault
    if "data" not in _object(document, path) and "context" in document:
        return None  # a single row
    return _object(document, path)


def _add_document(found: _Collector, path: Path, document: Mapping[str, Any]) -> None:
    for number, article in enumerate(_list(document, "data", path), 1):
        where = _Where(path, number)
        where = where._replace(title=_object(article, where).get("title"))
        for place, paragraph in enumerate(_list(article, "paragraphs", where), 1):
            _add_paragraph(found, paragraph, where._replace(paragraph=place))


def _add_paragraph(found: _Collector, paragraph: Any, where: _Where) -> None:
    context = _context(_member(_object(paragraph, where), "context", where), where)
    for number, question in enumerate(_list(paragraph, "qas", where), 1):
        label = _object(question, where._replace(question=number)).get("id", number)
        place = where._replace(question=label)
        name = _text(_member(question, "id", place), "id", place)
        answers = _answers(_list(question, "answers", place), context, place)
        _require_consistency(answers, question.get("is_impossible", False), place)
        found.add(place, name, _member(question, "question", place), context, answers)


def _answers(values: Iterable[Any], context: str, where: object) -> _Golds:
    answers = []
    for each in values:
        answer = _object(each, where)
        text, start = (_member(answer, key, where) for key in ("text", "answer_start"))
        answers.append(_answer(text, start, context, where))
    return answers


def _require_consistency(answers: _Golds, impossible: Any, where: object) -> None:
    if type(impossible) is not bool:
        raise UserError(f"{where}: is_impossible is {impossible!r}; expected true or false")
    if impossible and answers:
        raise UserError(f"{where}: is_impossible is true, but there are {len(answers)} answers")
    if not impossible and not answers:
        raise UserError(f"{where}: no answers; SQuAD 2.0 marks such questions as is_impossible")


# --- rows in the Hub's columns


def _add_columns(found: _Collector, columns: Columns) -> None:
    """Add rows, whose answers are an object of two lists, both empty if there is no answer."""
    cells = (columns.cells[name] for name in _COLUMNS)
    for row, (name, text, context, answers) in enumerate(zip(*cells, strict=True)):
        place = columns.where(row)
        question_id = _text(name, "id", place)
        where = f"{place}: question {question_id}"
        checked = _context(context, where)
        texts, starts = (
            _list(_object(answers, where), key, where) for key in ("text", "answer_start")
        )
        if len(texts) != len(starts):
            raise UserError(f"{where}: {len(texts)} answers and {len(starts)} answer_starts")
        golds = [_answer(*each, checked, where) for each in zip(texts, starts, strict=True)]
        found.add(where, question_id, text, checked, golds)


# --- checks of both formats


def _answer(text: Any, start: Any, context: str, where: object) -> tuple[str, int]:
    """Return a gold answer that is where the file says, counted in characters, not bytes."""
    _text(text, "answer", where)
    if not text.strip():
        raise UserError(f"{where}: blank answer; nothing can be scored without gold answers")
    if type(start) is not int:
        raise UserError(f"{where}: answer_start is {start!r}; expected an integer")
    if not 0 <= start <= len(context) - len(text):
        size = f"the context has {len(context)} characters, the answer {len(text)}"
        raise UserError(f"{where}: answer_start {start} is out of range ({size})")
    found = context[start : start + len(text)]
    if found != text:
        raise UserError(
            f"{where}: answer_start {start}: the context has {_short(found)}, not {_short(text)} "
            "(offsets count characters, not bytes)"
        )
    return text, start


def _short(text: str) -> str:
    return repr(text if len(text) <= 30 else f"{text[:29]}…")


def _context(value: Any, where: object) -> str:
    context = _text(value, "context", where)
    if not context.strip():
        raise UserError(f"{where}: the context is blank")
    return context


def _text(value: Any, role: str, where: object) -> str:
    """Return a text that a tokenizer can take: without NUL or unpaired surrogate."""
    if type(value) is not str:
        raise UserError(f"{where}: the {role} is {_kind(value)}, not text")
    if fault := fault_in_text(value):
        raise UserError(f"{where}: the {role}: {fault}")
    return value


def _object(value: Any, where: object) -> dict[str, Any]:
    if type(value) is not dict:
        raise UserError(f"{where}: {_kind(value)} instead of an object")
    return value


def _member(value: Mapping[str, Any], key: str, where: object) -> Any:
    if key not in value:
        raise UserError(
            f"{where}: no {key!r}; the keys are {', '.join(map(repr, value)) or 'none'}"
        )
    return value[key]


def _list(value: Mapping[str, Any], key: str, where: object) -> list[Any]:
    member = _member(value, key, where)
    if type(member) is not list:
        raise UserError(f"{where}: {key!r} is {_kind(member)}, not a list")
    return member


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


# --- the collected questions


def _limited(found: _Collector, limit: int | None) -> Questions:
    """Return at most `limit` questions, evenly spaced, with only the contexts that they use."""
    size = len(found.ids)
    count = size if limit is None else min(limit, size)
    chosen = [number * size // count for number in range(count)]
    contexts = list(found.contexts)
    used, context_of = np.unique([found.context_of[i] for i in chosen], return_inverse=True)
    questions = Questions(
        ids=[found.ids[i] for i in chosen],
        texts=[found.texts[i] for i in chosen],
        contexts=[contexts[i] for i in used],
        context_of=context_of.astype(np.int32),
        answers=[found.answers[i] for i in chosen],
        answer_starts=np.array([found.starts[i] for i in chosen], dtype=np.int32),
        content="",
    )
    return replace(questions, content=_content_hash(questions))


def _content_hash(questions: Questions) -> str:
    """Hash the questions to 16 hex digits; NUL separates texts, since no text contains it."""
    digest = hashlib.sha256()
    counts = [len(answers) for answers in questions.answers]
    golds = [text for answers in questions.answers for text in answers]
    for texts in (questions.contexts, questions.texts, golds):
        digest.update(f"{len(texts)}\0".encode())
        digest.update("\0".join(texts).encode() + b"\0")
    for numbers in (questions.context_of, counts, questions.answer_starts):
        digest.update(np.asarray(numbers, dtype="<i4").tobytes())
    return digest.hexdigest()[:16]
