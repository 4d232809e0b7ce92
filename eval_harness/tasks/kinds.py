"""Kinds of tasks, one row each: how they are read, encoded, trained and evaluated. No torch.

Rows name functions instead of importing them: the functions lie in packages that import this one,
and reading data or tables must not import torch. `angels_share.imports.resolve` imports them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of task; functions and classes are given as `package.module:name`.

    Attributes:
        name: the kind's name.
        command: the script that runs tasks of this kind.
        local_data: the script's flags for files of one's own.
        read: `read(task, data_dir, *, limit, revision, test) -> TaskData`, without torch.
        read_unlabelled: `read_unlabelled(task, columns) -> Part`: a split of texts without labels,
            with any label in the labels' place; None if only labelled ones can be learned from.
        encode: `encode(part, tokenizer, **lengths) -> TokenRows`: a split as model inputs.
        lengths: the settings that `encode` takes.
        head: the class of transformers that loads a model with the kind's head.
        outputs: `outputs(task) -> HeadOutputs`: the head's outputs, as its config names them.
        loss: `loss(output, batch, smoothing) -> Tensor`: a sum, over what `count` counts.
        evaluate: `evaluate(run, model, data, rows, pad_id) -> Evaluation`.
        predictions: the class of the predictions that are saved with a result.
        count: `count(batch) -> int`: what the sums of an update are divided by, its examples
            unless the row says otherwise.
        answer_settings: settings that change predictions but not training.
        names_classes: whether the head's config names the task's classes.
    """

    name: str
    command: str
    local_data: str
    read: str
    encode: str
    lengths: tuple[str, ...]
    head: str
    outputs: str
    loss: str
    evaluate: str
    predictions: str
    count: str = "eval_harness.training.evaluation:count_examples"
    answer_settings: tuple[str, ...] = ()
    names_classes: bool = False
    read_unlabelled: str | None = None

    @property
    def head_ending(self) -> str:
        """The suffix of model classes with this head, such as `ForSequenceClassification`."""
        return self.head.removeprefix("AutoModel")


TEXTS = Kind(
    name="texts",
    command="run_glue",
    local_data="--data_dir, a folder of local files",
    read="eval_harness.data.texts:read",
    encode="eval_harness.training.encoding:encode",
    lengths=("max_seq_length",),
    head="AutoModelForSequenceClassification",
    outputs="eval_harness.training.classification:outputs",
    loss="eval_harness.training.classification:loss",
    evaluate="eval_harness.training.classification:evaluate",
    predictions="eval_harness.results.predictions:ClassPredictions",
    names_classes=True,
    read_unlabelled="eval_harness.data.texts:read_unlabelled",
)

QUESTIONS = Kind(
    name="questions",
    command="run_squad_distill",
    local_data="--train_file and --validation_file",
    read="eval_harness.data.questions:read",
    encode="eval_harness.squad.windows:make_windows",
    lengths=("max_seq_length", "doc_stride", "max_query_length"),
    head="AutoModelForQuestionAnswering",
    outputs="eval_harness.training.question_answering:outputs",
    loss="eval_harness.training.question_answering:loss",
    evaluate="eval_harness.training.question_answering:evaluate",
    predictions="eval_harness.results.predictions:AnsweredQuestions",
    answer_settings=("n_best_size", "max_answer_length", "null_score_diff_threshold"),
)

TOKENS = Kind(
    name="tokens",
    command="run_glue",
    local_data="--data_dir, a folder of local files",
    read="eval_harness.data.tagged_words:read",
    encode="eval_harness.training.token_classification:encode",
    lengths=("max_seq_length",),
    head="AutoModelForTokenClassification",
    outputs="eval_harness.training.token_classification:outputs",
    loss="eval_harness.training.token_classification:loss",
    evaluate="eval_harness.training.token_classification:evaluate",
    predictions="eval_harness.results.predictions:TaggedSentences",
    count="eval_harness.training.token_classification:count_labels",
    names_classes=True,
    read_unlabelled="eval_harness.data.tagged_words:read_unlabelled",
)

KINDS = (TEXTS, QUESTIONS, TOKENS)


def kind_with_head(class_name: str) -> Kind | None:
    """Return the kind whose head a model class has, by the class's name; None if no kind's."""
    return next((kind for kind in KINDS if class_name.endswith(kind.head_ending)), None)
