"""Prepared corpora: text that is tokenized and cleaned once, stored on disk and memory-mapped.

`prepare_corpus` tokenizes, cuts, cleans and writes; `Corpus.open` maps the result into memory. The
folder is named after a fingerprint of everything that its content depends on, so the same text is
never tokenized twice, and changed text, tokenizer or options never reuse an old folder.

Tokenizing runs on all cores: the tokenizers' own threads were measured to be as fast as a pool of
processes, and start no second copy of the caller's program. RAYON_NUM_THREADS limits them.
"""

import hashlib
import io
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, is_path_error, locked, replace_folder, sync
from angels_share.imports import needed
from distil_trainer.data import checksums
from distil_trainer.data.checksums import BatchSums, DamagedCorpus, SplitSums, batch_sums
from distil_trainer.data.masking import AnyInts, Draw, uniform
from distil_trainer.data.sources import Source, find_sources, text_chunks, with_progress

_FORMAT = 1
_REPORT = "corpus.json"
_COUNTS = "token_counts.npy"
# Every record batch but the last has this many sequences, so division finds a sequence's batch.
_ROWS_PER_BATCH = 8192

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusOptions:
    """Options for cutting and cleaning texts; each is part of the fingerprint.

    Attributes:
        text_column: column of .jsonl, .csv, .parquet and Hub data that holds the text.
        max_length: maximum sequence length in tokens, special ones included; longer texts are cut.
        min_tokens: minimum sequence length in tokens, special ones included; shorter sequences are
            dropped.
        max_unknown: sequences are dropped if this share of their tokens, or more, is unknown.
        validation_fraction: share of sequences held out for validation.
        seed: decides which sequences are held out.
    """

    text_column: str = "text"
    max_length: int = 512
    min_tokens: int = 12
    max_unknown: float = 0.5
    validation_fraction: float = 0.005
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.min_tokens <= self.max_length:
            raise UserError(f"min_tokens {self.min_tokens}: must lie in 1..{self.max_length}")
        if not 0 < self.max_unknown <= 1:
            raise UserError(f"max_unknown {self.max_unknown}: must be above 0 and at most 1")
        if not 0 <= self.validation_fraction <= 0.5:
            raise UserError(f"validation_fraction {self.validation_fraction}: must lie in 0..0.5")


class TokenSequences:
    """Token sequences in an Arrow file, mapped into memory; `sequences[i]` copies nothing.

    Only the path is pickled: each worker process maps the file itself, and all share its pages.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._batches: dict[int, tuple[AnyInts, AnyInts]] = {}
        self._checked: dict[int, npt.NDArray[np.bool_]] = {}
        self._sums = checksums.of_split(file)
        pa = _arrow()
        try:
            self._reader: Any = pa.ipc.open_file(pa.memory_map(str(file)))
            batches = int(self._reader.num_record_batches)
            rows = self._reader.get_batch(batches - 1).num_rows if batches else _ROWS_PER_BATCH
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the system's, not Arrow's
            raise checksums.damaged(file, reason=str(error)) from error
        self._rows = (batches - 1) * _ROWS_PER_BATCH + int(rows)
        if self._sums and (self._rows, batches) != (self._sums.rows, len(self._sums.batches)):
            raise checksums.damaged(file, reason=f"{self._rows} of {self._sums.rows} sequences")

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> AnyInts:
        """Return the ids of one sequence, special tokens included, read-only."""
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        batch, row = divmod(int(index), _ROWS_PER_BATCH)
        offsets, tokens = self._batch(batch)
        if self._sums and not self._checked[batch][row // checksums.ROWS]:
            self._check(batch, row // checksums.ROWS)
        return tokens[offsets[row] : offsets[row + 1]]

    def __reduce__(self) -> tuple[type["TokenSequences"], tuple[Path]]:
        return TokenSequences, (self._file,)

    @cached_property
    def lengths(self) -> AnyInts:
        """The number of tokens in each sequence, special ones included."""
        batches = range(self._reader.num_record_batches)
        lengths = [np.diff(self._batch(number)[0]) for number in batches]
        return np.concatenate(lengths) if lengths else np.empty(0, dtype=np.int32)

    def pieces(self) -> Iterator["Pieces"]:
        """Yield all sequences in order, a record batch at a time."""
        for number in range(self._reader.num_record_batches):
            offsets, tokens = self._batch(number)
            if self._sums:
                for piece in np.flatnonzero(~self._checked[number]):
                    self._check(number, int(piece))
            yield Pieces(tokens, np.diff(offsets))

    def _batch(self, number: int) -> tuple[AnyInts, AnyInts]:
        """Return a record batch's offsets, checked, and tokens, not yet checked; decode it once."""
        if number not in self._batches:
            pa = _arrow()
            try:
                column = self._reader.get_batch(number).column(0)
                offsets, tokens = column.offsets.to_numpy(), column.values.to_numpy()
            except (pa.ArrowException, OSError, ValueError) as error:
                raise checksums.damaged(self._file, reason=str(error)) from error
            if self._sums:
                sums = self._sums.batches[number]
                if checksums.sum_of(offsets) != sums.offsets or offsets[-1] > len(tokens):
                    raise checksums.damaged(self._file)
                self._checked[number] = np.zeros(len(sums.tokens), dtype=np.bool_)
            self._batches[number] = offsets, tokens
        return self._batches[number]

    def _check(self, number: int, piece: int) -> None:
        """Check the tokens of a few sequences, before any of them is used."""
        assert self._sums is not None
        if (
            checksums.piece_sum(*self._batches[number], piece)
            != (self._sums.batches[number].tokens[piece])
        ):
            first = number * _ROWS_PER_BATCH + piece * checksums.ROWS
            last = min(first + checksums.ROWS, (number + 1) * _ROWS_PER_BATCH, len(self)) - 1
            raise checksums.damaged(self._file, f"sequences {first} to {last} are")
        self._checked[number][piece] = True


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus.

    Attributes:
        folder: where it is stored.
        train: the training split.
        validation: the held-out split.
        token_counts: how often each token of the vocabulary occurs in `train`.
        report: numbers of sequences and tokens, what was dropped and why, sources, options,
            versions.
    """

    folder: Path
    train: TokenSequences
    validation: TokenSequences
    token_counts: npt.NDArray[np.int64]
    report: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Hash of the text, the tokenizer and the options."""
        return str(self.report["fingerprint"])

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Open what `prepare_corpus` wrote; sequences are checked when they are first read.

        Raises:
            UserError: the folder holds no prepared corpus, or a damaged one.
        """
        folder = Path(folder)
        try:
            return cls._open(folder)
        except (OSError, ValueError, RecursionError, DamagedCorpus) as error:
            raise UserError(f"{folder}: not a prepared corpus ({error}); delete it") from error

    @classmethod
    def _open(cls, folder: Path) -> "Corpus":
        """Open a folder; raise an OSError, a ValueError or DamagedCorpus if it is damaged."""
        checksums.check_files(folder)
        report = json.loads((folder / _REPORT).read_text("utf-8"))
        if not (folder / checksums.FILE).exists():
            if "checksums" in report:
                raise checksums.damaged(folder / checksums.FILE, reason="it is missing")
            _warn_of_no_checksums(folder)
        return cls(
            folder=folder,
            train=TokenSequences(folder / "train.arrow"),
            validation=TokenSequences(folder / "validation.arrow"),
            token_counts=np.load(folder / _COUNTS),
            report=report,
        )


@cache
def _warn_of_no_checksums(folder: Path) -> None:
    _logger.warning(
        "%s: prepared by an earlier version, without checksums: damage would not be seen; "
        "delete the folder to have it prepared again",
        folder,
    )


def prepare_corpus(
    sources: Sequence[str],
    tokenizer: Any,
    *,
    cache_dir: str | Path,
    options: CorpusOptions | None = None,
    streaming: bool = False,
    causal: bool | None = None,
) -> Corpus:
    """Tokenize, clean and write a corpus, or open it if that was done before.

    Memory use doesn't grow with the corpus. A folder is complete or absent: it is written under
    another name, flushed to disk, then renamed. A damaged one is written again. Several processes
    may call this at once: one works, the others wait.

    Args:
        sources: files, folders, globs and Hub data sets, see `find_sources`.
        tokenizer: a fast transformers tokenizer.
        cache_dir: the corpus is stored in `<cache_dir>/<fingerprint>`.
        options: how texts are cut and cleaned.
        streaming: read Hub data sets over the network instead of downloading them first.
        causal: whether the text is for a causal model, whose sequences then stand between the
            tokenizer's tokens of begin and end; None if it is where the tokenizer has no mask
            token.

    Raises:
        UserError: a text can't be read, nothing is left after cleaning, or the folder can't be
            written.
        RunFailed: the disk is full.
    """
    _arrow()  # before any text is read
    options = options or CorpusOptions()
    found = find_sources(sources, text_column=options.text_column, streaming=streaming)
    maker = SequenceMaker(tokenizer, options, causal=causal)
    recipe = _recipe(found, tokenizer, maker)
    fingerprint = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(cache_dir) / fingerprint
    try:
        if (corpus := _usable(folder)) is None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder.with_name(f"{folder.name}.lock")):
                # Another process may have written it meanwhile.
                if (corpus := _usable(folder, warn=True)) is None:
                    _write_corpus(folder, found, maker, recipe)
    except OSError as error:
        failure = UserError if is_path_error(error) else RunFailed
        raise failure(f"{folder}: cannot write: {explain(error)}") from error
    return corpus or Corpus.open(folder)


def _usable(folder: Path, *, warn: bool = False) -> Corpus | None:
    """Return the corpus in a folder; None, perhaps with a warning, if it must be written."""
    if not folder.exists():
        return None
    try:
        corpus = Corpus._open(folder)
        for split in (corpus.train, corpus.validation):
            split.lengths.sum()  # read first by whoever trains; damage here can still be mended
    except (FileNotFoundError, ValueError, DamagedCorpus) as error:
        if warn:
            reason = " ".join(str(error).split())
            _logger.warning("%s cannot be used (%s); preparing it again", folder, reason)
        return None
    return corpus


def _arrow() -> Any:
    """Return pyarrow, which only corpora on disk need."""
    return needed("pyarrow", "a prepared corpus")


class Pieces(NamedTuple):
    """Token sequences, concatenated, and the length of each."""

    tokens: AnyInts
    lengths: AnyInts

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Pieces":
        """Return the chosen sequences only."""
        return Pieces(self.tokens[np.repeat(chosen, self.lengths)], self.lengths[chosen])


class SequenceMaker:
    """Maker of clean token sequences from texts; `tally` counts texts, cuts and reasons to drop."""

    def __init__(
        self, tokenizer: Any, options: CorpusOptions, *, causal: bool | None = None
    ) -> None:
        """Find the tokens that each sequence begins and ends with; see `prepare_corpus`."""
        self._backend = _plain_backend(tokenizer)
        if causal is None:
            causal = tokenizer.mask_token_id is None
        self.added_frame = _end_of_text_frame(tokenizer, self._backend) if causal else None
        self._prefix, self._suffix = self.added_frame or _special_tokens_around(self._backend)
        self.options = options
        self._unknown_id = tokenizer.unk_token_id
        self._max_piece = options.max_length - len(self._prefix) - len(self._suffix)
        if self._max_piece < 1:
            raise UserError(
                f"max_length {options.max_length}: no room for text beside the special tokens"
            )
        # Not len(tokenizer): the ids of some tokenizers have gaps.
        self.vocab_size = 1 + max(tokenizer.get_vocab().values())
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.int32)
        self.tally: Counter[str] = Counter()

    def sequences(self, chunks: Iterable[list[str]]) -> Iterator[Pieces]:
        """Yield the clean sequences of each chunk of texts, in order."""
        # One chunk ahead: tokenizing releases the GIL while the last chunk is cleaned and used.
        with ThreadPoolExecutor(max_workers=1) as thread:
            ahead = None
            for chunk in chunks:
                following = thread.submit(
                    self._backend.encode_batch_fast, chunk, add_special_tokens=False
                )
                if ahead is not None:
                    yield self._clean(ahead.result())
                ahead = following
            if ahead is not None:
                yield self._clean(ahead.result())

    def _clean(self, encoded: Sequence[tokenizers.Encoding]) -> Pieces:
        pieces = self._cut([np.array(encoding.ids, dtype=self.dtype) for encoding in encoded])
        return self._add_special_tokens(self._drop_short_and_unknown(pieces))

    def _cut(self, texts: Sequence[AnyInts]) -> Pieces:
        """Cut texts into pieces of the maximum length; a text's last piece may be shorter."""
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        counts = -(-lengths // self._max_piece)
        blank, cut = int((counts == 0).sum()), int((counts > 1).sum())
        self.tally.update(texts=len(texts), blank=blank, cut=cut)
        piece_lengths = np.full(int(counts.sum()), self._max_piece, dtype=np.int64)
        last_lengths = lengths - (counts - 1) * self._max_piece
        has_pieces = counts > 0
        piece_lengths[np.cumsum(counts)[has_pieces] - 1] = last_lengths[has_pieces]
        return Pieces(np.concatenate(texts), piece_lengths)

    def _drop_short_and_unknown(self, pieces: Pieces) -> Pieces:
        full_lengths = pieces.lengths + len(self._prefix) + len(self._suffix)
        short = full_lengths < self.options.min_tokens
        unknown_tokens = _count_each(pieces, self._unknown_id)
        unknown = unknown_tokens >= self.options.max_unknown * full_lengths
        self.tally.update(short=int(short.sum()), unknown=int((unknown & ~short).sum()))
        return pieces.where(~short & ~unknown)

    def _add_special_tokens(self, pieces: Pieces) -> Pieces:
        ends = np.cumsum(pieces.lengths)
        bounds = np.stack([ends - pieces.lengths, ends], axis=1)
        # A piece's end is the next one's beginning: np.insert puts the suffix before the prefix.
        places = np.repeat(bounds, [len(self._prefix), len(self._suffix)], axis=1)
        specials = np.array(self._prefix + self._suffix, dtype=self.dtype)
        tokens = np.insert(pieces.tokens, places.ravel(), np.tile(specials, len(bounds)))
        return Pieces(tokens, pieces.lengths + len(specials))


def _count_each(pieces: Pieces, token: int | None) -> AnyInts:
    """Count a token's occurrences in each piece."""
    if token is None or len(pieces.lengths) == 0:
        return np.zeros(len(pieces.lengths), dtype=np.int64)
    starts = np.cumsum(pieces.lengths) - pieces.lengths
    return np.add.reduceat((pieces.tokens == token).astype(np.int64), starts)


def _plain_backend(tokenizer: Any) -> tokenizers.Tokenizer:
    """Return a copy of the tokenizer without the padding and truncation that its last use set."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UserError(
            f"{type(tokenizer).__name__}: not a fast tokenizer; use one that has a tokenizer.json"
        )
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    return backend


def _special_tokens_around(backend: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    sample = backend.encode("a")
    body = [i for i, special in enumerate(sample.special_tokens_mask) if not special]
    if not body:
        raise UserError(
            "the tokenizer gives the letter 'a' no token, so its special tokens can't be located"
        )
    return sample.ids[: body[0]], sample.ids[body[-1] + 1 :]


def _end_of_text_frame(
    tokenizer: Any, backend: tokenizers.Tokenizer
) -> tuple[list[int], list[int]] | None:
    """Return what stands before and after a causal model's text; None if the tokenizer adds both.

    GPT-2's tokenizer adds no special tokens, but the text that the model was trained on, and that
    of the original Distil* code, stands between end-of-text tokens. Llama's adds a beginning only:
    its student would never see an end.
    """
    prefix, suffix = _special_tokens_around(backend)
    end = tokenizer.eos_token_id
    if end is None or (prefix and suffix):
        return None
    begin = tokenizer.bos_token_id
    return prefix or [end if begin is None else begin], suffix or [end]


def _recipe(found: Sequence[Source], tokenizer: Any, maker: SequenceMaker) -> dict[str, Any]:
    """Return everything that the corpus depends on."""
    backend, frame = _plain_backend(tokenizer), maker.added_frame
    return {
        "format": _FORMAT,
        "sources": [source.identity for source in found],
        "tokenizer": hashlib.sha256(backend.to_str().encode()).hexdigest(),
        "unknown_id": tokenizer.unk_token_id,
        "options": asdict(maker.options),
    } | ({} if frame is None else {"frame": [list(part) for part in frame]})


def _write_corpus(
    folder: Path, found: Sequence[Source], maker: SequenceMaker, recipe: dict[str, Any]
) -> None:
    """Write a complete folder, or none; the caller holds its lock."""
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # what a killed process left behind
    draft.mkdir()
    try:
        sequences = maker.sequences(text_chunks(with_progress(found)))
        counts, sums = _write_splits(draft, sequences, maker)
        report = {"fingerprint": folder.name, **recipe, **counts, "checksums": checksums.FILE}
        report["sources"] = [{"name": s.name, "identity": s.identity} for s in found]
        report["versions"] = {"tokenizers": tokenizers.__version__, "pyarrow": _arrow().__version__}
        (draft / _REPORT).write_text(json.dumps(report, indent=2), encoding="utf-8")
        checksums.write(draft, sums, (_REPORT, _COUNTS))
        for path in (*draft.iterdir(), draft):
            sync(path)
        replace_folder(draft, folder, folder.with_name(f"{folder.name}.replaced"))
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_splits(
    folder: Path, sequences: Iterable[Pieces], maker: SequenceMaker
) -> tuple[dict[str, Any], dict[str, SplitSums]]:
    """Write both splits and the token counts; return the report's counts and the checksums."""
    fraction = maker.options.validation_fraction
    train, validation, smallest = _split(folder, sequences, maker, fraction)
    if fraction and not validation.rows and train.rows > 1:
        # So few that none was held out by chance: split again, holding out the smallest draw.
        everything = (folder / "train.arrow").rename(folder / "everything.arrow")
        again = TokenSequences(everything).pieces()
        train, validation, _ = _split(folder, again, maker, np.nextafter(smallest, 1))
        everything.unlink()
    tally = {name: maker.tally[name] for name in ("texts", "cut", "blank", "short", "unknown")}
    if not train.rows:
        raise UserError(f"corpus: no sequence is left to train on; {tally}")
    content = io.BytesIO()
    np.save(content, train.counts)  # into a file, it would hide the reason why a write failed
    (folder / _COUNTS).write_bytes(content.getbuffer())
    counts = {"train": train.summary(), "validation": validation.summary(), "tally": tally}
    return counts, {split.name: SplitSums(split.rows, split.sums) for split in (train, validation)}


def _split(
    folder: Path, sequences: Iterable[Pieces], maker: SequenceMaker, fraction: float
) -> tuple["_SplitFile", "_SplitFile", float]:
    """Write each sequence to its split, by a hash of its number; also return the smallest draw."""
    train = _SplitFile(folder / "train.arrow", maker)
    validation = _SplitFile(folder / "validation.arrow", maker)
    number, smallest = 0, 1.0
    for pieces in sequences:
        numbers = np.arange(number, number + len(pieces.lengths))
        draws = uniform(Draw.HOLD_OUT, maker.options.seed, numbers)
        train.add(pieces.where(draws >= fraction))
        validation.add(pieces.where(draws < fraction))
        number += len(numbers)
        smallest = float(draws.min(initial=smallest))
    train.close()
    validation.close()
    return train, validation, smallest


class _SplitFile:
    """Writer of a split, in record batches of equally many sequences."""

    def __init__(self, file: Path, maker: SequenceMaker) -> None:
        self.name = file.name
        self.sums: list[BatchSums] = []
        pa = _arrow()
        self._schema = pa.schema([("tokens", pa.list_(pa.from_numpy_dtype(maker.dtype)))])
        self._writer = pa.ipc.new_file(str(file), self._schema)
        self._waiting = Pieces(np.empty(0, maker.dtype), np.empty(0, np.int64))
        self.rows = 0
        self.counts = np.zeros(maker.vocab_size, dtype=np.int64)

    def summary(self) -> dict[str, int]:
        return {"sequences": self.rows, "tokens": int(self.counts.sum())}

    def add(self, pieces: Pieces) -> None:
        """Append sequences; full record batches go to disk at once."""
        self.rows += len(pieces.lengths)
        self.counts += np.bincount(pieces.tokens, minlength=len(self.counts))
        tokens = np.concatenate([self._waiting.tokens, pieces.tokens])
        lengths = np.concatenate([self._waiting.lengths, pieces.lengths])
        while len(lengths) >= _ROWS_PER_BATCH:
            size = int(lengths[:_ROWS_PER_BATCH].sum())
            self._write(Pieces(tokens[:size], lengths[:_ROWS_PER_BATCH]))
            tokens, lengths = tokens[size:], lengths[_ROWS_PER_BATCH:]
        self._waiting = Pieces(tokens, lengths)

    def close(self) -> None:
        """Write the last, smaller record batch and end the file."""
        if len(self._waiting.lengths):
            self._write(self._waiting)
        self._writer.close()

    def _write(self, pieces: Pieces) -> None:
        offsets = np.concatenate([[0], np.cumsum(pieces.lengths)]).astype(np.int32)
        self.sums.append(batch_sums(offsets, pieces.tokens))
        pa = _arrow()
        column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(pieces.tokens))
        self._writer.write_batch(pa.record_batch([column], schema=self._schema))
