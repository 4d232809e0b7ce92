"""Data of tasks that are text alone: whole documents, to be predicted. Imports no torch.

WikiText comes a line a row; a document begins at a heading of the first level, ` = Title = `. The
lines are put together as WikiText's own files have them: where the Hub's rows are empty, those have
a line with a blank. Otherwise each row is a document. The text stays as it is: the tokenized
WikiText keeps its `<unk>` and ` @-@ `.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from angels_share.readers.columns import Columns
from eval_harness.data.sources import DataSource, NoDataError, find_source
from eval_harness.data.splits import TaskData, evenly, overlap_of
from eval_harness.tasks.registry import Task

_HEADING = re.compile(r" = (?!=).+(?<!=) = \n?")


@dataclass(frozen=True)
class Documents:
    """A split of whole documents, in the order of its file.

    Attributes:
        name: the Hub's name of the split.
        ids: the file's ids of its documents, else their numbers from 0.
        texts: their texts.
    """

    name: str
    ids: Sequence[str]
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)


def read(
    task: Task,
    data_dir: Path | None,
    *,
    limit: int | None,
    revision: str | None,
    test: bool,
    train: bool = True,
) -> TaskData[Documents]:
    """Read a task of documents; of the splits that are judged, files need only some.

    Args:
        task: what to read.
        data_dir: the folder of the data; None for the Hub.
        limit: the maximum number of documents per split.
        revision: the commit of the Hub's data set; None for the newest.
        test: must be False: nothing of a text is held back.
        train: whether to read the training split.

    Raises:
        UserError: see `load_task`.
    """
    assert not test, "tasks of text have no split without labels"
    names = (*(("train",) if train else ()), *task.evaluation)
    origin = _find(task, data_dir, names, revision, train=train)
    present = origin.present(names)
    if train and "train" not in present:
        raise NoDataError(
            f"{task.title}: {origin.source}: no train split to fine-tune on; --eval_only judges "
            "models as they are"
        )
    splits = [_limited(_read_split(task, name, origin.read(name)), limit) for name in present]
    learned, evaluation = (splits[0], splits[1:]) if train else (None, splits)
    if not evaluation:
        wanted = " or ".join(task.evaluation)
        raise NoDataError(f"{task.title}: {origin.source}: no {wanted} split to be judged on")
    return TaskData(
        task=task,
        train=learned,
        evaluation=tuple(evaluation),
        test=(),
        source=origin.source,
        revision=origin.revision,
        content=_content_hash(splits),
        limit=limit,
        overlap=overlap_of(
            learned.texts if learned else (), [text for split in evaluation for text in split.texts]
        ),
        name=origin.name,
    )


def _find(
    task: Task, data_dir: Path | None, names: Sequence[str], revision: str | None, *, train: bool
) -> DataSource:
    """Return where a task's splits are: a folder without training is known by any of them."""
    if data_dir is None or task.files or train:
        return find_source(task, data_dir, names, revision)
    missing: NoDataError | None = None
    for name in names:
        try:
            return find_source(task, data_dir, [name], revision)
        except NoDataError as error:
            missing = missing or error
    assert missing is not None
    raise missing


def _read_split(task: Task, name: str, files: Sequence[Columns]) -> Documents:
    (column,) = task.columns
    if task.has_headings:
        lines = (line for columns in files for line in columns.texts(column))
        texts = list(_by_heading(lines))
        return Documents(name, [str(number) for number in range(len(texts))], texts)
    ids: list[str] = []
    texts = []
    for columns in files:
        ids += columns.ids(first=len(ids))
        texts += columns.texts(column)
    kept = [row for row, text in enumerate(texts) if text.strip()]
    return Documents(name, [ids[row] for row in kept], [texts[row] for row in kept])


def _by_heading(lines: Iterator[str]) -> Iterator[str]:
    """Yield documents from their lines; what stands before the first heading is with the first."""
    parts: list[str] = []
    for line in lines:
        if _HEADING.fullmatch(line) and any(part.strip() for part in parts):
            yield "".join(parts)
            parts = []
        parts.append(line if line.endswith("\n") else f"{line or ' '}\n")
    yield "".join(parts)


def _limited(split: Documents, limit: int | None) -> Documents:
    chosen = evenly(len(split), limit)
    return Documents(split.name, [split.ids[i] for i in chosen], [split.texts[i] for i in chosen])


def _content_hash(splits: Sequence[Documents]) -> str:
    """Hash the texts, by split, to 16 hex digits; NUL separates them, since no text contains it."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(f"{split.name}\0{len(split)}\0".encode())
        for text in split.texts:
            digest.update(f"{text}\0".encode())
    return digest.hexdigest()[:16]
