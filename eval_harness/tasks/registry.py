"""One row per task: where its texts and labels are and how it is scored. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from eval_harness.tasks.kinds import QUESTIONS, TEXTS, Kind

Measure = Literal["accuracy", "f1", "matthews", "pearson", "spearman"]


@dataclass(frozen=True)
class GlueFiles:
    """A task's TSVs in GLUE's own folder.

    Attributes:
        folder: the task's folder there, and what GLUE's server calls its file.
        texts: the header's names of the texts, in the order of the task's columns.
        label: the header's name of the label.
        header: the columns of the labelled files where no header names them.
        named: whether labels stand there, and in what the server takes, by name rather than number.
    """

    folder: str
    texts: tuple[str, ...]
    label: str
    header: tuple[str, ...] | None = None
    named: bool = False


@dataclass(frozen=True)
class SecondColumn:
    """The second column of a task that has two in a table.

    Attributes:
        cell: its name among a row's cells; with a blank, or a task could be called that.
        title: its name in tables.
        split: the evaluated split that it shows.
        measure: the measure of that split that it shows.
    """

    cell: str
    title: str
    split: str
    measure: str


@dataclass(frozen=True)
class Task:
    """A task: its columns, labels and measures.

    Attributes:
        name: what it is called on the command line and among the results.
        title: what it is called in tables.
        columns: the Hub's names of what is read: one or two texts; of questions also their id.
        labels: names of the classes in the order of their ids; empty where there are none.
        kind: how it is read, learned and evaluated.
        primary: the measures whose plain mean is the task's score.
        also: measures that are reported and do not count; of answers exact match always is.
        scale: the lowest and the highest label of a regression.
        evaluation: the splits that are evaluated; the first one's score is Table 1's.
        test: splits without labels, for GLUE's server.
        hub: the data set's id on the Hub.
        config: which of that data set's configurations.
        glue: its files in GLUE's own folder, where it is one of the nine.
        files: paths of splits that are read from files which the user named.
        label_column: the Hub's name of the label, or of the gold answers.
        allows_no_answer: whether a question may have no answer, as in SQuAD 2.0.
        citation: whose task it is.
        majority: what the commonest training label scores on the first evaluated split, in
            percent; None where that is undefined or was not measured.
        fine_tuning: settings that differ from the ones that all tasks share, or are its own.
        table: the table that shows it.
        second: its second column there, where it has two.
        higher_is_better: the direction of the score.
        version: raised when the same name comes to mean other data or measures.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    primary: tuple[Measure, ...]
    also: tuple[Measure, ...] = ()
    kind: Kind = TEXTS
    scale: tuple[float, float] | None = None
    evaluation: tuple[str, ...] = ("validation",)
    test: tuple[str, ...] = ("test",)
    hub: str | None = "nyu-mll/glue"
    config: str | None = None
    glue: GlueFiles | None = None
    files: Mapping[str, str] = field(default_factory=dict, hash=False)
    label_column: str = "label"
    allows_no_answer: bool = False
    citation: str = ""
    majority: float | None = None
    fine_tuning: Mapping[str, Any] = field(default_factory=dict, hash=False)
    table: Literal["table1", "table2"] = "table1"
    second: SecondColumn | None = None
    higher_is_better: bool = True
    version: int = 1

    @property
    def is_regression(self) -> bool:
        """Whether the label is a number on a scale rather than a class."""
        return self.kind == TEXTS and not self.labels


MISMATCHED = "mnli-mm"
"""The cell of MNLI's second evaluated split."""

_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")
_ASKED = ("id", "question", "context")

# Windows and answers as in the original's second step; epochs and batch from its range.
_WINDOWS: Mapping[str, Any] = {
    "max_seq_length": 384,
    "doc_stride": 128,
    "max_query_length": 64,
    "n_best_size": 20,
    "max_answer_length": 30,
    "pad_to_max_length": False,
    "num_train_epochs": 2.0,
    "per_device_train_batch_size": 12,
}

TASKS = (
    Task(
        name="cola",
        title="CoLA",
        columns=("sentence",),
        labels=("unacceptable", "acceptable"),
        primary=("matthews",),
        also=("accuracy",),
        config="cola",
        glue=GlueFiles(
            "CoLA", ("sentence",), "label", header=("source", "label", "mark", "sentence")
        ),
        citation="Warstadt et al. 2019, arXiv:1805.12471",
        majority=0.0,
    ),
    Task(
        name="mnli",
        title="MNLI",
        columns=("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
        primary=("accuracy",),
        evaluation=("validation_matched", "validation_mismatched"),
        test=("test_matched", "test_mismatched"),
        second=SecondColumn(MISMATCHED, "MNLI-mm", "validation_mismatched", "score"),
        config="mnli",
        glue=GlueFiles("MNLI", _PAIR, "gold_label", named=True),
        citation="Williams et al. 2018, arXiv:1704.05426",
    ),
    Task(
        name="mrpc",
        title="MRPC",
        columns=_PAIR,
        labels=("not_equivalent", "equivalent"),
        primary=("f1", "accuracy"),
        config="mrpc",
        glue=GlueFiles("MRPC", ("#1 String", "#2 String"), "Quality"),
        citation="Dolan and Brockett 2005, https://aclanthology.org/I05-5002",
        majority=74.8,
    ),
    Task(
        name="qnli",
        title="QNLI",
        columns=("question", "sentence"),
        labels=_ENTAILMENT,
        primary=("accuracy",),
        config="qnli",
        glue=GlueFiles("QNLI", ("question", "sentence"), "label", named=True),
        citation="Rajpurkar et al. 2016, arXiv:1606.05250, recast by Wang et al. 2019",
    ),
    Task(
        name="qqp",
        title="QQP",
        columns=("question1", "question2"),
        labels=("not_duplicate", "duplicate"),
        primary=("f1", "accuracy"),
        config="qqp",
        glue=GlueFiles("QQP", ("question1", "question2"), "is_duplicate"),
        citation="Iyer et al. 2017, First Quora Dataset Release: Question Pairs",
    ),
    Task(
        name="rte",
        title="RTE",
        columns=_PAIR,
        labels=_ENTAILMENT,
        primary=("accuracy",),
        config="rte",
        glue=GlueFiles("RTE", _PAIR, "label", named=True),
        citation="Dagan et al. 2006 and the challenges 2, 3 and 5 after it, arXiv:1804.07461",
        majority=52.7,
    ),
    Task(
        name="sst2",
        title="SST-2",
        columns=("sentence",),
        labels=("negative", "positive"),
        primary=("accuracy",),
        config="sst2",
        glue=GlueFiles("SST-2", ("sentence",), "label"),
        citation="Socher et al. 2013, https://aclanthology.org/D13-1170",
        majority=50.9,
    ),
    Task(
        name="stsb",
        title="STS-B",
        columns=_PAIR,
        labels=(),
        primary=("pearson", "spearman"),
        scale=(0.0, 5.0),
        config="stsb",
        glue=GlueFiles("STS-B", _PAIR, "score"),
        citation="Cer et al. 2017, arXiv:1708.00055",
    ),
    Task(
        name="wnli",
        title="WNLI",
        columns=_PAIR,
        labels=("not_entailment", "entailment"),
        primary=("accuracy",),
        config="wnli",
        glue=GlueFiles("WNLI", _PAIR, "label"),
        citation="Levesque et al. 2012, recast by Wang et al. 2019, arXiv:1804.07461",
        majority=56.3,
    ),
    Task(
        name="imdb",
        title="IMDb",
        columns=("text",),
        labels=("neg", "pos"),
        primary=("accuracy",),
        evaluation=("test",),
        test=(),
        hub="stanfordnlp/imdb",
        config="plain_text",
        table="table2",
        citation="Maas et al. 2011, https://aclanthology.org/P11-1015",
        majority=50.0,
        fine_tuning={"max_seq_length": 512, "per_device_train_batch_size": 16},
    ),
    Task(
        name="squad",
        title="SQuAD",
        kind=QUESTIONS,
        columns=_ASKED,
        labels=(),
        primary=("f1",),
        test=(),
        hub="rajpurkar/squad",
        config="plain_text",
        label_column="answers",
        table="table2",
        second=SecondColumn("squad EM", "SQuAD EM", "validation", "exact_match"),
        citation="Rajpurkar et al. 2016, arXiv:1606.05250",
        fine_tuning=_WINDOWS,
    ),
    Task(
        name="squad_v2",
        title="SQuAD 2.0",
        kind=QUESTIONS,
        columns=_ASKED,
        labels=(),
        primary=("f1",),
        test=(),
        hub="rajpurkar/squad_v2",
        config="squad_v2",
        label_column="answers",
        table="table2",
        second=SecondColumn("squad_v2 EM", "SQuAD 2.0 EM", "validation", "exact_match"),
        allows_no_answer=True,
        citation="Rajpurkar et al. 2018, arXiv:1806.03822",
        fine_tuning={**_WINDOWS, "null_score_diff_threshold": 0.0},
    ),
)

GLUE = tuple(task.name for task in TASKS if task.glue is not None)
"""The names of the nine, in the tables' order."""
