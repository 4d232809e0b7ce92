"""Fine-tuned models on the Hub: the seed nearest the median, a repository per model and task."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from angels_share.errors import UserError
from angels_share.flags import Options
from angels_share.hub.cache import snapshot
from angels_share.hub.push import (
    Destination,
    Upload,
    check_repository,
    push,
    push_command,
    upload_of_model,
)
from angels_share.hub.push_flags import destination_of
from eval_harness.publish.card_results import card_results, run_of
from eval_harness.results.record import TaskResult, to_text
from eval_harness.results.store import find, path_of
from eval_harness.results.verify import disagreement
from eval_harness.runs.models import identify
from eval_harness.runs.run import Model, placeless
from eval_harness.sweep.chosen import Chosen
from eval_harness.sweep.plan import Plan

Key = tuple[str, str]
"""A model's key and a task's name."""


def destinations(
    plan: Plan, options: Options, *, ask: bool = True
) -> dict[Key, Destination] | None:
    """Return where each model goes; None where nothing is pushed.

    One repository per model and task: `<hub_model_id>` where there is one of each, else with the
    model's name, the task's, or both behind it.

    Args:
        plan: the plan.
        options: the flags that say where.
        ask: whether to ask the Hub if it would take them.

    Raises:
        UserError: there is no token that may write, or the name is none.
    """
    first = destination_of(options, plan.models[0].slug, ask=ask)
    if first is None:
        return None
    owner, _, given = first.repo_id.partition("/")
    found: dict[Key, Destination] = {}
    for model in plan.models:
        for task in plan.tasks:
            parts = [given] if options.hub_model_id else [model.slug]
            if options.hub_model_id and len(plan.models) > 1:
                parts.append(model.slug)
            if plan.teacher and not options.hub_model_id:
                parts.append("distilled")
            if len(plan.tasks) > 1 or not options.hub_model_id:
                parts.append(task.name)
            place = replace(first, repo_id=f"{owner}/{'-'.join(parts)}")
            if ask:
                check_repository(place)
            found[model.key, task.name] = place
    names = [place.repo_id for place in found.values()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(
            f"two models would both become {twice} on the Hub: push them one at a time, each with "
            "a --hub_model_id of its own"
        )
    return found


def push_models(
    plan: Plan, chosen: Sequence[Chosen], places: Mapping[Key, Destination]
) -> list[str]:
    """Push the chosen models; return a line for each that could not be, with the command to repeat.

    Args:
        plan: the plan that they are from.
        chosen: the runs whose models are pushed.
        places: where each goes.
    """
    failures = []
    pushed = {(each.run.model.key, each.run.task.name): each for each in chosen}
    for key, place in places.items():
        each = pushed.get(key)
        if each is None:
            failures.append(f"{place.repo_id}: not pushed: there is no saved model for {key[1]}")
            continue
        if each.seeds < len(plan.seeds):
            failures.append(
                f"{place.repo_id}: not pushed: {each.seeds} of {len(plan.seeds)} seeds of {key[1]} "
                "have a score"
            )
            continue
        folder = Path(str(each.run.save_weights_to))
        try:
            print(push(upload_of(folder, plan.root, place), place))  # noqa: T201
        except UserError as error:
            failures.append(f"{error}; nothing is lost: `{push_command(folder, place, plan.root)}`")
    return failures


def upload_of(folder: Path, root: Path, place: Destination, *, is_here: bool = False) -> Upload:
    """Return what goes up of a saved model's folder: with its results, if there are any.

    Args:
        folder: the folder.
        root: the results folder, which need not exist.
        place: where it goes.
        is_here: as in `upload_of_model`.

    Raises:
        UserError: it is no finished model, or its results disagree with their predictions.
    """
    make = partial(upload_of_model, folder, place, is_here=is_here)
    if not root.is_dir():
        return make()
    run = run_of(folder, root)
    found = find(root).by_key
    if run is not None and path_of(root, run).exists():
        measured = card_results(root, run.partition("/")[0], run=run)
        result = found[run]
        group = run.rpartition("/")[0]
        seeds = [each for key, each in found.items() if key.rpartition("/")[0] == group]
        base = _folder_of_base(result.model)
        return make(measured=measured, base=base, records=records_of(root, seeds))
    key = identify(str(folder)).key
    results = [each for each in found.values() if each.model.key == key]
    if not results:
        return make()
    return make(measured=card_results(root, key), records=records_of(root, results))


def _folder_of_base(model: Model) -> Path | None:
    """Return the folder of the model that was fine-tuned, if it is still there; fetch nothing."""
    on_hub = model.revision is not None
    folder = snapshot(model.source, str(model.revision), "model") if on_hub else Path(model.source)
    return folder if (folder / "config.json").is_file() else None


def records_of(root: Path, results: Sequence[TaskResult]) -> dict[str, bytes]:
    """Return results as files for others: without predictions, which they say, nor local paths.

    Raises:
        UserError: a score isn't that of its predictions, without which nobody could tell.
    """
    for each in results:
        if why := disagreement(root, each):
            raise UserError(f"{each.key}: {why}: rerun or remove it before it is published")
    return {f"results/{each.key}.json": published(each).encode() for each in results}


def published(result: TaskResult) -> str:
    """Return a result's record for others, sealed anew: its predictions are said to be withheld."""
    kept = replace(
        result,
        model=placeless(result.model),
        predictions=None,
        withheld=result.saved_predictions,
    )
    return to_text(kept)
