"""`python -m eval_harness fetch`: fills the cache for a machine without a network.

python -m eval_harness fetch --model distilbert bert --tasks all
"""

from collections.abc import Sequence

from angels_share.cli import DONE, Command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options
from angels_share.hub.cache import cache_folder
from angels_share.hub.fetch import (
    Wanted,
    all_files_of_model,
    configuration_folder,
    download,
    size_of,
)
from angels_share.hub.locate import Located, locate
from eval_harness.commands.shared_flags import DATA_REVISION
from eval_harness.data.sources import fetch_unusual, wanted_files
from eval_harness.tasks.lookup import tasks_named
from eval_harness.tasks.registry import Task


def run(options: Options) -> int:
    """Fetch the newest commits of models, tasks and corpora, and say how large they are.

    Raises:
        UserError: nothing is named, or something can't be fetched.
    """
    if not (options.model or options.tasks or options.corpus):
        raise UserError("nothing to fetch: name it with --model, --tasks or --corpus")
    models = [locate(name, newest=True) for name in options.model or ()]
    tasks = tasks_named(options.tasks) if options.tasks else ()
    wanted = [found for model in models if (found := all_files_of_model(model)) is not None]
    of_tasks = wanted_files(tasks, _splits, options.data_revision, newest=True)
    wanted += of_tasks
    print(f"to fetch: {_megabytes(size_of(wanted))} into {cache_folder()}")  # noqa: T201
    for each in wanted:
        _print_line(each)
    for model in models:
        if model.revision is None:
            print(f"model {model.source}: a folder, nothing to fetch")  # noqa: T201
    if options.dry_run:
        return DONE
    download(wanted)
    fetch_unusual(tasks, _splits, options.data_revision)
    for name in options.corpus or ():
        _fetch_corpus(name)
    print("all of it is in the cache: HF_HUB_OFFLINE=1 uses it without a network")  # noqa: T201
    return DONE


def _splits(task: Task) -> Sequence[str]:
    return ("train", *task.evaluation, *task.test)


def _print_line(wanted: Wanted) -> None:
    whole = sum(size for _, size in wanted.files)
    missing = size_of([wanted])
    rest = "all in the cache" if not missing else f"{_megabytes(missing)} to fetch"
    print(  # noqa: T201
        f"{wanted.what} {wanted.repo_id}@{wanted.revision}: {_megabytes(whole)}, {rest}"
    )


def _fetch_corpus(name: str) -> None:
    located: Located = locate(name.partition(":")[0], what="dataset", newest=True)
    if located.revision is None:
        print(f"corpus {name}: a folder, nothing to fetch")  # noqa: T201
        return
    configuration_folder(located, name.partition(":")[2] or None)
    print(f"corpus {located.source}@{located.revision}: in the cache")  # noqa: T201


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


COMMAND = Command(
    name="eval_harness fetch",
    summary="fetches models and data from the Hub, for a machine without a network",
    flags=(
        Flag(
            "model",
            "models to fetch: short names or Hub ids, with @REVISION if wanted",
            many=True,
            alias="model_name_or_path",
        ),
        Flag(
            "tasks",
            "tasks whose data are fetched; `all` means the nine of GLUE; a .yaml file is a custom "
            "task",
            many=True,
            alias="task_name",
        ),
        Flag("corpus", "Hub data sets to distil on, as NAME@REVISION:CONFIG", many=True),
        DATA_REVISION,
        Flag("dry_run", "only say what would be fetched and how large it is", bool),
    ),
    run=run,
    examples=(
        "python -m eval_harness fetch --model distilbert bert --tasks all",
        "python -m eval_harness fetch --model distilbert --tasks squad imdb --dry_run",
    ),
)
