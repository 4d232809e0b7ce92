"""One row per kind of task: how it is read, encoded, learned and evaluated. Imports no torch.

Functions are named, not imported: the row stands below the wings that do the work, and whoever
only reads data or tables never imports torch. `angels_share.imports.resolve` finds what is named.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of task.

    Attributes:
        name: the kind's own name.
        command: the script that runs tasks of this kind.
        read: `read(task, data_dir, *, limit, revision, test) -> TaskData`, without torch.
        encode: `encode(part, tokenizer, **lengths) -> TokenRows`: a split as model inputs.
        lengths: the settings that `encode` takes.
        head: transformers' class that loads a model with the kind's head.
        outputs: `outputs(task) -> HeadOutputs`: what the head says, and how its config calls it.
        loss: `loss(output, batch, smoothing) -> Tensor`: the sum over a batch's examples.
        evaluate: `evaluate(run, model, data, rows, pad_id) -> Evaluation`.
        predictions: the class of what is saved beside a result.
        answer_settings: settings that change what is answered and nothing that is learned.
        names_classes: whether the head's config names the task's classes.
    """

    name: str
    command: str
    read: str
    encode: str
    lengths: tuple[str, ...]
    head: str
    outputs: str
    loss: str
    evaluate: str
    predictions: str
    answer_settings: tuple[str, ...] = ()
    names_classes: bool = False

    @property
    def head_ending(self) -> str:
        """How the names of model classes with this head end: `ForSequenceClassification`."""
        return self.head.removeprefix("AutoModel")


TEXTS = Kind(
    name="texts",
    command="run_glue",
    read="eval_harness.data.texts:read",
    encode="eval_harness.training.encoding:encode",
    lengths=("max_seq_length",),
    head="AutoModelForSequenceClassification",
    outputs="eval_harness.training.classification:outputs",
    loss="eval_harness.training.classification:loss",
    evaluate="eval_harness.training.classification:evaluate",
    predictions="eval_harness.results.predictions:ClassPredictions",
    names_classes=True,
)

QUESTIONS = Kind(
    name="questions",
    command="run_squad_distill",
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

KINDS = (TEXTS, QUESTIONS)


def kind_with_head(class_name: str) -> Kind | None:
    """Return the kind whose head a model's class has, by the class's name."""
    return next((kind for kind in KINDS if class_name.endswith(kind.head_ending)), None)
