"""The texts that a page ships with: rows of a file, or sentences of ours."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from angels_share.errors import UserError
from angels_share.readers.columns import TEXT_ENDING, read_columns, read_text_file
from angels_share.readers.usual_columns import OF_QUESTIONS, USUAL, usual_columns
from eval_harness.page.model import CLASSES, MASK, NUMBER, SPAN, TOKENS, ExportedModel
from eval_harness.tasks.registry import TASKS

_SENTENCES = (
    "The soup was warm, the bread was fresh, and we stayed until they closed.",
    "I waited an hour for a meal that nobody could have wanted.",
    "The second half is slow, but the ending makes up for it.",
    "Nothing in this film is new, and none of it is good.",
    "A quiet, careful book that I will read again.",
    "The train left at nine and arrived at noon.",
    "It broke on the first day, and the shop would not take it back.",
    "She plays the part with wit and warmth.",
)
_PAIRS = (
    ("A man is playing a guitar.", "A person is making music."),
    ("The shop opens at nine.", "The shop is closed all day."),
    ("Two dogs run across a field.", "Animals are outside."),
    ("How do I learn to swim?", "What is the best way to learn swimming?"),
)
_NAMES = (
    "Clara Jensen moved from Oslo to Lisbon in May.",
    "The museum in Vienna bought a painting from Northgate Ltd.",
    "Nobody had heard of the river before.",
    "Peter works for the city of Hamburg.",
)
_HIDDEN = (
    "The capital of France is {}.",
    "She put the kettle on and made a cup of {}.",
    "In winter the lake is covered with {}.",
    "He opened the {} and walked into the house.",
    "The children went to {} by bus.",
)
_QUESTIONS = (
    (
        "When does the ferry leave?",
        "The ferry to the island leaves at half past seven in the morning and returns at dusk.",
    ),
    (
        "Who built the bridge?",
        "The old bridge was built by a miller named Hanna Brandt, who wanted a short way to town.",
    ),
    ("What do the bees need?", "In autumn the bees need sugar, since their honey was taken."),
)


class Examples(NamedTuple):
    """Texts, or pairs of texts, and what the parts are called."""

    rows: Sequence[tuple[str, ...]]
    names: tuple[str, ...]
    where: str | None
    """The file that they are from; None for ours."""

    def place(self, number: int) -> str:
        """Return how a message names a row."""
        return f"{self.where}: row {number + 1}" if self.where else f"example {number + 1}"


def read_examples(path: Path, model: ExportedModel, columns: Sequence[str], limit: int) -> Examples:
    """Return the first rows of a file.

    Args:
        path: a .txt file of lines, or a file with columns.
        model: the model, whose head may need pairs.
        columns: the columns of the text; empty for the usual ones.
        limit: how many rows are taken.

    Raises:
        UserError: the file can't be read, or has no such columns.
    """
    names: tuple[str, ...] = ("text",)
    if path.suffix != TEXT_ENDING:
        names = tuple(columns) or usual_columns(path, _usual_for(model))
    elif columns:
        raise UserError(f"--text_columns names columns, and {path} has none")
    if len(names) not in _PARTS.get(model.head, (1,)):
        wanted = _WANTED.get(model.head, "one text")
        raise UserError(f"{path}: {model.name} reads {wanted} a row, not {', '.join(names)}")
    found = (
        read_text_file(path, "text") if path.suffix == TEXT_ENDING else read_columns(path, names)
    )
    rows = zip(*(found.texts(name)[:limit] for name in names), strict=True)
    return Examples(list(rows), names, path.name)


_PARTS = {CLASSES: (1, 2), NUMBER: (1, 2), SPAN: (2,)}
"""How many texts the rows of a head may have, where it isn't one."""
_WANTED = {CLASSES: "one text or two", NUMBER: "one text or two", SPAN: "a question and a context"}


def _usual_for(model: ExportedModel) -> Sequence[tuple[str, ...]]:
    if own := _columns_of_task(model):
        return [own]
    return [OF_QUESTIONS] if model.head == SPAN else USUAL


def _columns_of_task(model: ExportedModel) -> tuple[str, ...]:
    """Return the columns of the task that a model was fine-tuned for; () where it isn't known."""
    columns = next((task.columns for task in TASKS if task.name == model.task), ())
    return columns if model.head in (CLASSES, NUMBER) else ()


def our_examples(model: ExportedModel, mask: str | None) -> Examples:
    """Return texts of ours for a model's head.

    Args:
        model: the model.
        mask: its tokenizer's mask token.
    """
    if model.head == MASK:
        return Examples([(text.format(mask),) for text in _HIDDEN], ("text",), None)
    if model.head == SPAN:
        return Examples(_QUESTIONS, OF_QUESTIONS, None)
    if model.head == TOKENS:
        return Examples([(text,) for text in _NAMES], ("text",), None)
    names = _columns_of_task(model)
    if len(names) == 2:
        return Examples(_PAIRS, names, None)
    return Examples([(text,) for text in _SENTENCES], names or ("text",), None)
