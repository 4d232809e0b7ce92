"""CoNLL's column files: a word and its tag a line, a blank line between sentences. No torch.

GermEval's TSV is such a file, too, with comments before its sentences. Columns are separated by
blanks or tabs. Whatever is not clean is refused with its line.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from angels_share.errors import UserError
from angels_share.files import explain
from angels_share.readers.columns import Columns
from angels_share.readers.text_files import read_lines
from eval_harness.tasks.registry import ColumnFiles

CONLL_ENDINGS = (".conll", ".txt")
"""Endings of column files, beside the names that a task's own files have."""
_DOCUMENT = "-DOCSTART-"
_BLANKS = re.compile(r"[ \t]+")


def read_column_file(path: Path, layout: ColumnFiles, columns: tuple[str, str]) -> Columns:
    """Read a file's sentences as two columns, of lists of words and of lists of tags.

    Args:
        path: the file: UTF-8, or else in the layout's encoding.
        layout: where word and tag stand on a line.
        columns: the names to give the columns of words and of tags.

    Raises:
        UserError: the file is missing, isn't clean, or has no sentence.
    """
    words: list[list[str]] = []
    tags: list[list[str]] = []
    starts: list[int] = []
    inside = False
    for number, fields in _rows(path, layout):
        if not fields:
            inside = False
            continue
        if not inside:
            words.append([])
            tags.append([])
            starts.append(number)
            inside = True
        words[-1].append(fields[layout.word])
        tags[-1].append(fields[layout.tag])
    if not words:
        raise UserError(f"{path}: no sentence in it")
    cells = dict(zip(columns, (words, tags), strict=True))
    return Columns(str(path), cells, starts, numbered=False, is_line_per_item=True)


def _rows(path: Path, layout: ColumnFiles) -> Iterator[tuple[int, list[str]]]:
    """Yield each word's columns, and no columns where a sentence ends."""
    needed = max(place + 1 if place >= 0 else -place for place in (layout.word, layout.tag))
    width, inside = 0, False
    for number, line in read_lines(path, _encoding_of(path, layout)):
        text = line.strip(" \t")
        is_comment = layout.has_comments and not inside and text.startswith("#")
        fields = _BLANKS.split(text) if text and not is_comment else []
        if fields and fields[0] == _DOCUMENT:
            fields = []
        if fields:
            width = width or len(fields)
            if len(fields) != width or width < max(needed, 2):
                expected = width if width >= max(needed, 2) else f"at least {max(needed, 2)}"
                count = f"{len(fields)} column{'s' if len(fields) > 1 else ''}"
                raise UserError(f"{path}:{number}: {count} instead of {expected}")
        inside = bool(fields)
        yield number, fields


def _encoding_of(path: Path, layout: ColumnFiles) -> str:
    """Return UTF-8 if that is what the file is, else what the layout says."""
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError:
        return layout.encoding
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    return "utf-8"
