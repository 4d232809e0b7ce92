"""Encoding, training and evaluation of text as such: the perplexity of whole documents.

A document is read through a window of `context` tokens that moves by `stride`. Each token is scored
once, in the first window that reaches it, so all but those of a document's first window have at
least `context - stride` tokens before them. The last window is moved back until it is full, so with
a stride as long as the context the windows are those of lm-eval's rolling likelihood.

A causal model scores the next token; before a document's first one stands the token that the
model's texts begin with, if it has one. A masked model's pseudo-perplexity (Salazar et al. 2020,
arXiv:1910.14659) hides each token in turn, and reads the rest of the window.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from angels_share.errors import RunFailed, UserError
from angels_share.inputs import chosen, inputs_of
from eval_harness.data.documents import Documents
from eval_harness.data.splits import TaskData
from eval_harness.data.token_rows import TokenRows
from eval_harness.results.predictions import ScoredDocuments
from eval_harness.runs.run import Run
from eval_harness.runs.settings import EVAL_BATCH
from eval_harness.tasks.perplexity import MASKED_TOKEN, words_in
from eval_harness.tasks.registry import Task
from eval_harness.training.encoding import Collator, by_length
from eval_harness.training.evaluation import Evaluation, HeadOutputs
from eval_harness.training.onnx_model import OnnxModel

_IGNORED = -100
_CHUNK = 256
"""Documents that are tokenized, and rows of logits that are normalised, at a time."""
_MOST_LOGITS = 1 << 27
"""Numbers that the logits of one batch hold at most, half a gigabyte, unless one row has more."""
_MASKED_SHARE, _AS_MASK, _AS_RANDOM = 0.15, 0.8, 0.9
"""BERT's masks: of the chosen tokens 80 % are hidden, 10 % are other tokens, 10 % stay."""


@dataclass(frozen=True)
class Windows(TokenRows):
    """Windows over documents, or blocks to train on.

    Attributes:
        labels: for every token what is to be predicted there, or -100.
        documents: the number of each row's document.
        unscored: how many tokens of each document can't be scored; empty where all can.
        mask_id: the token that hides others, of a masked model.
    """

    labels: NDArray[np.int32]
    documents: NDArray[np.int64]
    unscored: NDArray[np.int64]
    mask_id: int | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = super().__getitem__(index)
        return {**example, "labels": self.labels[self.starts[index] : self.starts[index + 1]]}


def encode(
    split: Documents,
    tokenizer: Any,
    context: int,
    stride: int,
    *,
    scoring: str,
    begin_token: str | None,
) -> Windows:
    """Tokenize documents and lay windows over each; cut those to train on into blocks.

    Args:
        split: the documents.
        tokenizer: the model's tokenizer.
        context: the number of tokens that the model reads at a time.
        stride: that by which the window moves.
        scoring: whether the next token is scored, or each in turn is masked.
        begin_token: the token that stands before a document, if any.

    Raises:
        UserError: a masked model's tokenizer has no mask token, or there is nothing to score.
    """
    documents = _tokens_of(split, tokenizer)
    if scoring == MASKED_TOKEN:
        if tokenizer.mask_token_id is None:
            raise UserError("its tokenizer has no mask token, as a masked language model's must")
        ends = _ends_of(tokenizer)
        room = context - sum(map(len, ends))
        if split.name == "train":
            documents, stride = iter([_joined(documents, after=ends[1])]), room
        windows = _masked_windows(documents, room, stride, ends)
        return _rows(windows, mask_id=tokenizer.mask_token_id)
    before = _ids([] if begin_token is None else [tokenizer.convert_tokens_to_ids(begin_token)])
    if split.name == "train":
        return _rows(_causal_windows([_joined(documents, before=before)], context, context))
    framed = (np.concatenate([before, ids]) for ids in documents)
    unscored = 0 if len(before) else 1
    return _rows(_causal_windows(framed, context, stride), unscored=[unscored] * len(split))


def _ids(values: Sequence[int]) -> NDArray[np.int32]:
    return np.asarray(values, dtype=np.int32)


def _tokens_of(split: Documents, tokenizer: Any) -> Iterator[NDArray[np.int32]]:
    """Yield the ids of each document's tokens, without any special token around them."""
    for first in range(0, len(split), _CHUNK):
        encoded = tokenizer(
            list(split.texts[first : first + _CHUNK]),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # a document is longer than a model reads, of course
        )
        yield from map(_ids, encoded["input_ids"])


def _ends_of(tokenizer: Any) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the special tokens that a tokenizer puts before a text and after it.

    Raises:
        UserError: it changes the text between them.
    """
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a")["input_ids"]
    places = [at for at in range(len(framed)) if framed[at : at + len(plain)] == plain]
    if not plain or not places:
        raise UserError("its tokenizer splits a text otherwise where it adds special tokens")
    before = places[0]
    return _ids(framed[:before]), _ids(framed[before + len(plain) :])


def _joined(
    documents: Iterable[NDArray[np.int32]],
    *,
    before: NDArray[np.int32] | None = None,
    after: NDArray[np.int32] | None = None,
) -> NDArray[np.int32]:
    """Return documents as one sequence, with special tokens before or between them."""
    empty = _ids([])
    framing = (empty if before is None else before, empty if after is None else after)
    pieces = [piece for ids in documents for piece in (framing[0], ids, framing[1])]
    return np.concatenate(pieces[: len(pieces) - 1] or [empty])


_Window = tuple[int, NDArray[np.int32], NDArray[np.int32]]
"""The number of its document, its tokens, and what is to be predicted at each."""


def _causal_windows(
    documents: Iterable[NDArray[np.int32]], context: int, stride: int
) -> Iterator[_Window]:
    """Yield windows whose tokens predict the next; each is predicted where it is first reached."""
    for number, ids in enumerate(documents):
        reached = 0  # the last token that was predicted; the first one never is
        for first in range(0, max(len(ids) - 1, 1), stride):
            end = min(first + context, len(ids) - 1)
            if end <= reached:
                break
            start = max(end - context, 0)
            labels = ids[start + 1 : end + 1].copy()
            labels[: reached - start] = _IGNORED
            yield number, ids[start:end], labels
            reached = end


def _masked_windows(
    documents: Iterable[NDArray[np.int32]],
    room: int,
    stride: int,
    ends: tuple[NDArray[np.int32], NDArray[np.int32]],
) -> Iterator[_Window]:
    """Yield windows with special tokens around them; labels are the tokens that are new there."""
    ignored = [np.full(len(each), _IGNORED, dtype=np.int32) for each in ends]
    for number, ids in enumerate(documents):
        reached = 0
        for first in range(0, len(ids), stride):
            end = min(first + room, len(ids))
            if end <= reached:
                break
            start = max(end - room, 0)
            labels = ids[start:end].copy()
            labels[: reached - start] = _IGNORED
            framed = np.concatenate([ends[0], ids[start:end], ends[1]])
            yield number, framed, np.concatenate([ignored[0], labels, ignored[1]])
            reached = end


def _rows(
    windows: Iterable[_Window], unscored: Sequence[int] = (), mask_id: int | None = None
) -> Windows:
    found = list(windows)
    if not found:
        raise UserError("a split has no document with a token that can be scored")
    lengths = [len(ids) for _, ids, _ in found]
    return Windows(
        np.concatenate([ids for _, ids, _ in found]),
        None,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([labels for *_, labels in found]),
        np.array([number for number, *_ in found], dtype=np.int64),
        np.array(unscored, dtype=np.int64),
        mask_id,
    )


def outputs(_task: Task) -> HeadOutputs:
    """Return no outputs of a head: its are the vocabulary."""
    return HeadOutputs((), None)


def training_set(rows: Windows, run: Run, tokenizer: Any) -> "Windows | MaskedBlocks":
    """Return the blocks that a run learns from: with a masked model's masks, drawn by its seed.

    Args:
        rows: the encoded training split.
        run: the run.
        tokenizer: the model's tokenizer.
    """
    return rows if rows.mask_id is None else MaskedBlocks(rows, run.seed, tokenizer)


class MaskedBlocks:
    """Blocks of text in which 15 % of the tokens are to be guessed, others in every epoch.

    The draws are a function of seed, epoch and block, so no number of workers changes them.

    Args:
        blocks: the blocks.
        seed: the run's seed.
        tokenizer: tells special tokens, which are never hidden.
    """

    def __init__(self, blocks: Windows, seed: int, tokenizer: Any) -> None:
        assert blocks.mask_id is not None
        self._blocks, self._seed, self._mask_id = blocks, seed, blocks.mask_id
        self._special = np.array(tokenizer.all_special_ids, dtype=np.int32)
        self._size = len(tokenizer)
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def set_epoch(self, epoch: int) -> None:
        """Draw other masks from now on: the Trainer says when an epoch begins."""
        self._epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        block = self._blocks[index]
        ids: NDArray[np.int32] = block["input_ids"]
        random = np.random.default_rng([self._seed, self._epoch, index])
        hidden = (random.random(len(ids)) < _MASKED_SHARE) & ~np.isin(ids, self._special)
        how = random.random(len(ids))
        others = random.integers(0, self._size, len(ids), dtype=np.int32)
        shown = np.where(hidden & (how < _AS_MASK), self._mask_id, ids)
        shown = np.where(hidden & (how >= _AS_MASK) & (how < _AS_RANDOM), others, shown)
        return {
            **block,
            "input_ids": shown.astype(np.int32),
            "labels": np.where(hidden, ids, _IGNORED),
        }


def evaluate(
    run: Run,
    model: PreTrainedModel,
    data: TaskData[Documents],
    rows: Mapping[str, Windows],
    pad_id: int,
) -> Evaluation:
    """Score every token of the evaluated documents.

    Args:
        run: the run, with the task and the settings of evaluation.
        model: the model.
        data: the task's data.
        rows: the windows of every split, by its name.
        pad_id: the token id that batches are padded with.

    Raises:
        RunFailed: a token's probability is not a number.
    """
    values = run.settings.task["values"]
    batch_size = run.neutral.get("per_device_eval_batch_size", EVAL_BATCH)
    if run.model.is_onnx:
        batch_size = 1  # it computes the logits of all tokens: gigabytes for a batch
    found, scores, marks = [], {}, []
    for split in data.evaluation:
        windows = rows[split.name]
        nll, tokens = score_documents(
            model,
            windows,
            len(split),
            pad_id,
            batch_size=batch_size,
            bf16=values["bf16"],
        )
        if not np.isfinite(nll).all():
            raise RunFailed(f"{run}: a token's probability is not a number")
        of_split = _scored(split, windows, nll, tokens)
        found.append(of_split)
        scores[split.name] = of_split.measures(values["scoring"])
        if unscored := int(of_split.unscored.sum()):
            marks.append(
                f"first tokens of {split.name} not scored, since the model has no token that "
                f"texts begin with: {unscored}"
            )
    return Evaluation(ScoredDocuments.joined(found), scores, tuple(marks))


def _scored(
    split: Documents, windows: Windows, nll: NDArray[np.float64], tokens: NDArray[np.int64]
) -> ScoredDocuments:
    unscored = windows.unscored if len(windows.unscored) else np.zeros(len(split), dtype=np.int64)
    return ScoredDocuments(
        split=[split.name] * len(split),
        ids=list(split.ids),
        nll=nll,
        tokens=tokens,
        unscored=unscored,
        words=np.array([words_in(text) for text in split.texts], dtype=np.int64),
        size=np.array([len(text.encode()) for text in split.texts], dtype=np.int64),
    )


def score_documents(
    model: PreTrainedModel,
    windows: Windows,
    count: int,
    pad_id: int,
    *,
    batch_size: int = EVAL_BATCH,
    bf16: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each document's summed negative log-likelihood, and how many tokens were scored.

    Args:
        model: the model, which is set to evaluation mode.
        windows: the windows over all documents.
        count: the number of documents.
        pad_id: the token id that batches are padded with.
        batch_size: the maximum number of windows, or of masked copies of one, per batch.
        bf16: whether to run the model in bfloat16 autocast.
    """
    # On the host, in float64, which not every device has: there are very many terms.
    nll, tokens = np.zeros(count), np.zeros(count, dtype=np.int64)
    batches = (
        _causal_batches(model, windows, batch_size)
        if windows.mask_id is None
        else _masked_batches(windows, batch_size, windows.mask_id)
    )
    for documents, examples in batches:
        scored = np.array([int((example["labels"] != _IGNORED).sum()) for example in examples])
        terms = _negative_log_likelihoods(model, examples, pad_id, bf16=bf16)
        np.add.at(nll, np.repeat(documents, scored), terms)
        np.add.at(tokens, documents, scored)
    return nll, tokens


_Batch = tuple[NDArray[np.int64], list[dict[str, Any]]]
"""The documents of some rows, and the rows."""


def _causal_batches(model: PreTrainedModel, windows: Windows, batch_size: int) -> Iterator[_Batch]:
    """Yield windows in batches, of as many as the logits of their scored tokens leave room for."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    for indices in by_length(windows, batch_size):
        batch: list[int] = []
        held = 0
        for index in map(int, indices):
            scored = int((windows[index]["labels"] != _IGNORED).sum()) * vocabulary
            if batch and held + scored > _MOST_LOGITS:
                yield windows.documents[batch], [windows[each] for each in batch]
                batch, held = [], 0
            batch.append(index)
            held += scored
        yield windows.documents[batch], [windows[each] for each in batch]


def _masked_batches(windows: Windows, batch_size: int, mask_id: int) -> Iterator[_Batch]:
    """Yield copies of windows, in each of which one token to be scored is hidden."""
    batch: list[tuple[int, int]] = []
    places = (
        (int(index), int(place))
        for (index,) in by_length(windows, 1)
        for place in np.flatnonzero(windows[int(index)]["labels"] != _IGNORED)
    )
    for each in places:
        batch.append(each)
        if len(batch) == batch_size:
            yield _hidden(windows, batch, mask_id)
            batch = []
    if batch:
        yield _hidden(windows, batch, mask_id)


def _hidden(windows: Windows, places: Sequence[tuple[int, int]], mask_id: int) -> _Batch:
    examples = []
    for index, place in places:
        example = {name: value.copy() for name, value in windows[index].items()}
        alone = np.full_like(example["labels"], _IGNORED)
        alone[place] = example["labels"][place]
        example["input_ids"][place] = mask_id
        examples.append({**example, "labels": alone})
    return windows.documents[[index for index, _ in places]], examples


@torch.inference_mode()
def _negative_log_likelihoods(
    model: PreTrainedModel, examples: Sequence[Mapping[str, Any]], pad_id: int, *, bf16: bool
) -> NDArray[np.float64]:
    """Return minus the log-probability of each label, in the rows' order.

    The vocabulary's logits are computed where there is a label only: what enters the last layer is
    cut down to these rows, and whatever a model does to its logits afterwards it does to them. An
    exported model computes them all.
    """
    model.eval()
    batch = Collator(pad_id)(examples)
    inputs = {
        name: value.to(model.device) for name, value in chosen(batch, inputs_of(model)).items()
    }
    labels = batch["labels"].to(model.device)
    wanted = labels != _IGNORED
    logits: Tensor
    if isinstance(model, OnnxModel):
        logits = model(**inputs).logits[wanted]
    else:
        head = model.get_output_embeddings()
        assert head is not None, f"a {type(model).__name__} has no output embeddings"
        hook = head.register_forward_pre_hook(lambda _module, given: (given[0][wanted],))
        try:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                logits = model(**inputs, **_without_cache(model)).logits
        finally:
            hook.remove()
    targets = labels[wanted]
    terms = [
        torch.logsumexp(part := logits[first : first + _CHUNK].float(), dim=-1)
        - part.gather(-1, targets[first : first + _CHUNK, None]).squeeze(-1)
        for first in range(0, len(targets), _CHUNK)
    ]
    return torch.cat(terms).cpu().numpy().astype(np.float64)


def _without_cache(model: PreTrainedModel) -> dict[str, bool]:
    """Return what keeps a decoder from storing keys and values, which nothing reads here."""
    return {"use_cache": False} if "use_cache" in inputs_of(model) else {}
