"""The columns of a file's text, where its user names none. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from angels_share.errors import UserError
from angels_share.readers.columns import column_names

OF_QUESTIONS = ("question", "context")
"""The columns of questions that a text answers."""
USUAL = (
    ("text",), ("sentence",), ("sentence1", "sentence2"), ("premise", "hypothesis"),
    ("question1", "question2"), OF_QUESTIONS, ("question", "sentence"),
)  # fmt: skip
"""What the column of a text, or the two of a pair, are called in most files."""


def usual_columns(path: Path, usual: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the first of these columns that a file has.

    Args:
        path: a file with columns.
        usual: a column, or those of a pair, in the order in which they are looked for.

    Raises:
        UserError: the file has none of them, or can't be read.
    """
    present = column_names(path)
    for names in usual:
        if all(name in present for name in names):
            return names
    raise UserError(
        f"{path}: name the columns of its text with --text_columns; it has {', '.join(present)}"
    )
