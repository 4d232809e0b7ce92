"""DistilTrainer: the Trainer that people know, with teachers.

It normalises every term once, by its own count over the whole accumulated batch and all processes;
says what each part of the loss is; and stops before the optimizer where a number is not finite.
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
    attended,
)
from distil_trainer.objectives.task import TEACHER_OUTPUTS, TaskObjective
from distil_trainer.objectives.teacher_outputs import TaughtDataset
from distil_trainer.recipe import Mode
from distil_trainer.training.args import DistilTrainingArguments
from distil_trainer.training.checks import (
    OF_TEACHERS,
    check_accelerator,
    check_positions,
    check_settings,
    check_teachers,
    frozen,
    mode_of,
    require_answer,
    require_readable,
)
from distil_trainer.training.fingerprints import of_run
from distil_trainer.training.resumable import ResumableTrainer
from distil_trainer.training.step_metrics import LABELS, Window, evaluation_figures, not_finite


class DistilTrainer(ResumableTrainer):
    """Trains a student under one or more teachers, or under none.

    What is distilled follows from the student's head: a language model learns from its corpus, a
    model for a task from labelled batches. Everything else is the Trainer's.
    """

    # Our loss is normalised over the whole accumulated batch; the Trainer must not divide again.
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
        """Checks the pair and builds the objective.

        Args:
            model: the student. It is trained in place.
            args: weights, temperature, masks, and all that the Trainer takes.
            teacher: one or several of one vocabulary, or none. Of several the first is compared by
                hidden states, and all give soft targets. They are frozen and stay outside of what
                is trained, saved or wrapped.
            train_dataset: for a language model a prepared corpus' sequences, or a data set with
                `input_ids`; for a task what the Trainer takes. What `remember` gives bears its
                teacher's outputs, and then nobody is asked: leave `teacher` out.
            eval_dataset: likewise.
            processing_class: the tokenizer; it names the mask and is saved with the student.
            token_counts: how often each token occurs, for masks that favour rare words; counted
                from the training data where it isn't given.
            trainer_settings: what else the Trainer takes (callbacks, compute_metrics, …).
        """
        mode = mode_of(model)
        check_settings(args, trainer_settings, mode)
        self.teachers = frozen(teacher)
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
            raise UserError(f"train_dataset holds {', '.join(train_dataset)}: give one of them")
        if mode != "task":
            train_dataset, eval_dataset = map(as_sequences, (train_dataset, eval_dataset))
        self._window = Window(self._alphas)
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False  # every parameter has its gradient
        # As they were given: a resumed run starts from the same.
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
        """Trains; see `ResumableTrainer.train`. What evaluation would refuse is refused now."""
        evaluates = self.eval_dataset is not None and self.objective.mode != "task"
        if evaluates and not isinstance(self.eval_dataset, dict):
            self.get_eval_dataloader()
        return super().train(resume_from_checkpoint, **rest)

    # The objective

    def _build_objective(
        self, student: PreTrainedModel, args: DistilTrainingArguments, mode: Mode
    ) -> Objective:
        if mode == "task":
            wide = args.kd_over_all_positions
            return TaskObjective(student, temperature=args.temperature, over_all_positions=wide)
        return LanguageModelObjective(
            student,
            temperature=args.temperature,
            restrict_to_mask=args.restrict_ce_to_mask,
            soft=bool(self.weights["alpha_ce"] or self.weights["alpha_mse"]),
        )

    @property
    def student(self) -> PreTrainedModel:
        """The student, without what wraps it: what is saved and loaded."""
        return self.objective.student

    def result_settings(self) -> dict[str, Any]:
        """The Trainer's settings, the recipe, and the data that a resumed run must share."""
        names = ("temperature", "restrict_ce_to_mask", "mlm_probability", "mlm_smoothing",
                 "mask_scope", "tokens_per_batch")  # fmt: skip
        ours = {name: getattr(self.args, name) for name in names}
        if self.args.kd_over_all_positions:
            ours["kd_over_all_positions"] = True
        if isinstance(self.train_dataset, TextStream):
            # Every reader has its own part of a stream, so their number is part of the order.
            ours["readers"] = self.args.world_size * max(self.args.dataloader_num_workers, 1)
        return {**super().result_settings(), **self.weights, **ours, **self._identities}

    # Data

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Length-bucketed, masked batches by our own loader; for a task the Trainer's."""
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
        """How `BatchPlan` sizes and seeds batches."""
        by_tokens = self.args.tokens_per_batch
        return {
            "batch_size": None if by_tokens else sequences,
            "tokens_per_batch": by_tokens,
            "seed": self.args.seed if self.args.data_seed is None else self.args.data_seed,
        }

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The same for evaluation, with the same masks every time."""
        if self.objective.mode == "task":
            loader: DataLoader[Any] = super().get_eval_dataloader(eval_dataset)
            return loader
        if isinstance(eval_dataset, str):  # one of several, by its name
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
            raise UserError("masked language modelling needs processing_class: the tokenizer")
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
        """The micro-batches of an update, and each term's count over all of them, everywhere."""
        started = self._window.begin()
        batches = [self.objective.prepare(batch) for batch in islice(epoch_iterator, num_batches)]
        self._window.end_waiting(started)
        zero = torch.zeros(len(self._alphas), dtype=torch.int64)
        counts = sum((self.objective.counts(batch) for batch in batches), zero)
        seen = sum(attended(batch) for batch in batches)
        padded = sum(batch["input_ids"].numel() for batch in batches if "input_ids" in batch)
        vector = torch.cat([counts, torch.tensor([seen, padded])]).to(device, non_blocking=True)
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
        """The weighted objective of a micro-batch, normalised over the whole accumulated batch.

        Without counts (evaluation of a task) the batch's own are used, and only its labels.
        """
        if num_items_in_batch is None:
            return self._labels_only(model, inputs, return_outputs=return_outputs)
        # DDP averages gradients over the processes; counts are over all of them, so scale back up.
        scale = self.accelerator.num_processes
        counts = num_items_in_batch.clamp(min=1)
        weights = [
            0.0 if alpha == 0 else scale * alpha / count
            for alpha, count in zip(self._alphas.values(), counts, strict=True)
        ]
        outcome = model(inputs, self._ask_teachers(inputs), weights)
        self._window.add(outcome.sums)
        return (outcome.objective, outcome) if return_outputs else outcome.objective

    def _labels_only(self, model: Any, inputs: Batch, *, return_outputs: bool) -> Any:
        count = self.objective.counts(inputs)[1].clamp(min=1)
        outcome = model(inputs, (), [0.0, 1 / float(count)])
        return (outcome.objective, {"logits": outcome.logits}) if return_outputs else outcome[0]

    def _ask_teachers(self, batch: Batch) -> list[Any]:
        """The teachers' answers, if any term needs them; those that the batch bears, if it does."""
        if not any(self.weights[name] for name in OF_TEACHERS):
            return []
        require_answer(batch, self.teachers)
        return [batch[TEACHER_OUTPUTS]] if TEACHER_OUTPUTS in batch else self._ask_all(batch)

    def _ask_all(self, batch: Batch) -> list[Any]:
        with self.accelerator.autocast():
            return [self.objective.ask(teacher, batch) for teacher in self.teachers]

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Looks at every number of the update, in one wait for a GPU, before the optimizer does."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        local = self._window.sums
        stop = local.new_tensor([self._signal_code()])
        summed = self.accelerator.reduce(torch.cat([local, stop]), reduction="sum")
        size = torch.as_tensor(norm, device=local.device).reshape(1)
        parts = [part.double() for part in (summed, size, self._window.counts)]
        values: list[float] = torch.cat(parts).tolist()
        sums, rest = values[: len(local)], values[len(local) :]
        self._window.close_update(sums, rest[2:])
        self._hear_signals(rest[0])
        if (culprit := not_finite(list(self._alphas), sums, rest[1])) is not None:
            raise RunFailed(
                f"step {self.state.global_step + 1} (seed {self.args.seed}): {culprit} not "
                "finite; stopped before the optimizer, nothing was changed. Lower the learning "
                "rate, or look at the teacher"
            )
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Saves; the time that it takes is not the training's."""
        with self._window.paused():
            super()._save_checkpoint(model, trial)

    def evaluate(self, *rest: Any, **named: Any) -> dict[str, float]:
        """Evaluates; the time that it takes is not the training's."""
        with self._window.paused():
            figures: dict[str, float] = super().evaluate(*rest, **named)
        return figures

    def floating_point_ops(self, inputs: Batch) -> int:
        """The student's, forward and backward; the teacher's are not counted."""
        return int(self._flops_per_token * attended(inputs))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the parts of the loss, speed, padding and waiting since the last record."""
        if "loss" in logs and self._window.updates:
            logs.update(self._window.drain())
        super().log(logs, start_time)

    # Evaluation

    @torch.no_grad()
    def evaluation_loop(
        self, dataloader: DataLoader[Any], description: str, *rest: Any, **named: Any
    ) -> EvalLoopOutput:
        """A language model's figures over the held-out text; a task's by the Trainer's own loop."""
        if self.objective.mode == "task":
            return super().evaluation_loop(dataloader, description, *rest, **named)
        if not self.accelerator._models:  # evaluated before anything was trained
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.model.eval()
        size = 2 * len(self._alphas) + 1
        totals = torch.zeros(size, dtype=torch.float64, device=self.args.device)
        for batch in dataloader:
            totals += self._evaluate_batch(self.objective.prepare(batch))
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        totals = self.accelerator.reduce(totals, reduction="sum")
        figures = evaluation_figures(self._alphas, totals.tolist(), taught=bool(self.teachers))
        wrong = [name for name, value in figures.items() if not math.isfinite(value)]
        if wrong:
            raise RunFailed(
                f"step {self.state.global_step} (seed {self.args.seed}): {', '.join(wrong)} on the "
                "held-out text is not finite"
            )
        prefix = named.get("metric_key_prefix", "eval")
        metrics = {f"{prefix}_{name}": value for name, value in figures.items()}
        return EvalLoopOutput(None, None, metrics, len(dataloader.dataset))  # type: ignore[arg-type]

    def prediction_step(self, model: Any, inputs: Batch, *rest: Any, **named: Any) -> Any:
        """A task's prediction; a test split has no labels, and then there are only logits."""
        if any(name in inputs for name in self.label_names):
            return super().prediction_step(model, inputs, *rest, **named)
        with torch.no_grad():
            outcome = model(self._prepare_inputs(inputs), (), [0.0, 0.0])
        return None, outcome.logits, None

    def _evaluate_batch(self, batch: Batch) -> Tensor:
        """Sums of the terms, rows of agreement, counts of the terms."""
        counts = self.objective.counts(batch).to(self.args.device)
        batch = self._prepare_inputs(batch)
        asked = self._ask_all(batch)
        # The labels' cross-entropy is always a figure; hidden states compare only if widths do.
        labels = list(self._alphas)[LABELS]
        weights = [float(term == labels or alpha > 0) for term, alpha in self._alphas.items()]
        outcome = self.model(batch, asked, weights, want_agreement=bool(asked))
        return torch.cat([outcome.sums, outcome.agreement.reshape(1), counts]).double()
