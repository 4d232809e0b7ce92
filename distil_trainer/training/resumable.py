"""A Trainer that can be stopped and resumed at any step without changing a bit of the result.

Three things make it so. Checkpoints are whole or not there (`checkpoint`), and verified before they
are read. SIGTERM and SIGINT are only noted, and acted on at the end of a step by every process
together. And no secret or pickled argument is ever written.
"""

import logging
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from transformers import Trainer
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, write_atomically
from distil_trainer.training import checkpoint

# Whatever of TrainingArguments changes the numbers; a resumed run must have the same.
_RESULT_SETTINGS = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "gradient_accumulation_steps", "seed", "data_seed", "optim",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "optim_args",
    "lr_scheduler_kwargs", "dataloader_drop_last", "train_sampling_strategy",
)  # fmt: skip

# Signals are added up over the processes; a sum tells which there were.
_SIGNAL_CODES = {signal.SIGINT: 1, signal.SIGTERM: 1_000_000}

_logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """Saves, verifies, resumes, and stops when it is told to."""

    stop_signal: int | None = None
    """The signal that ended the last `train()` too early, the same in every process, or None."""
    _signal_here: int | None = None
    _stopped_at: int | None = None

    def result_settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run that it goes on with."""
        values = {name: _plain(getattr(self.args, name)) for name in _RESULT_SETTINGS}
        precision = self.accelerator.mixed_precision
        return {**values, "precision": precision, "processes": self.args.world_size}

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
        self.stop_signal = self._signal_here = self._stopped_at = None
        with self._noting_signals():
            return super().train(resume_from_checkpoint=folder, **rest)

    def _folder_to_resume(self, wanted: Any) -> str | None:
        output_dir = Path(self.args.output_dir)
        elsewhere = wanted and Path(str(wanted)).is_dir()
        elsewhere = elsewhere and Path(str(wanted)).resolve().parent != output_dir.resolve()
        if (elsewhere or not wanted) and any(output_dir.glob(f"{checkpoint.PREFIX}*")):
            raise UserError(
                f"{output_dir} holds checkpoints of an earlier run: --resume_from_checkpoint "
                "goes on with it, another --output_dir starts afresh"
            )
        if not wanted:
            return None
        inexact = self.args.allow_inexact_resume
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
            self._signal_here = number
            signal.signal(number, before[number])

        try:
            for number in numbers:
                signal.signal(number, note)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signal_code(self) -> int:
        """What this process contributes to the sum that tells all of a signal to one."""
        return _SIGNAL_CODES.get(signal.Signals(self._signal_here), 0) if self._signal_here else 0

    def _hear_signals(self, codes: float) -> None:
        """Learns from the sum over all processes whether to stop at the end of this step."""
        if codes and self.state.global_step + 1 < self.state.max_steps:
            termed = codes >= _SIGNAL_CODES[signal.SIGTERM]
            self.stop_signal = int(signal.SIGTERM if termed else signal.SIGINT)

    def _run_epoch(self, **named: Any) -> None:
        """A run that was killed after its last step has nothing left to train."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(**named)

    def _maybe_log_save_evaluate(self, tr_loss: Any, *rest: Any, **named: Any) -> None:
        """At the end of a step in which a signal was heard: saves, and ends the run.

        The checkpoint comes first, since whoever sent the signal may not wait. An evaluation that
        is due is still made, and saved, or the resumed run would know less than one that went on.
        """
        if self.stop_signal is None:
            super()._maybe_log_save_evaluate(tr_loss, *rest, **named)
            return
        step = self.state.global_step
        mid_epoch = not float(self.state.epoch or 0).is_integer()
        if self._stopped_at == step and mid_epoch:
            return  # the epoch ends only because the run does: nothing of it is due
        due = self.control.should_evaluate
        if self._stopped_at != step:
            self._save_checkpoint(None, None)
        self._stopped_at = step
        self.control.should_save = False
        super()._maybe_log_save_evaluate(tr_loss, *rest, **named)
        if due:
            self._save_checkpoint(None, None)
        self.control.should_training_stop = True

    def _finalize_training(self, *rest: Any) -> TrainOutput:
        """An interrupted run isn't at its end: no best model is loaded, no checkpoint removed."""
        if self.stop_signal is None:
            return super()._finalize_training(*rest)
        best, self.state.best_model_checkpoint = self.state.best_model_checkpoint, None
        try:
            return super()._finalize_training(*rest)
        finally:
            self.state.best_model_checkpoint = best

    # Saving

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Saves all that a resumed run needs, under its name only once it is complete."""
        output_dir, step = Path(self.args.output_dir), self.state.global_step
        staging = output_dir / f"{checkpoint.STAGING}{checkpoint.PREFIX}{step}"
        self._together(lambda: checkpoint.staging_folder(output_dir, step), staging, alone=True)
        self._together(lambda: self._save_parts(staging), staging)
        self._together(lambda: self._complete(staging, step), staging, alone=True)

    def _complete(self, staging: Path, step: int) -> None:
        settings = {**self.result_settings(), "threads": torch.get_num_threads()}
        newest = checkpoint.complete(staging, step, settings)
        best = self.state.best_model_checkpoint
        checkpoint.rotate(newest, self.args.save_total_limit, best)

    def _together(self, work: Callable[[], Any], staging: Path, *, alone: bool = False) -> None:
        """Does a part of a save in every process (or in the first one alone), or fails in all."""
        problem: Exception | None = None
        try:
            if self.args.should_save or not alone:
                work()
        except (OSError, RuntimeError, SafetensorError) as error:  # torch: a full disk is Runtime…
            problem = error
        failed = torch.tensor(float(problem is not None), device=self.args.device)
        if not self.accelerator.reduce(failed, reduction="sum").item():
            return
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        why = " ".join(str(problem or "another process failed").split())[:200]
        if isinstance(problem, OSError):
            why = explain(problem)
        raise RunFailed(
            f"step {self.state.global_step}: the checkpoint in {staging.parent} could not be "
            f"written: {why}; --resume_from_checkpoint goes on from the one before"
        ) from problem

    def _save_parts(self, folder: Path) -> None:
        self.store_flos()
        self.save_model(str(folder), _internal_call=True)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        if not self.args.should_save:
            return
        if best_step := self.state.best_global_step:
            best = Path(self.args.output_dir) / f"{checkpoint.PREFIX}{best_step}"
            if best_step == self.state.global_step or best.is_dir():
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
        folder = Path(str(self.state.best_model_checkpoint))
        if (problem := checkpoint.complaint(folder)) is not None:
            raise RunFailed(f"the best checkpoint {folder} can't be loaded: {problem}")
        self._load_from_checkpoint(str(folder))


def _plain(value: Any) -> Any:
    """An enum as its value, so that it compares with what was read from JSON."""
    return getattr(value, "value", value)
