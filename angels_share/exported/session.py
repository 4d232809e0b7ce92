"""An ONNX file in onnxruntime, whose packages are an extra. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angels_share.errors import RunFailed, UserError, one_line
from angels_share.imports import require_extra

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What the extra `export` installs, by the names that are imported."""

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class OnnxSession:
    """An ONNX file of a text model in onnxruntime, on the CPU.

    Attributes:
        outputs: the shape of each output by its name, with names for what varies.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        """Open a file.

        Args:
            path: the file.
            threads: threads of one operation [as many as there are cores].

        Raises:
            UserError: onnxruntime isn't installed, can't open the file, or the file takes other
                inputs than a text's.
        """
        require_extra("onnxruntime", "export", f"{path.name}")
        import onnxruntime

        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # a damaged file gives errors of many types
            raise UserError(f"{path}: onnxruntime can't open it: {one_line(error)}") from error
        self._inputs = [each.name for each in self._session.get_inputs()]
        self.outputs: dict[str, Any] = {
            each.name: each.shape for each in self._session.get_outputs()
        }
        if others := sorted({*self._inputs} - {*_INPUTS}):
            raise UserError(f"{path}: takes {others[0]}, which a text doesn't have")

    def run(self, batch: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        """Return the outputs of a batch by their names; fields that the file doesn't take are left.

        Args:
            batch: integers by the name of the input; token types are 0 where they aren't given.

        Raises:
            RunFailed: onnxruntime can't compute them.
        """
        feed = {name: np.asarray(batch[name], np.int64) for name in self._inputs if name in batch}
        # Texts without a second part have no types, and the file has no default for them.
        feed |= {name: 0 * feed["input_ids"] for name in self._inputs if name not in feed}
        try:
            found = self._session.run(None, feed)
        except Exception as error:
            raise RunFailed(f"{self._path}: onnxruntime: {one_line(error)}") from error
        return dict(zip(self.outputs, found, strict=True))
