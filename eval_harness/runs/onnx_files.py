"""ONNX files as models: what can be told of them without onnxruntime. Imports no torch."""

import mmap
from pathlib import Path

from angels_share.errors import UserError
from angels_share.files import explain
from eval_harness.runs.run import ONNX_SUFFIX, Model

_QUANTIZED = (b"QuantizeLinear", b"DynamicQuantize")
"""Parts of the names of operators that round to 8 bits; the second by a range found as they run."""
_WEIGHTS_APART = ("_data", ".data")


def names_onnx(name: str) -> bool:
    """Return whether a name on the command line is that of an ONNX file."""
    return name.endswith(ONNX_SUFFIX)


def checked_file(name: str) -> Path:
    """Return the path of an ONNX file whose weights are all in it.

    Raises:
        UserError: it isn't there, or isn't such a file.
    """
    path = Path(name).expanduser().resolve()
    if path.is_dir():
        raise UserError(f"{name}: is a folder named like an ONNX file: rename it")
    if not path.is_file():
        raise UserError(
            f"{name}: no such file: `python -m distil_trainer export` makes one of a model's folder"
        )
    for ending in _WEIGHTS_APART:
        if (beside := path.with_name(path.name + ending)).exists():
            raise UserError(
                f"{name}: its weights are in {beside.name}, a second file, which is not supported"
            )
    return path


def is_quantized(path: Path) -> bool:
    """Return whether an ONNX file computes with numbers of 8 bits."""
    return any(_contains(path, name) for name in _QUANTIZED)


def is_read_alone(model: Model) -> bool:
    """Return whether a model's answers depend on what shares a batch, so that nothing may.

    In a quantised file of dynamic ranges one scale is found for all numbers of a batch, padding
    included: an example's answer is its own only where it is alone, as in a browser.
    """
    return model.is_onnx and _contains(Path(model.source), _QUANTIZED[1])


def _contains(path: Path, text: bytes) -> bool:
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.find(text) >= 0
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    except ValueError as error:  # nothing to map
        raise UserError(f"{path}: is empty") from error
