"""A teacher's outputs for every example of a task's data, computed once and cached on disk.

A teacher is frozen, so its output for an example never changes: every epoch and every seed can read
it from one memory-mapped file, and no teacher has to be in memory. `cache_teacher_outputs` writes
or opens that file; `DistilTrainer` takes the data set that it returns and runs no teacher.

Outputs are cached in float32. They differ from those that the teacher would compute during training
only by rounding: other batches and other devices sum in another order. Under bf16 the teacher's
numbers are bfloat16, which float32 represents exactly.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from angels_share.errors import RunFailed, UserError
from angels_share.files import (
    explain,
    hash_of,
    is_path_error,
    locked,
    place_of,
    replacing,
    sha256_of_file,
    write_json,
)
from angels_share.inputs import UNLABELLED, chosen, inputs_of
from distil_trainer.models.loading import fine_tuned_config, load_fine_tuned
from distil_trainer.objectives.task import (
    LABEL_KEYS,
    TEACHER_OUTPUTS,
    TaskHead,
    answers_questions,
    has_task_head,
    packed,
    require_width,
    task_head,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Cached = tuple[TaskHead, Floats]
Collator = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]

_RECIPE = 1  # incremented whenever the same teacher and data would give another file
_UNREAD = {*LABEL_KEYS, UNLABELLED, "answer_mask"}  # fields that no teacher reads
_ROW_PER_EXAMPLE = "ForSequenceClassification"  # the other heads give one row per token
_UNUSABLE = (ValueError, LookupError, TypeError, AttributeError, FileNotFoundError)

_logger = logging.getLogger(__name__)


def cache_teacher_outputs(
    teacher: PreTrainedModel | str | Path,
    dataset: Any,
    collator: Collator,
    folder: str | Path,
    *,
    bf16: bool = False,
    over_all_positions: bool = False,
    device: torch.device | str | None = None,
    batch_size: int = 64,
) -> "TaughtDataset":
    """Return a data set that adds the teacher's outputs to each example.

    Outputs for this teacher and these data are opened if they are cached, else computed; if several
    processes ask for them at once, one computes them and the others wait. It draws no random
    numbers, and shows no progress bar, since a sweep's workers have no terminal.

    Args:
        teacher: a fine-tuned model's folder, loaded only if outputs must be computed; or a model,
            which is put into evaluation mode.
        dataset: examples with `input_ids`, accessed by index, as the Trainer takes them; the
            outputs depend on all their fields except the labels.
        collator: makes a batch of examples.
        folder: cache folder; outputs go to `<folder>/<key>.npy`, their description to a `.json`
            file beside it.
        bf16: compute under bfloat16 autocast, as training with bf16 would.
        over_all_positions: question answering only: compute outputs for padding too; the collator
            must then pad all batches to one width.
        device: where to compute [where the model is; the CPU for a folder].
        batch_size: examples per forward pass.

    Raises:
        RunFailed: outputs are not finite, or there is not enough disk space.
        UserError: the teacher can't be loaded, the folder can't be written to, or the data set is
            empty.
    """
    if not isinstance(teacher, PreTrainedModel):
        teacher = _existing_folder(teacher)
    if not len(dataset):
        raise UserError("the data set has no examples, so the teacher has no outputs to compute")
    data, lengths = _hash_data(dataset)
    # The shortest example has padding whenever any has, so a batch of it shows what padding is.
    shortest = dataset[int(np.argmin(lengths))]
    width, padded = _hash_padding(collator([shortest])) if over_all_positions else (None, None)
    content = {"teacher": _hash_model(teacher), "data": data, "padded": padded}
    source = {"recipe": _RECIPE, **content, "bf16": bf16, "width": width}

    def compute() -> Cached:
        model = load_fine_tuned(teacher) if isinstance(teacher, str) else teacher
        model.to(device if device is not None else model.device).eval()
        teacher_pass = _TeacherPass(model, dataset, collator, lengths, width)
        return task_head(model), teacher_pass.outputs(batch_size, bf16=bf16)

    head, values = _load_or_compute(Path(folder).expanduser(), source, lengths, compute)
    return TaughtDataset(dataset, values, _starts(head, lengths, width), head, source)


@dataclass(frozen=True)
class TaughtDataset:
    """A data set that adds a teacher's outputs to each example.

    Attributes:
        dataset: the examples.
        values: the teacher's outputs, one row per example or per token.
        starts: the first row of each example, and finally the number of rows.
        head: the teacher's task and labels.
        source: the settings of the outputs, and hashes of the data and of the teacher.
    """

    dataset: Any
    values: Floats
    starts: Ints
    head: TaskHead
    source: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)  # ends iteration
        example = self.dataset[index]
        rows = self.values[self.starts[index] : self.starts[index + 1]]
        return {**example, TEACHER_OUTPUTS: rows}

    @property
    def over_all_positions(self) -> bool:
        """Whether the outputs cover padding."""
        return self.source["width"] is not None

    def collator(self, inner: Collator) -> Collator:
        """Return a collator that also batches the teacher's outputs.

        Args:
            inner: batches all other fields, and examples without outputs.
        """
        return _TaughtCollator(inner, self.head, self.source["width"])


@dataclass(frozen=True)
class _TaughtCollator:
    """See `TaughtDataset.collator`."""

    inner: Collator
    head: TaskHead
    width: int | None

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        if TEACHER_OUTPUTS not in examples[0]:
            return self.inner(examples)
        bare = [
            {name: value for name, value in example.items() if name != TEACHER_OUTPUTS}
            for example in examples
        ]
        batch = self.inner(bare)
        rows = np.concatenate([example[TEACHER_OUTPUTS] for example in examples])
        return {**batch, TEACHER_OUTPUTS: self._batch_of(torch.from_numpy(rows), batch)}

    def _batch_of(self, rows: Tensor, batch: Mapping[str, Any]) -> Tensor:
        if self.head.task == _ROW_PER_EXAMPLE:
            return rows
        if self.width is not None:
            return rows.view(-1, self.width, rows.shape[1])
        # On whichever side the padding is, attended tokens come in the rows' order.
        attended = batch["attention_mask"].bool()
        padded = rows.new_zeros((*attended.shape, rows.shape[1]))
        padded[attended] = rows
        return padded


# --- the cache key


def _hash_data(dataset: Any) -> tuple[str, Ints]:
    """Return a hash of all fields that a teacher may read, and each example's attended tokens."""
    digest, lengths = hashlib.sha256(), np.empty(len(dataset), dtype=np.int64)
    for index in range(len(dataset)):
        example = dataset[index]
        for content in _field_bytes(example):
            digest.update(content)
        ids, mask = example["input_ids"], example.get("attention_mask")
        lengths[index] = len(ids) if mask is None else np.count_nonzero(mask)
    return digest.hexdigest(), lengths


def _field_bytes(example: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield all fields except the labels with name and shape; the type of numbers doesn't count."""
    for name in sorted(example.keys() - _UNREAD):
        values = np.asarray(example[name])
        if values.dtype.kind in "biuf":
            content = values.astype(np.float64).tobytes()
        else:
            content = repr(values.tolist()).encode()
        yield f"{name} {values.shape} {len(content)} ".encode()
        yield content


def _hash_padding(batch: Mapping[str, Any]) -> tuple[int, str]:
    """Return a padded batch's width and hash: outputs over all positions depend on the padding."""
    content = hashlib.sha256(b"".join(_field_bytes(batch))).hexdigest()
    return int(batch["input_ids"].shape[1]), content


def _existing_folder(teacher: str | Path) -> str:
    folder = Path(teacher).expanduser()
    if not folder.is_dir():
        raise UserError(f"{teacher}: no such folder; pass a fine-tuned model's folder or the model")
    return str(folder)


def files_of(teacher: str) -> list[Path]:
    """Return the files of a fine-tuned model's folder that hold its weights and config."""
    folder = Path(teacher)
    return sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")])


def _hash_model(teacher: PreTrainedModel | str) -> str:
    """Return a hash of a model's weights, buffers and config."""
    digest = hashlib.sha256()
    if isinstance(teacher, str):
        fine_tuned_config(teacher)  # a folder without a model fails here with a readable error
        for path in files_of(teacher):
            digest.update(f"{path.name} {sha256_of_file(path)} ".encode())
        return digest.hexdigest()
    digest.update(teacher.config.to_json_string().encode())
    for name, value in teacher.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _starts(head: TaskHead, lengths: Ints, width: int | None) -> Ints:
    """Return the first row of each example, and finally the number of rows."""
    if head.task == _ROW_PER_EXAMPLE:
        sizes = np.ones_like(lengths)
    else:
        sizes = lengths if width is None else np.full_like(lengths, width)
    return np.concatenate([[0], np.cumsum(sizes)])


# --- files


def _load_or_compute(
    folder: Path, source: Mapping[str, Any], lengths: Ints, compute: Callable[[], Cached]
) -> Cached:
    """Load cached outputs, or compute and save them; wait while another process computes them."""
    path = folder / f"{hash_of(source, 16)}.npy"
    with _naming_folder(folder):
        with suppress(*_UNUSABLE):  # first without the lock: the folder may be read-only
            return _load(path, source, lengths)
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with _naming_folder(folder):
            held.enter_context(locked(path.with_suffix(".lock")))
        with _naming_folder(folder):  # again: another process may have written them meanwhile
            if (cached := _load_or_warn(path, source, lengths)) is not None:
                return cached
        head, values = compute()  # its OSErrors are not about this folder
        with _naming_folder(folder):
            return head, _save(path, source, head, values)


@contextmanager
def _naming_folder(folder: Path) -> Iterator[None]:
    """Re-raise an OSError as one line that names the folder."""
    try:
        yield
    except OSError as error:
        failure = UserError if is_path_error(error) else RunFailed
        raise failure(f"{place_of(error, folder)}: {explain(error)}") from error


def _load_or_warn(path: Path, source: Mapping[str, Any], lengths: Ints) -> Cached | None:
    """Return cached outputs, or None if there are none or, with a warning, if they are damaged."""
    if not path.with_suffix(".json").is_file():
        return None
    try:
        return _load(path, source, lengths)
    except _UNUSABLE as error:
        reason = " ".join(str(error).split())
        _logger.warning("%s cannot be used (%s); computing it again", path, reason)
        return None


def _load(path: Path, source: Mapping[str, Any], lengths: Ints) -> Cached:
    """Return cached outputs; raise one of `_UNUSABLE` if they are missing or damaged."""
    about = path.with_suffix(".json")
    record = json.loads(about.read_text("utf-8"))
    head = TaskHead(record["task"], {int(key): name for key, name in record["labels"].items()})
    rows = int(_starts(head, lengths, source["width"])[-1])
    if record["source"] != source:
        raise ValueError(f"{about.name} describes other outputs")
    if record["sha256"] != sha256_of_file(path):
        raise ValueError("its checksum is wrong")
    values = _memory_map(path)
    if values.dtype != np.float32 or values.ndim != 2 or len(values) != rows:
        raise ValueError(f"it holds {values.dtype} {values.shape}, not {rows} rows")
    return head, values


def _save(path: Path, source: Mapping[str, Any], head: TaskHead, values: Floats) -> Floats:
    """Write the outputs, then their description, without which the file is not used."""
    for leftover in path.parent.glob(f".{path.stem}.*.tmp"):  # of a process that was killed
        leftover.unlink()
    header = np.lib.format.header_data_from_array_1_0(values)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(values.data)  # np.save would hide the reason why a write failed
    record = {
        "source": source,
        "task": head.task,
        "labels": {str(key): name for key, name in head.labels.items()},
        "shape": values.shape,
        "dtype": str(values.dtype),
        "sha256": sha256_of_file(path),
    }
    try:
        write_json(path.with_suffix(".json"), record)
    except BaseException:
        path.unlink()  # without its description nobody would ever use it
        raise
    return _memory_map(path)


def _memory_map(path: Path) -> Floats:
    """Return the mapped file as a plain array, which is far faster to slice than np.memmap."""
    values: Floats = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    return values


# --- the teacher's forward passes


@dataclass(frozen=True)
class _TeacherPass:
    """One pass of a teacher over a data set."""

    model: PreTrainedModel
    dataset: Any
    collator: Collator
    lengths: Ints
    width: int | None

    @torch.inference_mode()
    def outputs(self, batch_size: int, *, bf16: bool) -> Floats:
        """Return the rows of all examples in the data set's order.

        Raises:
            UserError: the teacher has no suitable head.
        """
        if not has_task_head(self.model):
            raise UserError(f"the teacher is a {type(self.model).__name__}, which has no task head")
        if self.width is not None and not answers_questions(self.model):
            raise UserError(
                "over_all_positions is for question answering, the teacher is a "
                f"{type(self.model).__name__}"
            )
        starts = _starts(task_head(self.model), self.lengths, self.width)
        # By length, so that batches have little padding; longest first, so that a lack of memory
        # shows in the first batch.
        order = np.argsort(-self.lengths, kind="stable")
        values: Floats = np.empty((0, 0), np.float32)
        for first in range(0, len(order), batch_size):
            indices = order[first : first + batch_size]
            rows = self._rows(indices, bf16=bf16)
            if first == 0:
                values = np.empty((starts[-1], rows.shape[1]), np.float32)
            sizes = (starts[1:] - starts[:-1])[indices]
            for index, part in zip(indices, np.split(rows, np.cumsum(sizes)[:-1]), strict=True):
                values[starts[index] : starts[index + 1]] = part
        return values

    def _rows(self, indices: Ints, *, bf16: bool) -> Floats:
        batch = self.collator([self.dataset[int(index)] for index in indices])
        device = self.model.device
        inputs = {
            name: value.to(device) for name, value in chosen(batch, inputs_of(self.model)).items()
        }
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = packed(self.model(**inputs)).float().cpu()
        if output.ndim == 3:
            output = self._of_tokens(output, batch)
        if not bool(torch.isfinite(output).all()):
            raise RunFailed(
                f"{self.model.name_or_path or 'the teacher'}: its outputs are not finite; "
                "check the model before distilling from it"
            )
        rows: Floats = output.numpy()
        return rows

    def _of_tokens(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        if self.width is None:
            return output[batch["attention_mask"].cpu().bool()]
        require_width(output.shape[1], self.width)
        return output.flatten(0, 1)
