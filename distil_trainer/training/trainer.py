"""DistilTrainer: the Trainer of transformers, with teachers.

It normalises every term once, by its own count over the whole accumulated batch and all processes;
logs each term of the loss; and stops before the optimizer's step if a value is not finite.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderShard
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    CausalLMOutput,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from transformers.utils import ModelOutput, find_labels

from angels_share.errors import RunFailed, UserError
from angels_share.scaled_loss import ScaledLoss
from distil_trainer.data.batches import (
    TextStream,
)
from distil_trainer.data.sequences import (
    RowStream,
    as_sequences,
    is_iterable,
)
from distil_trainer.data.sources import is_split
from distil_trainer.objectives.language_model import (
    Batch,
    LanguageModelObjective,
    Objective,
    ObjectiveOutput,
    attended_tokens,
)
from distil_trainer.objectives.relations import plan_relations
from distil_trainer.objectives.task import TEACHER_OUTPUTS, TaskObjective, task_head
from distil_trainer.objectives.teacher_outputs import TaughtDataset
from distil_trainer.recipe import OF_TEACHERS, Mode
from distil_trainer.training.args import DistilTrainingArguments
from distil_trainer.training.checks import (
    check_accelerator,
    check_models,
    check_positions,
    check_settings,
    check_teachers,
    check_token_counts,
    check_tokenizers,
    freeze,
    mode_of,
    require_length,
    require_teacher_outputs,
    require_types,
)
from distil_trainer.training.fingerprints import of_run
from distil_trainer.training.loaders import Loaders
from distil_trainer.training.publishing import PublishingTrainer
from distil_trainer.training.sharding import shard, whole
from distil_trainer.training.step_metrics import (
    LABEL_TERM,
    MetricsWindow,
    evaluation_metrics,
    not_finite,
    on_host,
)
from distil_trainer.training.users_collator import (
    as_rows,
    check_collator,
    masks_differ,
    name_of,
)

_logger = logging.getLogger(__name__)

ASYNCHRONOUS = {"cuda"}
"""The kinds of device that pinned memory is copied to while the host goes on."""

_COUNTS = "counts_of_update"
"""The batch key of each term's count over the accumulated batch, for subclasses that drop it."""


class DistilTrainer(ScaledLoss, PublishingTrainer):
    """A Trainer for a student with one or more teachers, or with none.

    The objective follows from the student's head: a language model learns from its corpus, a model
    with a task head from labelled batches. Everything else is the Trainer's.
    """

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
        teacher_tokenizer: Any = None,
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
                `input_ids`, whose other columns mean what `read_row` says; it may be iterable. For
                a task what the Trainer takes. A data set from
                `cache_teacher_outputs` contains its teacher's outputs: pass no `teacher` then.
            eval_dataset: likewise.
            processing_class: the tokenizer; it supplies the mask token and is saved with the
                student.
            token_counts: frequency of each token, for masks that favour rare tokens [counted from
                the training data].
            teacher_tokenizer: the teacher's tokenizer or its folder, of several teachers a list:
                its vocabulary must be the student's [the folder the teacher was loaded from].
            trainer_settings: the Trainer's other arguments (callbacks, compute_metrics, …). A
                `data_collator` makes a language model's batches instead of ours: they come in the
                Trainer's own order, with the collator's labels, and batches are not formed by
                length.

        Raises:
            UserError: the models, data or settings don't fit together, or aren't supported.
        """
        check_models(model, teacher)
        mode = mode_of(model)
        check_settings(args, trainer_settings, mode)
        self.teachers = freeze(teacher)
        self.weights = args.weights(mode)
        taught = train_dataset if isinstance(train_dataset, TaughtDataset) else None
        check_teachers(model, self.teachers, self.weights, mode, taught)
        check_tokenizers(processing_class, self.teachers, teacher_tokenizer)
        check_token_counts(token_counts, model.config.vocab_size, mode)
        check_positions(model, args, taught)
        self._loaders = Loaders(args, (model, *self.teachers), mode, processing_class, token_counts)
        self.objective = self._build_objective(model, args, mode)
        self._alphas = {
            name.removeprefix("alpha_"): self.weights[name] for name in self.objective.weight_names
        }
        if isinstance(train_dataset, dict):
            raise UserError(
                f"train_dataset is a dict of {', '.join(train_dataset)}; pass one of them"
            )
        collator = trainer_settings.get("data_collator")
        self._collates = mode == "task" or collator is not None
        self._special_ids = tuple(getattr(processing_class, "all_special_ids", ()))
        if mode != "task":
            adapt = self._as_sequences
            if collator is not None:
                check_collator(args, token_counts)
                adapt = as_rows
            train_dataset, eval_dataset = map(adapt, (train_dataset, eval_dataset))
            if isinstance(train_dataset, RowStream) and args.max_steps < 1:
                raise UserError("an iterable train_dataset has no length: set max_steps")
        self._masks_differ = self._collates and mode != "task" and masks_differ(collator)
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
        if resume_from_checkpoint and isinstance(self.train_dataset, RowStream):
            _logger.warning(
                "whether the iterable data set gives the rows of the interrupted run can't be "
                "checked; with others, the result is another"
            )
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
                divergence=args.divergence,
                over_all_positions=args.kd_over_all_positions,
            )
        relations = None
        if self.weights["alpha_rel"]:
            relations = plan_relations(
                student, self.teachers[0], layer=args.relation_layer, heads=args.relation_heads
            )
        return LanguageModelObjective(
            student,
            temperature=args.temperature,
            divergence=args.divergence,
            relations=relations,
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
        if self.args.divergence != "kl":
            ours["divergence"] = self.args.divergence
        if isinstance(self.objective, LanguageModelObjective) and self.objective.relations:
            ours["relation_layer"] = self.objective.relations.teacher_layer
            ours["relation_heads"] = self.objective.relations.heads
        if self.args.kd_over_all_positions:
            ours["kd_over_all_positions"] = True
        if self._collates and self.objective.mode != "task":
            ours["data_collator"] = name_of(self.data_collator)
            if self._masks_differ:  # then a resumed run has other masks
                ours["masks"] = "data_collator"
        if isinstance(self.train_dataset, TextStream):
            # Each reader has its own part of a stream, so their number determines the order.
            readers = self.args.world_size * max(self.args.dataloader_num_workers, 1)
            ours["readers"] = readers
            if readers > 1 and is_split(self.train_dataset.sources):
                ours["split_by"] = "datasets"
        return {**super().result_settings(), **self.weights, **ours, **self._identities}

    # Data

    def _as_sequences(self, dataset: Any) -> Any:
        """Return a language model's data as sequences or as a stream of rows."""
        causal = self.objective.mode == "causal"
        return as_sequences(dataset, causal=causal, special_ids=self._special_ids)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of length-bucketed, masked batches.

        For a task, and for a language model with a `data_collator`, return the Trainer's loader.
        """
        if self._collates or self.train_dataset is None:
            return _on_host(super().get_train_dataloader())
        return self._loaders.for_training(self.train_dataset)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return a loader for evaluation, whose masks are the same every time."""
        if self.objective.mode == "task":
            loader: DataLoader[Any] = super().get_eval_dataloader(eval_dataset)
            return loader
        if isinstance(eval_dataset, str):  # the name of one of several
            eval_dataset = self.eval_dataset[eval_dataset]
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise UserError("evaluation needs an eval_dataset")
        return self._held_out_loader(dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Return a loader for `predict`; a language model's is as for evaluation."""
        if self.objective.mode == "task":
            loader: DataLoader[Any] = super().get_test_dataloader(test_dataset)
            return loader
        return self._held_out_loader(test_dataset)

    def _held_out_loader(self, dataset: Any) -> DataLoader[Any]:
        """Return a loader of one pass over a language model's held-out data."""
        if not self._collates:
            counted = self.eval_dataset if self.train_dataset is None else self.train_dataset
            if isinstance(counted, dict):
                counted = next(iter(counted.values()))
            return self._loaders.for_held_out(self._as_sequences(dataset), counted)
        held_out = as_rows(dataset)
        processes = self.accelerator.num_processes
        if is_iterable(held_out) and processes > 1:
            raise UserError(
                f"evaluation on an iterable data set in {processes} processes, with a "
                "data_collator, would count some rows twice; pass rows by number"
            )
        # Rows must not be repeated to fill the last batch: they would count twice.
        before, self.accelerator.even_batches = self.accelerator.even_batches, False
        try:
            return _on_host(super().get_test_dataloader(held_out))
        finally:
            self.accelerator.even_batches = before

    # A step

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        """Return an update's micro-batches, and each term's count over them and all processes.

        Args:
            epoch_iterator: yields the epoch's micro-batches.
            num_batches: how many make an update.
            device: where the counts are summed over processes.
        """
        started = self._window.begin_waiting()
        batches = [self._prepared(batch) for batch in islice(epoch_iterator, num_batches)]
        self._window.end_waiting(started)
        zero = torch.zeros(len(self._alphas), dtype=torch.int64)
        counts = sum((self.objective.counts(batch) for batch in batches), zero)
        tokens = sum(attended_tokens(batch) for batch in batches)
        padded = sum(batch["input_ids"].numel() for batch in batches if "input_ids" in batch)
        vector = self._prepare_input(torch.cat([counts, torch.tensor([tokens, padded])]))
        totals: Tensor = self.accelerator.reduce(vector, reduction="sum")
        self._window.open_update(totals)
        counts_of_update = totals[: len(self._alphas)]
        return [{**batch, _COUNTS: counts_of_update} for batch in batches], counts_of_update

    def _prepare_input(self, data: Any) -> Any:
        """Return tensors on the device, without waiting for it where it is a GPU.

        The Trainer's own copies block, as do all copies of memory that isn't pinned: what wasn't
        by the loader is here.
        """
        if not isinstance(data, Tensor) or self.args.device.type not in ASYNCHRONOUS:
            return super()._prepare_input(data)
        if data.device.type == "cpu" and self.args.dataloader_pin_memory:
            data = data.pin_memory()
        return data.to(self.args.device, non_blocking=True)

    def _prepared(self, batch: Batch) -> Batch:
        """Return a batch with what the objective adds to it; check that the models can read it."""
        if self.objective.mode == "task":
            return self.objective.prepare(batch)
        # Ours are padded on the right, to a multiple that may be more than a model reads.
        mask = batch.get("attention_mask") if "attended_rows" in batch else None
        batch = self.objective.prepare(batch)
        longest = batch["input_ids"].shape[1] if mask is None else int(mask.sum(1).max())
        models = (self.student, *self.teachers)
        require_length(longest, models)
        if "token_type_ids" in batch:
            types = batch["token_type_ids"]
            require_types(int(types.min()), int(types.max()), models)
        return batch

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,  # noqa: FBT001, FBT002  (the Trainer's signature)
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Return the objective of a batch, as any collator makes it, and perhaps the outputs.

        A micro-batch of an update is normalised over the whole accumulated batch and all processes,
        also where a subclass doesn't pass the counts on; any other batch without counts by its own
        ones. In the evaluation of a task it is then the labels' loss alone.

        The outputs are of the type that transformers' models return. Of a task they hold the loss
        and the student's logits; of a language model the loss only: the logits of all its tokens
        are never built, so `outputs.logits` is None there.

        Args:
            model: the objective (the trainer's `model`), perhaps wrapped, or the student itself.
            inputs: a batch; of a language model it needs `input_ids` and `labels`.
            return_outputs: also return the outputs.
            num_items_in_batch: each term's count, from `get_batch_samples`.

        Raises:
            UserError: the batch, the model or the counts aren't what the objective needs.
        """
        model = self.objective if model is self.student else model
        if isinstance(model, PreTrainedModel):
            raise UserError(
                f"compute_loss: the model is a {type(model).__name__} and not this trainer's "
                "student; pass trainer.model"
            )
        inputs = dict(inputs)
        of_update = inputs.pop(_COUNTS, None)
        counts = of_update if num_items_in_batch is None else num_items_in_batch
        if self.objective.mode != "task" and "head_rows" not in inputs:
            inputs = self._prepare_inputs(self._prepared(inputs))
        if counts is None:
            output = self._of_batch_alone(model, inputs)
        else:
            counts = torch.as_tensor(counts)
            if (given := counts.numel()) != len(self._alphas):
                raise UserError(
                    f"num_items_in_batch: {given} number{'s'[: given != 1]} for "
                    f"{len(self._alphas)} terms; "
                    "pass what get_batch_samples returns, or nothing"
                )
            # DDP averages gradients over processes, but counts cover all of them: undo the average.
            weights = self._weights(counts, scale=self.accelerator.num_processes)
            output = model(inputs, self._teacher_outputs(inputs), weights)
            self._window.add(output.sums)
        return (output.objective, self._outputs(output)) if return_outputs else output.objective

    def _weights(self, counts: Tensor, scale: int = 1) -> list[Any]:
        """Return each term's weight, divided by its count; the number 0.0 switches a term off."""
        return [
            0.0 if alpha == 0 else scale * alpha / count
            for alpha, count in zip(self._alphas.values(), counts.clamp(min=1), strict=True)
        ]

    def _of_batch_alone(self, model: Any, inputs: Batch) -> ObjectiveOutput:
        """Return the output for a batch that is no part of an update."""
        counts = self.objective.counts(inputs).to(self.args.device)
        if self.objective.mode == "task" and not model.training:
            weights: list[Any] = [0.0, 1 / float(counts[LABEL_TERM].clamp(min=1))]
            output: ObjectiveOutput = model(inputs, (), weights)
        else:
            output = model(inputs, self._teacher_outputs(inputs), self._weights(counts))
        return output

    def _outputs(self, output: ObjectiveOutput) -> ModelOutput:
        """Return a forward pass's output in the type that transformers' models return."""
        loss, logits = output.objective, output.logits
        if self.objective.mode != "task":
            kind = CausalLMOutput if self.objective.mode == "causal" else MaskedLMOutput
            return kind(loss=loss)
        if isinstance(logits, tuple):
            return QuestionAnsweringModelOutput(loss, *logits)
        tokens = task_head(self.student).task == "ForTokenClassification"
        kind = TokenClassifierOutput if tokens else SequenceClassifierOutput
        return kind(loss=loss, logits=logits)

    def _teacher_outputs(self, batch: Batch) -> list[Any]:
        """Return the batch's cached outputs or the teachers' own; none if no term needs them."""
        if not any(self.weights[name] for name in OF_TEACHERS):
            return []
        require_teacher_outputs(batch, self.teachers)
        return [batch[TEACHER_OUTPUTS]] if TEACHER_OUTPUTS in batch else self._run_teachers(batch)

    def _run_teachers(self, batch: Batch) -> list[Any]:
        with self.accelerator.autocast():
            return [
                self.objective.run_teacher(teacher, batch, first=number == 0)
                for number, teacher in enumerate(self.teachers)
            ]

    def create_optimizer(self, *rest: Any, **named: Any) -> Any:
        """Make the optimizer, of a student that is sharded first where that was asked for."""
        if self.args.shard_student:
            assert isinstance(self.objective, LanguageModelObjective)
            shard(self.objective, self.args.device)
            # For evaluation it prepares the same, but for the DDP around it.
            prepare_model = partial(Accelerator.prepare_model, self.accelerator)
            self.accelerator.__dict__["prepare_model"] = partial(
                prepare_model, evaluation_mode=True
            )
        return super().create_optimizer(*rest, **named)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Return the gradient's norm after checking that all of the update's values are finite."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        norm = whole(norm) if isinstance(norm, Tensor) else norm
        # Sums and stop flag travel as one vector: one all-reduce, and one wait of the host. The
        # counts have been on their way since the update began.
        local = self._window.sums
        stop = local.new_full((1,), self._signal_code())
        summed = self.accelerator.reduce(torch.cat([local, stop]), reduction="sum")
        size = torch.as_tensor(norm, device=local.device).reshape(1)
        *sums, stop_code, norm_value = on_host(torch.cat([summed, size])).tolist()
        self._window.close_update(sums)
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
        counts = torch.zeros(len(self._alphas), dtype=torch.int64)
        rows = 0
        parts = []  # they stay on the device, so that the host doesn't wait for each batch
        for batch in dataloader:
            prepared = self._prepared(batch)
            rows += len(prepared["input_ids"])
            parts.append(self._evaluate_batch(prepared))
            counts += self.objective.counts(prepared)
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        sums = torch.zeros(len(self._alphas) + 1, dtype=torch.float64)
        for part in parts:
            sums += on_host(part)
        local = torch.cat([sums, counts, torch.tensor([rows])])
        *totals, rows = self._over_all_processes(local).tolist()
        metrics = evaluation_metrics(self._alphas, totals, taught=bool(self.teachers))
        wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
        if wrong:
            raise RunFailed(
                f"step {self.state.global_step} (seed {self.args.seed}): {', '.join(wrong)} on the "
                "held-out text is not finite"
            )
        prefix = named.get("metric_key_prefix", "eval")
        metrics = {f"{prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(None, None, metrics, int(rows))

    def prediction_step(self, model: Any, inputs: Batch, *rest: Any, **named: Any) -> Any:
        """Predict a task's batch; without labels, as in a test split, return only logits."""
        if any(name in inputs for name in self.label_names):
            return super().prediction_step(model, inputs, *rest, **named)
        with torch.no_grad():
            output = model(self._prepare_inputs(inputs), (), [0.0, 0.0])
        return None, output.logits, None

    def _evaluate_batch(self, batch: Batch) -> Tensor:
        """Return the terms' sums and the rows of agreement, as one vector on the device."""
        batch = self._prepare_inputs(batch)
        teachers = self._run_teachers(batch)
        # The labels' cross-entropy is always reported, the other terms only if they have a weight:
        # hidden states of unequal width cannot even be compared.
        labels = list(self._alphas)[LABEL_TERM]
        weights = [float(term == labels or alpha > 0) for term, alpha in self._alphas.items()]
        output = self.model(batch, teachers, weights, count_agreement=bool(teachers))
        return torch.cat([output.sums, output.agreement.reshape(1)])

    def _over_all_processes(self, totals: Tensor) -> Tensor:
        """Return the sum over all processes of float64 numbers on the host.

        They travel as bytes, since the device that the processes talk through may lack float64.
        """
        held = totals.view(torch.uint8).to(self.args.device)
        gathered: Tensor = self.accelerator.gather(held)
        return gathered.cpu().view(torch.float64).view(-1, len(totals)).sum(0)


def _on_host(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return the Trainer's loader, whose batches accelerate would move to the device.

    What a batch holds is looked at before, while the host needn't wait for the answer.
    """
    if isinstance(loader, DataLoaderShard):
        loader.device = None
    return loader
