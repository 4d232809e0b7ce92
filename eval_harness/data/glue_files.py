"""GLUE's own TSV files, as its download script writes them, quirks included. Imports no torch.

CoLA's `train.tsv` and `dev.tsv` have no header; all other files have one, and columns are found by
it. Nothing is quoted. MNLI has two dev and two test files. MRPC is also read as Microsoft
published it, before GLUE's split into training and dev.
"""

from collections.abc import Sequence
from pathlib import Path

from angels_share.errors import UserError
from angels_share.readers.columns import IDS, Columns, read_tsv, require_rows
from angels_share.readers.text_files import read_lines
from eval_harness.tasks.registry import GlueFiles, Task

_MSR = {
    "train": "msr_paraphrase_train.txt",
    "validation": "msr_paraphrase_train.txt",
    "test": "msr_paraphrase_test.txt",
}
_MSR_DEV = "dev_ids.tsv"


def files_of(task: Task) -> GlueFiles:
    """Return the layout of GLUE's own files of a task, which must be one of the nine."""
    assert task.glue is not None, f"GLUE has no {task.name}"
    return task.glue


def file_of(folder: Path, split: str) -> Path:
    """Return GLUE's file of a split; the Hub's validation is GLUE's dev."""
    return folder / f"{split.replace('validation', 'dev')}.tsv"


def is_there(folder: Path, task: Task, split: str) -> bool:
    """Return whether a folder has the file of a task's split.

    Args:
        folder: the task's own, in GLUE's layout.
        task: one of GLUE's.
        split: the name of the split.
    """
    return file_of(folder, split).is_file() or _is_msr(folder, task)


def _is_msr(folder: Path, task: Task) -> bool:
    """Return whether MRPC is there in Microsoft's files only.

    GLUE's script leaves these beside the files that it makes of them, which then take precedence.
    """
    has_glue_split = file_of(folder, "train").is_file()
    return task.name == "mrpc" and not has_glue_split and (folder / _MSR["train"]).is_file()


def read_glue(folder: Path, task: Task, split: str) -> Columns:
    """Read a split's columns under the Hub's names; a test split has no labels.

    Args:
        folder: the task's folder in GLUE's own data.
        task: one of the nine.
        split: the Hub's name of the split.

    Raises:
        UserError: the file is missing, or isn't clean.
    """
    if _is_msr(folder, task):
        return _read_msr(folder, task, split)
    layout = files_of(task)
    path = file_of(folder, split)
    names = dict(zip(task.columns, layout.texts, strict=True))
    if split in task.test:
        return read_tsv(path, names)
    read = read_tsv(path, {**names, task.label_column: layout.label}, header=layout.header)
    return Columns(read.source, read.cells, read.lines, numbered=not layout.named)


def _read_msr(folder: Path, task: Task, split: str) -> Columns:
    """Read MRPC from Microsoft's files; GLUE lists the pairs of its training file that are dev."""
    path = folder / _MSR[split]
    layout = files_of(task)
    names = {**dict(zip(task.columns, layout.texts, strict=True)), "1": "#1 ID", "2": "#2 ID"}
    if split in task.test:
        read = read_tsv(path, names)
        return _rows(read, range(len(read.cells["1"])))
    read = read_tsv(path, {**names, task.label_column: layout.label})
    dev = _dev_pairs(folder / _MSR_DEV)
    pairs = list(zip(read.cells["1"], read.cells["2"], strict=True))
    known = set(pairs)
    for pair, line in dev.items():
        if pair not in known:
            raise UserError(f"{folder / _MSR_DEV}:{line}: {path.name} has no pair {' '.join(pair)}")
    is_dev = split == "validation"
    return require_rows(_rows(read, [i for i, p in enumerate(pairs) if (p in dev) == is_dev]))


def _dev_pairs(path: Path) -> dict[tuple[str, ...], int]:
    """Return the pairs of ids that GLUE holds out, with their lines."""
    pairs: dict[tuple[str, ...], int] = {}
    for number, line in read_lines(path):
        pair = tuple(line.split("\t"))
        if len(pair) != 2:
            raise UserError(f"{path}:{number}: expected two ids with a tab between them")
        pairs[pair] = number
    return pairs


def _rows(columns: Columns, chosen: Sequence[int]) -> Columns:
    """Select rows, with their number in the file as id, as on the Hub; drop the texts' ids."""
    assert columns.lines is not None
    cells = {
        name: [cells[row] for row in chosen]
        for name, cells in columns.cells.items()
        if name not in ("1", "2")
    }
    lines = [columns.lines[row] for row in chosen]
    return Columns(columns.source, {**cells, IDS[0]: list(chosen)}, lines)
