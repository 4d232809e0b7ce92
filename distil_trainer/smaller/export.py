"""The work of `python -m distil_trainer export`: files, a comparison with the model, the record."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from angels_share.errors import RunFailed, UserError
from angels_share.exported.session import PACKAGES, OnnxSession
from angels_share.files import replacing, sha256_of_file
from angels_share.hub.fetch import model_folder
from angels_share.hub.locate import locate
from angels_share.imports import require_extra
from angels_share.inputs import longest_of
from angels_share.model_files import BESIDE_WEIGHTS, WEIGHTS
from angels_share.provenance import versions_of
from angels_share.student_record import (
    EXPORTED,
    RECORD,
    steps_of_files,
    steps_of_weights,
    write_steps,
)
from angels_share.tokenizing import load_tokenizer
from distil_trainer.models.loading import load_as_saved
from distil_trainer.smaller.compared import Comparison, compare, said, seeded_rows
from distil_trainer.smaller.onnx_file import (
    FLOAT32,
    INT8,
    OnnxFile,
    write_float32,
    write_int8,
)
from distil_trainer.smaller.rows import Row, labels_in, read_rows, require_padding


@dataclass(frozen=True)
class Request:
    """What is exported, and what its files must agree on.

    Attributes:
        model: folder, short name or Hub id.
        folder: where `onnx/` goes, and the config and tokenizer beside it.
        int8: whether a file with 8-bit weights is wanted as well.
        data: rows to compare on; None for seeded ones.
        text_columns: the columns of their text.
        label_column: the column of their labels, on which both are scored.
        needs_labels: whether it must be there.
        rows: how many of them at most.
        tolerance: the largest difference of a float32 file's logit.
        least_agreement: the least share of equal answers of an int8 file, on real rows.
    """

    model: str
    folder: Path
    int8: bool
    data: Path | None
    text_columns: Sequence[str]
    label_column: str
    needs_labels: bool
    rows: int
    tolerance: float
    least_agreement: float


def export(request: Request) -> Iterator[str]:
    """Write a model's files, and yield a line about each; nothing is kept that fails its check.

    Raises:
        UserError: the model, the data or a package isn't there.
        RunFailed: the model can't be exported, or a file's answers are too far from the model's.
    """
    require_extra(PACKAGES, "export", "export")
    source = model_folder(locate(request.model))
    model = load_as_saved(request.model)
    require_padding(request.model, model, load_tokenizer(request.model))
    rows, data, labels = _rows(request, model)
    own = request.folder.resolve() == source.resolve()
    if not own and (request.folder / WEIGHTS).is_file():
        raise UserError(
            f"{request.folder} holds a model of its own; choose another --output_dir, or export it"
        )
    weights = source / WEIGHTS
    of = sha256_of_file(weights) if weights.is_file() else None
    steps = _steps_that_stay(request, source, of)
    request.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=request.folder, prefix=".export-") as draft:
        made = []
        float32 = write_float32(model, Path(draft) / FLOAT32)
        found = compare(model, OnnxSession(float32.path), rows, data, labels)
        if not found.largest_difference <= request.tolerance:
            raise RunFailed(
                f"{request.model}: a logit of {FLOAT32} is off by {found.largest_difference:.2g} "
                f"on {data}, more than --tolerance {request.tolerance:g}; nothing was written"
            )
        made.append((FLOAT32, float32, found))
        if request.int8:
            int8 = write_int8(float32.path, Path(draft) / INT8)
            found = compare(model, OnnxSession(int8.path), rows, data, labels)
            _require_agreement(request, found)
            made.append((INT8, int8, found))
        if not own:
            _copy_beside(source, request.folder)
        for name, _, _ in made:
            place = request.folder / name
            place.parent.mkdir(exist_ok=True)
            (Path(draft) / name).replace(place)
        steps += [_step(request, of, *each) for each in made]
        write_steps(request.folder, steps)
    for each in made:
        yield _line(request, *each)


def _steps_that_stay(request: Request, source: Path, of: str | None) -> list[dict[str, Any]]:
    """Return the steps of the record that will be true of the folder, before the new ones.

    Raises:
        UserError: a file would stay that was exported from other weights.
    """
    written = {FLOAT32, INT8} if request.int8 else {FLOAT32}
    others = [step for step in steps_of_files(request.folder) if step["file"] not in written]
    for step in others:
        if step["what"] == EXPORTED and (step.get("from") or {}).get("sha256") != of:
            raise UserError(
                f"{request.folder / step['file']} was exported from other weights: add --quantize "
                "int8, which replaces it, or choose another --output_dir"
            )
    return [*steps_of_weights(source), *others]


def _rows(
    request: Request, model: PreTrainedModel
) -> tuple[Sequence[Row], str, Sequence[float] | None]:
    """Return the rows to compare on, their name, and their labels where they have some."""
    longest = longest_of(model)
    if request.data is None:
        return seeded_rows(model, longest), "seeded rows", None
    rows = read_rows(
        request.data,
        load_tokenizer(request.model),
        request.text_columns,
        max_length=longest,
        limit=request.rows,
    )
    labels = labels_in(
        request.data,
        request.label_column,
        model,
        limit=request.rows,
        required=request.needs_labels,
    )
    return rows, request.data.name, labels


def _require_agreement(request: Request, found: Comparison) -> None:
    """Refuse an int8 file that answers otherwise; answers to random tokens mean too little."""
    if request.data is None or found.share_of_equal_answers >= request.least_agreement:
        return
    raise RunFailed(
        f"{request.model}: {INT8} gives {found.share_of_equal_answers:.1%} of {found.data}'s "
        f"answers as the model does, fewer than --least_agreement {request.least_agreement:g}; "
        "nothing was written"
    )


def _copy_beside(source: Path, folder: Path) -> None:
    """Copy config, tokenizer and record, without which the files can't be used."""
    for name in sorted(BESIDE_WEIGHTS):
        if (source / name).is_file():
            with replacing(folder / name) as draft:
                shutil.copyfile(source / name, draft)


def _step(
    request: Request, of: str | None, name: str, file: OnnxFile, found: Comparison
) -> dict[str, Any]:
    precision = "int8" if name == INT8 else "float32"
    settings: dict[str, Any] = {
        "precision": precision,
        "format": "onnx",
        **versions_of(("torch", "transformers", *PACKAGES)),
    }
    if name == INT8:
        settings["rounding"] = "int8, a scale per column, 7 bits of range, dynamic activations"
    return {
        "what": EXPORTED,
        "file": name,
        "from": {"name": Path(request.model).name, "sha256": of},
        "sha256": file.sha256,
        "bytes": file.bytes,
        "settings": settings,
        "seconds": file.seconds,
        "compared": found.record(),
    }


def _line(request: Request, name: str, file: OnnxFile, found: Comparison) -> str:
    judged = "" if request.data is not None or name == FLOAT32 else " (random tokens: not judged)"
    judged += said(found)
    return (
        f"{request.folder / name}: {file.bytes / 1e6:.1f} MB, largest difference of a logit "
        f"{found.largest_difference:.2g}, {found.share_of_equal_answers:.1%} of answers equal on "
        f"{found.rows} rows of {found.data}{judged}; noted in {RECORD}"
    )
