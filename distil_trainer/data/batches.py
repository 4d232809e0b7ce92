"""Which examples make a batch, in which order, and what a model is given for them.

`BatchPlan` groups examples of nearly one length and gives every epoch and every process equally
many batches. `EpochBatches` walks it, `EpochLoader` loads it, a collator makes tensors of it.
The epoch travels inside the keys (epoch, example), so no dataset, worker or collator holds state
that a resumed run would have to restore. `StreamedBatches` does what of this can be done for a
corpus that is never whole.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from angels_share.errors import UserError
from distil_trainer.data.corpus import SequenceMaker
from distil_trainer.data.masking import IGNORED, Draw, Ints, Masker, uniform
from distil_trainer.data.sources import Source, text_chunks, texts_of

PAD_MULTIPLE = 8
"""Batches are padded to a multiple of this, which matrix units like."""

Batch = dict[str, Tensor]


class Sequences(Protocol):
    """What is batched: token sequences whose lengths are known beforehand."""

    @property
    def lengths(self) -> npt.NDArray[np.integer[Any]]:
        """Tokens of each sequence."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> npt.NDArray[np.integer[Any]]: ...


class Key(NamedTuple):
    """Names one appearance of an example."""

    epoch: int
    example: int


class Example(NamedTuple):
    """One appearance of an example, with its tokens."""

    key: Key
    tokens: npt.NDArray[np.integer[Any]]


class BatchPlan:
    """Batches of examples of nearly one length, as many in every epoch and for every process.

    Examples are sorted by their padded length, longest first, and cut into batches there. Where the
    cuts fall depends on the lengths alone; an epoch only permutes the examples of one padded length
    among each other, and the order of the batches. So the number of batches never changes, nothing
    is dropped or repeated, and padding is known before the first step.
    """

    def __init__(
        self,
        lengths: npt.ArrayLike,
        *,
        batch_size: int | None = None,
        tokens_per_batch: int | None = None,
        num_processes: int = 1,
        seed: int = 0,
    ) -> None:
        """Cuts the batches.

        Args:
            lengths: tokens of each example.
            batch_size: examples of a batch; or
            tokens_per_batch: tokens of a batch, padding included.
            num_processes: processes that share the batches out, one each at every step.
            seed: decides every epoch's order.

        Raises:
            UserError: fewer examples than processes, or not exactly one way to size a batch.
        """
        sizes = [size for size in (batch_size, tokens_per_batch) if size is not None]
        if len(sizes) != 1 or sizes[0] < 1:
            raise UserError("batches: give a positive batch_size or a positive tokens_per_batch")
        tokens = np.asarray(lengths, dtype=np.int64)
        if len(tokens) < num_processes:
            raise UserError(f"{len(tokens)} examples for {num_processes} processes: too few")
        self._widths = -(-tokens // PAD_MULTIPLE) * PAD_MULTIPLE
        self._seed = seed
        self.num_processes = num_processes
        widths = -np.sort(-self._widths)
        fits = (lambda _: batch_size) if batch_size else (lambda width: tokens_per_batch // width)
        self._starts = _equal_shares(_cuts(widths, fits), num_processes)
        counts = np.diff(self._starts)
        self.padding_share = 1.0 - float(tokens.sum() / (counts * widths[self._starts[:-1]]).sum())

    def __len__(self) -> int:
        """Batches that each process has in every epoch."""
        return (len(self._starts) - 1) // self.num_processes

    def epoch_batches(self, epoch: int, process_index: int) -> Iterator[Ints]:
        """The examples of each batch of one process.

        At any step, the batches of all processes are neighbours in length, so that none of them
        waits long for another.
        """
        examples = np.arange(len(self._widths))
        shuffled = uniform(Draw.EXAMPLE_ORDER, self._seed, epoch, examples)
        order = np.argsort(
            shuffled - self._widths, kind="stable"
        )  # draws are below 1, widths whole
        drawn = uniform(Draw.STEP_ORDER, self._seed, epoch, np.arange(len(self)))
        for batch in np.argsort(drawn, kind="stable") * self.num_processes + process_index:
            yield order[self._starts[batch] : self._starts[batch + 1]]


def _cuts(widths: Ints, fits: Callable[[int], int]) -> list[int]:
    """Where batches of examples sorted by falling width begin, and the end."""
    starts = [0]
    while starts[-1] < len(widths):
        # The first is the widest, so all of a batch fit as soon as the first fits that often.
        size = max(1, fits(int(widths[starts[-1]])))
        starts.append(min(starts[-1] + size, len(widths)))
    return starts


def _equal_shares(starts: list[int], processes: int) -> Ints:
    """Makes the number of batches divisible, by halving the largest ones.

    Only where batches are too small to be halved (one example each, say) are the narrowest ones
    put together instead.
    """
    while missing := -(len(starts) - 1) % processes:
        sizes = np.diff(starts)
        if len(sizes) + missing > starts[-1]:
            starts = [*starts[:-2], starts[-1]]
        else:
            largest = int(np.argmax(sizes))
            half = starts[largest] + int(sizes[largest]) // 2
            starts = [*starts[: largest + 1], half, *starts[largest + 1 :]]
    return np.array(starts, dtype=np.int64)


class EpochBatches(Sampler[list[Key]]):
    """One process' batches of keys, in the order of the epoch that `set_epoch` named last."""

    def __init__(self, plan: BatchPlan, process_index: int = 0) -> None:
        self._plan = plan
        self.num_processes = plan.num_processes
        self.process_index = process_index
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that the next iteration walks through."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        for examples in self._plan.epoch_batches(epoch, self.process_index):
            yield [Key(epoch, example) for example in examples.tolist()]


class KeyedExamples(Dataset[Example]):
    """Looks examples up by key."""

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, key: Key) -> Example:
        return Example(key, self._sequences[key.example])


def outlive_signals(_worker: int) -> None:
    """Makes a worker go on when its process group is told to stop, until its parent says so.

    A scheduler's SIGTERM and a terminal's SIGINT reach the workers too; without them the parent
    could not end the step that it is in and save. SIGTERM can't just be ignored: with it Python's
    own exit ends what a loader has left behind, and waits until it has ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "linux":  # the others can't wait for a signal and see who sent it
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_leave_when_the_parent_says, daemon=True).start()


def _leave_when_the_parent_says() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class EpochLoader(DataLoader[Example]):
    """Loads one process' share of a plan, epoch after epoch.

    It shards by itself: give it to no library that would shard it again. `set_epoch` names the
    epoch; without it, as in evaluation, every pass has the same batches and the same masks.
    """

    def __init__(
        self,
        sequences: Sequences,
        plan: BatchPlan,
        collate: Callable[[Sequence[Example]], Batch],
        *,
        process_index: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        prefetch_factor: int | None = None,
    ) -> None:
        super().__init__(
            KeyedExamples(sequences),
            batch_sampler=EpochBatches(plan, process_index),
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=persistent_workers,
            prefetch_factor=prefetch_factor if num_workers else None,
            worker_init_fn=outlive_signals,
            # iter() draws a seed for the workers, which is not to come out of the global generator:
            # a resumed run calls iter() more often.
            generator=torch.Generator(),
        )

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that the next iteration walks through."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


@dataclass(frozen=True)
class TextStream:
    """A corpus that is read, tokenized and cleaned while it is trained on, and never written."""

    sources: Sequence[Source]
    maker: SequenceMaker


class StreamedBatches(IterableDataset[list[Example]]):
    """Batches of one process' part of a corpus that is too large to be prepared, without end.

    Of all texts, every process and worker reads its own: those whose number is its own modulo the
    number of readers. Batches are made and shuffled within a chunk of some megabytes. There is no
    number of batches to agree on, so a run has to say how many steps it wants.
    """

    def __init__(
        self,
        stream: TextStream,
        *,
        process_index: int = 0,
        num_processes: int = 1,
        **plan: Any,
    ) -> None:
        """Reads a stream; `plan` is how `BatchPlan` sizes and seeds batches."""
        self._sources = stream.sources
        self._maker = stream.maker
        self._process_index = process_index
        self._num_processes = num_processes
        self._plan = plan

    def __iter__(self) -> Iterator[list[Example]]:
        worker = get_worker_info()
        workers, worker_id = (worker.num_workers, worker.id) if worker else (1, 0)
        reader, readers = self._process_index * workers + worker_id, self._num_processes * workers
        for epoch in count():
            for batch in self._epoch(epoch, reader, readers):
                yield [Example(Key(epoch, n * readers + reader), tokens) for n, tokens in batch]

    def _epoch(
        self, epoch: int, reader: int, readers: int
    ) -> Iterator[list[tuple[int, npt.NDArray[np.integer[Any]]]]]:
        """Batches of numbered sequences, counted by this reader alone."""
        texts = islice(texts_of(self._sources), reader, None, readers)
        first = 0
        for pieces in self._maker.sequences(text_chunks(texts)):
            if len(pieces.lengths) == 0:
                continue
            ends = np.cumsum(pieces.lengths)
            sequences = np.split(pieces.tokens, ends[:-1])
            for batch in BatchPlan(pieces.lengths, **self._plan).epoch_batches(epoch, 0):
                yield [(first + n, sequences[n]) for n in batch.tolist()]
            first += len(sequences)
        if first == 0:
            raise UserError(f"corpus: no sequence for reader {reader + 1} of {readers}")


def stream_loader(
    batches: StreamedBatches,
    collate: Callable[[Sequence[Example]], Batch],
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[list[Example]]:
    """Loads streamed batches."""
    return DataLoader(
        batches,
        batch_size=None,  # they are batches already
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=outlive_signals,
        generator=torch.Generator(),
    )


def estimate_token_counts(stream: TextStream, sequences: int = 100_000) -> Ints:
    """How often each token occurs in the first sequences of a corpus that is streamed."""
    counts = np.zeros(stream.maker.vocab_size, dtype=np.int64)
    seen = 0
    for pieces in stream.maker.sequences(text_chunks(texts_of(stream.sources))):
        counts += np.bincount(pieces.tokens, minlength=len(counts))
        seen += len(pieces.lengths)
        if seen >= sequences:
            break
    return counts


class _Padded(NamedTuple):
    tokens: Ints
    lengths: Ints
    epochs: Ints
    examples: Ints


def _pad(batch: Sequence[Example], pad_id: int) -> _Padded:
    lengths = np.array([len(example.tokens) for example in batch])
    width = -(-int(lengths.max()) // PAD_MULTIPLE) * PAD_MULTIPLE
    tokens = np.full((len(batch), width), pad_id, dtype=np.int64)
    for row, example in zip(tokens, batch, strict=True):
        row[: len(example.tokens)] = example.tokens
    epochs, examples = np.array([example.key for example in batch]).T
    return _Padded(tokens, lengths, epochs, examples)


def _batch(input_ids: Ints, labels: Ints, attended: npt.NDArray[np.bool_]) -> Batch:
    """The tensors of a batch.

    The flat indices of attended tokens are found here, on the CPU, because looking for them on a
    GPU would make the host wait for it at every step.
    """
    arrays = {
        "input_ids": input_ids,
        "attention_mask": attended.astype(np.int64),
        "labels": labels,
        "attended_rows": np.flatnonzero(attended),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class MaskingCollator:
    """Makes a masked-LM batch: pads, and hides what the masker says. Picklable and stateless."""

    def __init__(self, masker: Masker, pad_id: int) -> None:
        self._masker = masker
        self._pad_id = pad_id

    def __call__(self, batch: Sequence[Example]) -> Batch:
        """The batch of these examples, the same whenever and wherever it is made."""
        padded = _pad(batch, self._pad_id)
        masked = self._masker.mask_batch(*padded)
        attended = np.arange(padded.tokens.shape[1]) < padded.lengths[:, None]
        return _batch(masked.input_ids, masked.labels, attended)


class CausalCollator:
    """Makes a causal-LM batch: every token is a label, none is hidden. Picklable and stateless."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, batch: Sequence[Example]) -> Batch:
        """The batch of these examples; labels are not shifted."""
        tokens, lengths, _, _ = _pad(batch, self._pad_id)
        attended = np.arange(tokens.shape[1]) < lengths[:, None]
        return _batch(tokens, np.where(attended, tokens, IGNORED), attended)
