"""A model that is to be timed, in its own process: loaded, warmed up, asked for its times."""

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
from angels_share.names import nearest
from angels_share.tokenizing import load_tokenizer
from angels_share.untrusted import refuse_code
from eval_harness.data.token_rows import TokenRows
from eval_harness.runs.run import Model
from eval_harness.speed.request import SEED, TASK, Request
from eval_harness.training.encoding import Collator, by_length, encode
from eval_harness.training.model_loading import LoadedModel, load_model
from eval_harness.training.provenance import provenance_on

_Batch = Mapping[str, Tensor]
_OF_THE_HEAD = ("num_labels", "id2label", "label2id", "problem_type")
_HIGH_WATER = Path("/proc/self/clear_refs")


class Bench:
    """A model with STS-B's head and the batches that it is timed on.

    A time is of a batch's ids in memory until its scores are there again, on the CPU: no
    tokenization, but on a GPU both ways. At batch size 1 there is no padding.

    Args:
        request: which model, and what it reads.
    """

    def __init__(self, request: Request) -> None:
        if request.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no GPU here")
        self._request, self._device = request, torch.device(request.device)
        tokenizer = load_tokenizer(*request.tokenizer) if request.tokenizer else None
        rows = request.texts and encode(request.texts, tokenizer, request.max_seq_length)
        loaded = self._loaded(tokenizer)
        self._model = loaded.model
        self._batches = self._made(rows or _synthetic(request.lengths, loaded), loaded)
        self._peak = self._most_memory()
        self._waits: list[float] = []

    def facts(self) -> dict[str, Any]:
        """Sizes of the model, and where it is timed."""
        return {
            "parameters": _parameters(self._model.base_model),
            "with_head": _parameters(self._model),
            "file_bytes": _file_bytes(self._request.model),
            "peak_bytes": self._peak,
            "provenance": provenance_on(self._device),
        }

    def warm(self, threads: int) -> None:
        """What a kernel does once for each shape is no part of any time."""
        torch.set_num_threads(threads)
        for size in self._batches:
            self._warm(size)

    def timed(self, threads: int, batch_size: int) -> list[float]:
        """One pass over all pairs: seconds of each batch."""
        torch.set_num_threads(threads)
        before = _waited()
        seconds = [self._seconds(batch) for batch in self._batches[batch_size]]
        if before is not None and (after := _waited()) is not None:
            self._waits.append((after - before) / (threads * sum(seconds)))
        return seconds

    def waited(self) -> float | None:
        """The share of these passes that its threads waited for a core; None: nobody knows."""
        return sum(self._waits) / len(self._waits) if self._waits else None

    def _loaded(self, tokenizer: Any) -> LoadedModel:
        request = self._request
        if request.model is None:
            loaded = _new(request)
        else:
            reader = tokenizer or load_tokenizer(request.model.source, request.model.revision)
            loaded = load_model(request.model, TASK, reader)
            _check_config(request.name, loaded.model.config)
        loaded.model.eval().to(self._device, torch.bfloat16 if request.bf16 else torch.float32)
        return loaded

    def _made(self, rows: TokenRows, loaded: LoadedModel) -> dict[int, list[_Batch]]:
        """Batches of each size: of like lengths, but as they come where there is one in each."""
        self._check_fit(rows, loaded)
        collate, names = Collator(loaded.pad_id), inputs_of(self._model)
        made: dict[int, list[_Batch]] = {}
        for size in self._request.batch_sizes:
            one_by_one = ([number] for number in range(len(rows)))
            made[size] = [
                chosen(collate([rows[int(index)] for index in indices]), names)
                for indices in (by_length(rows, size) if size > 1 else one_by_one)
            ]
        return made

    def _check_fit(self, rows: TokenRows, loaded: LoadedModel) -> None:
        """Refuses ids and lengths that the model has no embedding for: an index error, else."""
        name, longest = self._request.name, int(rows.lengths.max())
        if loaded.max_tokens is not None and longest > loaded.max_tokens:
            raise UserError(
                f"{name} reads {loaded.max_tokens} tokens and a pair has {longest}: "
                f"--max_seq_length {loaded.max_tokens}"
            )
        if (largest := int(rows.ids.max())) >= self._model.config.vocab_size:
            raise UserError(
                f"{name}: its tokenizer gives id {largest} and its vocab_size is "
                f"{self._model.config.vocab_size}: they do not belong together"
            )

    def _warm(self, size: int) -> None:
        of_each_shape = {batch["input_ids"].shape: batch for batch in self._batches[size]}
        for batch in of_each_shape.values():
            self._seconds(batch)

    @torch.inference_mode()
    def _seconds(self, batch: _Batch) -> float:
        start = time.perf_counter()
        inputs = {name: value.to(self._device) for name, value in batch.items()}
        self._model(**inputs).logits.float().cpu()  # which waits for a GPU
        return time.perf_counter() - start

    def _most_memory(self) -> int | None:
        """Bytes of the weights, and the most that is taken above them at batch size 1.

        What a first pass leaves is no part of the second one's: libraries, a kernel for each shape,
        and weights that lie in a mapped file until they are read.
        """
        self._warm(1)
        _give_back()
        before = self._mark_memory()
        if before is None:
            return None
        self._warm(1)
        is_gpu = self._device.type == "cuda"
        most = torch.cuda.max_memory_allocated() if is_gpu else _resident("VmHWM")
        weights = (*self._model.parameters(), *self._model.buffers())
        held: int = sum(each.numel() * each.element_size() for each in weights)
        return held + most - before

    def _mark_memory(self) -> int | None:
        """What is taken now; what was taken at most is counted from here."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        try:
            _HIGH_WATER.write_text("5")
        except OSError:  # only Linux tells
            return None
        return _resident("VmRSS")


def _resident(field: str) -> int:
    """Bytes of this process in memory: now (VmRSS), or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _give_back() -> None:
    """Hands what was freed back to the system, or taking it again would look like taking none."""
    with suppress(OSError, AttributeError):  # only GNU's C library can
        ctypes.CDLL(None).malloc_trim(0)


def _waited() -> float | None:
    """Seconds that this process's threads have waited for a core so far; only Linux tells."""
    try:
        told = [(each / "schedstat").read_text() for each in Path("/proc/self/task").iterdir()]
    except OSError:
        return None
    return sum(int(line.split()[1]) for line in told) / 1e9


def _parameters(module: Any) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _file_bytes(model: Model | None) -> int | None:
    """Of the weights, in one file or in those that an index names; None where there is neither."""
    if model is None:
        return None
    folder = Path(model.source)
    if model.revision is not None:
        from huggingface_hub import hf_hub_download

        config = hf_hub_download(model.source, "config.json", revision=model.revision)
        folder = Path(config).parent
    if (single := folder / "model.safetensors").is_file():
        return single.stat().st_size
    if not (index := folder / "model.safetensors.index.json").is_file():
        return None  # the Hub's own conversion of pickled weights, which is another revision
    names: set[str] = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sum((folder / name).stat().st_size for name in names)


def _new(request: Request) -> LoadedModel:
    """A model of a config alone, with STS-B's head."""
    refuse_code(request.name, dict(request.config))
    values = {name: value for name, value in request.config.items() if name not in _OF_THE_HEAD}
    model_type = values.pop("model_type")
    _check_fields(request.name, model_type, values)
    with _blaming_the_config(request.name):
        config = AutoConfig.for_model(model_type, **values, num_labels=1, problem_type="regression")
        if config.pad_token_id is None:  # GPT-2's; which one it is makes no difference here
            config.pad_token_id = 0
        _check_config(request.name, config)
        torch.manual_seed(SEED)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    return LoadedModel(model, (), config.pad_token_id)


@contextmanager
def _blaming_the_config(name: str) -> Iterator[None]:
    """A size of 0 divides by it, a text is no size, …: each says so in another way."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: no model can be made of its config: {line}") from error


def _check_config(name: str, config: Any) -> None:
    """Refuses what fails only in a pass, or not at all."""
    if config.is_encoder_decoder:
        raise UserError(f"{name}: {config.model_type} models also write, and are not timed here")
    if (layers := getattr(config, "num_hidden_layers", 1)) < 1:
        raise UserError(f"{name}: a model of {layers} layers computes nothing")
    if config.vocab_size < 2:  # padding's, and one more
        raise UserError(f"{name}: vocab_size {config.vocab_size}: 2 or more are wanted")
    if not 0 <= config.pad_token_id < config.vocab_size:
        raise UserError(
            f"{name}: pad_token_id {config.pad_token_id} is none of {config.vocab_size} ids"
        )


def _check_fields(name: str, model_type: str, values: Mapping[str, Any]) -> None:
    """Refuses a misspelt field, which would silently leave a size at its default."""
    if model_type not in CONFIG_MAPPING:
        raise UserError(f"{name}: unknown model_type {model_type!r}"
                        f"{nearest(model_type, list(CONFIG_MAPPING))}")  # fmt: skip
    if "transformers_version" in values:
        return  # written by transformers: an older version's fields are no slip
    config_class = CONFIG_MAPPING[model_type]
    known = {*config_class().to_dict(), *config_class.attribute_map, "dtype"}
    for field in sorted(values.keys() - known):
        raise UserError(
            f"{name}: {model_type} has no field {field!r}{nearest(field, known) or ': remove it'}"
        )


def _synthetic(lengths: Sequence[int], loaded: LoadedModel) -> TokenRows:
    """Random ids, none of which is padding's: some models count their positions by those."""
    known = loaded.model.config.vocab_size
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    drawn = np.random.default_rng(SEED).integers(1, known, int(starts[-1]), dtype=np.int64)
    return TokenRows(((drawn + loaded.pad_id) % known).astype(np.int32), None, starts)
