"""Trackers, which show a run's losses while it trains: which there are. Imports no torch.

They change no number. What they need of each run is in `training/tracking.py`.
"""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

from angels_share.errors import UserError
from angels_share.names import nearest

TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
"""Their names in TrainingArguments, which are those of their packages as well."""

LOGS = "logs"
"""The folder of their files, in the results folder."""


def trackers_in(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the trackers that are asked for.

    Args:
        given: the flags of TrainingArguments that were given.

    Raises:
        UserError: an unknown one, or one that is not installed.
    """
    wanted = given.get("report_to") or ()
    names = [wanted] if isinstance(wanted, str) else [str(each) for each in wanted]
    if names == ["none"]:
        return ()
    for name in names:
        if name not in TRACKERS:
            known = ", ".join(("none", *TRACKERS))
            raise UserError(
                f"--report_to {name}: expected some of {known}{nearest(name, TRACKERS)}"
            )
        if find_spec(name) is None:
            raise UserError(f"--report_to {name}: it is not installed: pip install {name}")
    return tuple(dict.fromkeys(names))


def how_to_watch(names: Iterable[str], root: str) -> str:
    """Return the commands that show what trackers keep in a results folder; none for others.

    Args:
        names: the trackers.
        root: the results folder.
    """
    logs = f"{root.rstrip('/')}/{LOGS}"
    commands = {
        "tensorboard": f"tensorboard --logdir {logs}",
        "trackio": f"TRACKIO_DIR={logs}/trackio trackio show --project angels-share",
        "mlflow": f"mlflow ui --backend-store-uri sqlite:///{logs}/mlflow.db",
    }
    return ", ".join(commands[name] for name in names if name in commands)
