"""Plain fine-tuning: the Trainer, with the loss normalised over the whole accumulated batch.

With gradient accumulation the stock Trainer's loss and gradient are too large by the number of
micro-batches: it expects the model to divide by `num_items_in_batch`, which task heads ignore.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from angels_share.errors import RunFailed
from angels_share.imports import resolve
from angels_share.inputs import chosen, inputs_of
from angels_share.scaled_loss import ScaledLoss
from angels_share.training_flags import training_flags
from eval_harness.tasks.kinds import kind_with_head
from eval_harness.training.encoding import Collator
from eval_harness.training.evaluation import Batch

Report = Callable[[float], None]


class FineTuner(ScaledLoss, Trainer):
    """A Trainer for all kinds of tasks that stops at the first non-finite gradient."""

    def __init__(self, model: PreTrainedModel, *rest: Any, **named: Any) -> None:
        kind = kind_with_head(type(model).__name__)
        assert kind is not None, f"a {type(model).__name__} has no head for a kind of task"
        self._loss: Callable[[Any, Batch, float], Tensor] = resolve(kind.loss)
        self._count: Callable[[Batch], int] = resolve(kind.count)
        self._inputs = inputs_of(model)
        super().__init__(model, *rest, **named)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, _device: torch.device
    ) -> tuple[list[Batch], int]:
        """Return the micro-batches of an update and the number of their examples.

        Args:
            epoch_iterator: yields the epoch's micro-batches.
            num_batches: how many make an update.
            _device: not needed, since the examples are counted on the CPU.
        """
        batches = list(islice(epoch_iterator, num_batches))
        # An update may have nothing to learn: sentences of words that the tokenizer drops.
        return batches, max(1, sum(map(self._count, batches)))

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,  # noqa: FBT001, FBT002  (the Trainer's signature)
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return a micro-batch's summed loss divided by the number of the update's examples.

        Args:
            model: the model to train.
            inputs: a micro-batch.
            return_outputs: whether to return the model's output, too.
            num_items_in_batch: the number of the update's examples; None while evaluating.
        """
        output = model(**chosen(inputs, self._inputs))
        total = self._loss(output, inputs, self.args.label_smoothing_factor)
        count = self._count(inputs) if num_items_in_batch is None else num_items_in_batch
        loss = total / count
        return (loss, output) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Stop before the optimizer at a non-finite gradient, which a non-finite loss leads to."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not torch.isfinite(torch.as_tensor(norm)):
            raise RunFailed(
                f"step {self.state.global_step + 1} (seed {self.args.seed}): the labels' loss or "
                "its gradient is not finite; stopped before the optimizer. Lower --learning_rate"
            )
        return norm


def make_trainer(
    model: PreTrainedModel,
    arguments: Mapping[str, Any],
    *,
    options: Mapping[str, Any],
    folders: Mapping[str, str],
    **trainer_settings: Any,
) -> Trainer:
    """Return the trainer of plain fine-tuning; the factories of all methods have this signature.

    Args:
        model: the model, trained in place.
        arguments: the arguments of TrainingArguments.
        options: the method's options; plain fine-tuning has none.
        folders: the folders of the models that the options name; plain fine-tuning has none.
        trainer_settings: other arguments of the Trainer: data set, collator, callbacks.
    """
    assert not options
    assert not folders
    return FineTuner(model, TrainingArguments(**arguments), **trainer_settings)


class ReportProgress(TrainerCallback):
    """A callback that reports the share of steps done and calls a function after each epoch."""

    def __init__(self, report: Report, at_epoch_end: Callable[[], None] | None) -> None:
        self._report = report
        self._at_epoch_end = at_epoch_end

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_rest: Any) -> None:
        """Report the share of steps that is done.

        Args:
            _args, _control, _rest: what the Trainer passes to every callback.
            state: says how many steps are done.
        """
        self._report(state.global_step / state.max_steps)

    def on_epoch_end(self, _args: Any, _state: Any, _control: Any, **_rest: Any) -> None:
        """Call back at the end of an epoch.

        Args:
            _args, _state, _control, _rest: what the Trainer passes to every callback.
        """
        if self._at_epoch_end is not None:
            self._at_epoch_end()


def train(
    model: PreTrainedModel,
    factory: Callable[..., Trainer],
    values: Mapping[str, Any],
    train_set: Any,
    collator: Collator,
    *,
    seed: int,
    scratch: Path,
    report: Report,
    at_epoch_end: Callable[[], None] | None = None,
    options: Mapping[str, Any] | None = None,
    folders: Mapping[str, str] | None = None,
) -> Sequence[Mapping[str, float]]:
    """Fine-tune a model in place and return its logged losses by step.

    Args:
        model: the model.
        factory: makes the trainer; `make_trainer` is an example.
        values: the settings of the run; those that TrainingArguments has are passed on.
        train_set: the training examples.
        collator: makes batches of them.
        seed: the seed of data order and dropout.
        scratch: a folder for the Trainer's files.
        report: called with the share of steps that is done.
        at_epoch_end: called after each epoch.
        options: the method's options.
        folders: the folders of the models that the options name.

    Raises:
        RunFailed: a number is not finite, or training ended before its last step.
    """
    trainer = factory(
        model,
        _arguments(values, len(train_set), seed, scratch),
        options=options or {},
        folders=folders or {},
        train_dataset=train_set,
        data_collator=collator,
        callbacks=[ReportProgress(report, at_epoch_end)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    state = trainer.state
    if state.global_step < state.max_steps:
        raise RunFailed(f"stopped at step {state.global_step} of {state.max_steps}")
    return [
        {"step": entry["step"], "loss": entry["loss"]}
        for entry in state.log_history
        if "loss" in entry
    ]


def place(model: PreTrainedModel, values: Mapping[str, Any], scratch: Path) -> None:
    """Put a model that isn't trained on the device that the Trainer would put it on.

    Args:
        model: the model.
        values: the settings of the run.
        scratch: a folder that the Trainer's arguments want.
    """
    use_cpu = values.get("use_cpu", not _on_gpu())
    arguments = TrainingArguments(output_dir=str(scratch), use_cpu=use_cpu, report_to="none")
    model.to(arguments.device)


def _on_gpu() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _arguments(
    values: Mapping[str, Any], examples: int, seed: int, scratch: Path
) -> dict[str, Any]:
    """Return the arguments of TrainingArguments for a run without files or bar.

    The loss is logged, and recorded in the result, twenty times or as often as the user says; it is
    added up between two logs, so no number of the training depends on it.
    """
    batch = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"]
    steps = values.get("max_steps", 0)
    if steps <= 0:
        steps = int(values["num_train_epochs"] * max(examples / batch, 1))
    return {
        # Set explicitly, since TrainingArguments refuses bf16 on a CPU unless it is chosen.
        "use_cpu": not _on_gpu(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_steps": max(steps // 20, 1),
        "report_to": "none",
        **{name: value for name, value in values.items() if name in training_flags()},
        "output_dir": str(scratch),
        "seed": seed,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }
