"""One row per task: where its texts and labels are and how it is scored. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from angels_share.errors import UserError
from angels_share.names import nearest

Measure = Literal["accuracy", "f1", "matthews", "pearson", "spearman"]


@dataclass(frozen=True)
class Task:
    """A classification or regression task: its columns, labels and measures.

    `primary` are the measures whose plain mean is the task's score in Table 1; `labels` stand in
    the order of their ids and are empty for a regression.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    primary: tuple[Measure, ...]

    @property
    def is_regression(self) -> bool:
        """Whether the label is a number on a scale rather than a class."""
        return not self.labels


_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")

TASKS = (
    Task("cola", "CoLA", ("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    Task(
        "mnli",
        "MNLI",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        ("accuracy",),
    ),
    Task("mrpc", "MRPC", _PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy")),
    Task("qnli", "QNLI", ("question", "sentence"), _ENTAILMENT, ("accuracy",)),
    Task(
        "qqp",
        "QQP",
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        ("f1", "accuracy"),
    ),
    Task("rte", "RTE", _PAIR, _ENTAILMENT, ("accuracy",)),
    Task("sst2", "SST-2", ("sentence",), ("negative", "positive"), ("accuracy",)),
    Task("stsb", "STS-B", _PAIR, (), ("pearson", "spearman")),
    Task("wnli", "WNLI", _PAIR, ("not_entailment", "entailment"), ("accuracy",)),
    Task("imdb", "IMDb", ("text",), ("neg", "pos"), ("accuracy",)),
)

GLUE = tuple(task.name for task in TASKS if task.name != "imdb")


def task_named(name: str) -> Task:
    """The row of a task, or a UserError that suggests the nearest one."""
    for task in TASKS:
        if name == task.name:
            return task
    known = [task.name for task in TASKS]
    raise UserError(f"unknown task {name!r}{nearest(name, known)} (known: {', '.join(known)}, all)")


def tasks_named(names: list[str]) -> tuple[Task, ...]:
    """The rows of several tasks, each once and in the order given; `all` is the nine of GLUE."""
    wanted = [each for name in names for each in (GLUE if name == "all" else (name,))]
    return tuple(task_named(name) for name in dict.fromkeys(wanted))
