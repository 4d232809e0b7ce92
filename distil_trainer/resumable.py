"""A Trainer that can be stopped and resumed at any step without changing a bit of the result.

Three things make it so. Checkpoints are whole or not there (`checkpoint`), and verified before they
are read. SIGTERM and SIGINT are only noted, and acted on at the end of a step by every process
together. And no secret or pickled argument is ever written.
"""

import logging
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, write_atomically
from distil_trainer import checkpoint

# Whatever of TrainingArguments changes the numbers; a resumed run must have the same.
_RESULT_SETTINGS = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "gradient_accumulation_steps", "seed", "data_seed", "optim",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "bf16",
)  # fmt: skip

_logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """Saves, verifies, resumes, and stops when it is told to."""

    stop_signal: int | None = None
    """The signal that ended the last `train()`, if one did."""

    def result_settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run that it goes on with."""
        values = {name: _plain(getattr(self.args, name)) for name in _RESULT_SETTINGS}
        return {**values, "processes": self.args.world_size}

    @property
    def student(self) -> Any:
        """The model that is saved and loaded."""
        raise NotImplementedError

    # Starting, stopping

    def train(self, resume_from_checkpoint: Any = None, **rest: Any) -> TrainOutput:
        """Trains; see `Trainer.train`.

        Args:
            resume_from_checkpoint: True or "latest" for the newest whole checkpoint of
                `output_dir`, or a checkpoint's folder.
            rest: what else `Trainer.train` takes.

        Raises:
            UserError: nothing whole to resume from, or checkpoints that a fresh start would lose.
            RunFailed: a number that is not finite, or a checkpoint that can't be written.
        """
        folder = self._folder_to_resume(resume_from_checkpoint)
        self.stop_signal = None
        with self._noting_signals():
            return super().train(resume_from_checkpoint=folder, **rest)

    def _folder_to_resume(self, wanted: Any) -> str | None:
        output_dir = Path(self.args.output_dir)
        if not wanted:
            if self.args.should_save and any(output_dir.glob(f"{checkpoint.PREFIX}*")):
                raise UserError(
                    f"{output_dir} holds checkpoints of an earlier run: --resume_from_checkpoint "
                    "goes on with it, another --output_dir starts afresh"
                )
            return None
        inexact = getattr(self.args, "allow_inexact_resume", False)
        name = "latest" if wanted is True else str(wanted)
        found = checkpoint.find_checkpoint(output_dir, name, inexact=inexact)
        settings = dict(found.settings)
        threads = settings.pop("threads", None)
        if threads != torch.get_num_threads():
            _logger.warning(
                "%s was made with %s threads, this run has %s: its bits will differ",
                found.folder, threads, torch.get_num_threads(),
            )  # fmt: skip
        found = checkpoint.Checkpoint(found.folder, found.step, settings)
        checkpoint.check_settings(found, self.result_settings(), inexact=inexact)
        return str(found.folder)

    @contextmanager
    def _noting_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT set a flag; a second one of them ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        numbers: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
        before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

        def note(number: int, _frame: Any) -> None:
            self.stop_signal = number
            signal.signal(number, before[number])

        try:
            for number in numbers:
                signal.signal(number, note)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # Saving

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Saves all that a resumed run needs, under its name only once it is complete."""
        output_dir, step = Path(self.args.output_dir), self.state.global_step
        staging = output_dir / f"{checkpoint.STAGING}{checkpoint.PREFIX}{step}"
        if self.args.should_save:
            checkpoint.staging_folder(output_dir, step)
        self.accelerator.wait_for_everyone()
        try:
            self._save_parts(staging)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                settings = {**self.result_settings(), "threads": torch.get_num_threads()}
                checkpoint.complete(staging, step, settings)
                best = self.state.best_model_checkpoint
                checkpoint.rotate(output_dir, self.args.save_total_limit, best)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            shutil.rmtree(staging, ignore_errors=True)
            why = explain(error) if isinstance(error, OSError) else str(error).splitlines()[0]
            raise RunFailed(
                f"step {step}: the checkpoint in {output_dir} could not be written: {why}; "
                "--resume_from_checkpoint goes on from the one before"
            ) from error
        self.accelerator.wait_for_everyone()

    def _save_parts(self, folder: Path) -> None:
        self.store_flos()
        self.save_model(str(folder), _internal_call=True)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        if not self.args.should_save:
            return
        if self.state.best_global_step:
            best = Path(self.args.output_dir) / f"{checkpoint.PREFIX}{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best)
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The student, its tokenizer, and the arguments as JSON: no pickle, no secret."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.student.save_pretrained(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        write_atomically(folder / "training_args.json", self.args.to_json() + "\n")

    # Loading

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        file = Path(resume_from_checkpoint) / "model.safetensors"
        safetensors.torch.load_model(self.student, file)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))


class StopWhenAsked(TrainerCallback):
    """Ends training, with a checkpoint, after the step in which all processes heard of a signal."""

    def __init__(self) -> None:
        self.asked = False

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> TrainerControl:
        """Asks the Trainer to save and stop."""
        if self.asked:
            control.should_save = True
            control.should_training_stop = True
        return control


def _plain(value: Any) -> Any:
    """An enum as its value, so that it compares with what was read from JSON."""
    return getattr(value, "value", value)
