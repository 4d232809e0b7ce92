"""`python -m eval_harness fetch`: fills the cache for a machine without a network.

python -m eval_harness fetch --model distilbert bert --tasks all
"""

from collections.abc import Callable, Sequence

from angels_share.cli import DONE, Command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options
from angels_share.hub.asking import NoNetworkError
from angels_share.hub.cache import What, cache_folder
from angels_share.hub.fetch import (
    Wanted,
    all_files_of_model,
    download,
    files_of_configuration,
    files_of_model,
    size_of,
)
from angels_share.hub.locate import Located, locate
from eval_harness.data.sources import wanted_files
from eval_harness.tasks.lookup import tasks_named
from eval_harness.tasks.registry import Task


def run(options: Options) -> int:
    """Fetch the newest commits of models, tasks and corpora, and say how large they are.

    Raises:
        UserError: nothing is named, or something can't be fetched.
    """
    if not (options.model or options.tasks or options.corpus):
        raise UserError("nothing to fetch: name it with --model, --tasks or --corpus")
    models = [_on_hub(name, "model") for name in options.model or ()]
    corpora = [_on_hub(name.partition(":")[0], "dataset") for name in options.corpus or ()]
    configs = [name.partition(":")[2] or None for name in options.corpus or ()]
    tasks = tasks_named(options.tasks) if options.tasks else ()
    wanted = [_wanted(all_files_of_model, model, files_of_model) for model in models]
    wanted += [
        files_of_configuration(corpus, config)
        for corpus, config in zip(corpora, configs, strict=True)
    ]
    listed = [each for each in wanted if each is not None]
    listed += wanted_files(tasks, _splits, options.data_revision, newest=True)
    print(f"to fetch: {_size(size_of(listed))} into {cache_folder()}")  # noqa: T201
    for each in listed:
        _print_line(each)
    if options.dry_run:
        return DONE
    download(listed)
    print("all of it is in the cache: HF_HUB_OFFLINE=1 uses it without a network")  # noqa: T201
    return DONE


def _on_hub(name: str, what: What) -> Located:
    located = locate(name, what=what, newest=True)
    if located.revision is None:
        raise UserError(f"{name}: a folder: there is nothing to fetch")
    return located


def _wanted(
    newest: Callable[[Located], Wanted | None],
    located: Located,
    cached: Callable[[Located], Wanted | None],
) -> Wanted | None:
    """Return what is to be fetched; without a network nothing, if all is there."""
    try:
        return newest(located)
    except NoNetworkError:
        return cached(located)


def _splits(task: Task) -> Sequence[str]:
    return ("train", *task.evaluation, *task.test)


def _print_line(wanted: Wanted) -> None:
    whole = sum(size for _, size in wanted.files)
    missing = size_of([wanted])
    rest = "all in the cache" if not missing else f"{_size(missing)} to fetch"
    print(  # noqa: T201
        f"{wanted.what} {wanted.repo_id}@{wanted.revision}: {_size(whole)}, {rest}"
    )


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


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
        Flag("data_revision", "commit, tag or branch of the tasks' data sets [main]"),
        Flag(
            "dry_run",
            "ask the Hub what would be fetched and how large it is, and fetch nothing",
            bool,
        ),
    ),
    run=run,
    examples=(
        "python -m eval_harness fetch --model distilbert bert --tasks all",
        "python -m eval_harness fetch --model distilbert --tasks squad imdb --dry_run",
    ),
)
