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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, is_path_error, locked, replace_folder, sync
from angels_share.imports import needed
from distil_trainer.data import checksums
from distil_trainer.data.checksums import BatchSums, DamagedCorpus, SplitSums, batch_sums
from distil_trainer.data.masking import AnyInts, Draw, uniform
from distil_trainer.data.pretokenized import TokenTaker
from distil_trainer.data.sequence_maker import (
    CorpusOptions,
    Maker,
    Pieces,
    SequenceMaker,
    plain_backend,
)
from distil_trainer.data.sources import Source, find_sources, text_chunks, with_progress

_FORMAT = 1
_REPORT = "corpus.json"
_COUNTS = "token_counts.npy"
# Every record batch but the last has this many sequences, so division finds a sequence's batch.
_ROWS_PER_BATCH = 8192

_logger = logging.getLogger(__name__)


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
    pretokenized: bool = False,
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
        pretokenized: whether the sources hold token ids (`input_ids`) in place of texts; they are
            taken as they are.

    Raises:
        UserError: a text can't be read, nothing is left after cleaning, or the folder can't be
            written.
        RunFailed: the disk is full.
    """
    _arrow()  # before any text is read
    options = options or CorpusOptions()
    maker = maker_for(tokenizer, options, causal=causal, pretokenized=pretokenized)
    found = sources_for(maker, sources, streaming=streaming)
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


def maker_for(
    tokenizer: Any, options: CorpusOptions, *, causal: bool | None, pretokenized: bool
) -> Maker:
    """Return what makes sequences of texts, or takes those that another pipeline made."""
    if pretokenized:
        return TokenTaker(tokenizer, options, causal=causal)
    return SequenceMaker(tokenizer, options, causal=causal)


def sources_for(maker: Maker, names: Sequence[str], *, streaming: bool) -> list[Source]:
    """Return the sources of what a maker makes sequences of; see `find_sources`."""
    return find_sources(
        names,
        text_column=maker.options.text_column,
        streaming=streaming,
        read_tokens=maker.read if isinstance(maker, TokenTaker) else None,
    )


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


def _recipe(found: Sequence[Source], tokenizer: Any, maker: Maker) -> dict[str, Any]:
    """Return everything that the corpus depends on."""
    backend, frame = plain_backend(tokenizer), maker.added_frame
    taken = {"pretokenized": True} if isinstance(maker, TokenTaker) else {}
    return {
        "format": _FORMAT,
        "sources": [source.identity for source in found],
        "tokenizer": hashlib.sha256(backend.to_str().encode()).hexdigest(),
        "unknown_id": tokenizer.unk_token_id,
        "options": asdict(maker.options),
        **taken,
    } | ({} if frame is None else {"frame": [list(part) for part in frame]})


def _write_corpus(
    folder: Path, found: Sequence[Source], maker: Maker, recipe: dict[str, Any]
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
    folder: Path, sequences: Iterable[Pieces], maker: Maker
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
    folder: Path, sequences: Iterable[Pieces], maker: Maker, fraction: float
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

    def __init__(self, file: Path, maker: Maker) -> None:
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
