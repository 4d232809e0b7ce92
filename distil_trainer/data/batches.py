"""Batches of token sequences: how they are formed, ordered, loaded and collated.

`BatchPlan` groups examples of similar length and gives every epoch and every process the same
number of batches. `EpochBatches` samples from it, `EpochLoader` loads the examples, and a collator
turns them into tensors. Keys (epoch, example) carry the epoch, so no dataset, worker or collator
holds state that a resumed run would have to restore. `StreamedBatches` does as much of this as is
possible for a corpus that is never on disk as a whole.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from angels_share.errors import UserError
from distil_trainer.data.masking import IGNORED, AnyInts, Draw, Ints, Masker, uniform
from distil_trainer.data.rows import Columns
from distil_trainer.data.sequence_maker import Maker
from distil_trainer.data.sources import Source, part_of, text_chunks, texts_of

PAD_MULTIPLE = 8
"""Batches are padded to a multiple of this many tokens, which suits tensor cores."""

Batch = dict[str, Tensor]


class Sequences(Protocol):
    """Token sequences whose lengths are known in advance."""

    @property
    def lengths(self) -> AnyInts:
        """The number of tokens in each sequence."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> AnyInts: ...


class Key(NamedTuple):
    """One appearance of an example: the epoch and the example's number."""

    epoch: int
    example: int


class Example(NamedTuple):
    """One appearance of an example, with its tokens and their other columns, if it has any."""

    key: Key
    tokens: AnyInts
    columns: Columns | None = None


class BatchPlan:
    """Batches of examples of similar length, equally many in every epoch and for every process.

    Examples are sorted by padded length, longest first, and cut into batches. Where the cuts fall
    depends on the lengths alone; an epoch only shuffles examples of equal padded length among each
    other, and the order of the batches. So the number of batches never changes, nothing is dropped
    or repeated, and the share of padding is known before the first step.
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
        """Cut the examples into batches.

        Args:
            lengths: number of tokens in each example.
            batch_size: examples per batch; give either this or `tokens_per_batch`.
            tokens_per_batch: tokens per batch, padding included; a longer example is a batch of
                its own.
            num_processes: processes that share the batches, one batch each per step.
            seed: seed of every epoch's order.

        Raises:
            UserError: there are fewer examples than processes, or not exactly one of the two batch
                sizes was given.
        """
        sizes = [size for size in (batch_size, tokens_per_batch) if size is not None]
        if len(sizes) != 1 or sizes[0] < 1:
            raise UserError("batches: give a positive batch_size or a positive tokens_per_batch")
        tokens = np.asarray(lengths, dtype=np.int64)
        if len(tokens) < num_processes:
            raise UserError(
                f"{len(tokens)} examples for {num_processes} processes: each needs at least one"
            )
        self._widths = -(-tokens // PAD_MULTIPLE) * PAD_MULTIPLE
        self._seed = seed
        self.num_processes = num_processes
        widths = -np.sort(-self._widths)
        capacity = (
            (lambda _: batch_size) if batch_size else (lambda width: tokens_per_batch // width)
        )
        self._starts = _make_divisible(_batch_starts(widths, capacity), num_processes)
        counts = np.diff(self._starts)
        self.padding_share = 1.0 - float(tokens.sum() / (counts * widths[self._starts[:-1]]).sum())

    def __len__(self) -> int:
        """Return the number of batches per process and epoch."""
        return (len(self._starts) - 1) // self.num_processes

    def epoch_batches(self, epoch: int, process_index: int) -> Iterator[Ints]:
        """Yield the example numbers of each of a process' batches.

        At every step the processes' batches are neighbours in length, so that none of them waits
        long for another.
        """
        examples = np.arange(len(self._widths))
        draws = uniform(Draw.EXAMPLE_ORDER, self._seed, epoch, examples)
        # Widths are integers and draws fractions: longest first, and shuffled within one width.
        order = np.argsort(draws - self._widths, kind="stable")
        step_draws = uniform(Draw.STEP_ORDER, self._seed, epoch, np.arange(len(self)))
        # Steps are shuffled, not batches: the neighbours that make a step stay together.
        for batch in np.argsort(step_draws, kind="stable") * self.num_processes + process_index:
            yield order[self._starts[batch] : self._starts[batch + 1]]


def _batch_starts(widths: Ints, capacity: Callable[[int], int]) -> list[int]:
    """Return where each batch of examples, sorted by falling width, begins, and the end."""
    starts = [0]
    while starts[-1] < len(widths):
        # A batch is padded to its first example, the widest, so that one decides how many fit.
        size = max(1, capacity(int(widths[starts[-1]])))
        starts.append(min(starts[-1] + size, len(widths)))
    return starts


def _make_divisible(starts: list[int], processes: int) -> Ints:
    """Make the number of batches divisible by the number of processes: halve the largest ones.

    Where there are too few examples for that (with one per batch, say), merge the narrowest
    batches instead.
    """
    while missing := -(len(starts) - 1) % processes:
        sizes = np.diff(starts)
        if len(sizes) + missing > starts[-1]:
            starts = [*starts[:-2], starts[-1]]  # the last two: widths fall
        else:
            largest = int(np.argmax(sizes))
            half = starts[largest] + int(sizes[largest]) // 2
            starts = [*starts[: largest + 1], half, *starts[largest + 1 :]]
    return np.array(starts, dtype=np.int64)


class EpochBatches(Sampler[list[Key]]):
    """Sampler of one process' batches of keys, in the order of the epoch that was set last."""

    def __init__(self, plan: BatchPlan, process_index: int = 0) -> None:
        self._plan = plan
        self.num_processes = plan.num_processes
        self.process_index = process_index
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        for examples in self._plan.epoch_batches(epoch, self.process_index):
            yield [Key(epoch, example) for example in examples.tolist()]


class KeyedExamples(Dataset[Example]):
    """Data set whose examples are looked up by key."""

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, key: Key) -> Example:
        if (row := getattr(self._sequences, "row", None)) is not None:
            return Example(key, *row(key.example))
        return Example(key, self._sequences[key.example])


def outlive_signals(_worker: int) -> None:
    """Keep a worker alive when its process group is signalled, until its parent stops it.

    A scheduler's SIGTERM and a terminal's SIGINT reach the workers too, and without workers the
    parent could not finish its step and save. SIGTERM can't simply be ignored: Python's exit sends
    it to the workers of an unfinished loader, and waits until they have ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "linux":  # sigwaitinfo, which names the sender, is missing on macOS, Windows
        return
    # Blocked before the thread starts, which inherits this: only sigwaitinfo then sees SIGTERM.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_on_sigterm_of_parent, daemon=True).start()


def _exit_on_sigterm_of_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


T = TypeVar("T")


class SignalProofLoader(DataLoader[T]):
    """DataLoader whose workers outlive signals to the process group."""

    def _get_iterator(self) -> Any:
        """Start the workers with SIGTERM blocked.

        Libraries may start threads in a forked child before the worker's own first line (Arrow's
        pools do), and a signal is delivered to any thread that doesn't block it. Blocked here, it
        is blocked in all of them.
        """
        if sys.platform != "linux":
            return super()._get_iterator()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return super()._get_iterator()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class EpochLoader(SignalProofLoader[Example]):
    """DataLoader of one process' share of a plan, epoch after epoch.

    Its batches are sharded already: don't pass it to accelerate's `prepare`, which would shard
    them again. `set_epoch` selects the epoch; without it, as in evaluation, every pass has the same
    batches and the same masks.
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
        """Set up the loader.

        Args:
            sequences: the token sequences that the plan was made for.
            plan: the batches.
            collate: turns a batch of examples into tensors.
            process_index: the process whose share is loaded.
            num_workers: worker processes; 0 loads in this one.
            pin_memory: as in torch's DataLoader.
            persistent_workers: as in torch's DataLoader.
            prefetch_factor: batches that each worker loads ahead; ignored without workers.
        """
        super().__init__(
            KeyedExamples(sequences),
            batch_sampler=EpochBatches(plan, process_index),
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=persistent_workers,
            prefetch_factor=prefetch_factor if num_workers else None,
            worker_init_fn=outlive_signals,
            # iter() draws a seed for the workers. From the global generator, it would change a
            # resumed run's random numbers, because such a run calls iter() more often.
            generator=torch.Generator(),
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


@dataclass(frozen=True)
class TextStream:
    """A corpus that is read, tokenized and cleaned during training, and never written to disk."""

    sources: Sequence[Source]
    maker: Maker


class StreamedBatches(IterableDataset[list[Example]]):
    """Endless batches of one process' part of a corpus that is too large to be prepared.

    Each worker of each process is a reader with a part of the corpus of its own (`part_of`): of R
    readers, reader r tokenizes the files' texts r, r + R, r + 2R and so on. Batches are formed and
    shuffled within a chunk of about a million characters. The number of batches isn't known in
    advance, so a run must be given a number of steps.
    """

    def __init__(
        self,
        stream: TextStream,
        *,
        process_index: int = 0,
        num_processes: int = 1,
        **plan: Any,
    ) -> None:
        """Set up one process' part.

        Args:
            stream: the corpus.
            process_index: this process' number.
            num_processes: processes that share the corpus.
            **plan: keyword arguments of `BatchPlan` that size and seed the batches.
        """
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
                # Interleaved, examples' numbers (and so their masks) are unique among readers.
                yield [Example(Key(epoch, n * readers + reader), tokens) for n, tokens in batch]

    def _epoch(self, epoch: int, reader: int, readers: int) -> Iterator[list[tuple[int, AnyInts]]]:
        """Yield batches of sequences with their numbers among this reader's sequences."""
        texts = part_of(self._sources, reader, readers)
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
    batches: IterableDataset[list[Example]],
    collate: Callable[[Sequence[Example]], Batch],
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
    prefetch_factor: int | None = None,
) -> DataLoader[list[Example]]:
    """Return a DataLoader of streamed batches, whose stream never ends, or is read once.

    Args:
        batches: one process' batches.
        collate: turns a batch of examples into tensors.
        num_workers: worker processes; 0 loads in this one.
        pin_memory: as in torch's DataLoader.
        prefetch_factor: as in torch's DataLoader.
    """
    return SignalProofLoader(
        batches,
        batch_size=None,  # they are batches already
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=prefetch_factor,
        worker_init_fn=outlive_signals,
        generator=torch.Generator(),
    )


def estimate_token_counts(stream: TextStream, sequences: int = 100_000) -> Ints:
    """Count each token's occurrences in (at least) the first sequences of a streamed corpus."""
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


def _pad(batch: Sequence[Example], pad_id: int, max_width: int | None) -> _Padded:
    lengths = np.array([len(example.tokens) for example in batch])
    width = -(-int(lengths.max()) // PAD_MULTIPLE) * PAD_MULTIPLE
    if max_width is not None:  # a model's table of positions, which need not be such a multiple
        width = max(min(width, max_width), int(lengths.max()))
    tokens = np.full((len(batch), width), pad_id, dtype=np.int64)
    for row, example in zip(tokens, batch, strict=True):
        row[: len(example.tokens)] = example.tokens
    epochs, examples = np.array([example.key for example in batch]).T
    return _Padded(tokens, lengths, epochs, examples)


def _column(batch: Sequence[Example], name: str, otherwise: Ints) -> Ints | None:
    """Return a column as wide as `otherwise`, which holds for rows without it.

    None if no row has it.
    """
    if not any(example.columns and name in example.columns for example in batch):
        return None
    padded = otherwise.copy()
    for row, (_, tokens, columns) in zip(padded, batch, strict=True):
        if columns and name in columns:
            row[: len(tokens)] = columns[name]
    return padded


def _has(batch: Sequence[Example], name: str) -> npt.NDArray[np.bool_]:
    """Return a column of booleans: whether each row has this column."""
    return np.array([[bool(each.columns) and name in (each.columns or ())] for each in batch])


def _as_tensors(
    input_ids: Ints,
    labels: Ints,
    attended: npt.NDArray[np.bool_],
    token_types: Ints | None = None,
) -> Batch:
    """Return a batch's tensors.

    The flat indices of attended tokens are computed here, on the CPU: on a GPU, their unknown
    number would make the host wait for it at every step.
    """
    arrays = {
        "input_ids": input_ids,
        "attention_mask": attended.astype(np.int64),
        "labels": labels,
        "attended_rows": np.flatnonzero(attended),
    }
    if token_types is not None:
        arrays["token_type_ids"] = token_types
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class MaskingCollator:
    """Collator of masked-LM batches: pads, and masks tokens. Picklable and stateless."""

    def __init__(self, masker: Masker, pad_id: int, max_width: int | None = None) -> None:
        """Set up the collator.

        Args:
            masker: chooses and masks the targets.
            pad_id: the padding token's id.
            max_width: batches are padded to this many tokens at most.
        """
        self._masker = masker
        self._pad_id = pad_id
        self._max_width = max_width

    def __call__(self, batch: Sequence[Example]) -> Batch:
        """Return the batch of these examples: always the same, in any worker or resumed run."""
        padded = _pad(batch, self._pad_id, self._max_width)
        nothing = np.zeros_like(padded.tokens)
        special = _column(batch, "special_tokens_mask", nothing)
        ids, labels = self._masker.mask_batch(*padded, excluded=special)
        given = _column(batch, "labels", np.full_like(labels, IGNORED))
        if given is not None:  # masked beforehand
            done = _has(batch, "labels")
            ids, labels = np.where(done, padded.tokens, ids), np.where(done, given, labels)
        attended = np.arange(padded.tokens.shape[1]) < padded.lengths[:, None]
        return _as_tensors(ids, labels, attended, _column(batch, "token_type_ids", nothing))


class CausalCollator:
    """Collator of causal-LM batches: every token is a label, unless the data set says otherwise.

    Picklable and stateless.
    """

    def __init__(self, pad_id: int, max_width: int | None = None) -> None:
        """Set up the collator; see `MaskingCollator`."""
        self._pad_id = pad_id
        self._max_width = max_width

    def __call__(self, batch: Sequence[Example]) -> Batch:
        """Return the batch of these examples; its labels are not shifted."""
        tokens, lengths, _, _ = _pad(batch, self._pad_id, self._max_width)
        attended = np.arange(tokens.shape[1]) < lengths[:, None]
        every = np.where(attended, tokens, IGNORED)
        labels = _column(batch, "labels", every)
        types = _column(batch, "token_type_ids", np.zeros_like(tokens))
        return _as_tensors(tokens, every if labels is None else labels, attended, types)
