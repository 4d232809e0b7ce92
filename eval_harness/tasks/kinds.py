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
        heads: the classes of transformers that load a model with the kind's head; of several the
            one that the model's own class belongs to.
        outputs: `outputs(task) -> HeadOutputs`: the head's outputs, as its config names them.
        loss: `loss(output, batch, smoothing) -> Tensor`: a sum, over what `count` counts.
        evaluate: `evaluate(run, model, data, rows, pad_id) -> Evaluation`.
        predictions: the class of the predictions that are saved with a result.
        count: `count(batch) -> int`: what the sums of an update are divided by, its examples
            unless the row says otherwise.
        answer_settings: settings that change predictions but not training.
        names_classes: whether the head's config names the task's classes.
        is_pretrained: whether the head is the pre-trained one, which a model must have.
        of_model: `of_model(model, values) -> Mapping`: settings that depend on the model, given
            the others; empty for a kind that has none.
        training_set: `training_set(rows, run, tokenizer) -> Dataset`: what a run learns from;
            empty for the encoded training split as it is.
        is_counted_late: whether the number of training examples is known only once encoded.
    """

    name: str
    command: str
    local_data: str
    read: str
    encode: str
    lengths: tuple[str, ...]
    heads: tuple[str, ...]
    outputs: str
    loss: str
    evaluate: str
    predictions: str
    count: str = "eval_harness.training.evaluation:count_examples"
    answer_settings: tuple[str, ...] = ()
    names_classes: bool = False
    read_unlabelled: str | None = None
    is_pretrained: bool = False
    of_model: str = ""
    training_set: str = ""
    is_counted_late: bool = False

    def head_of(self, class_name: str) -> str | None:
        """Return the one of the heads that a model class has, by its name; None if none."""
        return next((each for each in self.heads if class_name.endswith(_endings(each))), None)


CAUSAL, MASKED = "AutoModelForCausalLM", "AutoModelForMaskedLM"
_ENDINGS = {
    CAUSAL: ("ForCausalLM", "LMHeadModel"),
    MASKED: ("ForMaskedLM", "ForPreTraining"),
}
"""The suffixes of model classes with a head, where they aren't the rest of the head's name."""


def _endings(head: str) -> tuple[str, ...]:
    return _ENDINGS.get(head, (head.removeprefix("AutoModel"),))


TEXTS = Kind(
    name="texts",
    command="run_glue",
    local_data="--data_dir, a folder of local files",
    read="eval_harness.data.texts:read",
    encode="eval_harness.training.encoding:encode",
    lengths=("max_seq_length",),
    heads=("AutoModelForSequenceClassification",),
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
    heads=("AutoModelForQuestionAnswering",),
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
    heads=("AutoModelForTokenClassification",),
    outputs="eval_harness.training.token_classification:outputs",
    loss="eval_harness.training.token_classification:loss",
    evaluate="eval_harness.training.token_classification:evaluate",
    predictions="eval_harness.results.predictions:TaggedSentences",
    count="eval_harness.training.token_classification:count_labels",
    names_classes=True,
    read_unlabelled="eval_harness.data.tagged_words:read_unlabelled",
)

PERPLEXITY = Kind(
    name="perplexity",
    command="run_glue",
    local_data="--data_dir, a folder of local files",
    read="eval_harness.data.documents:read",
    encode="eval_harness.training.language_modelling:encode",
    lengths=("context", "stride", "scoring", "begin_token"),
    heads=(CAUSAL, MASKED),
    outputs="eval_harness.training.language_modelling:outputs",
    loss="eval_harness.training.token_classification:loss",
    evaluate="eval_harness.training.language_modelling:evaluate",
    predictions="eval_harness.results.predictions:ScoredDocuments",
    count="eval_harness.training.token_classification:count_labels",
    is_pretrained=True,
    of_model="eval_harness.runs.language_models:settings_for",
    training_set="eval_harness.training.language_modelling:training_set",
    is_counted_late=True,
)

KINDS = (TEXTS, QUESTIONS, TOKENS, PERPLEXITY)


def kind_with_head(class_name: str) -> Kind | None:
    """Return the kind whose head a model class has, by the class's name; None if no kind's."""
    return next((kind for kind in KINDS if kind.head_of(class_name)), None)
