"""The bench of ONNX files: times a model in onnxruntime as `bench` times it in torch."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import tqdm
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from angels_share.exported.session import OnnxSession
from angels_share.imports import resolve
from angels_share.tokenizing import load_tokenizer
from eval_harness.runs.models import max_tokens_of
from eval_harness.speed.bench import (
    Bench,
    check_config,
    new_model,
    parameters_of,
    reset_high_water,
    resident,
    trim_heap,
)
from eval_harness.speed.request import ONNX_INT8_BACKEND, TASK
from eval_harness.training.model_loading import LoadedModel, config_for, padding_of
from eval_harness.training.onnx_model import LoadedFile, OnnxModel
from eval_harness.training.provenance import provenance_on

# By their names, as all that one package needs of the other.
_FLOAT32 = "distil_trainer.smaller.onnx_file:write_float32"
_INT8 = "distil_trainer.smaller.onnx_file:write_int8"


class OnnxBench(Bench):
    """An ONNX file with the batches that it is timed on: it has the head that it was made with.

    Args:
        request: the file, or a config to make one of, and its inputs.
    """

    def facts(self) -> dict[str, Any]:
        """Return the sizes of the model and the provenance of its times."""
        is_int8 = self._request.backend == ONNX_INT8_BACKEND
        return {
            **self._counts,
            "file_bytes": self._path.stat().st_size,
            "file_dtype": "int8" if is_int8 else "float32",
            "peak_bytes": self._peak,
            "provenance": provenance_on(self._device, onnx=True),
        }

    def warm(self, threads: int) -> None:
        """Open the file for a number of threads, and run a batch of every shape."""
        self._model = self._opened(threads)
        super().warm(threads)

    def _load(self, tokenizer: Any) -> LoadedModel:
        assert self._request.onnx is not None
        self._path = Path(self._request.onnx)
        loaded = self._written() if self._request.model is None else self._found(tokenizer)
        self._config = loaded.model.config
        self._counts = {
            "parameters": parameters_of(loaded.model.base_model),
            "with_head": parameters_of(loaded.model),
        }
        positions, pad_id = loaded.max_tokens, loaded.pad_id
        del loaded  # of the memory that is measured nothing is a torch model's
        import onnxruntime  # noqa: F401  (before the memory is measured)

        trim_heap()
        self._before = reset_high_water()
        return LoadedFile(self._opened(1), (), pad_id, positions=positions)

    def _opened(self, threads: int) -> OnnxModel:
        session = OnnxSession(self._path, threads=threads)
        return OnnxModel(session, self._config, read_alone=False)

    def _found(self, tokenizer: Any) -> LoadedModel:
        """Return the model beside the file without its weights, for sizes and limits."""
        model = self._request.model
        assert model is not None
        config = config_for(model, TASK)
        tokenizer = tokenizer or load_tokenizer(model.home, model.revision)
        pad_id = padding_of(model, TASK, config, tokenizer)
        check_config(self._request.name, config)
        with torch.device("meta"):
            empty = AutoModelForSequenceClassification.from_config(config)
        return LoadedFile(empty, (), pad_id, positions=max_tokens_of(model))

    def _written(self) -> LoadedModel:
        """Export a model of random weights to the place that the request names."""
        # The lock of the exporter's bars is made for several processes, and outlives one that is
        # ended from outside, as this one is.
        tqdm.tqdm.set_lock(threading.RLock())
        loaded = new_model(self._request)
        is_int8 = self._request.backend == ONNX_INT8_BACKEND
        float32 = self._path.parent / "float32.onnx" if is_int8 else self._path
        resolve(_FLOAT32)(loaded.model, float32)
        if is_int8:
            resolve(_INT8)(float32, self._path)
            float32.unlink()
        return loaded

    @torch.inference_mode()
    def _seconds(self, batch: Mapping[str, Tensor]) -> float:
        start = time.perf_counter()
        self._model(**batch)
        return time.perf_counter() - start

    def _peak_memory(self) -> int | None:
        """Return the bytes that the opened file takes, and the most beyond at batch size 1."""
        self._warm(1)
        trim_heap()
        if self._before is None or reset_high_water() is None:
            return None
        self._warm(1)
        return resident("VmHWM") - self._before
