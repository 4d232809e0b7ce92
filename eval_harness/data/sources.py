"""Where a task's data is: its own files, a folder, or the Hub. Imports no torch."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import explain
from angels_share.names import Located, cache_folder, locate
from angels_share.text_files import TABLE_ENDINGS
from eval_harness.data.columns import IDS, Columns, read_columns, require_rows
from eval_harness.data.glue_files import file_of, is_there, read_glue
from eval_harness.tasks.registry import Task

_ABOUT = "about.json"
_LONGEST_NAME = 100
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$")


@dataclass(frozen=True)
class DataSource:
    """What a task is read from.

    Attributes:
        source: what to call it in a result: never a path of this machine.
        revision: of the data set on the Hub.
        read: a split's columns by its name, one for each of its files.
        name: what the folder says that its data are.
    """

    source: str
    revision: str | None
    read: Callable[[str], Sequence[Columns]]
    name: str | None = None


def names_of(folders: Iterable[Path]) -> str | None:
    """What data call themselves that stand in for others: in `about.json`, beside them.

    Raises:
        UserError: the file is there and says no name.
    """
    names = filter(None, map(_name_of, dict.fromkeys(folders)))
    return " and ".join(dict.fromkeys(names)) or None


def _name_of(folder: Path) -> str | None:
    path = folder / _ABOUT
    if not path.exists():
        return None
    wanted = '{"name": "what these data are"} is wanted, in one short line'
    try:
        name = json.loads(path.read_bytes())["name"]
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: {wanted}") from error
    if (
        type(name) is not str
        or not 0 < len(name.strip()) <= _LONGEST_NAME
        or not name.isprintable()
    ):
        raise UserError(f"{path}: {wanted}")
    return name.strip()


def find_source(
    task: Task, data_dir: Path | None, splits: Sequence[str], revision: str | None
) -> DataSource:
    """Finds a task's data: the files of its own row first, then the folder, then the Hub.

    In the folder a task is looked for by its first split, say train: as `<Folder>/train.tsv`, which
    is GLUE's own, then in the Hub's columns as `<task>/train.*`, `glue/<task>/train.*` and, as a
    copy of the Hub's repository has it, `<task>/<config>/train-00000-of-00001.parquet`. Found in
    two of these, it is refused.

    Raises:
        UserError: it isn't there, is there twice, or a revision is pinned of what has none.
    """
    if revision is not None and (task.files or data_dir is not None):
        where = "files of its own" if task.files else str(data_dir)
        raise UserError(f"revision {revision} is the Hub's, and {task.title} is read from {where}")
    if task.files:
        return _own_files(task)
    if data_dir is not None:
        return _in_folder(task, data_dir, splits[0])
    return _on_hub(task, splits, revision)


def _wanted(task: Task, split: str) -> tuple[str, ...]:
    return task.columns if split in task.test else (*task.columns, task.label_column)


def _own_files(task: Task) -> DataSource:
    def read(split: str) -> list[Columns]:
        return [read_columns(Path(task.files[split]), _wanted(task, split))]

    return DataSource(
        f"files of {task.name}",
        None,
        read,
        names_of(Path(file).parent for file in task.files.values()),
    )


def _in_folder(task: Task, data_dir: Path, split: str) -> DataSource:
    """Where the first of the splits lies that are wanted: the others must lie beside it."""
    if not data_dir.is_dir():
        raise UserError(f"--data_dir {data_dir}: there is no such folder")
    found = []
    if task.glue is not None and is_there(data_dir / task.glue.folder, task, split):
        found.append(data_dir / task.glue.folder)
    tables = [folder for folder in _table_folders(task, data_dir) if _files(folder, split)]
    found += tables
    if len(found) > 1:
        raise UserError(f"{task.title} is there twice: {found[0]} and {found[1]}; remove one")
    if not found:
        raise UserError(f"{data_dir}: no {task.title} in it; {_looked_for(task, data_dir, split)}")
    source = found[0].relative_to(data_dir).as_posix()
    name = names_of((data_dir, found[0].parent))
    if tables:
        return DataSource(source, None, lambda split: _read_tables(task, tables[0], split), name)
    return DataSource(source, None, lambda split: [read_glue(found[0], task, split)], name)


def _table_folders(task: Task, data_dir: Path) -> list[Path]:
    folders = [data_dir / task.name]
    if task.glue is not None:
        folders.append(data_dir / "glue" / task.name)
    elif task.config is not None:
        folders.append(data_dir / task.name / task.config)
    return folders


def _looked_for(task: Task, data_dir: Path, split: str) -> str:
    tables = [f"{folder / split}.parquet" for folder in _table_folders(task, data_dir)]
    tsv = [str(file_of(data_dir / task.glue.folder, split))] if task.glue else []
    return f"looked for {', '.join([*tsv, *tables])} (or {', '.join(_table_endings()[1:])})"


def _table_endings() -> tuple[str, ...]:
    """A .tsv in a task's folder is GLUE's, where a file system takes CoLA for cola."""
    return tuple(ending for ending in TABLE_ENDINGS if ending != ".tsv")


def _files(folder: Path, split: str) -> list[Path]:
    """The files of a split in a folder: one, or all shards as the Hub names them; none else."""
    paths = [folder / f"{split}{ending}" for ending in _table_endings()]
    found = [path for path in paths if path.is_file()]
    shards = sorted(path for path in folder.glob(f"{split}-*.parquet") if _SHARD.search(path.name))
    if len(found) + bool(shards) > 1:
        both = [*found, *shards[:1]]
        raise UserError(f"{folder}: {both[0].name} and {both[1].name} are one split; remove one")
    if found:
        return found
    wanted = int(_SHARD.search(shards[0].name)[2]) if shards else 0  # type: ignore[index]
    return shards if len(shards) == wanted else []


def _read_tables(task: Task, folder: Path, split: str) -> list[Columns]:
    paths = _files(folder, split)
    if not paths:
        raise UserError(f"{folder}: no whole {split} split; {split}.parquet is wanted, or .csv, …")
    return [read_columns(path, _wanted(task, split)) for path in paths]


def _on_hub(task: Task, splits: Sequence[str], revision: str | None) -> DataSource:
    assert task.hub is not None
    if revision is not None and not _COMMIT.fullmatch(revision):
        raise UserError(f"revision {revision!r}: the 40 hex digits of a commit are wanted")
    source = f"hub:{task.hub}" + (f"/{task.config}" if task.config else "")
    if revision is None or not _snapshot(task.hub, revision).is_dir():
        located = _located(task.hub)
        revision = revision or located.revision
        if located.kind == "folder":
            raise UserError(f"{task.hub} is a folder here and a data set on the Hub: rename it")
    assert revision is not None
    copy = _copied(task, _snapshot(task.hub, revision), splits)
    if copy is not None:
        folder = copy
        return DataSource(source, revision, lambda split: _read_tables(task, folder, split))
    data = _download(task, revision)
    return DataSource(source, revision, lambda split: [_of_dataset(task, data, split, source)])


def _located(hub: str) -> Located:
    try:
        return locate(hub, what="dataset")  # answers within two seconds
    except UserError as error:
        raise UserError(f"{error}; --data_dir names a folder of GLUE's own files") from error


def _snapshot(hub: str, revision: str) -> Path:
    return cache_folder() / f"datasets--{hub.replace('/', '--')}" / "snapshots" / revision


def _copied(task: Task, snapshot: Path, splits: Sequence[str]) -> Path | None:
    """The folder in the Hub's cache that holds all splits: no network, and no import of datasets.

    `datasets` asks the network for half a minute before it takes what the cache holds.
    """
    folders = [snapshot / task.config] if task.config else [snapshot / "data"]
    return next(
        (folder for folder in folders if all(_files(folder, split) for split in splits)), None
    )


def _download(task: Task, revision: str) -> Any:
    import datasets  # two seconds, and only the Hub needs it

    try:
        return datasets.load_dataset(task.hub, task.config, revision=revision)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{task.hub}: {task.title} can't be had from the Hub ({reason})") from error


def _of_dataset(task: Task, data: Any, split: str, source: str) -> Columns:
    if split not in data:
        raise UserError(f"{source}: no split {split!r}; there are {', '.join(data)}")
    part = data[split]
    names = list(part.column_names)
    wanted = _wanted(task, split)
    for name in wanted:
        if name not in names:
            raise UserError(f"{source}: {split}: no column {name!r}; there are {', '.join(names)}")
    kept = [*wanted, *(name for name in IDS if name in names)]
    table = part.with_format("arrow")[:]
    class_names = {
        name: tuple(feature.names)
        for name, feature in part.features.items()
        if hasattr(feature, "names")
    }
    cells = {name: table.column(name).to_pylist() for name in kept}
    return require_rows(Columns(f"{source}: {split}", cells, class_names=class_names))
