"""Measures a model as it is: its language-model head on held-out text and pairs, its features.

All of the wing's torch. Every number is summed in float64 on the host, example by example, so that
differences of two models can be compared example by example.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from angels_share.errors import UserError, one_line
from angels_share.inputs import chosen, inputs_of, positions_of
from angels_share.tokenizing import load_tokenizer
from angels_share.untrusted import refuse_code, require_safetensors
from eval_harness.data.splits import TaskData
from eval_harness.data.texts import Split
from eval_harness.probe.hidden_words import Span, beginning_of, hidden_words
from eval_harness.probe.linear import features_of, fit_and_predict
from eval_harness.probe.request import HeldOutText, MinimalPairs
from eval_harness.results.probes import Examples
from eval_harness.runs.models import folder_of
from eval_harness.runs.run import Model
from eval_harness.training.model_loading import from_weights

_MASKED = "AutoModelForMaskedLM"
_CAUSAL = "AutoModelForCausalLM"


@dataclass(frozen=True)
class LanguageModel:
    """A model with its language-model head, frozen, and its tokenizer.

    Attributes:
        name: its name in messages.
        network: the model.
        tokenizer: its tokenizer.
        causal: whether it predicts the next token rather than a hidden one.
        has_head: whether its files hold a head: a sentence encoder's don't.
        device: where it is.
    """

    name: str
    network: PreTrainedModel
    tokenizer: Any
    causal: bool
    has_head: bool
    device: torch.device

    @property
    def longest(self) -> int | None:
        """How many tokens it reads at most."""
        return positions_of(self.network)

    @property
    def pad_id(self) -> int:
        """The token that batches are padded with; it is never attended to."""
        found = self.tokenizer.pad_token_id
        return 0 if found is None else int(found)


def load(model: Model, device: str) -> LanguageModel:
    """Load a model with its language-model head, in float32.

    Raises:
        UserError: it can't be loaded, or is no language model.
    """
    folder = folder_of(model)
    try:
        values, _ = PreTrainedConfig.get_config_dict(folder)
        refuse_code(model.name, values)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{model.name}: its config cannot be used: {one_line(error)}") from error
    class_name = _class_for(type(config))
    if class_name is None:
        raise UserError(f"{model.name}: {config.model_type} has no language-model head to probe")
    require_safetensors(folder, class_name)
    network, report = from_weights(model.name, class_name, folder, config)
    missing = _refuse_missing_body(model, network, report["missing_keys"])
    tokenizer = load_tokenizer(model.source, model.revision)
    highest = max(tokenizer.get_vocab().values())
    if highest >= network.get_input_embeddings().num_embeddings:
        raise UserError(
            f"{model.name}: its tokenizer has ids up to {highest}, but its weights have only "
            f"{network.get_input_embeddings().num_embeddings} embeddings"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here")
    return LanguageModel(
        model.name,
        network.eval().to(device),
        tokenizer,
        class_name == _CAUSAL,
        not missing,
        torch.device(device),
    )


def _class_for(config_class: type) -> str | None:
    """Return the class with a masked head, or else a causal one: BERT has both."""
    from transformers.models.auto import modeling_auto

    if config_class in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING:
        return _MASKED
    return _CAUSAL if config_class in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING else None


def _refuse_missing_body(
    model: Model, network: PreTrainedModel, missing: Sequence[str]
) -> set[str]:
    """Return which weights of the head are missing; refuse a body that would be random."""
    prefix = f"{network.base_model_prefix}."
    optional = (".pooler.", "position_ids")
    of_body = {
        key
        for key in missing
        if key.startswith(prefix) and not any(part in key for part in optional)
    }
    if of_body:
        raise UserError(
            f"{model.name}: its weights do not fit its config.json: {len(of_body)} of the body's "
            f"are missing, {min(of_body)} first"
        )
    return {key for key in missing if not key.startswith(prefix)}


Advance = Callable[[], object]
"""Called after every batch: a progress bar's."""


@dataclass
class _Batch:
    """Rows of tokens and which outputs are compared with a token.

    Attributes:
        ids: the tokens of each row.
        types: their token types.
        row: the row of each compared output.
        place: its position in the row.
        target: the token that it is compared with.
        owner: what its log-probability is added to.
    """

    ids: list[list[int]] = field(default_factory=list)
    types: list[list[int]] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)

    def compare(self, row: int, place: int, target: int, owner: int) -> None:
        """Note that an output is compared with a token."""
        for values, value in (
            (self.row, row), (self.place, place), (self.target, target), (self.owner, owner)
        ):  # fmt: skip
            values.append(value)


@dataclass(frozen=True)
class _Reader:
    """What decides which tokens a model reads of a text; equal for models with one tokenizer."""

    tokenizer: Any = field(compare=False)
    content: int
    begin: int | None
    longest: int


def _tokens_of(model: LanguageModel, texts: Sequence[str], max_seq_length: int) -> "_Tokens":
    """Return the texts' tokens; a causal model that marks no beginning gets one.

    So its first word is predicted, too.
    """
    content = hash(model.tokenizer.backend_tokenizer.to_str())
    begin = model.tokenizer.bos_token_id if model.causal else None
    longest = min(max_seq_length, model.longest or max_seq_length)
    # A token is at most a word, so what follows can't be among the first `longest` tokens.
    beginnings = tuple(beginning_of(text, longest) for text in texts)
    return _tokenized(_Reader(model.tokenizer, content, begin, longest), beginnings)


@lru_cache(maxsize=16)  # students of one teacher read the same tokens
def _tokenized(reader: _Reader, texts: tuple[str, ...]) -> "_Tokens":
    return _Tokens(reader, texts)


class _Tokens:
    """Tokenized texts, as a model reads them."""

    def __init__(self, reader: _Reader, texts: tuple[str, ...]) -> None:
        begin, longest = reader.begin, reader.longest
        encoded = reader.tokenizer(
            list(texts),
            truncation=True,
            max_length=longest - (begin is not None),
            padding=False,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_token_type_ids=True,
        )
        self.ids: list[list[int]] = []
        self.types: list[list[int]] = []
        self.offsets: list[list[Span]] = []
        for ids, types, offsets, special in zip(
            encoded["input_ids"],
            encoded["token_type_ids"],
            encoded["offset_mapping"],
            encoded["special_tokens_mask"],
            strict=True,
        ):
            # A special token has no place in the text.
            spans = [(0, 0) if each else span for span, each in zip(offsets, special, strict=True)]
            start = [begin] if begin is not None and ids[:1] != [begin] else []
            self.ids.append([*start, *ids])
            self.types.append([*(0 for _ in start), *types])
            self.offsets.append([*((0, 0) for _ in start), *spans])

    def within(self, number: int, span: Span) -> list[int]:
        """Return the tokens of a text that share a character with a span."""
        return [
            place
            for place, (start, end) in enumerate(self.offsets[number])
            if start < end and start < span[1] and end > span[0]
        ]

    def words(self, number: int) -> list[int]:
        """Return the tokens of a text that are not special."""
        return [place for place, (start, end) in enumerate(self.offsets[number]) if start < end]

    def reach(self, number: int, place: int) -> bool:
        """Return whether a text's tokens reach up to a place in it, or were cut off before."""
        return max((end for _, end in self.offsets[number]), default=0) >= place

    def longest_first(self, batch_size: int) -> Iterator[list[int]]:
        """Yield the texts' numbers in batches of like length."""
        order = sorted(range(len(self.ids)), key=lambda number: -len(self.ids[number]))
        for first in range(0, len(order), batch_size):
            yield order[first : first + batch_size]


@torch.inference_mode()
def _outputs(model: LanguageModel, batch: _Batch) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities at the compared outputs, and all last hidden states."""
    inputs = _inputs(model, batch.ids, batch.types)
    width = inputs["input_ids"].shape[1]
    rows, places = (torch.tensor(each, dtype=torch.long) for each in (batch.row, batch.place))
    flat = rows * width + places
    with _only_at(model.network, flat.to(model.device)) as seen:
        logits = model.network(**inputs).logits
    # In float64, so that small differences of good models are no rounding.
    return logits.double().log_softmax(-1), seen[0]


@contextmanager
def _only_at(network: PreTrainedModel, places: Tensor) -> Iterator[list[Tensor]]:
    """Give the vocabulary's matrix these positions alone: all others' logits are never read.

    Yields a list that will hold the body's last hidden states.
    """
    seen: list[Tensor] = []

    def select(_module: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (arguments[0].flatten(0, 1).index_select(0, places),)

    def keep(_module: Any, _arguments: Any, output: Any) -> None:
        seen.append(output.last_hidden_state)

    hooks = (
        network.get_output_embeddings().register_forward_pre_hook(select),
        network.base_model.register_forward_hook(keep),
    )
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _inputs(
    model: LanguageModel, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """Return a padded batch of what the model reads."""
    width = max(map(len, ids))

    def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])

    batch = {
        "input_ids": padded(ids, model.pad_id),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "token_type_ids": padded(types, 0),
    }
    names = inputs_of(model.network)
    return {name: value.to(model.device) for name, value in chosen(batch, names).items()}


def measure_text(
    model: LanguageModel,
    teacher: LanguageModel | None,
    text: HeldOutText,
    *,
    max_seq_length: int,
    seed: int,
    batch_size: int,
    advance: Advance = lambda: None,
) -> Examples:
    """Return what a model predicts of each text's hidden words, and how near it is to its teacher.

    Args:
        model: the model.
        teacher: its teacher, or None. KL and agreement need the same tokens, the cosine also the
            same width: where they differ, their columns are missing.
        text: the texts.
        max_seq_length: where they are cut, in tokens.
        seed: of the choice of hidden words.
        batch_size: texts in a batch.
        advance: called after every batch.
    """
    tokens = _tokens_of(model, text.texts, max_seq_length)
    columns = []
    if model.has_head:
        columns += ["tokens", *(["surprisal"] if model.causal else ["words", "loss"])]
    if teacher is not None and _read_alike(model, teacher, tokens, text.texts, max_seq_length):
        columns += ["kl", "agreed"] if model.has_head and teacher.has_head else []
        if model.network.config.hidden_size == teacher.network.config.hidden_size:
            columns += ["attended", "cosine"]
    else:
        teacher = None
    sums = {name: np.zeros(len(text.texts)) for name in columns}
    for numbers in tokens.longest_first(batch_size):
        if not columns:  # a sentence encoder without a teacher: there is nothing to predict
            break
        batch = _Batch()
        for number in numbers:
            spans = hidden_words(text.texts[number], seed, most=max_seq_length // 2)
            words = _compare(model, tokens, number, spans, batch)
            if "words" in sums:
                sums["words"][number] = words
        _add_up(model, teacher, batch, numbers, sums)
        advance()
    return {"id": np.asarray(text.ids, dtype=object), **sums}


def _read_alike(
    model: LanguageModel,
    teacher: LanguageModel,
    tokens: "_Tokens",
    texts: Sequence[str],
    max_seq_length: int,
) -> bool:
    """Return whether two models read the very same tokens of the texts, and predict alike."""
    if model.causal != teacher.causal:
        return False
    if model.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        return False
    return tokens.ids == _tokens_of(teacher, texts, max_seq_length).ids


def _compare(
    model: LanguageModel,
    tokens: "_Tokens",
    number: int,
    spans: Sequence[Span],
    batch: _Batch,
) -> int:
    """Add a text to a batch with these words hidden; of a causal model, compare every token.

    Returns:
        The number of words, or of tokens, that are compared.
    """
    row, ids = len(batch.ids), tokens.ids[number]
    batch.ids.append(ids)
    batch.types.append(tokens.types[number])
    if model.causal:
        places = [place for place in tokens.words(number) if place > 0]
        for place in places:  # the output before a token predicts it
            batch.compare(row, place - 1, ids[place], number)
        return len(places)
    hidden: set[int] = set()
    words = 0
    for span in spans:
        if not tokens.reach(number, span[1]):
            continue  # a part of a word is not the word
        new = [place for place in tokens.within(number, span) if place not in hidden]
        for place in new:
            batch.compare(row, place, ids[place], number)
        hidden.update(new)
        words += bool(new)
    mask = model.tokenizer.mask_token_id
    batch.ids[row] = [mask if place in hidden else each for place, each in enumerate(ids)]
    return words


def _add_up(
    model: LanguageModel,
    teacher: LanguageModel | None,
    batch: _Batch,
    numbers: Sequence[int],
    sums: Mapping[str, NDArray[np.float64]],
) -> None:
    """Add a batch's measures to those of its texts."""
    log_probabilities, states = _outputs(model, batch)
    owner, target = (
        np.asarray(batch.owner, dtype=np.int64),
        torch.tensor(batch.target, dtype=torch.long, device=model.device),
    )

    def add(name: str, values: Tensor) -> None:
        np.add.at(sums[name], owner, values.double().cpu().numpy())

    if model.has_head and len(owner):
        add(
            "surprisal" if model.causal else "loss",
            -log_probabilities.gather(1, target[:, None]).squeeze(1),
        )
        add("tokens", torch.ones_like(target))
    if teacher is None or not ({"kl", "cosine"} & sums.keys()):
        return
    theirs, their_states = _outputs(teacher, batch)
    if "kl" in sums and len(owner):
        size = min(log_probabilities.shape[1], theirs.shape[1])  # some vocabularies are padded
        ours, theirs = log_probabilities[:, :size], theirs[:, :size]
        divergence = theirs.exp() * (theirs - ours)
        add("kl", divergence.where(theirs > -torch.inf, 0.0).sum(1))
        add("agreed", ours.argmax(1) == theirs.argmax(1))
    if "cosine" in sums:
        cosine = torch.cosine_similarity(states.double(), their_states.double(), dim=-1)
        for row, number in enumerate(numbers):
            length = len(batch.ids[row])
            sums["cosine"][number] = float(cosine[row, :length].sum())
            sums["attended"][number] = length


def measure_pairs(
    model: LanguageModel,
    pairs: MinimalPairs,
    *,
    max_seq_length: int,
    batch_size: int,
    advance: Advance = lambda: None,
) -> Examples:
    """Return how much likelier a model finds the good sentence of each pair than the bad one.

    A masked model predicts the one word in which they differ, all of its pieces hidden at once; a
    causal model the whole sentence.

    Args:
        model: the model.
        pairs: the pairs.
        max_seq_length: where sentences are cut, in tokens.
        batch_size: pairs in a batch.
        advance: called after every batch.
    """
    names = {
        "id": np.asarray([pair.id for pair in pairs.pairs], dtype=object),
        "phenomenon": np.asarray([pair.phenomenon for pair in pairs.pairs], dtype=object),
    }
    if not model.has_head:
        return names
    sides = [[pair.good for pair in pairs.pairs], [pair.bad for pair in pairs.pairs]]
    tokens = [_tokens_of(model, side, max_seq_length) for side in sides]
    # Of two words that are cut, different shares may be left: neither is then the likelier one.
    cut = {
        number
        for number, pair in enumerate(pairs.pairs)
        for side, text in enumerate((pair.good, pair.bad))
        if not tokens[side].reach(
            number, len(text.rstrip()) if model.causal else pair.places[side][1]
        )
    }
    totals = np.zeros((2, len(pairs.pairs)))
    for numbers in tokens[0].longest_first(batch_size):
        batch = _Batch()
        rows: dict[tuple[int, ...], int] = {}
        for number in numbers:
            for side in (0, 1):
                row, first = len(batch.ids), len(batch.owner)
                if number in cut:
                    continue
                span = pairs.pairs[number].places[side]
                _compare(model, tokens[side], number, [span], batch)
                batch.owner[first:] = [2 * number + side] * (len(batch.owner) - first)
                # With its differing word hidden, most pairs are one and the same row.
                known = rows.setdefault(tuple(batch.ids[row]), row)
                if known != row:
                    batch.row[first:] = [known] * (len(batch.row) - first)
                    del batch.ids[row], batch.types[row]
        if not batch.ids:  # all of them are cut
            advance()
            continue
        log_probabilities, _ = _outputs(model, batch)
        target = torch.tensor(batch.target, dtype=torch.long, device=model.device)
        found = log_probabilities.gather(1, target[:, None]).squeeze(1).cpu().numpy()
        owner = np.asarray(batch.owner, dtype=np.int64)
        np.add.at(totals, (owner % 2, owner // 2), found)
        advance()
    return {**names, "margin": totals[0] - totals[1]}


def measure_task(
    model: LanguageModel,
    data: TaskData[Split],
    *,
    max_seq_length: int,
    batch_size: int,
    advance: Advance = lambda: None,
) -> Examples:
    """Return what a linear map of the model's frozen features predicts of a task's dev set.

    Args:
        model: the model.
        data: the task's data; the map is fitted to its training split.
        max_seq_length: where texts are cut, in tokens.
        batch_size: texts in a batch.
        advance: called after every batch.
    """
    task, dev = data.task, data.evaluation[0]
    assert data.train is not None
    train, features = (
        features_of(
            [_features(model, column, max_seq_length, batch_size, advance) for column in part.texts]
        )
        for part in (data.train, dev)
    )
    assert data.train.labels is not None
    assert dev.labels is not None
    outputs = fit_and_predict(train, data.train.labels, features, len(task.labels))
    predicted = outputs[:, 0] if task.is_regression else outputs.argmax(axis=1)
    return {
        "id": np.asarray(dev.ids, dtype=object),
        "label": np.asarray(dev.labels),
        "predicted": predicted,
    }


@torch.inference_mode()
def _features(
    model: LanguageModel,
    texts: Sequence[str],
    max_seq_length: int,
    batch_size: int,
    advance: Advance,
) -> NDArray[np.float64]:
    """Return the mean of each text's last hidden states, special tokens not counted."""
    tokens = _tokens_of(model, texts, max_seq_length)
    features = np.zeros((len(texts), model.network.config.hidden_size))
    for numbers in tokens.longest_first(batch_size):
        ids = [tokens.ids[number] for number in numbers]
        inputs = _inputs(model, ids, [tokens.types[number] for number in numbers])
        body = {
            name: value
            for name, value in inputs.items()
            if name in inputs_of(model.network.base_model)
        }
        states = model.network.base_model(**body).last_hidden_state.double().cpu().numpy()
        for row, number in enumerate(numbers):
            # A text without a token of its own has its special tokens alone.
            places = tokens.words(number) or [*range(len(ids[row]))]
            features[number] = states[row, places].mean(axis=0)
        advance()
    return features
