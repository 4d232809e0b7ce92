"""Checksums of a prepared corpus: one for every few sequences, checked when those are first read.

So a start reads no more than it needs, however large the corpus is, and nothing is used unchecked.
A process that finds damage leaves a note in the folder: the next start prepares the corpus anew.
Checksums show damage, not intent.
"""

import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from angels_share.errors import RunFailed
from angels_share.files import sha256_of_file, write_atomically, write_json
from distil_trainer.data.masking import AnyInts

FILE = "checksums.json"
ROWS = 128
"""Sequences per checksum: what the first use of any of them reads, some 100 KB."""

_NOTE = "damaged.txt"


class DamagedCorpus(RunFailed):
    """A part of a prepared corpus isn't what was written."""


@dataclass(frozen=True)
class BatchSums:
    """The checksums of a record batch: of its offsets, and of the tokens of each `ROWS` rows."""

    offsets: int
    tokens: Sequence[int]


@dataclass(frozen=True)
class SplitSums:
    """The checksums of a split's file."""

    rows: int
    batches: Sequence[BatchSums]


def batch_sums(offsets: AnyInts, tokens: AnyInts) -> BatchSums:
    """Return the checksums of a record batch."""
    pieces = range(-(-(len(offsets) - 1) // ROWS))
    return BatchSums(sum_of(offsets), [piece_sum(offsets, tokens, piece) for piece in pieces])


def piece_sum(offsets: AnyInts, tokens: AnyInts, piece: int) -> int:
    """Return the checksum of the tokens of one piece of a record batch.

    Args:
        offsets: where each of the batch's rows begins, and the end.
        tokens: all tokens of the batch.
        piece: the number of the piece, which has `ROWS` rows.
    """
    last = min((piece + 1) * ROWS, len(offsets) - 1)
    return sum_of(tokens[offsets[piece * ROWS] : offsets[last]])


def sum_of(values: AnyInts) -> int:
    """Return the checksum of an array: of its type and its content."""
    return zlib.crc32(np.ascontiguousarray(values).data, zlib.crc32(values.dtype.str.encode()))


def write(folder: Path, splits: dict[str, SplitSums], others: Sequence[str]) -> None:
    """Write the checksums of a corpus.

    Args:
        folder: the corpus.
        splits: the checksums of the splits' files, by name.
        others: the names of the files that are read as a whole.
    """
    record = {
        "rows": ROWS,
        "files": {name: sha256_of_file(folder / name) for name in others},
        "splits": {
            name: {
                "rows": split.rows,
                "batches": [[batch.offsets, *batch.tokens] for batch in split.batches],
            }
            for name, split in splits.items()
        },
    }
    write_json(folder / FILE, record)


def of_split(file: Path) -> SplitSums | None:
    """Return the checksums of a split's file; None if its corpus was prepared without.

    Raises:
        DamagedCorpus: they can't be read.
    """
    record = _read(file.parent)
    if record is None:
        return None
    try:
        split = record["splits"][file.name]
        batches = [BatchSums(int(first), rest) for first, *rest in split["batches"]]
        return SplitSums(int(split["rows"]), batches)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise damaged(file.parent / FILE) from error


def check_files(folder: Path) -> None:
    """Check the files that are read as a whole.

    Raises:
        DamagedCorpus: one isn't what was written, or damage was found earlier.
    """
    if (folder / _NOTE).exists():
        raise DamagedCorpus((folder / _NOTE).read_text("utf-8").strip() or f"{folder} is damaged")
    if (record := _read(folder)) is None:
        return
    try:
        for name, sha256 in record["files"].items():
            if sha256_of_file(folder / name) != sha256:
                raise damaged(folder / name)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise damaged(folder / FILE) from error


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((folder / FILE).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise damaged(folder / FILE) from error
    if not isinstance(record, dict) or record.get("rows") != ROWS:
        raise damaged(folder / FILE)
    return record


def damaged(file: Path, part: str = "it is", reason: str = "") -> DamagedCorpus:
    """Return the error for a damaged file, and note in its folder that it must be made again.

    Args:
        file: the damaged file.
        part: what of it is damaged, with a verb.
        reason: what a reader said; none for a wrong checksum.
    """
    why = " ".join(reason.split()) or "its checksum is wrong"
    what = f"{file}: {part} damaged ({why})"
    advice = f"delete {file.parent} and start again"
    with suppress(OSError):  # the folder may be read-only
        if (file.parent / FILE).exists():  # else it may be a folder of the user's
            write_atomically(file.parent / _NOTE, what + "\n")
            advice = "start again: the corpus is prepared anew"
    return DamagedCorpus(f"{what}; {advice}")
