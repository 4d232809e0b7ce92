"""A model as one ONNX file, in float32 or with int8 weights, and what it answers in onnxruntime."""

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from angels_share.errors import RunFailed, one_line
from angels_share.files import replacing, sha256_of_file
from angels_share.inputs import chosen, inputs_of
from angels_share.model_files import ONNX, ONNX_INT8

FLOAT32, INT8 = ONNX, ONNX_INT8
"""Where transformers.js looks for them, below a model's folder."""

_DIMENSIONS = {0: "batch", 1: "sequence"}
_EXAMPLES, _LENGTH = 2, 16


class OnnxFile(NamedTuple):
    """A file that was written."""

    path: Path
    sha256: str
    bytes: int
    seconds: float

    @classmethod
    def of(cls, path: Path, began: float) -> "OnnxFile":
        """Describe a file whose making began at a time of `time.perf_counter`."""
        took = time.perf_counter() - began
        return cls(path, sha256_of_file(path), path.stat().st_size, round(took, 1))


def write_float32(model: PreTrainedModel, path: Path) -> OnnxFile:
    """Write a model as one ONNX file that takes batches of any size and length.

    Args:
        model: a model with any head; it is left unchanged.
        path: the file, which must not exist or is replaced when the new one is whole.

    Raises:
        RunFailed: transformers' exporter can't trace this model.
    """
    began = time.perf_counter()
    model.eval()
    use_cache = getattr(model.config, "use_cache", None)
    if use_cache:
        model.config.use_cache = False  # keys and values for generation are no outputs of the file
    try:
        with _quiet():
            program = _traced(model, sample_inputs(model))
    except Exception as error:
        raise RunFailed(
            f"{type(model).__name__} can't be exported: {type(error).__name__}: {one_line(error)}"
        ) from error
    finally:
        if use_cache:
            model.config.use_cache = use_cache
    _name_dimensions(program.graph)
    import onnx_ir

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        onnx_ir.save(program, str(draft))
    return OnnxFile.of(path, began)


def _traced(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> Any:
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    made = OnnxExporter().export(model, inputs, config=OnnxConfig(dynamic=True))
    # transformers 5.17, and 5.19 still, hand out torch's program: the model is in its `model`.
    return made.program if hasattr(made, "program") else made.model


def sample_inputs(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the inputs of a small padded batch, of the fields that a model takes."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (_EXAMPLES, _LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, _LENGTH // 2 :] = 0
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return chosen(every, inputs_of(model))


def _name_dimensions(graph: Any) -> None:
    """Give the dimensions of inputs and outputs their usual names.

    torch names them by number, and an attention mask's batch otherwise than that of the ids.
    """
    import onnx_ir

    for value in (*graph.inputs, *graph.outputs):
        value.shape = onnx_ir.Shape(
            [
                size if isinstance(size, int) else _DIMENSIONS.get(axis, f"axis_{axis}")
                for axis, size in enumerate(value.shape)
            ]
        )


def write_int8(source: Path, path: Path) -> OnnxFile:
    """Write an ONNX file with weights of 8 bits; what flows through it is rounded as it comes.

    Each column of a weight has a scale of its own. Seven of the eight bits are used, since
    processors without VNNI add up products of two bytes in 16 bits, which overflow.

    Args:
        source: the float32 file.
        path: the file to write.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    began = time.perf_counter()
    model = onnx.load(str(source))
    # Shapes of transposed weights that the exporter left are those of before.
    weights = {each.name for each in model.graph.initializer}
    others = [each for each in model.graph.value_info if each.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(others)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, _quiet():
        quantize_dynamic(
            model, str(draft), per_channel=True, reduce_range=True, weight_type=QuantType.QInt8
        )
    return OnnxFile.of(path, began)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what exporter and quantizer print: progress, versions, operators we don't use."""
    names = ("transformers", "torch.onnx", "torch.export", "onnxscript", "onnx_ir", "root")
    loggers = [logging.getLogger(None if name == "root" else name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
