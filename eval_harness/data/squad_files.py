"""SQuAD's files: questions read strictly, predictions written in its own format. No torch.

What is not clean is one line that says where: `file: article 'Title' / paragraph 3 / question id:
reason`. A truncated file or an answer that isn't where it is said to be would give a number that
looks like any other.
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
from angels_share.text_files import fault_in_text, read_lines
from eval_harness.data.columns import Columns, read_columns

_COLUMNS = ("id", "question", "context", "answers")

_Golds = list[tuple[str, int]]  # gold answers, and where each begins in its context


@dataclass(frozen=True)
class Questions:
    """Questions in the order of their file; a context that several ask about is there once.

    Attributes:
        ids: what the file calls each question.
        texts: what is asked.
        contexts: the texts that are asked about.
        context_of: the context of each question.
        answers: the gold answers of each question; none where the context holds no answer.
        answer_starts: where the first answer begins in its context, in characters; -1 for none.
        content: a hash of contexts, questions and answers in order, whatever file held them and
            whatever it called them.
        name: the split that they are, where they are one of a task's.
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
    """Reads SQuAD 1.1 or 2.0: its own JSON, or parquet, json or jsonl in the Hub's columns.

    Args:
        path: a .json holds one object, as SQuAD's own files do, or rows.
        limit: at most so many questions, evenly spaced.
        for_training: an id may stand there twice: nothing is scored by it (TyDi's training file
            numbers an article's passages).

    Raises:
        UserError: it isn't there or isn't clean.
    """
    found = _Found(for_training=for_training)
    document = _document(path) if path.suffix == ".json" else None
    if document is None:
        _take_columns(found, read_columns(path, _COLUMNS, optional=()))
    else:
        _take_document(found, path, document)
    if not found.ids:
        raise UserError(f"{path}: no questions in it")
    return _thinned(found, limit)


def of_columns(
    parts: Sequence[Columns], *, limit: int | None = None, for_training: bool = False
) -> Questions:
    """The same from rows that were read already, in the Hub's columns: shards, or the Hub's own."""
    found = _Found(for_training=for_training)
    for part in parts:
        _take_columns(found, part)
    return _thinned(found, limit)


def write_predictions(path: Path, ids: Sequence[str], texts: Sequence[str]) -> Path:
    """Writes `{id: answer}`, what SQuAD's own evaluation reads; whole or not at all.

    It is ASCII: that evaluation opens the file in whatever encoding its machine prefers.
    """
    predictions = dict(zip(ids, texts, strict=True))
    if len(predictions) != len(ids):
        raise ValueError(f"{len(ids)} predictions have {len(predictions)} ids")
    return write_atomically(path, json.dumps(predictions, indent=1) + "\n")


class _Where(NamedTuple):
    """A place in one of SQuAD's own files, as a message names it; counted from 1."""

    path: Path
    article: int
    title: object = None
    paragraph: int | None = None
    question: object = None

    def __str__(self) -> str:
        called = repr(self.title) if isinstance(self.title, str) and self.title else self.article
        parts = [f"{self.path}: article {called}"]
        if self.paragraph is not None:
            parts.append(f"paragraph {self.paragraph}")
        if self.question is not None:
            parts.append(f"question {self.question}")
        return " / ".join(parts)


class _Found:
    """The questions that were found so far, each looked at as it comes."""

    def __init__(self, *, for_training: bool) -> None:
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.contexts: dict[str, int] = {}
        self.context_of: list[int] = []
        self.answers: list[tuple[str, ...]] = []
        self.starts: list[int] = []
        self._known: set[str] | None = None if for_training else set()

    def add(self, where: object, name: str, text: Any, context: str, answers: _Golds) -> None:
        if not name.strip():
            raise UserError(f"{where}: a blank id; predictions go by ids")
        if self._known is not None:
            if name in self._known:
                raise UserError(f"{where}: that id stands there twice; predictions go by ids")
            self._known.add(name)
        self.ids.append(name)
        self.texts.append(_text(text, "question", where))
        self.context_of.append(self.contexts.setdefault(context, len(self.contexts)))
        self.answers.append(tuple(text for text, _ in answers))
        self.starts.append(answers[0][1] if answers else -1)


# --- SQuAD's own files


def _document(path: Path) -> dict[str, Any] | None:
    """The object that a file is; None where it holds rows."""
    lines = [line for _, line in read_lines(path)]
    if lines and lines[0].lstrip().startswith("["):
        return None
    text = "\n".join(lines)
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply to be SQuAD") from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # an object in each line
            return None
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        hint = "; was it copied whole?" if cut else ""
        reason = f"not JSON ({error.msg}, column {error.colno}){hint}"
        raise UserError(f"{path}:{error.lineno}: {reason}") from error
    if "data" not in _object(document, path) and "context" in document:
        return None  # a single row
    return _object(document, path)


def _take_document(found: _Found, path: Path, document: Mapping[str, Any]) -> None:
    for number, article in enumerate(_list(document, "data", path), 1):
        where = _Where(path, number)
        where = where._replace(title=_object(article, where).get("title"))
        for place, paragraph in enumerate(_list(article, "paragraphs", where), 1):
            _take_paragraph(found, paragraph, where._replace(paragraph=place))


def _take_paragraph(found: _Found, paragraph: Any, where: _Where) -> None:
    context = _context(_member(_object(paragraph, where), "context", where), where)
    for number, asked in enumerate(_list(paragraph, "qas", where), 1):
        called = _object(asked, where._replace(question=number)).get("id", number)
        place = where._replace(question=called)
        name = _text(_member(asked, "id", place), "id", place)
        answers = _answers(_list(asked, "answers", place), context, place)
        _require_sense(answers, asked.get("is_impossible", False), place)
        found.add(place, name, _member(asked, "question", place), context, answers)


def _answers(values: Iterable[Any], context: str, where: object) -> _Golds:
    answers = []
    for each in values:
        answer = _object(each, where)
        text, start = (_member(answer, key, where) for key in ("text", "answer_start"))
        answers.append(_answer(text, start, context, where))
    return answers


def _require_sense(answers: _Golds, impossible: Any, where: object) -> None:
    if type(impossible) is not bool:
        raise UserError(f"{where}: is_impossible is {impossible!r}, true or false is wanted")
    if impossible and answers:
        raise UserError(f"{where}: is_impossible, and yet it has {len(answers)} answers")
    if not impossible and not answers:
        raise UserError(f"{where}: no answers; SQuAD 2.0 says is_impossible where there is none")


# --- rows in the Hub's columns


def _take_columns(found: _Found, columns: Columns) -> None:
    """Rows hold an object of two lists for their answers; empty ones say that there is none."""
    cells = (columns.cells[name] for name in _COLUMNS)
    for row, (name, text, context, answers) in enumerate(zip(*cells, strict=True)):
        place = columns.where(row)
        called = _text(name, "id", place)
        where = f"{place}: question {called}"
        held = _context(context, where)
        texts, starts = (
            _list(_object(answers, where), key, where) for key in ("text", "answer_start")
        )
        if len(texts) != len(starts):
            raise UserError(f"{where}: {len(texts)} answers and {len(starts)} answer_starts")
        golds = [_answer(*each, held, where) for each in zip(texts, starts, strict=True)]
        found.add(where, called, text, held, golds)


# --- what both have


def _answer(text: Any, start: Any, context: str, where: object) -> tuple[str, int]:
    """A gold answer that stands where it is said to; it is counted in characters, not bytes."""
    _text(text, "answer", where)
    if not text.strip():
        raise UserError(f"{where}: a blank answer; without gold answers nothing can be scored")
    if type(start) is not int:
        raise UserError(f"{where}: answer_start is {start!r}, a number is wanted")
    if not 0 <= start <= len(context) - len(text):
        size = f"the context has {len(context)} characters, the answer {len(text)}"
        raise UserError(f"{where}: answer_start {start} is out of range ({size})")
    there = context[start : start + len(text)]
    if there != text:
        raise UserError(
            f"{where}: answer_start {start}: {_short(there)} stands there, not {_short(text)} "
            "(it counts characters, not bytes)"
        )
    return text, start


def _short(text: str) -> str:
    return repr(text if len(text) <= 30 else f"{text[:29]}…")


def _context(value: Any, where: object) -> str:
    context = _text(value, "context", where)
    if not context.strip():
        raise UserError(f"{where}: the context is blank")
    return context


def _text(value: Any, what: str, where: object) -> str:
    """A text that a tokenizer can take: no NUL, and no half of a surrogate pair."""
    if type(value) is not str:
        raise UserError(f"{where}: the {what} is {_kind(value)}, a text is wanted")
    if fault := fault_in_text(value):
        raise UserError(f"{where}: the {what}: {fault}")
    return value


def _object(value: Any, where: object) -> dict[str, Any]:
    if type(value) is not dict:
        raise UserError(f"{where}: {_kind(value)} instead of an object")
    return value


def _member(value: Mapping[str, Any], key: str, where: object) -> Any:
    if key not in value:
        raise UserError(f"{where}: no {key!r}; there are {', '.join(map(repr, value)) or 'none'}")
    return value[key]


def _list(value: Mapping[str, Any], key: str, where: object) -> list[Any]:
    found = _member(value, key, where)
    if type(found) is not list:
        raise UserError(f"{where}: {key!r} is {_kind(found)}, a list is wanted")
    return found


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"of type {type(value).__name__}"


# --- the whole


def _thinned(found: _Found, limit: int | None) -> Questions:
    """At most so many questions, evenly spaced, with the contexts that these ask about."""
    size = len(found.ids)
    count = size if limit is None else min(limit, size)
    chosen = [place * size // count for place in range(count)]
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
    return replace(questions, content=_content(questions))


def _content(questions: Questions) -> str:
    """16 hex digits that stand for what is asked; no text holds a NUL, so it can stand between."""
    digest = hashlib.sha256()
    counts = [len(answers) for answers in questions.answers]
    golds = [text for answers in questions.answers for text in answers]
    for texts in (questions.contexts, questions.texts, golds):
        digest.update(f"{len(texts)}\0".encode())
        digest.update("\0".join(texts).encode() + b"\0")
    for numbers in (questions.context_of, counts, questions.answer_starts):
        digest.update(np.asarray(numbers, dtype="<i4").tobytes())
    return digest.hexdigest()[:16]
