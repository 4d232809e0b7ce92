"""DistilTrainer: the Trainer of transformers, with teachers.

It normalises every term once, by its own count over the whole accumulated batch and all processes;
logs each term of the loss; and stops before the optimizer's step if a value is not finite.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from transformers.utils import find_labels

from angels_share.errors import RunFailed, UserError
from distil_trainer.data.batches import (
    BatchPlan,
    CausalCollator,
    EpochLoader,
    MaskingCollator,
    Sequences,
    StreamedBatches,
    TextStream,
    stream_loader,
)
from distil_trainer.data.masking import Masker, MaskingOptions
from distil_trainer.data.sequences import as_sequences, count_tokens
from distil_trainer.objectives.language_model import (
    Batch,
    LanguageModelObjective,
    Objective,
    attended_tokens,
)
from distil_trainer.objectives.task import TEACHER_OUTPUTS, TaskObjective
from distil_trainer.objectives.teacher_outputs import TaughtDataset
from distil_trainer.recipe import OF_TEACHERS, Mode
from distil_trainer.training.args import DistilTrainingArguments
from distil_trainer.training.checks import (
    check_accelerator,
    check_positions,
    check_settings,
    check_teachers,
    freeze,
    mode_of,
    require_readable,
    require_teacher_outputs,
)
from distil_trainer.training.fingerprints import of_run
from distil_trainer.training.resumable import ResumableTrainer
from distil_trainer.training.step_metrics import (
    LABEL_TERM,
    MetricsWindow,
    evaluation_metrics,
    not_finite,
)


class DistilTrainer(ResumableTrainer):
    """A Trainer for a student with one or more teachers, or with none.

    The objective follows from the student's head: a language model learns from its corpus, a model
    with a task head from labelled batches. Everything else is the Trainer's.
    """

    # Our loss is normalised over the whole accumulated batch; the Trainer must not divide it again.
    loss_is_scaled_for_ga = True
    data_collator: Any

    def __init__(
        self,
        model: PreTrainedModel,
        args: DistilTrainingArguments,
        *,
        teacher: PreTrainedModel | Sequence[PreTrainedModel] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        token_counts: Any = None,
        **trainer_settings: Any,
    ) -> None:
        """Check student, teachers and settings, and build the objective.

        Args:
            model: the student. It is trained in place.
            args: weights, temperature, masks, and the Trainer's arguments.
            teacher: one or several teachers that share the student's vocabulary, or none. All give
                soft targets; hidden states are compared with the first one's. Teachers are frozen,
                and are not part of what is trained, saved or wrapped.
            train_dataset: for a language model a prepared corpus' sequences, or a data set with
                `input_ids`; for a task what the Trainer takes. A data set from
                `cache_teacher_outputs` contains its teacher's outputs: pass no `teacher` then.
            eval_dataset: likewise.
            processing_class: the tokenizer; it supplies the mask token and is saved with the
                student.
            token_counts: frequency of each token, for masks that favour rare tokens [counted from
                the training data].
            trainer_settings: the Trainer's other arguments (callbacks, compute_metrics, …).

        Raises:
            UserError: the models, data or settings don't fit together, or aren't supported.
        """
        mode = mode_of(model)
        check_settings(args, trainer_settings, mode)
        self.teachers = freeze(teacher)
        self.weights = args.weights(mode)
        taught = train_dataset if isinstance(train_dataset, TaughtDataset) else None
        check_teachers(model, self.teachers, self.weights, mode, taught)
        check_positions(model, args, taught)
        self._token_counts = token_counts
        self.objective = self._build_objective(model, args, mode)
        self._alphas = {
            name.removeprefix("alpha_"): self.weights[name] for name in self.objective.weight_names
        }
        if isinstance(train_dataset, dict):
            raise UserError(
                f"train_dataset is a dict of {', '.join(train_dataset)}; pass one of them"
            )
        if mode != "task":
            train_dataset, eval_dataset = map(as_sequences, (train_dataset, eval_dataset))
        self._window = MetricsWindow(self._alphas)
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False  # every parameter gets a gradient
        # Before training changes the student: a resumed run starts from the same models.
        self._identities = of_run(model, self.teachers, train_dataset, mode)
        super().__init__(
            model=self.objective,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **trainer_settings,
        )
        if taught is not None:
            self.data_collator = taught.collator(self.data_collator)
        check_accelerator(self.accelerator)
        self.label_names = find_labels(type(model))
        for each in self.teachers:
            each.to(self.args.device)
        self._flops_per_token = 6 * model.num_parameters(exclude_embeddings=True)

    def train(self, resume_from_checkpoint: Any = None, **rest: Any) -> TrainOutput:
        """Train; see `ResumableTrainer.train`. Evaluation data are checked first."""
        evaluates = self.eval_dataset is not None and self.objective.mode != "task"
        if evaluates and not isinstance(self.eval_dataset, dict):
            self.get_eval_dataloader()
        return super().train(resume_from_checkpoint, **rest)

    # The objective

    def _build_objective(
        self, student: PreTrainedModel, args: DistilTrainingArguments, mode: Mode
    ) -> Objective:
        if mode == "task":
            return TaskObjective(
                student,
                temperature=args.temperature,
                over_all_positions=args.kd_over_all_positions,
            )
        return LanguageModelObjective(
            student,
            temperature=args.temperature,
            restrict_to_mask=args.restrict_ce_to_mask,
            soft=bool(self.weights["alpha_ce"] or self.weights["alpha_mse"]),
        )

    @property
    def student(self) -> PreTrainedModel:
        """The student without its wrappers, as it is saved and loaded."""
        return self.objective.student

    def result_settings(self) -> dict[str, Any]:
        """Return the settings, weights and fingerprints that a resumed run must share."""
        names = (
            "temperature",
            "restrict_ce_to_mask",
            "mlm_probability",
            "mlm_smoothing",
            "mask_scope",
            "tokens_per_batch",
        )
        ours = {name: getattr(self.args, name) for name in names}
        if self.args.kd_over_all_positions:
            ours["kd_over_all_positions"] = True
        if isinstance(self.train_dataset, TextStream):
            # Each reader has its own part of a stream, so their number determines the order.
            ours["readers"] = self.args.world_size * max(self.args.dataloader_num_workers, 1)
        return {**super().result_settings(), **self.weights, **ours, **self._identities}

    # Data

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of length-bucketed, masked batches; for a task the Trainer's loader."""
        if self.objective.mode == "task" or self.train_dataset is None:
            loader: DataLoader[Any] = super().get_train_dataloader()
            return loader
        if isinstance(self.train_dataset, TextStream):
            return self._stream_loader(self.train_dataset)
        return self._loader(self.train_dataset, self.args.per_device_train_batch_size)

    def _stream_loader(self, stream: TextStream) -> DataLoader[Any]:
        batches = StreamedBatches(
            stream,
            process_index=self.args.process_index,
            num_processes=self.args.world_size,
            **self._batch_size(self.args.per_device_train_batch_size),
        )
        return stream_loader(
            batches,
            self._collator(),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
        )

    def _batch_size(self, sequences: int) -> dict[str, Any]:
        """Return the arguments by which batches are sized and seeded."""
        by_tokens = self.args.tokens_per_batch
        return {
            "batch_size": None if by_tokens else sequences,
            "tokens_per_batch": by_tokens,
            "seed": self.args.seed if self.args.data_seed is None else self.args.data_seed,
        }

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return a loader for evaluation, whose masks are the same every time."""
        if self.objective.mode == "task":
            loader: DataLoader[Any] = super().get_eval_dataloader(eval_dataset)
            return loader
        if isinstance(eval_dataset, str):  # the name of one of several
            eval_dataset = self.eval_dataset[eval_dataset]
        dataset = as_sequences(self.eval_dataset if eval_dataset is None else eval_dataset)
        if dataset is None:
            raise UserError("evaluation needs an eval_dataset")
        return self._loader(dataset, self.args.per_device_eval_batch_size)

    def _loader(self, sequences: Sequences, batch_size: int) -> EpochLoader:
        require_readable(sequences, (self.student, *self.teachers))
        plan = BatchPlan(
            sequences.lengths,
            num_processes=self.args.world_size,
            **self._batch_size(batch_size),
        )
        return EpochLoader(
            sequences,
            plan,
            self._collator(),
            process_index=self.args.process_index,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def _collator(self) -> MaskingCollator | CausalCollator:
        tokenizer, config = self.processing_class, self.student.config
        pad = config.pad_token_id if tokenizer is None else tokenizer.pad_token_id
        if self.objective.mode == "causal":
            return CausalCollator(pad or 0)
        if tokenizer is None:
            raise UserError("masked language modelling needs processing_class, the tokenizer")
        if self._token_counts is None:
            counted = self.eval_dataset if self.train_dataset is None else self.train_dataset
            if isinstance(counted, dict):
                counted = next(iter(counted.values()))
            self._token_counts = count_tokens(counted, config.vocab_size)
        options = MaskingOptions(
            probability=self.args.mlm_probability,
            smoothing=self.args.mlm_smoothing,
            scope=self.args.mask_scope,
        )
        masker = Masker.for_tokenizer(
            tokenizer, options, seed=self.args.seed, token_counts=self._token_counts
        )
        return MaskingCollator(masker, pad)

    # A step

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        """Return an update's micro-batches, and each term's count over them and all processes."""
        started = self._window.begin_waiting()
        batches = [self.objective.prepare(batch) for batch in islice(epoch_iterator, num_batches)]
        self._window.end_waiting(started)
        zero = torch.zeros(len(self._alphas), dtype=torch.int64)
        counts = sum((self.objective.counts(batch) for batch in batches), zero)
        tokens = sum(attended_tokens(batch) for batch in batches)
        padded = sum(batch["input_ids"].numel() for batch in batches if "input_ids" in batch)
        vector = torch.cat([counts, torch.tensor([tokens, padded])]).to(device, non_blocking=True)
        totals: Tensor = self.accelerator.reduce(vector, reduction="sum")
        self._window.open_update(totals)
        return batches, totals[: len(self._alphas)]

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,  # noqa: FBT001, FBT002  (the Trainer's signature)
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Return the objective of a micro-batch, normalised over the whole accumulated batch.

        Without counts, as in the evaluation of a task, it is the labels' loss over this batch.

        Args:
            model: the objective, perhaps wrapped.
            inputs: a micro-batch that went through `Objective.prepare`.
            return_outputs: also return the forward pass's output.
            num_items_in_batch: each term's count, from `get_batch_samples`.
        """
        if num_items_in_batch is None:
            return self._labels_only(model, inputs, return_outputs=return_outputs)
        # DDP averages gradients over processes, but counts cover all of them: undo the average.
        scale = self.accelerator.num_processes
        counts = num_items_in_batch.clamp(min=1)
        weights = [
            0.0 if alpha == 0 else scale * alpha / count
            for alpha, count in zip(self._alphas.values(), counts, strict=True)
        ]
        output = model(inputs, self._teacher_outputs(inputs), weights)
        self._window.add(output.sums)
        return (output.objective, output) if return_outputs else output.objective

    def _labels_only(self, model: Any, inputs: Batch, *, return_outputs: bool) -> Any:
        count = self.objective.counts(inputs)[1].clamp(min=1)
        output = model(inputs, (), [0.0, 1 / float(count)])
        return (output.objective, {"logits": output.logits}) if return_outputs else output.objective

    def _teacher_outputs(self, batch: Batch) -> list[Any]:
        """Return the batch's cached outputs or the teachers' own; none if no term needs them."""
        if not any(self.weights[name] for name in OF_TEACHERS):
            return []
        require_teacher_outputs(batch, self.teachers)
        return [batch[TEACHER_OUTPUTS]] if TEACHER_OUTPUTS in batch else self._run_teachers(batch)

    def _run_teachers(self, batch: Batch) -> list[Any]:
        with self.accelerator.autocast():
            return [self.objective.run_teacher(teacher, batch) for teacher in self.teachers]

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Return the gradient's norm after checking that all of the update's values are finite."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # Sums, stop flag, norm and counts travel as one vector: one all-reduce, and one transfer
        # for which the host waits.
        local = self._window.sums
        stop = local.new_tensor([self._signal_code()])
        summed = self.accelerator.reduce(torch.cat([local, stop]), reduction="sum")
        size = torch.as_tensor(norm, device=local.device).reshape(1)
        parts = [part.double() for part in (summed, size, self._window.counts)]
        values: list[float] = torch.cat(parts).tolist()
        sums, (stop_code, norm_value, *counts) = values[: len(local)], values[len(local) :]
        self._window.close_update(sums, counts)
        self._set_stop_signal(stop_code)
        if (culprits := not_finite(list(self._alphas), sums, norm_value)) is not None:
            raise RunFailed(
                f"step {self.state.global_step + 1} (seed {self.args.seed}): {culprits} not "
                "finite; stopped before the optimizer's step. Lower the learning rate, or check "
                "the teacher"
            )
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a checkpoint, without counting its time as training time."""
        with self._window.paused():
            super()._save_checkpoint(model, trial)

    def evaluate(self, *rest: Any, **named: Any) -> dict[str, float]:
        """Evaluate, without counting the time as training time."""
        with self._window.paused():
            metrics: dict[str, float] = super().evaluate(*rest, **named)
        return metrics

    def floating_point_ops(self, inputs: Batch) -> int:
        """Return the student's operations, forward and backward; a teacher's are not counted."""
        return int(self._flops_per_token * attended_tokens(inputs))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the loss terms, speed, and shares of padding and waiting since the last entry."""
        if "loss" in logs and self._window.updates:
            logs.update(self._window.drain())
        super().log(logs, start_time)

    # Evaluation

    @torch.no_grad()
    def evaluation_loop(
        self, dataloader: DataLoader[Any], description: str, *rest: Any, **named: Any
    ) -> EvalLoopOutput:
        """Compute a language model's metrics on held-out text; for a task run the Trainer's loop.

        Raises:
            RunFailed: a metric is not finite.
        """
        if self.objective.mode == "task":
            return super().evaluation_loop(dataloader, description, *rest, **named)
        if not self.accelerator._models:  # evaluation before any training
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.model.eval()
        size = 2 * len(self._alphas) + 1
        totals = torch.zeros(size, dtype=torch.float64, device=self.args.device)
        for batch in dataloader:
            totals += self._evaluate_batch(self.objective.prepare(batch))
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        totals = self.accelerator.reduce(totals, reduction="sum")
        metrics = evaluation_metrics(self._alphas, totals.tolist(), taught=bool(self.teachers))
        wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
        if wrong:
            raise RunFailed(
                f"step {self.state.global_step} (seed {self.args.seed}): {', '.join(wrong)} on the "
                "held-out text is not finite"
            )
        prefix = named.get("metric_key_prefix", "eval")
        metrics = {f"{prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(None, None, metrics, len(dataloader.dataset))  # type: ignore[arg-type]

    def prediction_step(self, model: Any, inputs: Batch, *rest: Any, **named: Any) -> Any:
        """Predict a task's batch; without labels, as in a test split, return only logits."""
        if any(name in inputs for name in self.label_names):
            return super().prediction_step(model, inputs, *rest, **named)
        with torch.no_grad():
            output = model(self._prepare_inputs(inputs), (), [0.0, 0.0])
        return None, output.logits, None

    def _evaluate_batch(self, batch: Batch) -> Tensor:
        """Return the terms' sums, rows of agreement, and the terms' counts, as one vector."""
        counts = self.objective.counts(batch).to(self.args.device)
        batch = self._prepare_inputs(batch)
        teachers = self._run_teachers(batch)
        # The labels' cross-entropy is always reported, the other terms only if they have a weight:
        # hidden states of unequal width cannot even be compared.
        labels = list(self._alphas)[LABEL_TERM]
        weights = [float(term == labels or alpha > 0) for term, alpha in self._alphas.items()]
        output = self.model(batch, teachers, weights, count_agreement=bool(teachers))
        return torch.cat([output.sums, output.agreement.reshape(1), counts]).double()
