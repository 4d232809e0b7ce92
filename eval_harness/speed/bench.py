"""The bench: loads a model, warms it up and times it. Runs in a process of its own."""

import ctypes
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
)

from angels_share.errors import UserError
from angels_share.inputs import chosen, inputs_of
from angels_share.model_files import INDEX, WEIGHTS, weights_in
from angels_share.names import nearest
from angels_share.tokenizing import load_tokenizer
from angels_share.untrusted import refuse_code, refuse_unknown_fields
from eval_harness.data.token_rows import TokenRows
from eval_harness.runs.models import folder_of
from eval_harness.runs.run import Model
from eval_harness.speed.request import SEED, TASK, Request
from eval_harness.training.encoding import Collator, by_length, encode
from eval_harness.training.model_loading import LoadedModel, load_for_task
from eval_harness.training.provenance import provenance_on

_Batch = Mapping[str, Tensor]
_HEAD_FIELDS = ("num_labels", "id2label", "label2id", "problem_type")
_HIGH_WATER = Path("/proc/self/clear_refs")


class Bench:
    """A model with STS-B's head and the batches that it is timed on.

    A batch is timed from its token ids to its scores, both in the CPU's memory: tokenization is
    not included, but on a GPU the transfers are. At batch size 1 there is no padding.

    Args:
        request: the model and its inputs.

    Raises:
        UserError: the model can't be loaded, or can't process the pairs.
    """

    def __init__(self, request: Request) -> None:
        if request.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no GPU here")
        self._request, self._device = request, torch.device(request.device)
        tokenizer = load_tokenizer(*request.tokenizer) if request.tokenizer else None
        rows = request.texts and encode(request.texts, tokenizer, request.max_seq_length)
        loaded = self._load(tokenizer)
        self._model = loaded.model
        self._batches = self._make_batches(rows or _synthetic(request.lengths, loaded), loaded)
        self._peak = self._peak_memory()
        self._waits: list[float] = []

    def facts(self) -> dict[str, Any]:
        """Return the sizes of the model and the provenance of its times."""
        files = _weight_files(self._request.model)
        return {
            "parameters": parameters_of(self._model.base_model),
            "with_head": parameters_of(self._model),
            "file_bytes": sum(path.stat().st_size for path in files) or None,
            "file_dtype": _dtype_in(files),
            "peak_bytes": self._peak,
            "provenance": provenance_on(self._device),
        }

    def warm(self, threads: int) -> None:
        """Run a batch of every shape, so that kernels' first-time work is in no time."""
        torch.set_num_threads(threads)
        for size in self._batches:
            self._warm(size)

    def timed(self, threads: int, batch_size: int) -> list[float]:
        """Make one pass over all pairs and return the seconds of each batch."""
        torch.set_num_threads(threads)
        before = _seconds_waited()
        seconds = [self._seconds(batch) for batch in self._batches[batch_size]]
        if before is not None and (after := _seconds_waited()) is not None:
            self._waits.append((after - before) / (threads * sum(seconds)))
        return seconds

    def waited(self) -> float | None:
        """Return the mean share of a pass that threads waited for a core; None if unknown."""
        return sum(self._waits) / len(self._waits) if self._waits else None

    def _load(self, tokenizer: Any) -> LoadedModel:
        request = self._request
        if request.model is None:
            loaded = new_model(request)
        else:
            tokenizer = tokenizer or load_tokenizer(request.model.source, request.model.revision)
            loaded = load_for_task(request.model, TASK, tokenizer)
            check_config(request.name, loaded.model.config)
        loaded.model.eval().to(self._device, torch.bfloat16 if request.bf16 else torch.float32)
        return loaded

    def _make_batches(self, rows: TokenRows, loaded: LoadedModel) -> dict[int, list[_Batch]]:
        """Return the batches of each size: sorted by length, except at size 1."""
        loaded.require_fits(self._request.name, "a pair", [rows])
        collate, names = Collator(loaded.pad_id), inputs_of(self._model)
        batches: dict[int, list[_Batch]] = {}
        for size in self._request.batch_sizes:
            one_by_one = ([number] for number in range(len(rows)))
            batches[size] = [
                chosen(collate([rows[int(index)] for index in indices]), names)
                for indices in (by_length(rows, size) if size > 1 else one_by_one)
            ]
        return batches

    def _warm(self, size: int) -> None:
        by_shape = {batch["input_ids"].shape: batch for batch in self._batches[size]}
        for batch in by_shape.values():
            self._seconds(batch)

    @torch.inference_mode()
    def _seconds(self, batch: _Batch) -> float:
        start = time.perf_counter()
        inputs = {name: value.to(self._device) for name, value in batch.items()}
        self._model(**inputs).logits.float().cpu()  # waits for the GPU, if there is one
        return time.perf_counter() - start

    def _peak_memory(self) -> int | None:
        """Return the bytes of the weights plus the peak above them at batch size 1.

        The first pass is not counted: it loads libraries, prepares a kernel for each shape, and
        reads weights that until then lie in a memory-mapped file.
        """
        self._warm(1)
        trim_heap()
        before = self._reset_peak()
        if before is None:
            return None
        self._warm(1)
        is_gpu = self._device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if is_gpu else resident("VmHWM")
        weights = (*self._model.parameters(), *self._model.buffers())
        weight_bytes: int = sum(weight.numel() * weight.element_size() for weight in weights)
        return weight_bytes + peak - before

    def _reset_peak(self) -> int | None:
        """Reset the peak to the memory in use and return that; None where that is impossible."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        return reset_high_water()


def reset_high_water() -> int | None:
    """Reset this process's peak to the memory in use and return that; None outside Linux."""
    try:
        _HIGH_WATER.write_text("5")
    except OSError:
        return None
    return resident("VmRSS")


def resident(field: str) -> int:
    """Return the bytes of this process in memory: now (VmRSS), or at the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def trim_heap() -> None:
    """Return freed memory to the system; otherwise reusing it would not show in the peak."""
    with suppress(OSError, AttributeError):  # only in GNU's C library
        ctypes.CDLL(None).malloc_trim(0)


def _seconds_waited() -> float | None:
    """Return how long this process's threads have waited for a core so far; None outside Linux."""
    try:
        stats = [(task / "schedstat").read_text() for task in Path("/proc/self/task").iterdir()]
    except OSError:
        return None
    return sum(int(line.split()[1]) for line in stats) / 1e9  # running, waiting [ns], time slices


def parameters_of(module: Any) -> int:
    """Return how many numbers the weights of a module are."""
    return sum(weight.numel() for weight in module.parameters())


def _weight_files(model: Model | None) -> list[Path]:
    """Return the files of the weights: one, or those in an index; none without either."""
    if model is None:
        return []
    folder = folder_of(model)
    if (single := folder / WEIGHTS).is_file():
        return [single]
    if not (index := folder / INDEX).is_file():
        return []
    names: set[str] = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [folder / name for name in sorted(names)]


def _dtype_in(files: Sequence[Path]) -> str | None:
    """Return `float32`, or all types of numbers that are in the files."""
    return " and ".join(sorted({dtype for path in files for dtype, _ in weights_in(path)})) or None


def new_model(request: Request) -> LoadedModel:
    """Build a model with random weights from a config, with STS-B's head."""
    refuse_code(request.name, dict(request.config))
    values = {name: value for name, value in request.config.items() if name not in _HEAD_FIELDS}
    model_type = values.pop("model_type")
    if model_type not in CONFIG_MAPPING:
        suggestion = nearest(model_type, list(CONFIG_MAPPING))
        raise UserError(f"{request.name}: unknown model_type {model_type!r}{suggestion}")
    refuse_unknown_fields(request.name, CONFIG_MAPPING[model_type], values)
    with _blaming_the_config(request.name):
        config = AutoConfig.for_model(model_type, **values, num_labels=1, problem_type="regression")
        if config.pad_token_id is None:  # GPT-2, for example; any id will do for timing
            config.pad_token_id = 0
        check_config(request.name, config)
        torch.manual_seed(SEED)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    return LoadedModel(model, (), config.pad_token_id)


@contextmanager
def _blaming_the_config(name: str) -> Iterator[None]:
    """Turn any exception into a UserError: bad sizes make transformers fail in many ways."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: cannot build a model from its config: {line}") from error


def check_config(name: str, config: Any) -> None:
    """Refuse configs that would fail only in a forward pass, or not at all."""
    if config.is_encoder_decoder:
        raise UserError(
            f"{name}: {config.model_type} is an encoder-decoder, which is not supported"
        )
    if (layers := getattr(config, "num_hidden_layers", 1)) < 1:
        raise UserError(f"{name}: num_hidden_layers {layers}: must be at least 1")
    if config.vocab_size < 2:  # the padding token and one more
        raise UserError(f"{name}: vocab_size {config.vocab_size}: must be at least 2")
    if not 0 <= config.pad_token_id < config.vocab_size:
        raise UserError(
            f"{name}: pad_token_id {config.pad_token_id}: must be below vocab_size "
            f"{config.vocab_size} and not negative"
        )


def _synthetic(lengths: Sequence[int], loaded: LoadedModel) -> TokenRows:
    """Return random ids without the padding id, by which some models count their positions."""
    vocab_size = loaded.model.config.vocab_size
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    # An offset of 1 to vocab_size - 1 from the padding id is never that id again.
    offsets = np.random.default_rng(SEED).integers(1, vocab_size, int(starts[-1]), dtype=np.int64)
    return TokenRows(((offsets + loaded.pad_id) % vocab_size).astype(np.int32), None, starts)
