"""What a teacher says of every example of a task's data, computed once and kept on disk.

A teacher is frozen, so what it says of an example never changes: every epoch and every seed can
read it from one memory-mapped file, and no teacher need be in memory. `remember` makes or opens
that file; `DistilTrainer` takes the data set that it gives and asks nobody.

Outputs are kept in float32. They differ from what the teacher would say during training only by
rounding: a batch of other examples is padded, and so added up, in another way; as it is on another
device. Under bf16 the teacher's numbers are bfloat16, which float32 holds as they are.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from angels_share.errors import RunFailed, UserError
from angels_share.files import explain, hash_of, is_refusal, replacing, sha256_of_file, write_json
from angels_share.inputs import chosen, inputs_of
from distil_trainer.models.loading import fine_tuned_config, load_fine_tuned
from distil_trainer.objectives.task import (
    LABELS,
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
Kept = tuple[TaskHead, Floats]
Collator = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]

_RECIPE = 1  # raised whenever the same teacher and data would give another file
_UNREAD = {*LABELS, "answer_mask"}  # what no teacher is given of an example
_OF_EXAMPLES = "ForSequenceClassification"  # other heads say something of each token
_NOT_WHOLE = (ValueError, LookupError, TypeError, AttributeError, FileNotFoundError)

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
    """A data set whose examples bear what a teacher says of them.

    What was kept for this teacher and these data is opened, else computed; of several processes
    that ask at once one works and the others wait. Draws no random number, and no bar: a sweep's
    workers have no terminal.

    Args:
        teacher: a fine-tuned model's folder, loaded only where something must be computed; or a
            model, which is put into evaluation mode.
        dataset: examples with `input_ids` by their number, as the Trainer takes them; outputs are
            of all their fields but the labels.
        collator: makes a batch of examples.
        folder: outputs are kept in `<folder>/<key>.npy`, and what they are in a `.json` beside it.
        bf16: compute under bfloat16, as a training with bf16 would have.
        over_all_positions: question answering's outputs for padding too, which the collator must
            then make equally wide everywhere.
        device: where to compute; None is where the model is, the CPU for a folder.
        batch_size: examples that are computed at once.

    Raises:
        RunFailed: outputs that are not finite, or no room for them.
        UserError: the teacher can't be loaded, the folder can't be written to, or no examples.
    """
    if not isinstance(teacher, PreTrainedModel):
        teacher = _folder_of(teacher)
    if not len(dataset):
        raise UserError("the data set holds no examples: there is nothing to ask a teacher about")
    data, lengths = _content_of_data(dataset)
    shortest = dataset[int(np.argmin(lengths))]
    width, padded = _padding(collator([shortest])) if over_all_positions else (None, None)
    of = {"teacher": _content_of_model(teacher), "data": data, "padded": padded}
    source = {"recipe": _RECIPE, **of, "bf16": bf16, "width": width}

    def compute() -> Kept:
        model = load_fine_tuned(teacher) if isinstance(teacher, str) else teacher
        model.to(device if device is not None else model.device).eval()
        asking = _Asking(model, dataset, collator, lengths, width)
        return task_head(model), asking.all(batch_size, bf16=bf16)

    head, values = _kept(Path(folder).expanduser(), source, lengths, compute)
    return TaughtDataset(dataset, values, _starts(head, lengths, width), head, source)


@dataclass(frozen=True)
class TaughtDataset:
    """A data set and, beside each example, what a teacher says of it.

    Attributes:
        dataset: the examples.
        values: the teacher's outputs, one row for each example or for each token.
        starts: where each example's rows begin, and at last their end.
        head: the teacher's task and labels.
        source: what the outputs were computed from, as hashes.
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
            raise IndexError(index)  # what ends a loop over it
        example = self.dataset[index]
        rows = self.values[self.starts[index] : self.starts[index + 1]]
        return {**example, TEACHER_OUTPUTS: rows}

    @property
    def over_all_positions(self) -> bool:
        """Whether outputs are there for padding too."""
        return self.source["width"] is not None

    def collator(self, inner: Collator) -> Collator:
        """A collator that also makes a batch of the teacher's outputs.

        Args:
            inner: makes a batch of all the rest, and of examples that bear no outputs.
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
        if self.head.task == _OF_EXAMPLES:
            return rows
        if self.width is not None:
            return rows.view(-1, self.width, rows.shape[1])
        # Wherever the padding stands, the attended tokens come in the rows' order.
        attended = batch["attention_mask"].bool()
        padded = rows.new_zeros((*attended.shape, rows.shape[1]))
        padded[attended] = rows
        return padded


# --- what outputs are of


def _content_of_data(dataset: Any) -> tuple[str, Ints]:
    """A hash of all that a teacher may read of each example, and how many tokens it attends to."""
    digest, lengths = hashlib.sha256(), np.empty(len(dataset), dtype=np.int64)
    for index in range(len(dataset)):
        example = dataset[index]
        for content in _contents(example):
            digest.update(content)
        ids, mask = example["input_ids"], example.get("attention_mask")
        lengths[index] = len(ids) if mask is None else np.count_nonzero(mask)
    return digest.hexdigest(), lengths


def _contents(example: Mapping[str, Any]) -> Iterator[bytes]:
    """All fields but the labels, each with its name and shape; of numbers the type is nothing."""
    for name in sorted(example.keys() - _UNREAD):
        values = np.asarray(example[name])
        if values.dtype.kind in "biuf":
            content = values.astype(np.float64).tobytes()
        else:
            content = repr(values.tolist()).encode()
        yield f"{name} {values.shape} {len(content)} ".encode()
        yield content


def _padding(batch: Mapping[str, Any]) -> tuple[int, str]:
    """How wide a batch is, and a hash of it: a teacher that is asked of padding reads that too."""
    content = hashlib.sha256(b"".join(_contents(batch))).hexdigest()
    return int(batch["input_ids"].shape[1]), content


def _folder_of(teacher: str | Path) -> str:
    folder = Path(teacher).expanduser()
    if not folder.is_dir():
        raise UserError(f"{teacher}: no such folder: give a fine-tuned model's, or the model")
    return str(folder)


def files_of(teacher: str) -> list[Path]:
    """The files of a fine-tuned model's folder that make it what it is."""
    folder = Path(teacher)
    return sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")])


def _content_of_model(teacher: PreTrainedModel | str) -> str:
    """A hash of all of a model's numbers and of its config."""
    digest = hashlib.sha256()
    if isinstance(teacher, str):
        fine_tuned_config(teacher)  # says no in words to a folder that isn't a model's
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
    """Where each example's rows begin, and at last their end."""
    if head.task == _OF_EXAMPLES:
        sizes = np.ones_like(lengths)
    else:
        sizes = lengths if width is None else np.full_like(lengths, width)
    return np.concatenate([[0], np.cumsum(sizes)])


# --- files


def _kept(
    folder: Path, source: Mapping[str, Any], lengths: Ints, compute: Callable[[], Kept]
) -> Kept:
    """What is kept, or is then; whoever comes while another computes waits and opens it."""
    path = folder / f"{hash_of(source, 16)}.npy"
    with _named(folder):
        with suppress(*_NOT_WHOLE):  # who may only read opens it too: without a lock
            return _opened(path, source, lengths)
        folder.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(path.with_suffix(".lock")).acquire()
    with held:
        with _named(folder):
            if (kept := _opened_or_said(path, source, lengths)) is not None:
                return kept
        head, values = compute()
        with _named(folder):
            return head, _written(path, source, head, values)


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Says of which folder a disk's no is."""
    try:
        yield
    except OSError as error:
        failure = UserError if is_refusal(error) else RunFailed
        raise failure(f"{folder}: {explain(error)}") from error


def _opened_or_said(path: Path, source: Mapping[str, Any], lengths: Ints) -> Kept | None:
    """What is kept, if it is there and whole; a line says so where it isn't whole."""
    if not path.with_suffix(".json").is_file():
        return None
    try:
        return _opened(path, source, lengths)
    except _NOT_WHOLE as error:
        reason = " ".join(str(error).split())
        _logger.warning("%s cannot be used (%s): it is made again", path, reason)
        return None


def _opened(path: Path, source: Mapping[str, Any], lengths: Ints) -> Kept:
    """What is kept; one of `_NOT_WHOLE` is raised where it isn't whole, or isn't there."""
    record = json.loads(path.with_suffix(".json").read_text("utf-8"))
    head = TaskHead(record["task"], {int(key): name for key, name in record["labels"].items()})
    rows = int(_starts(head, lengths, source["width"])[-1])
    return head, _checked(path, record, source, rows)


def _checked(path: Path, record: Any, source: Mapping[str, Any], rows: int) -> Floats:
    if record["source"] != source:
        raise ValueError(f"{path.with_suffix('.json').name} is of something else")
    if record["sha256"] != sha256_of_file(path):
        raise ValueError("its content isn't what was written")
    values = _mapped(path)
    if values.dtype != np.float32 or values.ndim != 2 or len(values) != rows:
        raise ValueError(f"it holds {values.dtype} {values.shape}, not {rows} rows")
    return values


def _written(path: Path, source: Mapping[str, Any], head: TaskHead, values: Floats) -> Floats:
    """Writes the outputs, then what they are: a file without that doesn't count."""
    for left in path.parent.glob(f".{path.stem}.*.tmp"):  # by a process that was killed
        left.unlink()
    header = np.lib.format.header_data_from_array_1_0(values)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(values.data)  # np.save would not tell why a disk said no
    record = {
        "source": source,
        "task": head.task,
        "labels": {str(key): name for key, name in head.labels.items()},
        "shape": values.shape,
        "dtype": str(values.dtype),
        "sha256": sha256_of_file(path),
    }
    write_json(path.with_suffix(".json"), record)
    return _mapped(path)


def _mapped(path: Path) -> Floats:
    """The file as an array; a memmap itself, or a slice of one, takes far longer to be sliced."""
    values: Floats = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    return values


# --- asking


@dataclass(frozen=True)
class _Asking:
    """A teacher and all that it is asked about."""

    model: PreTrainedModel
    dataset: Any
    collator: Collator
    lengths: Ints
    width: int | None

    @torch.inference_mode()
    def all(self, batch_size: int, *, bf16: bool) -> Floats:
        """The rows of all examples, in their order; asked longest first, with little padding."""
        if not has_task_head(self.model):
            raise UserError(f"a {type(self.model).__name__} has no task's head to ask")
        if self.width is not None and not answers_questions(self.model):
            raise UserError("over_all_positions is for question answering: other tasks have none")
        starts = _starts(task_head(self.model), self.lengths, self.width)
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
                f"{self.model.name_or_path or 'the teacher'}: what it says of the data is not "
                "finite, nothing can be learned from it"
            )
        rows: Floats = output.numpy()
        return rows

    def _of_tokens(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        if self.width is None:
            return output[batch["attention_mask"].cpu().bool()]
        require_width(output.shape[1], self.width)
        return output.flatten(0, 1)
