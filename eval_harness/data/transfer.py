"""Transfer sets: texts without labels, of which a student learns a teacher's answers. No torch."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import explain, sha256_of_file
from angels_share.hub.asking import NoNetworkError
from angels_share.hub.locate import locate
from angels_share.imports import resolve
from angels_share.names import REPO_ID
from angels_share.readers.columns import Columns, read_columns, require_rows
from angels_share.readers.text_files import TABLE_ENDINGS, read_lines
from eval_harness.data.sources import find_source
from eval_harness.data.splits import TaskData
from eval_harness.runs.run import TransferFile
from eval_harness.tasks.kinds import TEXTS, TOKENS
from eval_harness.tasks.registry import Task

_FLAG = "--transfer_set"
_LINES = ".txt"
_LISTS = (".parquet", ".json", ".jsonl")


@dataclass(frozen=True)
class TransferFacts:
    """What a transfer set is for one task, without its texts.

    Attributes:
        files: where the texts are from.
        texts: how many are learned from.
        blank: how many others were dropped since they, or one text of a pair, are blank.
        evaluated: how many were dropped since the task is evaluated on them.
        content: a hash of the texts that are learned from, in order.
    """

    files: tuple[TransferFile, ...]
    texts: int
    blank: int
    evaluated: int
    content: str

    @property
    def record(self) -> dict[str, Any]:
        """The facts as a result records them; folders are private, names are not."""
        named = [
            {"name": file.name, **({"sha256": file.sha256} if file.sha256 else {})}
            | ({"revision": file.revision} if file.revision else {})
            for file in self.files
        ]
        dropped = {"blank": self.blank, "evaluated": self.evaluated}
        return {"files": named, "texts": self.texts, "dropped": dropped, "content": self.content}


@dataclass(frozen=True)
class TransferSet:
    """Texts without labels, as a split of the task's kind, and the facts about them."""

    part: Any
    facts: TransferFacts


def find_transfer_files(names: Iterable[str]) -> tuple[TransferFile, ...]:
    """Find the files and Hub data sets of a transfer set, in the order given.

    Args:
        names: paths, or Hub ids, the latter as `ID`, `ID@REVISION`, `ID:CONFIG` or with both.

    Raises:
        UserError: one of them is missing, unsupported, or the same as another.
    """
    found: dict[str, TransferFile] = {}
    for name in names:
        file = _find(name)
        if (twin := found.setdefault(file.identity, file)) is not file:
            raise UserError(f"{_FLAG}: {twin.name} and {file.name} have one content; drop one")
    return tuple(found.values())


def _find(name: str) -> TransferFile:
    path = Path(name).expanduser()
    endings = (_LINES, *TABLE_ENDINGS)
    if path.is_dir():
        raise UserError(f"{_FLAG} {name}: is a folder; name the files in it")
    if not path.exists() and path.suffix not in endings and REPO_ID.match(_base_of(name)):
        located = locate(name.partition(":")[0], what="dataset")
        config = name.partition(":")[2] or None
        shown = located.source + (f":{config}" if config else "")
        return TransferFile(shown, located.source, revision=located.revision, config=config)
    if not path.exists():
        raise UserError(f"{_FLAG} {name}: no such file, nor a name on the Hub")
    if path.suffix not in endings:
        raise UserError(f"{path}: unsupported file type; use one of {', '.join(endings)}")
    try:
        return TransferFile(path.name, str(path.resolve()), sha256=sha256_of_file(path))
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error


def _base_of(name: str) -> str:
    return name.partition(":")[0].partition("@")[0]


def read_transfer_set(
    task: Task, files: Sequence[TransferFile], data: TaskData[Any]
) -> TransferSet:
    """Read a transfer set for a task, without blank texts and those that the task is evaluated on.

    A text counts as evaluated if it differs only by case and spaces from one of the task's
    evaluation splits (of a pair: if both texts do, in either order). Labels are not read.

    Args:
        task: the task, whose columns the files have; a .txt has one text a line.
        files: where the texts are.
        data: the task's data.

    Raises:
        UserError: the task's kind needs labels, a file isn't clean, or no text is left.
    """
    if task.kind.read_unlabelled is None:
        raise UserError(
            f"{_FLAG}: {task.title} has answers that stand in the text, so there is none to learn "
            "from without them; drop it"
        )
    columns = [each for file in files for each in _columns(task, file)]
    whole = resolve(task.kind.read_unlabelled)(task, columns)
    # The two texts of a pair count in either order: most pairs ask the same question both ways.
    order = sorted if task.kind is TEXTS else list
    rows = [tuple(order(_plain(row))) for row in whole.rows]
    known = {tuple(order(_plain(row))) for split in data.evaluation for row in split.rows}
    blank = sum(not all(row) for row in rows)
    evaluated = sum(all(row) and row in known for row in rows)
    part = whole.only([n for n, row in enumerate(rows) if all(row) and row not in known])
    if not len(part):
        raise UserError(
            f"{_FLAG}: no text is left for {task.title}: {blank:,} are blank, {evaluated:,} are "
            "texts that it is evaluated on"
        )
    facts = TransferFacts(tuple(files), len(part), blank, evaluated, _content_hash(part.rows))
    return TransferSet(part, facts)


def _plain(row: Sequence[str]) -> tuple[str, ...]:
    """Return a row's texts without differences of case and spaces."""
    return tuple(" ".join(text.split()).casefold() for text in row)


def _columns(task: Task, file: TransferFile) -> Sequence[Columns]:
    if file.sha256 is None:
        return _hub_columns(task, file)
    path = Path(file.place)
    if task.kind == TOKENS:
        if path.suffix not in _LISTS:
            raise UserError(
                f"{path}: {task.title} reads lists of words; use one of {', '.join(_LISTS)}"
            )
    elif path.suffix == _LINES:
        return [_lines(task, path)]
    return [read_columns(path, task.columns, optional=())]


def _lines(task: Task, path: Path) -> Columns:
    if len(task.columns) != 1:
        raise UserError(
            f"{path}: a line is one text, and {task.title} reads {len(task.columns)} "
            f"({', '.join(task.columns)}); use a file with these columns"
        )
    numbered = list(read_lines(path))
    (name,) = task.columns
    cells = {name: [text for _, text in numbered]}
    return require_rows(Columns(str(path), cells, [number for number, _ in numbered]))


def _hub_columns(task: Task, file: TransferFile) -> Sequence[Columns]:
    """Return the columns of a Hub data set's train split; as of a test split, no label is read."""
    of_hub = replace(
        task,
        title=f"{_FLAG} {file.name}",
        hub=file.place,
        config=file.config,
        test=("train",),
        files={},
        column_files=None,
        averages=False,
    )
    try:
        return find_source(of_hub, None, ["train"], file.revision).read("train")
    except UserError as error:
        if isinstance(error.__cause__, NoNetworkError):  # its advice is about the task's own data
            raise UserError(f"{error.__cause__}; {_FLAG} takes files as well") from error
        raise


def _content_hash(rows: Iterable[Sequence[str]]) -> str:
    """Hash texts to 16 hex digits; NUL separates them, since no text contains it."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{len(row)}\0".encode())
        digest.update("\0".join((*row, "")).encode())
    return digest.hexdigest()[:16]
