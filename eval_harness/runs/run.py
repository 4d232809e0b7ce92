"""One run: a model, a task, a seed, and every setting that changes its result. No torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from angels_share.ablations import ABLATIONS
from angels_share.files import hash_of
from angels_share.model_files import ONNX
from eval_harness.tasks.registry import Task


@dataclass(frozen=True)
class Distilled:
    """How a student was distilled, from its record: Table 4 pairs ablation and full loss by it.

    Attributes:
        ablation: what was left out, a name in `ABLATIONS`.
        loss: the weight of each term.
        init: the student's initial weights: "teacher" or "random".
        rest: hash (16 hex digits) of all else: teachers, corpus, architecture, steps, seed.
    """

    ablation: str
    loss: Mapping[str, float] = field(hash=False)
    init: str
    rest: str


@dataclass(frozen=True)
class Training:
    """A model's pre-training, from its record.

    Attributes:
        group: hash of all but the seed: of equal ones, models are repetitions of one training.
        seed: the seed of the initial weights, the batches and the masks.
    """

    group: str
    seed: int


ONNX_SUFFIX = ".onnx"


def home_of(file: Path) -> Path:
    """Return the folder of an ONNX file's config and tokenizer: above `onnx/`, else its own."""
    return file.parent.parent if file.parent.name == Path(ONNX).parent.name else file.parent


@dataclass(frozen=True)
class Model:
    """A model to evaluate.

    Attributes:
        name: its name in tables.
        slug: its name in paths.
        digest: 8 hex digits of its revision on the Hub, or of its files where it is a folder.
        source: a folder, a Hub id, or an ONNX file that was exported into a folder.
        revision: its commit on the Hub; None for a folder.
        teacher: the name of the model that it was distilled from, where that is known.
        distilled: how it was distilled, where its folder has a record of that; not in the key.
        weights: the sha256 of its weights where they are a single file in a folder, or that file.
        teacher_weights: the sha256 of its teacher's weights, or their revision on the Hub.
    """

    name: str
    slug: str
    digest: str
    source: str
    revision: str | None = None
    teacher: str | None = None
    distilled: Distilled | None = None
    weights: str | None = None
    teacher_weights: str | None = None

    @property
    def key(self) -> str:
        """The name of its folder in the results."""
        return f"{self.slug}-{self.digest}"

    @property
    def is_onnx(self) -> bool:
        """Whether it is an ONNX file, which is evaluated as it is."""
        return self.revision is None and self.source.endswith(ONNX_SUFFIX)

    @property
    def home(self) -> str:
        """The folder or Hub id with its config and tokenizer."""
        return str(home_of(Path(self.source))) if self.is_onnx else self.source


@dataclass(frozen=True)
class Method:
    """A training method other than plain fine-tuning.

    The factory is given by name, so that it reaches worker processes, can be recorded in the
    result, and distillation needs no import here.

    Attributes:
        name: the method's name in messages and results.
        factory: `package.module:function`.
        options: JSON; they change the result.
        folders: where on this machine the models are that the options name.
    """

    name: str
    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TransferFile:
    """A file, or a data set on the Hub, of texts without labels.

    Attributes:
        name: its name in results: a file's without its folder, or the Hub's id.
        place: the path, or the Hub's id.
        sha256: of the file; None for the Hub.
        revision: the commit on the Hub; None for a file.
        config: the configuration of the Hub's data set, if it has several.
    """

    name: str
    place: str
    sha256: str | None = None
    revision: str | None = None
    config: str | None = None

    @property
    def identity(self) -> str:
        """What it is wherever it lies: the same content has the same identity."""
        return self.sha256 or f"hub:{self.name}@{self.revision}"


@dataclass(frozen=True)
class Settings:
    """Every setting that changes a result.

    Attributes:
        row: the part that all tasks in a table row share: recipe, overrides, limit, method.
        task: the part of this task: its version, the data's content hash, resolved values.
    """

    row: Mapping[str, Any]
    task: Mapping[str, Any]

    @cached_property
    def row_hash(self) -> str:
        """The hash that identifies a row of a table."""
        return hash_of(dict(self.row))

    @cached_property
    def hash(self) -> str:
        """The name of a result's folder."""
        return hash_of({"row": dict(self.row), "task": dict(self.task)})


def placeless(model: Model) -> Model:
    """Return a model as others may see it: of its folder's path the name, no place on a machine.

    Of a student among several those above it stay, too: `study/seed-11/no-ce`.
    """
    if model.revision is not None:
        return model
    parts = Path(model.source).parts
    first = len(parts) - 1
    while first > 1 and (parts[first] in ABLATIONS or re.fullmatch(r"seed-\d+", parts[first])):
        first -= 1
    return replace(model, source="/".join(parts[first:]))


@dataclass(frozen=True)
class Run:
    """One fine-tuning: a model, a task, a seed, settings, and perhaps a method.

    The fields after `method` change no number: where the data is, and what else is saved.

    Attributes:
        model: the model to fine-tune.
        task: the task to fine-tune it on.
        seed: of head initialisation, example order and dropout.
        settings: every setting that changes the result.
        method: the training method; None for plain fine-tuning.
        neutral: flags of TrainingArguments that change no number, such as dataloader_num_workers.
        data_dir: the folder of the task's data; None for the Hub.
        data_revision: the commit of the data set on the Hub.
        save_weights_to: the folder to save the fine-tuned model to, if any.
        seeds: all seeds of the experiment: tables report how many of them have results.
        predict_test: whether to predict the test splits too, for GLUE's server.
        results_dir: the results folder, where trackers keep their files; None without any.
        transfer_set: where the texts without labels are that are learned from as well.
    """

    model: Model
    task: Task
    seed: int
    settings: Settings
    method: Method | None = None
    neutral: Mapping[str, Any] = field(default_factory=dict, hash=False)
    data_dir: str | None = None
    data_revision: str | None = None
    save_weights_to: str | None = None
    seeds: tuple[int, ...] = ()
    predict_test: bool = False
    results_dir: str | None = None
    transfer_set: tuple[TransferFile, ...] = ()

    @property
    def key(self) -> str:
        """The path of its result below `runs/`, without the suffix."""
        return f"{self.model.key}/{self.task.name}/{self.settings.hash}/seed-{self.seed}"

    @property
    def is_evaluation_alone(self) -> bool:
        """Whether the model is evaluated as it is."""
        return bool(self.settings.row.get("eval_only"))

    def __str__(self) -> str:
        method = f" ({self.method.name})" if self.method else ""
        return f"{self.model.name}{method} on {self.task.title}, seed {self.seed}"
