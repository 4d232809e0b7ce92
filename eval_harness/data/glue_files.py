"""GLUE's own folder of TSVs, as its download script leaves it, quirks and all. Imports no torch.

`CoLA/train.tsv` and `dev.tsv` have no header; every other file has one, and its columns are found
by their names there. Nothing is quoted. MNLI has two dev and two test files. MRPC may also be there
as Microsoft gave it out, without the split that GLUE makes of it.
"""

from collections.abc import Sequence
from pathlib import Path

from angels_share.errors import UserError
from angels_share.text_files import read_lines
from eval_harness.data.columns import IDS, Columns, read_tsv, require_rows
from eval_harness.tasks.registry import GlueFiles, Task

_MSR = {
    "train": "msr_paraphrase_train.txt",
    "validation": "msr_paraphrase_train.txt",
    "test": "msr_paraphrase_test.txt",
}
_MSR_DEV = "dev_ids.tsv"


def files_of(task: Task) -> GlueFiles:
    """Return what GLUE's own files of a task look like; it must be one of the nine."""
    assert task.glue is not None, f"GLUE has no {task.name}"
    return task.glue


def file_of(folder: Path, split: str) -> Path:
    """GLUE's name of a split: what the Hub calls validation is dev."""
    return folder / f"{split.replace('validation', 'dev')}.tsv"


def is_there(folder: Path, task: Task, split: str) -> bool:
    """Whether a folder holds the file of a task's split."""
    return file_of(folder, split).is_file() or _is_msr(folder, task)


def _is_msr(folder: Path, task: Task) -> bool:
    """GLUE's own script leaves Microsoft's files beside the ones that it makes of them."""
    made = file_of(folder, "train").is_file()
    return task.name == "mrpc" and not made and (folder / _MSR["train"]).is_file()


def read_glue(folder: Path, task: Task, split: str) -> Columns:
    """A split's columns under the Hub's names; no label in a test split.

    Raises:
        UserError: the file isn't there, or isn't clean.
    """
    if _is_msr(folder, task):
        return _read_msr(folder, task, split)
    form = files_of(task)
    path = file_of(folder, split)
    wanted = dict(zip(task.columns, form.texts, strict=True))
    if split in task.test:
        return read_tsv(path, wanted)
    read = read_tsv(path, {**wanted, task.label_column: form.label}, header=form.header)
    return Columns(read.source, read.cells, read.lines, numbered=not form.named)


def _read_msr(folder: Path, task: Task, split: str) -> Columns:
    """MRPC from Microsoft's files: GLUE's list of pairs of ids says which training rows are dev."""
    path = folder / _MSR[split]
    form = files_of(task)
    wanted = {**dict(zip(task.columns, form.texts, strict=True)), "1": "#1 ID", "2": "#2 ID"}
    if split in task.test:
        read = read_tsv(path, wanted)
        return _rows(read, range(len(read.cells["1"])))
    read = read_tsv(path, {**wanted, task.label_column: form.label})
    listed = _listed(folder / _MSR_DEV)
    pairs = list(zip(read.cells["1"], read.cells["2"], strict=True))
    there = set(pairs)
    for pair, line in listed.items():
        if pair not in there:
            raise UserError(f"{folder / _MSR_DEV}:{line}: {path.name} has no pair {' '.join(pair)}")
    is_dev = split == "validation"
    return require_rows(_rows(read, [i for i, p in enumerate(pairs) if (p in listed) == is_dev]))


def _listed(path: Path) -> dict[tuple[str, ...], int]:
    """The pairs of ids that GLUE holds out, and where each stands."""
    pairs: dict[tuple[str, ...], int] = {}
    for number, line in read_lines(path):
        pair = tuple(line.split("\t"))
        if len(pair) != 2:
            raise UserError(f"{path}:{number}: two ids with a tab between them are wanted")
        pairs[pair] = number
    return pairs


def _rows(columns: Columns, chosen: Sequence[int]) -> Columns:
    """Some rows, each called by its number in the file, as on the Hub; ids of texts are dropped."""
    assert columns.lines is not None
    cells = {
        name: [cells[row] for row in chosen]
        for name, cells in columns.cells.items()
        if name not in ("1", "2")
    }
    lines = [columns.lines[row] for row in chosen]
    return Columns(columns.source, {**cells, IDS[0]: list(chosen)}, lines)
