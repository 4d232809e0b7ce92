"""One run of a tracker for each result, named after its key, with its files among the results.

A worker trains one run after another, while trackers expect a process to train one: so each is told
where to log before a run, and is ended after it. What the user has set in the environment stays.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from angels_share.files import locked
from eval_harness.child_process import environment
from eval_harness.runs.run import Run
from eval_harness.runs.trackers import LOGS, trackers_in

_PROJECT = "angels-share"


@dataclass(frozen=True)
class Tracked:
    """The trackers of a run.

    Attributes:
        key: the run's key, which is its name there.
        names: the trackers; none for a run that nobody watches.
    """

    key: str
    names: tuple[str, ...] = ()

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments by which the Trainer reports the losses."""
        if not self.names:
            return {"report_to": "none"}
        return {"report_to": list(self.names), "run_name": self.key, "project": _PROJECT}

    def log(self, scores: Mapping[str, float | None], step: int) -> None:
        """Log the scores of the evaluation, which follows the training.

        Args:
            scores: every metric of a split, in the result's scale; None where it is undefined.
            step: the last step of the training.
        """
        known = {f"eval/{name}": value for name, value in scores.items() if value is not None}
        for name in self.names:
            _LOG[name](self.key, known, step)


@contextmanager
def tracked(run: Run) -> Iterator[Tracked]:
    """Yield the trackers of a run, told where to log it; end them after it.

    Args:
        run: the run; the trackers' files go below its `results_dir`.
    """
    trackers = Tracked(run.key, trackers_in(run.neutral))
    if not trackers.names:
        yield trackers
        return
    folder = Path(str(run.results_dir)) / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    has_failed = True
    # What they print would tear the sweep's bar.
    with (
        (folder / "output.txt").open("a", encoding="utf-8") as said,
        redirect_stdout(said),
        environment(_settings(folder, run)),
    ):
        try:
            _prepare(trackers.names, folder)
            yield trackers
            has_failed = False
        finally:
            _end(trackers.names, has_failed=has_failed)


def _log_to_tensorboard(_key: str, scores: Mapping[str, float], step: int) -> None:
    writer = import_module("torch.utils.tensorboard").SummaryWriter(
        os.environ["TENSORBOARD_LOGGING_DIR"]
    )
    for name, value in scores.items():
        writer.add_scalar(name, value, step)
    writer.close()


def _log_to_wandb(_key: str, scores: Mapping[str, float], step: int) -> None:
    import_module("wandb").log({**scores, "train/global_step": step})


# These two have ended the run with the training: it is opened again.
def _log_to_mlflow(_key: str, scores: Mapping[str, float], step: int) -> None:
    mlflow = import_module("mlflow")
    with mlflow.start_run(run_id=mlflow.last_active_run().info.run_id):
        mlflow.log_metrics(dict(scores), step=step)


def _log_to_trackio(key: str, scores: Mapping[str, float], step: int) -> None:
    trackio = import_module("trackio")
    trackio.init(project=_PROJECT, name=key, resume="allow")
    trackio.log({**scores, "train/global_step": step})
    trackio.finish()


_LOG: Mapping[str, Callable[[str, Mapping[str, float], int], None]] = {
    "tensorboard": _log_to_tensorboard,
    "trackio": _log_to_trackio,
    "wandb": _log_to_wandb,
    "mlflow": _log_to_mlflow,
}


def _settings(folder: Path, run: Run) -> dict[str, str]:
    """Return the environment in which trackers keep to this run, and are quiet."""
    defaults = {
        "WANDB_PROJECT": _PROJECT,
        "WANDB_DIR": str(folder),
        "WANDB_SILENT": "true",
        "MLFLOW_EXPERIMENT_NAME": _PROJECT,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "TRACKIO_DIR": str(folder / "trackio"),
    }
    given = {name: os.environ.get(name) or value for name, value in defaults.items()}
    place = Path(os.environ.get("TENSORBOARD_LOGGING_DIR") or folder).expanduser()
    return {**given, "TENSORBOARD_LOGGING_DIR": str(place / run.key)}


def _prepare(names: tuple[str, ...], folder: Path) -> None:
    """Remove what a killed attempt logged, and make what two workers can't make at once."""
    if "tensorboard" in names:
        for left in Path(os.environ["TENSORBOARD_LOGGING_DIR"]).glob("events.out.tfevents.*"):
            left.unlink()
    if "mlflow" in names:
        with locked(folder / ".mlflow.lock"):
            mlflow = import_module("mlflow")
            mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
            mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])


def _end(names: tuple[str, ...], *, has_failed: bool) -> None:
    """End what the Trainer left open: the next run would go on in it."""
    loaded = {name: sys.modules[name] for name in names if name in sys.modules}
    if (wandb := loaded.get("wandb")) is not None and wandb.run is not None:
        wandb.finish(exit_code=int(has_failed))
    if (mlflow := loaded.get("mlflow")) is not None and mlflow.active_run() is not None:
        mlflow.end_run("FAILED" if has_failed else "FINISHED")
    trackio = loaded.get("trackio")
    if trackio is not None and trackio.context_vars.current_run.get() is not None:
        trackio.finish()
