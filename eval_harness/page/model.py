"""The exported model that a page is about: its files, its head, what is known about it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import sha256_of_file
from angels_share.hub.inherited import inherited
from angels_share.model_files import ONNX_INT8, WEIGHTS
from angels_share.student_record import LINEAGE, read_record
from angels_share.untrusted import refuse_code

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", ONNX_INT8)
"""What the page needs of a model's folder, in the layout that transformers.js reads."""

CLASSES, NUMBER, TOKENS, MASK, SPAN = "classes", "number", "tokens", "mask", "span"
_HEADS = {
    "ForSequenceClassification": CLASSES,
    "ForTokenClassification": TOKENS,
    "ForMaskedLM": MASK,
    "ForQuestionAnswering": SPAN,
}
_TWO_CLASSES = {"0": "LABEL_0", "1": "LABEL_1"}
"""What transformers leaves out of a config: two classes without names."""


@dataclass(frozen=True)
class ExportedModel:
    """A model with an int8 file.

    Attributes:
        folder: its folder.
        name: how the page calls it.
        head: what it answers: a class, a number, a tag per token, hidden tokens, or a span.
        architecture: the class that its config names.
        labels: the names of its classes, in the order of their ids; empty without classes.
        task: the task that it was fine-tuned for, if its config says so.
        bytes: the size of its int8 file.
        sha256: that file's hash.
        licence: its licence, if the card says it.
    """

    folder: Path
    name: str
    head: str
    architecture: str
    labels: tuple[str, ...]
    task: str | None
    bytes: int
    sha256: str
    licence: str | None


def exported_model(folder: Path, name: str) -> ExportedModel:
    """Return what a folder holds.

    Args:
        folder: the folder.
        name: how the page calls the model.

    Raises:
        UserError: a file is missing, the int8 file is of other weights, or the page has no use for
            the model's head.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; name one that `distil_trainer export` wrote into")
    for file in FILES:
        if not (folder / file).is_file():
            raise UserError(
                f"{folder}: {file} is missing: python -m distil_trainer export {folder} "
                "--quantize int8"
            )
    config = _config(folder)
    sha256 = sha256_of_file(folder / ONNX_INT8)
    _require_same_weights(folder, sha256)
    architecture = str((config.get("architectures") or ["no class"])[0])
    head = _head(folder, architecture, config)
    labels = _labels(folder, config) if head in (CLASSES, TOKENS) else ()
    task = config.get("finetuning_task")
    return ExportedModel(
        folder=folder,
        name=name,
        head=head,
        architecture=architecture,
        labels=labels,
        task=task if isinstance(task, str) else None,
        bytes=(folder / ONNX_INT8).stat().st_size,
        sha256=sha256,
        licence=inherited(folder).licence,
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not a model's config: expected an object")
    refuse_code(str(folder), config)
    return config


def _require_same_weights(folder: Path, sha256: str) -> None:
    """Refuse an int8 file that was made before the weights beside it, as far as is known."""
    made = [each for each in read_record(folder).get(LINEAGE, []) if each.get("sha256") == sha256]
    origin = made[-1].get("from") if made else None
    weights = folder / WEIGHTS
    of = origin.get("sha256") if isinstance(origin, Mapping) else None
    if of and weights.is_file() and of != sha256_of_file(weights):
        raise UserError(
            f"{folder}: {ONNX_INT8} was exported from other weights than {WEIGHTS} has now: "
            f"python -m distil_trainer export {folder} --quantize int8"
        )


def _head(folder: Path, architecture: str, config: Mapping[str, Any]) -> str:
    ending = next((ending for ending in _HEADS if architecture.endswith(ending)), None)
    if ending is None:
        raise UserError(
            f"{folder}: a page can't show what {architecture} answers; it can for classes that "
            f"end in {', '.join(_HEADS)}"
        )
    head = _HEADS[ending]
    problem = config.get("problem_type")
    if head == CLASSES and problem == "multi_label_classification":
        raise UserError(f"{folder}: several labels at once: a page shows one class a text")
    classes = config.get("id2label") or _TWO_CLASSES
    if head == CLASSES and (problem == "regression" or len(classes) == 1):
        return NUMBER
    return head


def _labels(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    found = config.get("id2label") or _TWO_CLASSES
    try:
        names = {int(number): str(name) for number, name in found.items()}
        return tuple(names[number] for number in range(len(names)))
    except (AttributeError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: config.json's id2label does not name every class") from error
