"""The flags that say where to push, under the names of TrainingArguments. Imports no torch."""

from dataclasses import replace

from angels_share.errors import UserError
from angels_share.flags import Flag, Options
from angels_share.hub.push import Destination, require_login, require_name

PUSH_FLAGS = (
    Flag("push_to_hub", "push each finished model to the Hub, in one commit", bool),
    Flag(
        "hub_model_id",
        "NAME or OWNER/NAME of the repository; of several models or tasks, what their names begin "
        "with [the folder's name, or the model's and the task's]",
    ),
    Flag(
        "hub_private_repo",
        "whether a new repository is private (--hub_private_repo False: public)",
        bool,
        default=True,
    ),
    Flag("hub_revision", "branch to push to [main]"),
)
_NEED_A_PUSH = ("hub_model_id", "hub_private_repo", "hub_revision")


def destination_of(options: Options, name: str, *, ask: bool = True) -> Destination | None:
    """Return where to push, with its owner; None where nothing is to be pushed.

    Asks the Hub, so that a token that is missing or too weak shows before any work.

    Args:
        options: the flags.
        name: the repository's name if the flags give none.
        ask: whether to ask the Hub; if not, an owner that is not named is "you".

    Raises:
        UserError: flags that say where, but not that; no token that may write; no such name.
    """
    given = [flag for flag in _NEED_A_PUSH if flag in options.given]
    if given and not options.push_to_hub:
        raise UserError(f"--{given[0]} says where to push: add --push_to_hub")
    if not options.push_to_hub:
        return None
    place = Destination(
        options.hub_model_id or name,
        private=options.hub_private_repo,
        revision=options.hub_revision,
    )
    if ask:
        return require_login(place)
    require_name(place.repo_id)
    return place if "/" in place.repo_id else replace(place, repo_id=f"you/{place.repo_id}")
