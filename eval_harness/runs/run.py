"""What a run is: a model, a task, a seed, and every setting that changes the number. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from angels_share.files import hash_of
from eval_harness.tasks.registry import Task


@dataclass(frozen=True)
class Distilled:
    """How a student was made, as its record tells: what Table 4 finds the full triple loss by.

    Attributes:
        ablation: what was left out, a name of `ABLATIONS`.
        loss: the weight of each part.
        init: whose weights it began with: "teacher" or "random".
        rest: 16 hex digits of all else: teachers, corpus, what the student is, steps, seed.
    """

    ablation: str
    loss: Mapping[str, float] = field(hash=False)
    init: str
    rest: str


@dataclass(frozen=True)
class Model:
    """A model to judge: what it was called, where it is, and the content that it stands for.

    `digest` are 8 hex digits of its revision on the Hub, or of its files where it is a folder.
    """

    name: str
    slug: str
    digest: str
    source: str
    revision: str | None = None
    teacher: str | None = None
    """The name of the model that it was distilled from, where that is known."""
    distilled: Distilled | None = None
    """How, where its folder holds a record of it; it is no part of the key."""
    weights: str | None = None
    """The sha256 of its weights where they are one file of a folder."""
    teacher_weights: str | None = None
    """The same of the teacher that it had, or the revision that this had on the Hub."""

    @property
    def key(self) -> str:
        """The name of its folder among the results."""
        return f"{self.slug}-{self.digest}"


@dataclass(frozen=True)
class Method:
    """Another way to train than plain fine-tuning, by the name of a factory.

    Named rather than given, so that it reaches worker processes and stands in the result; that is
    also how distillation comes in here without an import. `options` change the number and are
    JSON; `folders` say where on this machine the models are that the options name.
    """

    name: str
    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Every setting that changes the number.

    Attributes:
        row: what a row of a table shares over its tasks: recipe, what the user set, limit, method.
        task: what belongs to this task: its version, the data's content hash, resolved values.
    """

    row: Mapping[str, Any]
    task: Mapping[str, Any]

    @property
    def row_hash(self) -> str:
        """What the rows of a table are told apart by."""
        return hash_of(dict(self.row))

    @property
    def hash(self) -> str:
        """What a result's folder is called."""
        return hash_of({"row": dict(self.row), "task": dict(self.task)})


@dataclass(frozen=True)
class Run:
    """One fine-tuning: a model, a task, a seed, settings, and perhaps a method.

    What stands below `method` changes no number: where the data is, and what is kept besides.

    Attributes:
        model: what is judged.
        task: on what.
        seed: of head, order and dropout.
        settings: every setting that changes the number.
        method: another way to train than plain fine-tuning.
        neutral: flags of TrainingArguments that are passed on, such as the workers of a loader.
        data_dir: where the task's data is; the Hub where it is None.
        data_revision: of the data set on the Hub.
        keep_weights: the folder that the fine-tuned model is written to.
        seeds: all that were asked for: a table says how many of them it has.
        predict_test: whether the test splits are predicted too, for GLUE's server.
    """

    model: Model
    task: Task
    seed: int
    settings: Settings
    method: Method | None = None
    neutral: Mapping[str, Any] = field(default_factory=dict, hash=False)
    data_dir: str | None = None
    data_revision: str | None = None
    keep_weights: str | None = None
    seeds: tuple[int, ...] = ()
    predict_test: bool = False

    @property
    def key(self) -> str:
        """Where its result lies under `runs/`, without the ending."""
        return f"{self.model.key}/{self.task.name}/{self.settings.hash}/seed-{self.seed}"

    def __str__(self) -> str:
        how = f" ({self.method.name})" if self.method else ""
        return f"{self.model.name}{how} on {self.task.title}, seed {self.seed}"
