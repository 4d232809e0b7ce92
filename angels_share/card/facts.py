"""Facts that a model card states: plain data, whoever measured them. Imports no torch.

Whatever is None, empty or missing was not measured or not recorded: the card leaves it out, and
says so where a reader would look for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PIPELINES = (
    ("WithLMHeadModel", "fill-mask"),  # XLM's and FlauBERT's, before the ending that it contains
    ("ForMaskedLM", "fill-mask"),
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForSequenceClassification", "text-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForTokenClassification", "token-classification"),
    ("Model", "feature-extraction"),
)
"""The Hub's name of what a model does, by the ending of its class."""
HERE = "."
"""Where the model of a card lies that isn't on the Hub: beside its card."""
_FINE_TUNED = ("text-classification", "question-answering", "token-classification")


def pipeline_of(class_name: str) -> str | None:
    """Return the Hub's name of what models of a class do; None for an unknown class."""
    return next((tag for ending, tag in PIPELINES if class_name.endswith(ending)), None)


@dataclass(frozen=True)
class CardTeacher:
    """A teacher, without the place where it lay.

    Attributes:
        name: its Hub id, or the last part of its folder's path.
        hub: its id on the Hub; None for a folder.
        revision: its commit there.
        sha256: the hash of its weights, where they are one file in a folder.
    """

    name: str
    hub: str | None = None
    revision: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class CardCorpus:
    """The text that a student was trained on.

    Attributes:
        names: names of its files, without folders, and Hub ids, in reading order.
        hub: the Hub ids among them, without their configurations.
        fingerprint: the hash of text, tokenizer and options; None for a stream.
        texts: number of texts read.
        sequences: number of training sequences.
        tokens: their tokens.
        held_out: number of held-out sequences.
        max_length: longest sequence in tokens.
        streamed: whether it was read as a stream, which is neither counted nor hashed.
    """

    names: tuple[str, ...] = ()
    hub: tuple[str, ...] = ()
    fingerprint: str | None = None
    texts: int | None = None
    sequences: int | None = None
    tokens: int | None = None
    held_out: int | None = None
    max_length: int | None = None
    streamed: bool = False


@dataclass(frozen=True)
class CardPretraining:
    """How a student was trained, from its record.

    Attributes:
        teachers: its teachers, the first one first; empty where it learned from the text alone.
        weights: the weight of each term of the loss, by its name in the record.
        settings: the other settings of the recipe.
        corpus: the text.
        status: "complete" or "interrupted"; None where the record does not say.
        steps: number of optimizer steps.
        ablation: what was left out of the loss on purpose, a name in `ABLATIONS`.
        init: the student's initial weights: "teacher", "random", or "given".
        layers: the teacher's layers that it was initialized from.
        perplexity: on the held-out sequences.
        history: step, weighted loss and perplexity on them while it was trained.
        versions: of libraries and of this project, by name.
        device: the device, as torch names it.
        threads: CPU threads.
        processor: the processor's name.
        seconds: by stage.
    """

    teachers: tuple[CardTeacher, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    corpus: CardCorpus | None = None
    status: str | None = None
    steps: int | None = None
    ablation: str | None = None
    init: str | None = None
    layers: tuple[int, ...] = ()
    perplexity: float | None = None
    history: tuple[tuple[int, float | None, float | None], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    threads: int | None = None
    processor: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CardStep:
    """A step that made a model from another after its pre-training.

    Attributes:
        what: what was done.
        file: the file that it made, below the model's folder.
        made_from: the name of what it was made from.
        sha256: the hash of its file.
        from_sha256: the hash of the weights that it was made from.
        bytes: the file's size.
        sizes: what a cut left, by name; empty for an export.
        scores: by which scores was cut.
        difference: the largest difference of its logits from those of what it was made from.
        agreement: the share of answers that it shares with the model.
        metric: by which it and what it was made from were scored on the rows' labels.
        before: the score of what it was made from, as tables show it.
        after: its own.
        rows: on how many rows both were compared.
        data: what these rows were.
        task: what it was fine-tuned for.
        limit: how many examples a split had at most; None for all.
        score: what it reached there, as tables show it: a share in percent.
    """

    what: str
    file: str
    made_from: str | None = None
    sha256: str | None = None
    from_sha256: str | None = None
    bytes: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    scores: tuple[str, ...] = ()
    difference: float | None = None
    agreement: float | None = None
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    rows: int | None = None
    data: str | None = None
    task: str | None = None
    limit: int | None = None
    score: float | None = None


@dataclass(frozen=True)
class CardFineTuning:
    """How a model with a task's head was trained, from its result.

    Attributes:
        task: the task's name.
        title: its name for readers.
        columns: the data set's columns that the model reads, in order: one or two texts.
        scale: the lowest and the highest label, where labels are numbers.
        examples: number of training examples.
        settings: every hyper-parameter.
        base: the name of the model that was fine-tuned.
        base_hub: its id on the Hub; None for a folder.
        base_revision: its commit there.
        base_teacher: the model that it was distilled from, where that is known.
        distillation: options of the distillation on the task; empty for plain fine-tuning; None
            where it is unknown which of several ways the weights were made.
        transfer_texts: how many texts without labels were learned from, by that distillation.
        seed: the seed of these weights; None where it is unknown.
        marks: caveats about these weights, such as "degenerate: one answer for all of validation".
        seconds: of training with that seed.
        machine: device, threads and processor of that training.
    """

    task: str
    title: str
    columns: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None
    examples: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    base_hub: str | None = None
    base_revision: str | None = None
    base_teacher: str | None = None
    distillation: Mapping[str, Any] | None = field(default_factory=dict)
    transfer_texts: int = 0
    seed: int | None = None
    marks: tuple[str, ...] = ()
    seconds: float | None = None
    machine: str | None = None


@dataclass(frozen=True)
class CardData:
    """The data of a result.

    Attributes:
        title: the task's name for readers.
        split: the evaluated split.
        hub: the data set's id on the Hub, if the examples are certainly its own.
        config: the configuration of that data set.
        revision: its commit.
        elsewhere: what the data are if they are not the Hub's: stand-in data with their name,
            files, or a custom task.
        content: the hash of texts and labels.
        examples: number of evaluated examples.
    """

    title: str
    split: str
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    elsewhere: str = ""
    content: str | None = None
    examples: int | None = None


@dataclass(frozen=True)
class CardResult:
    """One metric on one split of a task, over seeds; in percent, as the tables have it.

    Attributes:
        task: the task's name.
        pipeline: the Hub's name for this kind of task.
        data: what it was evaluated on.
        title: the metric's name for readers.
        metric: its id on the Hub; None for a mean of metrics.
        arguments: the arguments that this id needs for exactly this metric.
        count: number of seeds, as the tables print it: `5`, or `4/5` where one is missing.
        seeds: number of seeds with a score.
        median: the median over these seeds.
        highest: the highest of them.
        text: median and spread, as the tables print them.
        here: the score of the very weights that the card comes with.
        here_text: that score as it is printed.
    """

    task: str
    pipeline: str
    data: CardData
    title: str
    metric: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    count: str = ""
    seeds: int = 0
    median: float | None = None
    highest: float | None = None
    text: str = ""
    here: float | None = None
    here_text: str = ""


@dataclass(frozen=True)
class CardRetained:
    """The share of its teacher's score that a student retained.

    Attributes:
        text: the share in percent with its interval, as the tables print it.
        teacher: the label of the teacher's row.
        hub: the teacher's id on the Hub; None for a folder.
        revision: its commit there.
        tasks: the teacher's medians and spreads, as the tables print them with the number of
            seeds, by the titles of the tasks that the share is over.
        single: those of them that the teacher has one seed of.
        resamples: number of resamples behind the interval.
        why_no_interval: why it has no interval.
    """

    text: str
    teacher: str
    hub: str | None = None
    revision: str | None = None
    tasks: Mapping[str, str] = field(default_factory=dict)
    single: tuple[str, ...] = ()
    resamples: int = 0
    why_no_interval: str = ""


@dataclass(frozen=True)
class CardRow:
    """Results under one setting, as a row of the tables has them.

    Attributes:
        label: the row's label.
        results: its results.
        distilled: whether a teacher was used on the task, too: (D).
        transfer_texts: how many texts without labels it answered there, at most.
        limit: the most examples per split; None for all.
        mean: the mean of the medians over several tasks of GLUE, as the tables print it.
        mean_of: the titles of these tasks.
        retained: the share of its teacher's score.
        why_not_retained: why that share is unknown though a teacher was evaluated.
        notes: caveats, as the tables have them.
        code: versions and commits of this project.
        libraries: versions of libraries, by name.
        machines: devices, threads and processors.
    """

    label: str
    results: tuple[CardResult, ...] = ()
    distilled: bool = False
    transfer_texts: int = 0
    limit: int | None = None
    mean: str = ""
    mean_of: tuple[str, ...] = ()
    retained: CardRetained | None = None
    why_not_retained: str = ""
    notes: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    machines: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardTable:
    """A table as it is printed, with its notes."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardMeasured:
    """What result files say about a model.

    Attributes:
        rows: results by setting.
        speed: timings, a table per session.
        citations: papers of the evaluated tasks, by title.
        fine_tuning: how the model was fine-tuned, if results of one task were asked for: for the
            card of a model with that task's head.
    """

    rows: tuple[CardRow, ...] = ()
    speed: tuple[CardTable, ...] = ()
    citations: Mapping[str, str] = field(default_factory=dict)
    fine_tuning: CardFineTuning | None = None


@dataclass(frozen=True)
class CardShape:
    """What config, tokenizer and weight files say about a model.

    Attributes:
        architecture: the model's class.
        task: the name of the task that it was fine-tuned for, as its config records it.
        layers: number of layers.
        width: size of the hidden states.
        vocabulary: number of token ids.
        max_tokens: longest input in tokens.
        labels: names of the classes in the order of their ids.
        is_regression: whether the head gives one number.
        parameters: number of parameters in the weight files.
        bytes: size of the weight files.
        dtypes: types of the weights.
    """

    architecture: str | None = None
    task: str | None = None
    layers: int | None = None
    width: int | None = None
    vocabulary: int | None = None
    max_tokens: int | None = None
    labels: tuple[str, ...] = ()
    is_regression: bool = False
    parameters: int | None = None
    bytes: int | None = None
    dtypes: tuple[str, ...] = ()

    @property
    def pipeline(self) -> str | None:
        """The Hub's name of what the model does; None for an unknown class."""
        return pipeline_of(self.architecture or "")


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card states.

    Attributes:
        repo_id: the model's id on the Hub.
        shape: what its files say.
        pretraining: how it, or the model that was fine-tuned, was distilled from its teachers.
        measured: what result files say.
        license: the licence of the model that it derives from, by the Hub's id; None if unknown.
        languages: language codes; empty if unknown.
        base_models: Hub ids of the models that it derives from, where they are not those recorded.
        is_here: whether the card lies beside the model, which isn't on the Hub.
        steps: what made it smaller after its training, in order.
    """

    repo_id: str
    shape: CardShape = CardShape()
    pretraining: CardPretraining | None = None
    measured: CardMeasured = CardMeasured()
    license: str | None = None
    languages: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    is_here: bool = False
    steps: tuple[CardStep, ...] = ()

    @property
    def loads_from(self) -> str:
        """What lines of Python load the model by."""
        return HERE if self.is_here else self.repo_id

    @property
    def is_fine_tuned(self) -> bool:
        """Whether the model has a task's head, or a language model's that was tuned to a text."""
        return self.shape.task is not None or self.shape.pipeline in _FINE_TUNED

    @property
    def fine_tuning(self) -> CardFineTuning | None:
        """How it was fine-tuned, if it was and that is known."""
        return self.measured.fine_tuning if self.is_fine_tuned else None

    @property
    def is_distilled(self) -> bool:
        """Whether a teacher took part, in pre-training or on the task."""
        tuning = self.fine_tuning
        taught = tuning is not None and bool(tuning.distillation or tuning.base_teacher)
        return taught or bool(self.pretraining and self.pretraining.teachers)
