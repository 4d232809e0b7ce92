"""A Trainer that can be stopped and resumed at any step without changing a bit of the result.

Checkpoints are atomic (`checkpoint`) and verified before they are read. SIGTERM and SIGINT set a
flag, on which all processes act together at the end of a step. Secrets and pickled arguments are
never written.
"""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch.distributed.fsdp import FSDPModule
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import TrainOutput

from angels_share.errors import RunFailed, UserError
from angels_share.files import is_path_error, reason_of_failed_write, write_atomically
from distil_trainer.training import checkpoint
from distil_trainer.training.honoured import is_not_default
from distil_trainer.training.sharding import load_state, load_weights, whole_state, whole_weights

# The TrainingArguments that change the result; a resumed run must have the same.
_RESULT_SETTINGS = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "gradient_accumulation_steps", "seed", "data_seed", "optim",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "optim_args",
    "lr_scheduler_kwargs", "dataloader_drop_last", "train_sampling_strategy",
)  # fmt: skip

# Codes are summed over the processes: with fewer than a million of them, a sum of a million or
# more means that at least one had a SIGTERM.
_SIGNAL_CODES = {signal.SIGINT: 1, signal.SIGTERM: 1_000_000}

# torch reports a full disk as a RuntimeError, safetensors as its own error.
_FAILED_WRITES = (OSError, RuntimeError, SafetensorError)

_logger = logging.getLogger(__name__)


@cache
def _let_torch_know_numbered_cpus() -> None:
    """Let torch load tensors to "cpu:0", as transformers 5.17 asks in one of several processes.

    torch refuses such a name. It can go with transformers 5.17.
    """
    torch.serialization.register_package(
        1_000, lambda _: None, lambda storage, place: storage if place[:4] == "cpu:" else None
    )


class ResumableTrainer(Trainer):
    """A Trainer with verified checkpoints that stops cleanly on signals and resumes exactly."""

    stop_signal: int | None = None
    """The signal that ended the last `train()` early, the same in every process, or None."""
    first_step: int = 0
    """The step that the last `train()` went on from."""
    seconds_trained: float | None = None
    """How long it took in this process; None before it has ended."""
    _signal_here: int | None = None
    _stopped_at: int | None = None
    _whole_weights: dict[str, torch.Tensor] | None = None

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share with the interrupted one."""
        values = {name: _plain(getattr(self.args, name)) for name in _RESULT_SETTINGS}
        precision = self.accelerator.mixed_precision
        if is_not_default(self.args.accelerator_config):
            values["accelerator_config"] = self.args.accelerator_config.to_dict()
        if self.args.shard_student:
            values["shard_student"] = True
        return {**values, "precision": precision, "processes": self.args.world_size}

    @property
    def student(self) -> Any:
        """The model that is saved and loaded."""
        raise NotImplementedError

    # Data

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        """Return the Trainer's sampler, in an order that follows from the seed and the epoch."""
        sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return _SeededSampler(sampler, seed)
        return sampler

    # Starting and stopping

    def train(self, resume_from_checkpoint: Any = None, **rest: Any) -> TrainOutput:
        """Train the student; see `Trainer.train`.

        Args:
            resume_from_checkpoint: True or "latest" for the newest complete checkpoint in
                `output_dir`, "auto" for that or a fresh start where there is none, or a
                checkpoint's folder. Processes that torchrun has restarted resume by themselves.
            rest: further arguments of `Trainer.train`.

        Raises:
            UserError: there is no complete checkpoint to resume from, or a fresh start would lose
                checkpoints.
            RunFailed: a value is not finite, or a checkpoint can't be written.
            KeyboardInterrupt: Ctrl-C arrived; the checkpoint of the step that it ended is saved.
                Likewise SystemExit (143) for SIGTERM. So a program doesn't go on with a student
                that was trained in part.
        """
        self.first_step = 0
        folder = self._folder_to_resume(resume_from_checkpoint)
        self.stop_signal = self._signal_here = self._stopped_at = None
        if self.model_wrapped is self.model and not self._is_sharded:
            # An evaluation that came first marked it: accelerate would take it for wrapped in DDP,
            # and every process train a student of its own.
            self.model.__dict__.pop("_is_accelerate_prepared", None)
        started = time.monotonic()
        with self._catching_signals():
            output = super().train(resume_from_checkpoint=folder, **rest)
        self.seconds_trained = time.monotonic() - started
        if self.stop_signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if self.stop_signal is not None:
            step = self.state.global_step
            raise KeyboardInterrupt(
                f"interrupted at step {step} of {self.state.max_steps}: saved "
                f"{self.args.output_dir}/{checkpoint.PREFIX}{step}; "
                "train(resume_from_checkpoint=True) goes on"
            )
        return output

    def _folder_to_resume(self, given: Any) -> str | None:
        """Return the checkpoint to go on from, the same in all processes; None for a fresh start.

        Raises:
            UserError: there is none, it is of another run, or the processes see different ones.
        """
        output_dir = Path(self.args.output_dir)
        # A process on a node that is new has not been restarted itself.
        restarts = max(self._of_all(checkpoint.restarts(output_dir)))
        requested = checkpoint.requested(given, restarts)
        if requested == checkpoint.AUTO:
            checkpoint.restore_replaced(output_dir)
            requested = bool(checkpoint.numbered(output_dir))
        found = self._checkpoint_to_resume(output_dir, requested)
        steps = sorted(set(self._of_all(-1 if found is None else found.step)))
        if len(steps) > 1:
            seen = ", ".join("none" if each < 0 else f"{checkpoint.PREFIX}{each}" for each in steps)
            raise UserError(
                f"{output_dir}: some processes see {seen[: seen.rindex(',')]}, others "
                f"{seen[seen.rindex(',') + 2 :]}: put it on a disk that all nodes share"
            )
        checkpoint.note_begun(output_dir)
        if found is None:
            return None
        self.first_step = found.step
        return str(found.folder)

    def _of_all(self, number: int) -> list[int]:
        """Return the numbers of all processes."""
        held = torch.tensor([number], device=self.args.device)
        gathered: list[int] = self.accelerator.gather(held).tolist()
        return gathered

    def _checkpoint_to_resume(
        self, output_dir: Path, requested: Any
    ) -> checkpoint.Checkpoint | None:
        elsewhere = requested and Path(str(requested)).is_dir()
        elsewhere = elsewhere and Path(str(requested)).resolve().parent != output_dir.resolve()
        if (elsewhere or not requested) and checkpoint.numbered(output_dir):
            raise UserError(
                f"{output_dir} holds checkpoints of an earlier run; add --resume_from_checkpoint "
                "to continue it (from Python: train(resume_from_checkpoint=True)), or use another "
                "--output_dir"
            )
        if not requested:
            return None
        inexact = self.args.allow_inexact_resume
        name = "latest" if requested is True else str(requested)
        found = checkpoint.find_checkpoint(output_dir, name, inexact=inexact)
        settings = dict(found.settings)
        threads = settings.pop("threads", None)
        if threads != torch.get_num_threads():
            _logger.warning(
                "%s was made with %s threads, this run has %s: results will differ in rounding",
                found.folder,
                threads,
                torch.get_num_threads(),
            )
        found = checkpoint.Checkpoint(found.folder, found.step, settings)
        checkpoint.require_same_settings(found, self.result_settings(), inexact=inexact)
        return found

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both states; an inexact resume keeps this run's rate, decay and betas.

        torch's states hold these too, and would put the interrupted run's in their place.
        """
        ours = [
            {name: value for name, value in group.items() if name not in {"params", "lr"}}
            for group in self.optimizer.param_groups
        ]
        rates = [group.get("initial_lr", group["lr"]) for group in self.optimizer.param_groups]
        if checkpoint is not None and self._is_sharded:
            self._load_parts(Path(checkpoint))
        else:
            if checkpoint is not None and self.args.device.type == "cpu":
                _let_torch_know_numbered_cpus()
            super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or not self.args.allow_inexact_resume:
            return
        for group, options in zip(self.optimizer.param_groups, ours, strict=True):
            group.update(options)
        # A schedule of another kind, on a plateau, follows what it measured, from the rate it had.
        if isinstance(schedule := self.lr_scheduler, LambdaLR):
            schedule.base_lrs = rates
            factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
            for group, rate, factor in zip(
                self.optimizer.param_groups, rates, factors, strict=True
            ):
                group["lr"] = rate * factor

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT set a flag; a second signal of a kind acts as it did before."""
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
        """Return this process's term in the all-reduced stop flag."""
        return _SIGNAL_CODES.get(signal.Signals(self._signal_here), 0) if self._signal_here else 0

    def _set_stop_signal(self, codes: float) -> None:
        """Decide from the all-reduced stop flag whether to stop at the end of this step."""
        if codes and self.state.global_step + 1 < self.state.max_steps:
            terminated = codes >= _SIGNAL_CODES[signal.SIGTERM]
            self.stop_signal = int(signal.SIGTERM if terminated else signal.SIGINT)

    def _run_epoch(self, **named: Any) -> None:
        """Train for an epoch, unless a resumed run has already finished its last step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(**named)

    def _maybe_log_save_evaluate(self, tr_loss: Any, *rest: Any, **named: Any) -> None:
        """Save and end the run at the end of a step in which a signal arrived.

        The checkpoint comes first, since the sender may soon kill the process. An evaluation that
        is due still runs and is saved; otherwise the resumed run would lack its metrics.
        """
        if self.stop_signal is None:
            super()._maybe_log_save_evaluate(tr_loss, *rest, **named)
            return
        step = self.state.global_step
        mid_epoch = not float(self.state.epoch or 0).is_integer()
        if self._stopped_at == step and mid_epoch:
            return  # called again because the run, not the epoch, ends: nothing is due
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
        """Finish the run; an interrupted one loads no best model and removes no checkpoint."""
        if self.stop_signal is None:
            return super()._finalize_training(*rest)
        best, self.state.best_model_checkpoint = self.state.best_model_checkpoint, None
        try:
            return super()._finalize_training(*rest)
        finally:
            self.state.best_model_checkpoint = best

    # Saving

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save all that a resumed run needs in a staging folder, and rename it when complete."""
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
        """Run a part of a save in every process, or in the saving one alone; fail in all or none.

        Raises:
            RunFailed: it failed in at least one process.
        """
        problem: Exception | None = None
        try:
            if self.args.should_save or not alone:
                work()
        except _FAILED_WRITES as error:
            problem = error
        # All processes learn of a failure, or the others would wait in the next collective call.
        failed = torch.tensor(float(problem is not None), device=self.args.device)
        if not self.accelerator.reduce(failed, reduction="sum").item():
            return
        reason = reason_of_failed_write(problem, staging) if problem else "another process failed"
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        raise RunFailed(
            f"step {self.state.global_step}: the checkpoint in {staging.parent} could not be "
            f"written: {reason}; --resume_from_checkpoint continues from the previous one"
        ) from problem

    @property
    def _is_sharded(self) -> bool:
        """Whether this process holds a part of every weight only."""
        return isinstance(self.model, FSDPModule)

    def save_model(
        self,
        output_dir: str | None = None,
        _internal_call: bool = False,  # noqa: FBT001, FBT002  (the Trainer's signature)
    ) -> None:
        """Save the student with its tokenizer; all processes must call it.

        Args:
            output_dir: the folder [that of the arguments].
            _internal_call: whether it is a part of something else, such as a checkpoint.
        """
        if self._is_sharded:
            keep = self.args.should_save
            self._whole_weights = whole_weights(self.model, self.student, keep=keep)
        try:
            super().save_model(output_dir, _internal_call)
        finally:
            self._whole_weights = None

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save both states, whole: a run that isn't sharded saves the same."""
        if not self._is_sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole_state(self.optimizer, keep=self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_parts(self, folder: Path) -> None:
        """Load this process's part of the optimizer's state, and the schedule's."""
        for name, load in (
            (OPTIMIZER_NAME, lambda state: load_state(self.optimizer, state)),
            (SCHEDULER_NAME, self.lr_scheduler.load_state_dict),
        ):
            if (folder / name).is_file():  # it may lack one where the resume may be inexact
                load(torch.load(folder / name, map_location="cpu", mmap=True, weights_only=True))

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
        """Save the student, its tokenizer, and the arguments as JSON: whole or not at all.

        Raises:
            UserError: the folder can't be written to.
            RunFailed: the disk is full.
        """
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        if folder.name.startswith(checkpoint.STAGING):
            self._write_student(folder)  # a part of a checkpoint, which is whole or absent itself
            return
        staging = folder / f"{checkpoint.STAGING}student"
        shutil.rmtree(staging, ignore_errors=True)  # what a killed process left
        try:
            staging.mkdir(parents=True)
            self._write_student(staging)
            checkpoint.place_files(staging, folder)
        except _FAILED_WRITES as error:
            is_users = isinstance(error, OSError) and is_path_error(error)
            reason = reason_of_failed_write(error, staging)
            failure = UserError if is_users else RunFailed
            raise failure(f"{folder}: the student could not be saved: {reason}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _write_student(self, folder: Path) -> None:
        """Write what is saved of a student into a folder: no pickle, no secrets."""
        # Under the modules' own names: transformers would write a NomicBERT's under those of the
        # code that it replaces, which only its own loader turns back.
        weights = self._whole_weights
        self.student.save_pretrained(folder, state_dict=weights, save_original_format=False)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        write_atomically(folder / "training_args.json", self.args.to_json() + "\n")

    # Loading

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        file = Path(resume_from_checkpoint) / "model.safetensors"
        if self._is_sharded:
            load_weights(self.model, self.student, file)
            return
        safetensors.torch.load_model(self.student, file)

    def _load_best_model(self) -> None:
        folder = Path(str(self.state.best_model_checkpoint))
        if (problem := checkpoint.complaint(folder)) is not None:
            raise RunFailed(f"the best checkpoint {folder} cannot be loaded: {problem}")
        self._load_from_checkpoint(str(folder))


class _SeededSampler(Sampler[int]):
    """A grouping by length whose random order doesn't depend on what was drawn before.

    transformers' own draws from torch's global generator, which at the start of a later epoch is
    in another state in a resumed run.
    """

    def __init__(self, sampler: LengthGroupedSampler, seed: int) -> None:
        self._sampler, self._seed, self._epoch = sampler, seed, 0

    def __len__(self) -> int:
        return len(self._sampler)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; the loader calls it."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self._sampler.generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(self._sampler)


def _plain(value: Any) -> Any:
    """Return an enum's value, which compares equal to what is read from JSON."""
    return getattr(value, "value", value)
