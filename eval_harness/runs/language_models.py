"""What a language model is, by its config and tokenizer: settings of a perplexity. No torch."""

from collections.abc import Mapping
from typing import Any

from angels_share.errors import UserError
from angels_share.tokenizing import load_tokenizer
from eval_harness.runs.models import config_of, max_tokens_of
from eval_harness.runs.run import Model
from eval_harness.tasks.kinds import MASKED, PERPLEXITY
from eval_harness.tasks.perplexity import MASKED_TOKEN, NEXT_TOKEN

_POSITIONS = ("n_positions", "max_position_embeddings")


def settings_for(
    model: Model, values: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a perplexity that depend on the model.

    `context` is the number of tokens that it reads at a time, no more than it can; `stride` that
    by which this window moves; `scoring` how tokens are scored; `begin_token` what stands before a
    document, without which its first token can't be scored.

    Args:
        model: the model.
        values: the settings, `context` and `stride` among them.
        given: those of them that the user gave, which are used or refused.

    Raises:
        UserError: it has no language model's head, or a given length is too large for it.
    """
    head = _head_of(model)
    most = _most_tokens(model)
    context, stride = int(values["context"]), int(values["stride"])
    if most is not None and context > most:
        if "context" in given:
            raise UserError(f"--context {context}: {model.name} reads {most} tokens at most")
        context = most
    if "stride" in given and stride > context:
        raise UserError(
            f"--stride {stride}: tokens would be left out between windows of {context}; it can be "
            f"{context} at most"
        )
    tokenizer = load_tokenizer(model.home, model.revision)
    special = tokenizer.num_special_tokens_to_add(pair=False) if head == MASKED else 0
    if context <= special:
        raise UserError(
            f"--context {context}: {special} of them are special tokens, which leaves none for "
            "the text: increase it"
        )
    return {
        "context": context,
        "stride": min(stride, context - special),
        "scoring": MASKED_TOKEN if head == MASKED else NEXT_TOKEN,
        "begin_token": None if head == MASKED else _begin_token(model, tokenizer),
    }


def _head_of(model: Model) -> str:
    config = config_of(model)
    name = (config.get("architectures") or [""])[0]
    head = PERPLEXITY.head_of(name)
    is_either = name.endswith("WithLMHeadModel")  # XLM's and FlauBERT's: masked or causal
    if head is None or is_either or config.get("is_encoder_decoder"):
        what = f"its config says {name}" if name else "its config names no architecture"
        raise UserError(
            f"{model.name}: has no language model's head ({what}): perplexity is of models such as "
            "GPT2LMHeadModel, LlamaForCausalLM or BertForMaskedLM"
        )
    return head


def _most_tokens(model: Model) -> int | None:
    """Return how many tokens a model reads, by its table of positions or what it was made for."""
    if (certain := max_tokens_of(model)) is not None:
        return certain
    config = config_of(model)
    return next((config[name] for name in _POSITIONS if type(config.get(name)) is int), None)


def _begin_token(model: Model, tokenizer: Any) -> str | None:
    """Return the token that the model's texts begin with, by its tokenizer, else by its config."""
    if tokenizer.bos_token is not None:
        return str(tokenizer.bos_token)
    number = config_of(model).get("bos_token_id")
    if type(number) is not int or not 0 <= number < len(tokenizer):
        return None
    token = tokenizer.convert_ids_to_tokens(number)
    return None if token is None else str(token)
