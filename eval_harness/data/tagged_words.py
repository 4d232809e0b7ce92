"""Data of tasks whose every word has a tag, such as named entities. Imports no torch.

Tags are IOB2, or IOB1, which is told from the tags themselves and converted: there an entity begins
with `I-`, and with `B-` only right after another of its type.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from angels_share.errors import UserError
from angels_share.readers.columns import Columns
from angels_share.readers.text_files import fault_in_text
from eval_harness.data.labels import class_ids_of
from eval_harness.data.sources import find_source
from eval_harness.data.splits import TaskData, evenly, overlap_of
from eval_harness.tasks.registry import Task


@dataclass(frozen=True)
class TaggedSplit:
    """A split of tagged sentences, in the order of its file.

    Attributes:
        name: the Hub's name of the split.
        ids: the file's ids of its sentences, else their numbers from 0.
        words: the words of each sentence.
        tags: the id of each word's tag, as IOB2.
    """

    name: str
    ids: Sequence[str]
    words: Sequence[Sequence[str]]
    tags: Sequence[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The words of each sentence."""
        return [tuple(words) for words in self.words]

    def only(self, chosen: Sequence[int]) -> "TaggedSplit":
        """Return some of its sentences, by their places."""
        return TaggedSplit(
            self.name,
            [self.ids[i] for i in chosen],
            [self.words[i] for i in chosen],
            [self.tags[i] for i in chosen],
        )


def read(
    task: Task,
    data_dir: Path | None,
    *,
    limit: int | None,
    revision: str | None,
    test: bool,
    train: bool = True,
) -> TaskData[TaggedSplit]:
    """Read a task of tagged words.

    Args:
        task: what to read.
        data_dir: the folder of the data; None for the Hub.
        limit: the maximum number of sentences per split.
        revision: the commit of the Hub's data set; None for the newest.
        test: must be False: these tasks have no split without tags.
        train: whether to read the training split.

    Raises:
        UserError: see `load_task`.
    """
    assert not test, "tasks of tagged words have no split without tags"
    names = (*(("train",) if train else ()), *task.evaluation)
    origin = find_source(task, data_dir, names, revision)
    splits = [_limited(_read_split(task, name, origin.read(name)), limit) for name in names]
    learned, evaluation = (splits[0], splits[1:]) if train else (None, splits)
    return TaskData(
        task=task,
        train=learned,
        evaluation=tuple(evaluation),
        test=(),
        source=origin.source,
        revision=origin.revision,
        content=_content_hash(task, splits),
        limit=limit,
        overlap=overlap_of(
            learned.rows if learned else (), [words for split in evaluation for words in split.rows]
        ),
        name=origin.name,
    )


def _read_split(task: Task, name: str, files: Sequence[Columns]) -> TaggedSplit:
    ids: list[str] = []
    words: list[Sequence[str]] = []
    tags: list[NDArray[np.int64]] = []
    for columns in files:
        ids += columns.ids(first=len(ids))
        words += _words_of(task, columns)
        tags += _tags_of(task, columns)
    return TaggedSplit(name, ids, words, tags)


def _words_of(task: Task, columns: Columns) -> Sequence[Sequence[str]]:
    (name,) = task.columns
    cells = columns.cells[name]
    for row, cell in enumerate(cells):
        if type(cell) is not list or not cell:
            raise UserError(f"{columns.where(row)}: column {name!r} holds no list of words")
        for place, word in enumerate(cell):
            if type(word) is not str or not word.strip():
                raise UserError(f"{columns.where(row, place)}: {word!r} is not a word")
            if fault := fault_in_text(word):
                raise UserError(f"{columns.where(row, place)}: {word!r}: {fault}")
    return cells


def _tags_of(task: Task, columns: Columns) -> list[NDArray[np.int64]]:
    """Return the ids of a file's tags, in IOB2."""
    (name,) = task.columns
    sentences, cells = columns.cells[name], columns.cells[task.label_column]
    for row, (words, tags) in enumerate(zip(sentences, cells, strict=True)):
        if type(tags) is not list or len(tags) != len(words):
            count = len(tags) if type(tags) is list else "no list of"
            raise UserError(f"{columns.where(row)}: {count} tags for {len(words)} words")
    ids = class_ids_of(
        task,
        columns,
        [tag for tags in cells for tag in tags],
        [(row, place) for row, tags in enumerate(cells) for place in range(len(tags))],
    )
    ends = np.cumsum([len(tags) for tags in cells])[:-1]
    found = [[task.labels[each] for each in of_one] for of_one in np.split(ids, ends)]
    number = {tag: each for each, tag in enumerate(task.labels)}
    return [
        np.array([number[tag] for tag in tags], dtype=np.int64) for tags in _as_iob2(columns, found)
    ]


def _as_iob2(columns: Columns, sentences: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """Return a file's tags as IOB2; refuse those of no scheme.

    IOB1 begins an entity with `I-`; IOB2 begins one with `B-` after a word that is in no entity of
    its type, where IOB1 never does. A file with both is neither.
    """
    only_iob1 = next(_openings(sentences, "I"), None)
    only_iob2 = next(_openings(sentences, "B"), None)
    if only_iob1 is None:
        return sentences
    if only_iob2 is not None:
        where, other = (columns.where(*place) for place in (only_iob1, only_iob2))
        odd, usual = (sentences[row][place] for row, place in (only_iob1, only_iob2))
        raise UserError(
            f"{where}: {odd} begins an entity, as only IOB1 allows, but {usual} at {other} does "
            "so as in IOB2: one of them is wrong"
        )
    converted = [list(tags) for tags in sentences]
    for row, place in _openings(sentences, "I"):
        converted[row][place] = f"B{sentences[row][place][1:]}"
    return converted


def _openings(sentences: Sequence[Sequence[str]], prefix: str) -> Iterator[tuple[int, int]]:
    """Yield where a tag with this prefix follows a word that is in no entity of its type."""
    for row, tags in enumerate(sentences):
        for place, (before, tag) in enumerate(zip(["O", *tags], tags, strict=False)):
            if tag[0] == prefix and tag[1:] != before[1:]:
                yield row, place


def read_unlabelled(task: Task, files: Sequence[Columns]) -> TaggedSplit:
    """Return the sentences of files as one split; the first tag stands where tags would.

    Args:
        task: the task whose column of words is read.
        files: the columns of each file.

    Raises:
        UserError: a cell is not a list of words.
    """
    words = [sentence for each in files for sentence in _words_of(task, each)]
    tags = [np.zeros(len(sentence), np.int64) for sentence in words]
    return TaggedSplit("transfer", [str(number) for number in range(len(words))], words, tags)


def _limited(split: TaggedSplit, limit: int | None) -> TaggedSplit:
    return split.only(evenly(len(split), limit))


def _content_hash(task: Task, splits: Sequence[TaggedSplit]) -> str:
    """Hash words and tags, by name, to 16 hex digits; NUL and a line feed separate them."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(f"{split.name}\0{len(split)}\0".encode())
        for words, tags in zip(split.words, split.tags, strict=True):
            named = [task.labels[each] for each in tags]
            digest.update("\0".join([*words, "", *named, "\n"]).encode())
    return digest.hexdigest()[:16]
