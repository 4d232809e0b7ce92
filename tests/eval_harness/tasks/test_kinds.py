"""The rows of kinds: what they name can be imported and is what the row says."""

import inspect
import pickle

import pytest
import transformers

from angels_share.imports import resolve
from eval_harness.results.predictions import Predictions
from eval_harness.tasks.kinds import KINDS, PERPLEXITY, QUESTIONS, TEXTS, kind_with_head
from eval_harness.tasks.lookup import task_named

FUNCTIONS = {
    "read": ["task", "data_dir", "limit", "revision", "test", "train"],
    "outputs": ["task"],
    "loss": ["output", "batch", "smoothing"],
    "evaluate": ["run", "model", "data", "rows", "pad_id"],
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("field", FUNCTIONS)
def test_a_row_names_functions_that_are_there(kind, field):
    """Prevents a moved or renamed function from being missed until a worker needs it."""
    function = resolve(getattr(kind, field))
    assert inspect.isfunction(function)
    parameters = [name.removeprefix("_") for name in inspect.signature(function).parameters]
    assert parameters == FUNCTIONS[field]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_encode_takes_the_lengths_of_the_row(kind):
    """Prevents a length that a task has and its encoder doesn't, or the other way round."""
    encode = resolve(kind.encode)
    assert inspect.isfunction(encode)
    _part, tokenizer, *lengths = inspect.signature(encode).parameters
    assert tokenizer == "tokenizer"
    assert set(lengths) == set(kind.lengths)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_row_names_classes_of_their_sort(kind):
    """Prevents predictions that the store can't save, and a head that transformers lacks."""
    predictions = resolve(kind.predictions)
    assert inspect.isclass(predictions)
    assert issubclass(predictions, Predictions)
    assert not inspect.isabstract(predictions)
    assert all(inspect.isclass(getattr(transformers, head)) for head in kind.heads)


@pytest.mark.parametrize(
    ("class_name", "kind"),
    [
        ("BertForSequenceClassification", TEXTS),
        ("DistilBertForQuestionAnswering", QUESTIONS),
        ("BertForMaskedLM", PERPLEXITY),
        ("GPT2LMHeadModel", PERPLEXITY),
        ("LlamaForCausalLM", PERPLEXITY),
        ("BertModel", None),
    ],
)
def test_a_head_tells_its_kind(class_name, kind):
    """Prevents a fine-tuned head from being replaced, or a language model's from being kept."""
    assert hasattr(transformers, class_name)
    assert kind_with_head(class_name) is kind


@pytest.mark.parametrize(("name", "kind"), [("rte", TEXTS), ("stsb", TEXTS), ("squad", QUESTIONS)])
def test_a_pickled_task_has_an_equal_kind(name, kind):
    """Prevents a comparison of kinds by identity: a worker's copy is another object."""
    task = task_named(name)
    copy = pickle.loads(pickle.dumps(task))
    assert copy.kind is not kind
    assert copy.kind == kind
    assert copy == task
    assert copy.is_regression == task.is_regression == (name == "stsb")
