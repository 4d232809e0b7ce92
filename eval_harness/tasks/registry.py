"""The built-in tasks, one row each: their data, labels and metrics. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from eval_harness.tasks.kinds import PERPLEXITY, QUESTIONS, TEXTS, TOKENS, Kind

LabelMetric = Literal["accuracy", "f1", "f1_macro", "f1_micro", "matthews", "pearson", "spearman"]
"""`f1` is that of the second of two classes; the others are over any number, as scikit-learn's."""
EntityMetric = Literal[
    "entity_f1",
    "entity_precision",
    "entity_recall",
    "strict_f1",
    "strict_precision",
    "strict_recall",
]
"""Of named entities: `entity_...` by conlleval's lenient counting, `strict_...` by IOB2's rules."""
PerplexityMetric = Literal["token_perplexity", "word_perplexity", "bits_per_byte"]
"""Of whole documents, by token, by word of the original text, and in bits by its bytes."""
Metric = LabelMetric | EntityMetric | PerplexityMetric


@dataclass(frozen=True)
class GlueFiles:
    """A task's TSV files in GLUE's own format.

    Attributes:
        folder: the task's folder, and the name of its submission file.
        texts: the text columns, in the order of the task's columns.
        label: the label column.
        header: the columns of the labelled files, where these have no header line.
        named: whether files and submissions have the labels' names rather than their ids.
    """

    folder: str
    texts: tuple[str, ...]
    label: str
    header: tuple[str, ...] | None = None
    named: bool = False


@dataclass(frozen=True)
class ColumnFiles:
    """A task's files of one word a line, with blank lines between sentences.

    Attributes:
        names: the files' own names by split, beside `train.conll` and `train.txt`.
        word: the column of the words, counted from 0; from the end if it is negative.
        tag: the column of the tags, likewise.
        encoding: the encoding of files that are not UTF-8.
        has_comments: whether lines between sentences that begin with `#` are comments.
    """

    names: Mapping[str, str] = field(default_factory=dict, hash=False)
    word: int = 0
    tag: int = -1
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    has_comments: bool = False


@dataclass(frozen=True)
class SecondColumn:
    """The second column of a task that has two in a table.

    Attributes:
        cell: its key in a row's cells, which no custom task may have as its name.
        title: its header in tables.
        split: the evaluated split that it shows.
        measure: the metric that it shows.
    """

    cell: str
    title: str
    split: str
    measure: str


@dataclass(frozen=True)
class Task:
    """A task: its data, labels and metrics.

    Attributes:
        name: its name on the command line and in results.
        title: its name in tables and messages.
        columns: the text columns, one or two, by the Hub's names; for questions also the id; for
            tokens the column of the words.
        labels: names of the classes in the order of their ids; empty where there are none. Of
            tokens the tags: `O`, and `B-` and `I-` of every type of entity.
        primary: the metrics whose mean is the task's score.
        also: further metrics to report; SQuAD's exact match is always reported.
        about: what an example asks, in words for who has never seen one.
        kind: how it is read, trained and evaluated.
        scale: the lowest and the highest label of a regression.
        evaluation: the splits to evaluate; the first one's score is the table's. `test.de` is the
            split `test` of the configuration `de`.
        averages: whether the task's score is the mean over the evaluated splits instead, of which
            a folder of files needs only some.
        test: splits without labels, for GLUE's server.
        hub: the data set's id on the Hub.
        config: the configuration of that data set.
        folder: the folder of its configurations in a folder of files, if not its name.
        glue: its files in GLUE's own format, if it is one of the nine.
        column_files: its files of one word a line, if it has such.
        has_headings: whether rows are the lines of documents, each of which begins at a heading
            of the first level, ` = Title = `; else each row is a document.
        trained_on: a task whose training files serve if its own are not in a folder of files.
        files: paths of the splits that the user supplies as files.
        label_column: the column of labels, or of gold answers, by the Hub's name; empty where there
            is none.
        allows_no_answer: whether a question may have no answer, as in SQuAD 2.0.
        citation: its authors' paper.
        majority: the score of the most frequent training label on the first evaluated split, in
            percent; None where it is undefined or was not measured.
        fine_tuning: settings that differ from the shared defaults or exist for this task only.
        table: the table that shows it.
        second: its second column there, if any.
        higher_is_better: the direction of the score.
        version: to be raised when its data or metrics change.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    primary: tuple[Metric, ...]
    also: tuple[Metric, ...] = ()
    about: str = ""
    kind: Kind = TEXTS
    scale: tuple[float, float] | None = None
    evaluation: tuple[str, ...] = ("validation",)
    averages: bool = False
    test: tuple[str, ...] = ("test",)
    hub: str | None = "nyu-mll/glue"
    config: str | None = None
    folder: str | None = None
    glue: GlueFiles | None = None
    column_files: ColumnFiles | None = None
    has_headings: bool = False
    trained_on: str | None = None
    files: Mapping[str, str] = field(default_factory=dict, hash=False)
    label_column: str = "label"
    allows_no_answer: bool = False
    citation: str = ""
    majority: float | None = None
    fine_tuning: Mapping[str, Any] = field(default_factory=dict, hash=False)
    table: Literal[
        "table1", "table2", "table-entities", "table-xnli", "table-perplexity", "table-custom"
    ] = "table1"
    second: SecondColumn | None = None
    higher_is_better: bool = True
    version: int = 1

    @property
    def is_regression(self) -> bool:
        """Whether the label is a number on a scale rather than a class."""
        return self.kind == TEXTS and not self.labels

    def score_of(self, scores: Mapping[str, Mapping[str, float | None]]) -> float | None:
        """Return the task's score from those of its evaluated splits, in their order."""
        of_splits = [of_split["score"] for of_split in scores.values()]
        if not self.averages:
            return of_splits[0]
        defined = [score for score in of_splits if score is not None]
        return sum(defined) / len(defined) if len(defined) == len(of_splits) else None


CUSTOM: Literal["table-custom"] = "table-custom"
"""The table of all custom tasks."""
ENTITIES: Literal["table-entities"] = "table-entities"
"""The table of the built-in tasks of named entities."""
XNLI: Literal["table-xnli"] = "table-xnli"
"""The table of XNLI, a column per language."""
PERPLEXITY_TABLE: Literal["table-perplexity"] = "table-perplexity"
"""The table of perplexities, whose numbers are no percentages, and of custom tasks of that kind."""
LANGUAGES = ("en", "es", "zh", "de", "ar", "ur")
"""XNLI's languages that the original's README has numbers for, in its order."""
MISMATCHED = "mnli-mm"
"""The cell of MNLI's second evaluated split."""

_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")
_QUESTION_COLUMNS = ("id", "question", "context")

# Window and answer lengths of the original's SQuAD script; epochs and batch size in its range.
_SQUAD_DEFAULTS: Mapping[str, Any] = {
    "max_seq_length": 384,
    "doc_stride": 128,
    "max_query_length": 64,
    "n_best_size": 20,
    "max_answer_length": 30,
    "pad_to_max_length": False,
    "num_train_epochs": 2.0,
    "per_device_train_batch_size": 12,
}

_NLI = ("entailment", "neutral", "contradiction")
_XNLI_LANGUAGES = (*LANGUAGES, "bg", "el", "fr", "hi", "ru", "sw", "th", "tr", "vi")
_XNLI_DATA: Mapping[str, Any] = {
    "columns": ("premise", "hypothesis"),
    "labels": _NLI,
    "primary": ("accuracy",),
    "test": (),
    "hub": "facebook/xnli",
    "folder": "xnli",
    "table": XNLI,
    "citation": "Conneau et al. 2018, arXiv:1809.05053",
}


def _tags(*kinds: str) -> tuple[str, ...]:
    """Return the tags of these types of entities, in the Hub's order."""
    return ("O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI"))


_ENTITIES: Mapping[str, Any] = {
    "kind": TOKENS,
    "about": "which words name a person, a place, an organization?",
    "columns": ("tokens",),
    "label_column": "ner_tags",
    "primary": ("entity_f1",),
    "also": tuple(name for name in get_args(EntityMetric) if name != "entity_f1"),
    "test": (),
    "table": ENTITIES,
}
_CONLL: Mapping[str, Any] = {
    "citation": "Tjong Kim Sang and De Meulder 2003, https://aclanthology.org/W03-0419",
    "labels": _tags("PER", "ORG", "LOC", "MISC"),
    "evaluation": ("validation", "test"),
    "hub": None,  # the texts are Reuters' and the Frankfurter Rundschau's
}
_WIKIANN: Mapping[str, Any] = {
    "citation": "Pan et al. 2017, https://aclanthology.org/P17-1178; Rahimi et al. 2019",
    "labels": _tags("PER", "ORG", "LOC"),
    "hub": "unimelb-nlp/wikiann",
    "folder": "wikiann",
}


# Epochs, learning rate and batch are those of transformers' own example that fine-tunes GPT-2 on
# WikiText with `run_clm.py`; a batch's rows are blocks of `context` tokens.
LANGUAGE_MODELLING: Mapping[str, Any] = {
    "context": 1024,
    "stride": 512,
    "learning_rate": 5e-5,
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 8,
    "train_sampling_strategy": "random",  # blocks are of one length
}
_WIKITEXT: Mapping[str, Any] = {
    "kind": PERPLEXITY,
    "about": "how well does a language model predict Wikipedia's good articles?",
    "columns": ("text",),
    "labels": (),
    "label_column": "",
    "primary": ("token_perplexity",),
    "also": ("word_perplexity", "bits_per_byte"),
    "evaluation": ("validation", "test"),
    "test": (),
    "hub": "Salesforce/wikitext",
    "folder": "wikitext",
    "has_headings": True,
    "citation": "Merity et al. 2016, arXiv:1609.07843",
    "fine_tuning": LANGUAGE_MODELLING,
    "table": PERPLEXITY_TABLE,
    "higher_is_better": False,
}


def _conll_names(language: str) -> dict[str, str]:
    parts = {"train": "train", "validation": "testa", "test": "testb"}
    return {split: f"{language}.{part}" for split, part in parts.items()}


TASKS = (
    Task(
        name="cola",
        title="CoLA",
        about="is this sentence grammatical?",
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
        about="does the first text imply the second, contradict it, or neither?",
        columns=("premise", "hypothesis"),
        labels=_NLI,
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
        about="do two sentences say the same?",
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
        about="does this sentence answer the question?",
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
        about="do two questions ask the same?",
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
        about="does the first text imply the second?",
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
        about="does this sentence praise a film or pan it?",
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
        about="how alike are two sentences, from 0 to 5?",
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
        about="does the second sentence read the first one's pronoun rightly?",
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
        about="does this review praise a film or pan it?",
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
        about="which words of a paragraph answer the question?",
        kind=QUESTIONS,
        columns=_QUESTION_COLUMNS,
        labels=(),
        primary=("f1",),
        test=(),
        hub="rajpurkar/squad",
        config="plain_text",
        label_column="answers",
        table="table2",
        second=SecondColumn("squad EM", "SQuAD EM", "validation", "exact_match"),
        citation="Rajpurkar et al. 2016, arXiv:1606.05250",
        fine_tuning=_SQUAD_DEFAULTS,
    ),
    Task(
        name="squad_v2",
        title="SQuAD 2.0",
        about="which words answer the question, or do none?",
        kind=QUESTIONS,
        columns=_QUESTION_COLUMNS,
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
        fine_tuning={**_SQUAD_DEFAULTS, "null_score_diff_threshold": 0.0},
    ),
    Task(
        name="conll2003",
        title="CoNLL-2003",
        second=SecondColumn("conll2003 test", "CoNLL-2003 test", "test", "score"),
        column_files=ColumnFiles(_conll_names("eng")),
        **_ENTITIES,
        **_CONLL,
    ),
    Task(
        name="conll2003-de",
        title="CoNLL-2003 de",
        second=SecondColumn("conll2003-de test", "CoNLL-2003 de test", "test", "score"),
        column_files=ColumnFiles(_conll_names("deu"), encoding="latin-1"),
        **_ENTITIES,
        **_CONLL,
    ),
    Task(
        name="germeval2014",
        title="GermEval 2014",
        # The outer of two levels, with all twelve types: the four, and what derives from one
        # (`LOCderiv`) or contains one (`LOCpart`). The inner level is not read.
        labels=_tags(
            *(
                f"{kind}{part}"
                for kind in ("LOC", "ORG", "OTH", "PER")
                for part in ("", "deriv", "part")
            )
        ),
        evaluation=("validation", "test"),
        second=SecondColumn("germeval2014 test", "GermEval 2014 test", "test", "score"),
        hub=None,  # no copy in parquet is known here
        column_files=ColumnFiles(
            {
                "train": "NER-de-train.tsv",
                "validation": "NER-de-dev.tsv",
                "test": "NER-de-test.tsv",
            },
            word=1,
            tag=2,
            has_comments=True,
        ),
        citation="Benikova et al. 2014, https://aclanthology.org/L14-1251",
        **_ENTITIES,
    ),
    Task(name="wikiann-de", title="WikiANN de", config="de", **_ENTITIES, **_WIKIANN),
    Task(name="wikiann-en", title="WikiANN en", config="en", **_ENTITIES, **_WIKIANN),
    Task(
        name="xnli",
        title="XNLI",
        about="does the first text imply the second, in languages that it wasn't trained on?",
        evaluation=tuple(f"test.{language}" for language in _XNLI_LANGUAGES),
        averages=True,
        config="en",
        trained_on="mnli",
        **_XNLI_DATA,
    ),
    *(
        Task(
            name=f"xnli-translate-train-{language}",
            title=f"XNLI {language} (translate-train)",
            about="does the first text imply the second? Trained on translations",
            evaluation=("test",),
            config=language,
            **_XNLI_DATA,
        )
        for language in LANGUAGES[1:]
    ),
    Task(name="wikitext-2-raw", title="WikiText-2 raw", config="wikitext-2-raw-v1", **_WIKITEXT),
    Task(name="wikitext-2", title="WikiText-2", config="wikitext-2-v1", **_WIKITEXT),
    Task(
        name="wikitext-103-raw",
        title="WikiText-103 raw",
        config="wikitext-103-raw-v1",
        **_WIKITEXT,
    ),
    Task(name="wikitext-103", title="WikiText-103", config="wikitext-103-v1", **_WIKITEXT),
)

GLUE = tuple(task.name for task in TASKS if task.glue is not None)
"""The names of GLUE's nine tasks, in the order of the tables."""
