"""Locations of a task's data: its own files, a folder, or the Hub. Imports no torch."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import explain
from angels_share.hub.asking import NoNetworkError
from angels_share.hub.cache import noted_files, snapshot
from angels_share.hub.fetch import (
    Wanted,
    configuration_folder,
    download,
    files_of_configuration,
    files_of_splits,
)
from angels_share.hub.locate import Located, locate
from angels_share.readers.columns import (
    IDS,
    TEXT_ENDING,
    Columns,
    read_columns,
    read_text_file,
    require_rows,
)
from angels_share.readers.text_files import TABLE_ENDINGS, require_columns
from eval_harness.data.conll_files import CONLL_ENDINGS, read_column_file
from eval_harness.data.glue_files import file_of, is_there, read_glue
from eval_harness.tasks.kinds import PERPLEXITY
from eval_harness.tasks.registry import TASKS, Task

_ABOUT = "about.json"
_LONGEST_NAME = 100
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$")


@dataclass(frozen=True)
class DataSource:
    """A source that a task is read from.

    Attributes:
        source: its name in results; never a path on this machine.
        revision: the commit of the data set on the Hub.
        read: returns a split's columns by its name, one `Columns` per file.
        name: the name that stand-in data have in `about.json`.
        has: whether a split is there; asked of tasks that need only some of theirs.
    """

    source: str
    revision: str | None
    read: Callable[[str], Sequence[Columns]]
    name: str | None = None
    has: Callable[[str], bool] = lambda _split: True

    def present(self, splits: Sequence[str]) -> list[str]:
        """Return the splits that are there, of those that a task can do without."""
        return [split for split in splits if self.has(split)]


class NoDataError(UserError):
    """A folder doesn't hold a task's data."""


def stand_in_name(folders: Iterable[Path]) -> str | None:
    """Return the name of stand-in data, from the `about.json` in their folders; None for others.

    Raises:
        UserError: an `about.json` has no valid name.
    """
    names = filter(None, map(_read_name, dict.fromkeys(folders)))
    return " and ".join(dict.fromkeys(names)) or None


def _read_name(folder: Path) -> str | None:
    path = folder / _ABOUT
    if not path.exists():
        return None
    expected = 'expected {"name": "what these data are"}, in one short line'
    try:
        name = json.loads(path.read_bytes())["name"]
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: {expected}") from error
    if (
        type(name) is not str
        or not 0 < len(name.strip()) <= _LONGEST_NAME
        or not name.isprintable()
    ):
        raise UserError(f"{path}: {expected}")
    return name.strip()


def find_source(
    task: Task, data_dir: Path | None, splits: Sequence[str], revision: str | None
) -> DataSource:
    """Find a task's data: in the files that the task names, else in the folder, else on the Hub.

    In the folder a task is found by its first split, say train: in GLUE's format as
    `<Folder>/train.tsv`; with the Hub's columns as `<task>/train.*`, `glue/<task>/train.*` or, in
    a copy of the Hub's repository, `<task>/<config>/train-00000-of-00001.parquet`. Tagged words may
    be in column files, too: `<task>/train.conll`, or the name that the task's own files have.

    Args:
        task: what to find.
        data_dir: the folder; None for the Hub.
        splits: the splits to be read; the first one decides where the others must be, too.
        revision: a commit, tag or branch of the Hub's data set; None for what is cached, or else
            the newest.

    Raises:
        UserError: not found, found twice, or a revision was given for data that have none.
    """
    if revision is not None and (task.files or data_dir is not None):
        where = "files" if task.files else str(data_dir)
        raise UserError(f"revision {revision}: {task.title} is read from {where}, not from the Hub")
    if task.files:
        return _from_files(task)
    if data_dir is not None and task.averages:
        return _of_configurations_in(data_dir, task, splits)
    if data_dir is not None:
        return _from_folder(task, data_dir, splits[0])
    _require_hub(task)
    if task.averages:
        return _of_configurations_on_the_hub(task, splits, revision)
    return _from_hub(task, splits, revision)


def _require_hub(task: Task) -> None:
    if task.hub is None:
        own = next(iter(_own_names(task).values()), "train.parquet")
        raise UserError(
            f"{task.title} is not read from the Hub: use {task.kind.local_data}, with "
            f"{task.name}/{own} in it"
        )


def _parts_of(task: Task, splits: Sequence[str]) -> list[tuple[Task, list[str]]]:
    """Return the configurations that splits are of, each as a task of its own, and their splits."""
    parts: dict[str | None, list[str]] = {}
    for name in splits:
        split, _, config = name.partition(".")
        parts.setdefault(config or task.config, []).append(split)
    return [(replace(task, config=config), found) for config, found in parts.items()]


def _of_configurations_in(data_dir: Path, task: Task, splits: Sequence[str]) -> DataSource:
    """Return a task with splits in folders of several configurations, of which some may lack."""
    first, *others = splits
    origin = _from_folder_or_kin(task, data_dir, first)
    folders = {name: data_dir / str(task.folder) / name.partition(".")[2] for name in others}
    there = {
        name: (folder, name.partition(".")[0])
        for name, folder in folders.items()
        if _table_files(task, folder, name.partition(".")[0])
    }
    if not there:
        raise NoDataError(
            f"{data_dir}: nothing to judge {task.title} on; looked for "
            f"{folders[others[0]] / 'test.parquet'} and the like of other languages"
        )
    return DataSource(
        origin.source,
        None,
        lambda name: _read_tables(task, *there[name]) if name in there else origin.read(name),
        origin.name,
        lambda name: name in there or name == first,
    )


def _from_folder_or_kin(task: Task, data_dir: Path, split: str) -> DataSource:
    """Return where a folder has a split: the task's own, else that of the task it's trained on."""
    try:
        return _from_folder(task, data_dir, split)
    except NoDataError as error:
        kin = next(each for each in TASKS if each.name == task.trained_on)
        with suppress(NoDataError):
            return _from_folder(kin, data_dir, split)
        raise NoDataError(f"{error}; {kin.title}'s would do, but isn't there, either") from error


def _of_configurations_on_the_hub(
    task: Task, splits: Sequence[str], revision: str | None
) -> DataSource:
    """Return a task with splits of several configurations of its data set."""
    first, *others = splits
    origin = _from_hub(task, [first], revision)

    def read(name: str) -> Sequence[Columns]:
        if name not in others:
            return origin.read(name)
        ((part, (split,)),) = _parts_of(task, [name])
        return _from_hub(part, [split], origin.revision).read(split)

    return replace(origin, read=read)


def _columns_of(task: Task, split: str) -> tuple[str, ...]:
    if split in task.test or not task.label_column:
        return task.columns
    return (*task.columns, task.label_column)


def _from_files(task: Task) -> DataSource:
    def read(split: str) -> list[Columns]:
        return [_read_file(task, Path(task.files[split]), split)]

    return DataSource(
        f"files of {task.name}",
        None,
        read,
        stand_in_name(Path(file).parent for file in task.files.values()),
        lambda split: split in task.files,
    )


def _from_folder(task: Task, data_dir: Path, split: str) -> DataSource:
    """Return the one place in a folder that has this split; the others are read from it, too."""
    if not data_dir.is_dir():
        raise UserError(f"--data_dir {data_dir}: no such folder")
    found = []
    if task.glue is not None and is_there(data_dir / task.glue.folder, task, split):
        found.append(data_dir / task.glue.folder)
    tables = [
        folder for folder in _table_folders(task, data_dir) if _table_files(task, folder, split)
    ]
    found += tables
    if len(found) > 1:
        raise UserError(f"{task.title} is in two places: {found[0]} and {found[1]}; remove one")
    if not found:
        raise NoDataError(
            f"{data_dir}: no {task.title} found; {_searched_places(task, data_dir, split)}"
        )
    source = found[0].relative_to(data_dir).as_posix()
    name = stand_in_name((data_dir, found[0].parent))
    if tables:
        folder = tables[0]
        has = (lambda split: bool(_table_files(task, folder, split))) if _is_text(task) else None
        return DataSource(
            source,
            None,
            lambda split: _read_tables(task, folder, split),
            name,
            has or (lambda _split: True),
        )
    return DataSource(source, None, lambda split: [read_glue(found[0], task, split)], name)


def _table_folders(task: Task, data_dir: Path) -> list[Path]:
    folders = [data_dir / task.name]
    if task.glue is not None:
        folders.append(data_dir / "glue" / task.name)
    elif task.config is not None:
        folders.append(data_dir / (task.folder or task.name) / task.config)
    return folders


def _searched_places(task: Task, data_dir: Path, split: str) -> str:
    tables = [f"{folder / split}.parquet" for folder in _table_folders(task, data_dir)]
    own = [str(file_of(data_dir / task.glue.folder, split))] if task.glue else []
    if split in _own_names(task):
        own = [str(data_dir / task.name / _own_names(task)[split])]
    return f"looked for {', '.join([*own, *tables])} (or {', '.join(_endings(task)[1:])})"


def _own_names(task: Task) -> Mapping[str, str]:
    """Return the names that a task's own files of one word a line have, by split."""
    return task.column_files.names if task.column_files else {}


def _endings(task: Task) -> tuple[str, ...]:
    """Return all endings but .tsv: where case is ignored, `cola/train.tsv` is GLUE's own file."""
    tables = tuple(ending for ending in TABLE_ENDINGS if ending != ".tsv")
    if _is_text(task):
        return (*tables, TEXT_ENDING)
    return (*tables, *CONLL_ENDINGS) if task.column_files else tables


def _is_text(task: Task) -> bool:
    """Return whether a task is of nothing but text, of which a folder needs only some splits."""
    return task.kind == PERPLEXITY


def _table_files(task: Task, folder: Path, split: str) -> list[Path]:
    """Return a split's files in a folder: a single one, or the Hub's shards if none is missing."""
    paths = [folder / f"{split}{ending}" for ending in _endings(task)]
    if split in _own_names(task):
        paths.append(folder / _own_names(task)[split])
    found = [path for path in paths if path.is_file()]
    shards = sorted(path for path in folder.glob(f"{split}-*.parquet") if _SHARD.search(path.name))
    if len(found) + bool(shards) > 1:
        both = [*found, *shards[:1]]
        raise UserError(
            f"{folder}: {both[0].name} and {both[1].name} are the same split; remove one"
        )
    if found:
        return found
    count = int(_SHARD.search(shards[0].name)[2]) if shards else 0  # type: ignore[index]
    return shards if len(shards) == count else []


def _read_tables(task: Task, folder: Path, split: str) -> list[Columns]:
    paths = _table_files(task, folder, split)
    if not paths:
        raise UserError(
            f"{folder}: {split} split missing or incomplete; add {split}.parquet (or .csv, …)"
        )
    return [_read_file(task, path, split) for path in paths]


def _read_file(task: Task, path: Path, split: str) -> Columns:
    """Return a file's columns: a table's, or those of a file of one word a line."""
    layout = task.column_files
    if layout is not None and (path.suffix in CONLL_ENDINGS or path.name in layout.names.values()):
        (words,) = task.columns
        return read_column_file(path, layout, (words, task.label_column))
    if _is_text(task) and path.suffix == TEXT_ENDING:
        return read_text_file(path, *task.columns)
    return read_columns(path, _columns_of(task, split))


def _from_hub(task: Task, splits: Sequence[str], revision: str | None) -> DataSource:
    located = _locate(task, revision)
    assert located.revision is not None
    source = f"hub:{task.hub}" + (f"/{task.config}" if task.config else "")
    folder = _parquet_folder(task, located, splits)
    if folder is not None:
        return DataSource(source, located.revision, lambda split: _read_tables(task, folder, split))
    data = _load(task, located)
    return DataSource(
        source, located.revision, lambda split: [_dataset_columns(task, data, split, source)]
    )


def wanted_files(
    tasks: Iterable[Task],
    splits_of: Callable[[Task], Sequence[str]],
    revision: str | None,
    *,
    newest: bool = False,
) -> list[Wanted]:
    """Return the files on the Hub that reading tasks takes, for one download of them all.

    What is in the cache is left out, unless the newest is asked for.

    Args:
        tasks: the tasks.
        splits_of: returns the splits of a task that are read.
        revision: the commit, tag or branch of their data sets; None for what is cached or newest.
        newest: whether the Hub is asked even if something is cached.

    Raises:
        UserError: a data set isn't found.
    """
    found: dict[tuple[str, str | None], Wanted] = {}
    for task in tasks:
        if task.files:
            continue
        _require_hub(task)
        located = _locate(task, revision, newest=newest)
        for part, splits in _parts_of(task, splits_of(task)):
            wanted = _wanted_of(part, located, splits, newest=newest)
            if wanted is not None:  # tasks of one data set are one entry
                key = (wanted.repo_id, wanted.part)
                before = found.get(key)
                found[key] = wanted.with_files(before.files if before else ())
    return list(found.values())


def _wanted_of(
    task: Task, located: Located, splits: Sequence[str], *, newest: bool
) -> Wanted | None:
    """Return the files to fetch of a configuration; None if all are there."""
    if not newest and _is_cached(task, located, splits):
        return None
    try:
        wanted = files_of_splits(located, task.config or "data", splits)
        # None: in a layout of its own
        return wanted if wanted is not None else files_of_configuration(located, task.config)
    except NoNetworkError as error:
        if _is_cached(task, located, splits):
            return None
        raise _lacking(task, error) from error


def _is_cached(task: Task, located: Located, splits: Sequence[str]) -> bool:
    assert located.revision is not None
    if _cached_folder(task, located, splits) is not None:
        return True
    return noted_files(located.source, located.revision, task.config) is not None


def _lacking(task: Task, error: NoNetworkError) -> UserError:
    return UserError(
        f"{error}; {task.title} is not in the local cache: `python -m eval_harness fetch --tasks "
        f"{task.name}` on a machine that has a network fills it; or use {task.kind.local_data}"
    )


def _locate(task: Task, revision: str | None, *, newest: bool = False) -> Located:
    name = f"{task.hub}@{revision}" if revision else str(task.hub)
    if Path(str(task.hub)).is_dir():
        raise UserError(
            f"{task.hub}: a local folder has the name of this Hub data set; rename the folder"
        )
    try:
        return locate(name, what="dataset", newest=newest)
    except NoNetworkError as error:
        raise UserError(f"{error}; or use {task.kind.local_data}") from error


def _cached_folder(task: Task, located: Located, splits: Sequence[str]) -> Path | None:
    """Return the folder of the splits' parquet files in the Hub's cache if it has all of them."""
    assert located.revision is not None
    folder = snapshot(located.source, located.revision, "dataset") / (task.config or "data")
    return folder if all(_table_files(task, folder, split) for split in splits) else None


def _parquet_folder(task: Task, located: Located, splits: Sequence[str]) -> Path | None:
    """Return the folder of the splits' parquet files, fetched if need be; None without such."""
    folder = _cached_folder(task, located, splits)
    if folder is not None:
        return folder
    assert located.revision is not None
    if noted_files(located.source, located.revision, task.config) is not None:
        return None  # was fetched before, in its own layout
    try:
        wanted = files_of_splits(located, task.config or "data", splits)
    except NoNetworkError as error:
        raise _lacking(task, error) from error
    if wanted is None:
        return None
    download([wanted])
    return wanted.folder / (task.config or "data")


def _load(task: Task, located: Located) -> Any:
    """Return a data set in a layout of its own, as `datasets` reads it from the cache."""
    folder = configuration_folder(located, task.config)
    import datasets  # takes two seconds, and only such data need it

    datasets.disable_progress_bars()  # of a conversion on this disk, in the midst of our own
    try:
        return datasets.load_dataset(str(folder), task.config)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{task.hub}: {task.title} could not be read ({reason})") from error


def _dataset_columns(task: Task, data: Any, split: str, source: str) -> Columns:
    if split not in data:
        raise UserError(f"{source}: no split {split!r}; the splits are {', '.join(data)}")
    part = data[split]
    names = list(part.column_names)
    required = _columns_of(task, split)
    require_columns(names, required, f"{source}: {split}")
    chosen = [*required, *(name for name in IDS if name in names)]
    table = part.with_format("arrow")[:]
    features = {name: getattr(each, "feature", each) for name, each in part.features.items()}
    class_names = {
        name: tuple(feature.names)
        for name, feature in features.items()
        if hasattr(feature, "names")
    }
    cells = {name: table.column(name).to_pylist() for name in chosen}
    return require_rows(Columns(f"{source}: {split}", cells, class_names=class_names))
