"""Loaders of a language model's batches: from sequences, from a stream of texts, or row by row."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from angels_share.errors import UserError
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
from distil_trainer.data.sequences import RowStream, StreamedRows, count_tokens
from distil_trainer.recipe import Mode
from distil_trainer.training.args import DistilTrainingArguments
from distil_trainer.training.checks import max_length, require_readable


class Loaders:
    """Makes the loaders of a run whose batches are masked and sized by us."""

    def __init__(
        self,
        args: DistilTrainingArguments,
        models: Sequence[PreTrainedModel],
        mode: Mode,
        tokenizer: Any,
        token_counts: Any,
    ) -> None:
        """Keep what all loaders of the run share.

        Args:
            args: the run's arguments.
            models: the student, then its teachers: all of them read the batches.
            mode: "causal" batches are padded, "masked" ones are masked, too.
            tokenizer: supplies the mask token and the padding; a causal model needs none.
            token_counts: frequency of each token [counted when first needed].
        """
        self._args, self._models, self._mode = args, models, mode
        self._tokenizer, self._token_counts = tokenizer, token_counts

    def for_training(self, data: Sequences | RowStream | TextStream) -> DataLoader[Any]:
        """Return a loader of length-bucketed batches, or of a stream's in its order."""
        batch_size = self._args.per_device_train_batch_size
        if isinstance(data, TextStream):
            batches = StreamedBatches(data, **self._processes(), **self._batch_size(batch_size))
            workers = self._args.dataloader_num_workers
            return stream_loader(
                batches,
                self._collator(data),
                num_workers=workers,
                pin_memory=self._pins_memory(),
                prefetch_factor=self._args.dataloader_prefetch_factor,
            )
        return self._loader(data, data, batch_size, endless=True)

    def for_held_out(self, data: Sequences | RowStream, counted: Any) -> DataLoader[Any]:
        """Return a loader of one pass, whose masks are the same every time.

        Args:
            data: the held-out data.
            counted: the data whose tokens are counted if no counts were given.
        """
        batch_size = self._args.per_device_eval_batch_size
        return self._loader(data, counted, batch_size, endless=False)

    def for_all(self, data: Sequences) -> DataLoader[Any]:
        """Return a loader of one pass in which every process gets every batch."""
        require_readable(data, self._models)
        sizes = self._batch_size(self._args.per_device_eval_batch_size)
        return EpochLoader(data, BatchPlan(data.lengths, **sizes), self._collator(data))

    def _loader(
        self, data: Sequences | RowStream, counted: Any, batch_size: int, *, endless: bool
    ) -> DataLoader[Any]:
        sizes = self._batch_size(batch_size)
        workers = self._args.dataloader_num_workers
        if isinstance(data, RowStream):
            if workers:
                raise UserError(
                    f"dataloader_num_workers {workers}: an iterable data set is read by the "
                    "training process itself; set it to 0, or pass rows by number"
                )
            rows = StreamedRows(data, endless=endless, **self._processes(), **sizes)
            return stream_loader(rows, self._collator(counted), pin_memory=self._pins_memory())
        require_readable(data, self._models)
        return EpochLoader(
            data,
            BatchPlan(data.lengths, num_processes=self._args.world_size, **sizes),
            self._collator(counted),
            process_index=self._args.process_index,
            num_workers=workers,
            pin_memory=self._pins_memory(),
            persistent_workers=self._args.dataloader_persistent_workers,
            prefetch_factor=self._args.dataloader_prefetch_factor,
        )

    def _processes(self) -> dict[str, int]:
        return {
            "process_index": self._args.process_index,
            "num_processes": self._args.world_size,
        }

    def _pins_memory(self) -> bool:
        return bool(self._args.dataloader_pin_memory) and self._args.device.type == "cuda"

    def _batch_size(self, sequences: int) -> dict[str, Any]:
        """Return the arguments by which batches are sized and seeded."""
        args = self._args
        return {
            "batch_size": None if args.tokens_per_batch else sequences,
            "tokens_per_batch": args.tokens_per_batch,
            "seed": args.seed if args.data_seed is None else args.data_seed,
        }

    def _collator(self, counted: Any) -> MaskingCollator | CausalCollator:
        tokenizer, config = self._tokenizer, self._models[0].config
        pad = config.pad_token_id if tokenizer is None else tokenizer.pad_token_id
        width = min(map(max_length, self._models))
        if self._mode == "causal":
            return CausalCollator(pad or 0, width)
        if tokenizer is None:
            raise UserError("masked language modelling needs processing_class, the tokenizer")
        if self._token_counts is None:
            self._token_counts = count_tokens(counted, config.vocab_size)
        options = MaskingOptions(
            probability=self._args.mlm_probability,
            smoothing=self._args.mlm_smoothing,
            scope=self._args.mask_scope,
        )
        masker = Masker.for_tokenizer(
            tokenizer, options, seed=self._args.seed, token_counts=self._token_counts
        )
        return MaskingCollator(masker, pad, width)
