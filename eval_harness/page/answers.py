"""What the float32 model answers to a page's examples, in torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from angels_share.errors import UserError, one_line
from angels_share.inputs import chosen, inputs_of, longest_of
from angels_share.untrusted import require_safetensors
from eval_harness.page.examples import Examples
from eval_harness.page.model import CLASSES, MASK, NUMBER, SPAN, TOKENS, ExportedModel
from eval_harness.training.model_loading import from_weights

LONGEST_ANSWER = 30
"""Tokens of an answer to a question, as in SQuAD's evaluation."""
_CLASSES = {
    CLASSES: "AutoModelForSequenceClassification",
    NUMBER: "AutoModelForSequenceClassification",
    TOKENS: "AutoModelForTokenClassification",
    MASK: "AutoModelForMaskedLM",
    SPAN: "AutoModelForQuestionAnswering",
}


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        text: as the page shows it.
        key: what must be the same for two answers to be equal: ids of classes, tokens, positions.
        probability: of the answer; of several tokens the least; None for a number.
    """

    text: str
    key: tuple[int, ...]
    probability: float | None


@dataclass(frozen=True)
class Answers:
    """The answers to all examples, and how many tokens the model reads."""

    answers: Sequence[Answer]
    max_tokens: int


def torch_answers(model: ExportedModel, tokenizer: Any, examples: Examples) -> Answers:
    """Return a model's answers in float32, one text at a time.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        examples: the texts.

    Raises:
        UserError: the model can't be loaded without running code, or a text is too long for it.
    """
    loaded = _load(model)
    longest = int(min(longest_of(loaded), tokenizer.model_max_length))
    answers = []
    for number, row in enumerate(examples.rows):
        encoded = tokenizer(*row, return_token_type_ids=True, truncation=False, verbose=False)
        ids = encoded["input_ids"]
        if len(ids) > longest:
            raise UserError(
                f"{examples.place(number)}: {len(ids)} tokens, and {model.name} reads {longest}"
            )
        if model.head == MASK and tokenizer.mask_token_id not in ids:
            raise UserError(
                f"{examples.place(number)}: has no {tokenizer.mask_token}, which is to be filled in"
            )
        batch = {name: torch.tensor([value]) for name, value in encoded.items()}
        inputs: dict[str, Any] = dict(chosen(batch, inputs_of(loaded)))
        with torch.inference_mode():
            output = loaded(**inputs)
        first = len(tokenizer(row[0], verbose=False)["input_ids"]) if model.head == SPAN else 0
        answers.append(_answer(model, tokenizer, ids, output, first))
    return Answers(answers, longest)


def _load(model: ExportedModel) -> PreTrainedModel:
    require_safetensors(model.folder, model.architecture)
    try:
        config = AutoConfig.from_pretrained(model.folder, trust_remote_code=False)
    except Exception as error:  # a damaged file gives errors of any type
        raise UserError(f"{model.folder}: its config cannot be used: {one_line(error)}") from error
    loaded, report = from_weights(str(model.folder), _CLASSES[model.head], model.folder, config)
    if missing := report["missing_keys"]:
        raise UserError(f"{model.folder}: {len(missing)} weights are missing, e.g. {min(missing)}")
    return loaded.eval()


def _answer(
    model: ExportedModel, tokenizer: Any, ids: Sequence[int], output: Any, first: int
) -> Answer:
    if model.head == NUMBER:
        value = float(output.logits[0, 0])
        return Answer(f"{value:.2f}", (round(value * 10),), None)
    if model.head == SPAN:
        return _span(tokenizer, ids, output, first)
    shares = torch.softmax(output.logits[0].double(), -1)
    if model.head == CLASSES:
        best = int(shares.argmax())
        return Answer(model.labels[best], (best,), float(shares[best]))
    special = set(tokenizer.all_special_ids)
    places = [
        place
        for place, token in enumerate(ids)
        if (token == tokenizer.mask_token_id if model.head == MASK else token not in special)
    ]
    best_of = [int(shares[place].argmax()) for place in places]
    least = min((float(shares[place].max()) for place in places), default=1.0)
    if model.head == MASK:
        text = ", ".join(tokenizer.decode([token]).strip() for token in best_of)
    else:
        labels = [model.labels[number] for number in best_of]
        names = entities([ids[place] for place in places], labels)
        text = "; ".join(f"{tokenizer.decode(tokens).strip()}: {name}" for tokens, name in names)
    return Answer(text or "none", tuple(best_of), least)


def entities(ids: Sequence[int], labels: Sequence[str]) -> Iterator[tuple[list[int], str]]:
    """Yield the tokens of each entity, and its name; other tokens are left out.

    Args:
        ids: the tokens of a text.
        labels: their labels, in the BIO scheme or another with `O` for tokens of none.
    """
    tokens: list[int] = []
    current = ""
    for token, label in [*zip(ids, labels, strict=True), (0, "O")]:
        name = "" if label == "O" else label.removeprefix("B-").removeprefix("I-")
        if tokens and (name != current or label.startswith("B-")):
            yield tokens, current
            tokens = []
        current = name
        if name:
            tokens = [*tokens, token]


def _span(tokenizer: Any, ids: Sequence[int], output: Any, first: int) -> Answer:
    """Return the likeliest span of the context, which begins after the question and its marks."""
    special = set(tokenizer.all_special_ids)
    allowed = [place for place in range(first, len(ids)) if ids[place] not in special]
    starts = torch.softmax(output.start_logits[0].double(), -1).tolist()
    ends = torch.softmax(output.end_logits[0].double(), -1).tolist()
    best, start, end = max(
        (
            (starts[start] * ends[end], start, end)
            for start in allowed
            for end in allowed
            if start <= end < start + LONGEST_ANSWER
        ),
        key=lambda found: found[0],
        default=(0.0, 0, 0),
    )
    return Answer(tokenizer.decode(ids[start : end + 1]).strip(), (start, end), best)
