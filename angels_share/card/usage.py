"""The lines of Python by which a stranger uses a model: plain transformers, tried by a test."""

import json

from angels_share.card.facts import CardFacts
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
    pipeline = facts.shape.pipeline
    model = json.dumps(facts.repo_id)
    if pipeline == "text-classification":
        tuning = facts.fine_tuning
        example = _TWO_TEXTS if tuning is not None and len(tuning.columns) > 1 else _ONE_TEXT
        return _CLASSIFY.format(model=model, example=example), _about_classes(facts)
    code, about = {
        "fill-mask": (_FILL_MASK, _ABOUT_HEADS),
        "text-generation": (_GENERATE, ""),
        "question-answering": (_ANSWER, _ABOUT_ANSWERS),
        "feature-extraction": (_FEATURES, ""),
    }.get(pipeline or "", ("", ""))
    return code.format(model=model), about.format(model=model)


_ABOUT_HEADS = (
    "To fine-tune it, load it with a new head: "
    "`AutoModelForSequenceClassification.from_pretrained({model}, num_labels=2)`."
)
_ABOUT_ANSWERS = (
    "These lines read only as much of the context as the model takes, and always find an answer."
)


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
