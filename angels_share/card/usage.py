"""The lines of Python by which a stranger uses a model: plain transformers, tried by a test."""

import json

from angels_share.card.facts import HERE, CardFacts
from angels_share.card.text import inline

_FILL_MASK = """\
from transformers import pipeline

fill = pipeline("fill-mask", model={model})
for guess in fill(f"Barrels are stored in the {{fill.tokenizer.mask_token}}."):
    print(guess["token_str"], guess["score"])
"""
_GENERATE = """\
from transformers import pipeline

generate = pipeline("text-generation", model={model})
print(generate("The barrels are stored", max_new_tokens=20)[0]["generated_text"])
"""
_CLASSIFY = """\
from transformers import pipeline

classify = pipeline("text-classification", model={model})
print(classify({example}))
"""
# transformers 5 has no pipeline for questions any more.
_ANSWER = """\
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = AutoModelForQuestionAnswering.from_pretrained({model})
question, context = "Where are the barrels?", "The barrels are stored in the cellar."
inputs = tokenizer(question, context, truncation="only_second", return_tensors="pt")
with torch.no_grad():
    output = model(**inputs)
start = int(output.start_logits.argmax())
end = start + int(output.end_logits[0, start:].argmax())
print(tokenizer.decode(inputs["input_ids"][0, start : end + 1]))
"""
_TAG = """\
from transformers import pipeline

tag = pipeline("token-classification", model={model}, aggregation_strategy="first")
print(tag("Maria Murray stores barrels in Edinburgh."))
"""
_FEATURES = """\
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = AutoModel.from_pretrained({model})
print(model(**tokenizer("The barrels are stored.", return_tensors="pt")).last_hidden_state.shape)
"""
_ONE_TEXT = '"The tasting was worth the journey."'
_TWO_TEXTS = '{"text": "The barrels sleep in the dark.", "text_pair": "The barrels are stored."}'


def usage_of(facts: CardFacts) -> tuple[str, str]:
    """Return lines of Python that use the model, and what a reader must know about them.

    Both are empty for a class that has no lines here.
    """
    tuning = facts.fine_tuning
    pipeline = facts.shape.pipeline or ""
    code = code_for(pipeline, facts.loads_from, texts=len(tuning.columns) if tuning else 1)
    if pipeline == "text-classification":
        about = _about_classes(facts)
    else:
        about = _ABOUT.get(pipeline, "").format(model=json.dumps(facts.loads_from))
    if facts.loads_from == HERE:
        about = " ".join(filter(None, (_ABOUT_HERE, about)))
    return code, about


def code_for(pipeline: str, model: str, *, texts: int = 1) -> str:
    """Return lines of Python that load a model and use it; none for what has no lines here.

    Args:
        pipeline: the Hub's name of what the model does.
        model: its id, or its folder.
        texts: how many texts it classifies together.
    """
    example = _TWO_TEXTS if texts > 1 else _ONE_TEXT
    return _CODE.get(pipeline, "").format(model=json.dumps(model), example=example)


_CODE = {
    "fill-mask": _FILL_MASK,
    "text-generation": _GENERATE,
    "text-classification": _CLASSIFY,
    "question-answering": _ANSWER,
    "token-classification": _TAG,
    "feature-extraction": _FEATURES,
}
_ABOUT_HEADS = (
    "To fine-tune it, load it with a new head: "
    "`AutoModelForSequenceClassification.from_pretrained({model}, num_labels=2)`."
)
_ABOUT_ANSWERS = (
    "These lines read only as much of the context as the model takes, and always find an answer."
)
_ABOUT_TAGS = "A word's tag is the one at its first token, as the model was trained and judged."
_ABOUT = {
    "fill-mask": _ABOUT_HEADS,
    "question-answering": _ABOUT_ANSWERS,
    "token-classification": _ABOUT_TAGS,
}
_ABOUT_HERE = "Run them in this folder, or give its path."


def _about_classes(facts: CardFacts) -> str:
    tuning = facts.fine_tuning
    scale = tuning.scale if tuning is not None else None
    ends = f", labels were {scale[0]:g} to {scale[1]:g}" if scale is not None else ""
    number = f"It returns a number, no class{ends}. " if facts.shape.is_regression else ""
    if tuning is None:
        both = '`classify({"text": "…", "text_pair": "…"})`'
        return f"{number}A task of two texts needs both: {both}."
    if len(tuning.columns) < 2:
        return number.strip()
    first, second = map(inline, tuning.columns[:2])
    return f"{number}`text` is what the data set calls {first}, `text_pair` is its {second}."
