"""Encoding, loss and evaluation of tasks whose every word has a tag, such as named entities.

A word's label stands at its first token, and the model's answer is read there; its other tokens
have none. A word that has no token, since the length cut it off or the tokenizer drops it, is
answered with `O`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from angels_share.errors import RunFailed, UserError
from angels_share.tokenizing import splitting_words
from eval_harness.data.splits import TaskData
from eval_harness.data.tagged_words import TaggedSplit
from eval_harness.data.token_rows import TokenRows
from eval_harness.results.predictions import TaggedSentences
from eval_harness.runs.run import Run
from eval_harness.runs.settings import EVAL_BATCH
from eval_harness.tasks.entities import OUTSIDE, entity_metrics
from eval_harness.tasks.registry import Task
from eval_harness.training.evaluation import Batch, Evaluation, HeadOutputs, outputs_of

_CHUNK = 10_000
_IGNORED = -100


@dataclass(frozen=True)
class TaggedRows(TokenRows):
    """A split's token ids, with the labels of the words that begin at them.

    Attributes:
        labels: for every token the tag of the word whose first token it is, else -100.
        words: for every token the number of that word in its sentence, else -1.
        cut: how many words the length cut off.
        dropped: how many other words have no token.
    """

    labels: NDArray[np.int64]
    words: NDArray[np.int32]
    cut: int
    dropped: int

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = super().__getitem__(index)
        return {**example, "labels": self.labels[self.starts[index] : self.starts[index + 1]]}


def encode(split: TaggedSplit, tokenizer: Any, max_seq_length: int) -> TaggedRows:
    """Tokenize a split's words and label the first token of each.

    Args:
        split: the tagged sentences.
        tokenizer: the model's tokenizer.
        max_seq_length: maximum sequence length in tokens, including special tokens.

    Raises:
        UserError: the length leaves no room for a token.
    """
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if max_seq_length <= special:
        raise UserError(
            f"--max_seq_length {max_seq_length}: {special} of them are special tokens, which "
            "leaves none for a word: increase it"
        )
    tokenizer = splitting_words(tokenizer)
    ids, types, words, labels = [], [], [], []
    cut = dropped = 0
    for first in range(0, len(split), _CHUNK):
        sentences = [list(words) for words in split.words[first : first + _CHUNK]]
        encoded = tokenizer(
            sentences,
            is_split_into_words=True,
            truncation=True,
            max_length=max_seq_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=True,
        )
        for number, sentence in enumerate(sentences):
            numbers = _first_tokens(encoded.word_ids(number))
            tags = split.tags[first + number]
            ids.append(np.asarray(encoded["input_ids"][number], dtype=np.int32))
            types.append(np.asarray(encoded["token_type_ids"][number], dtype=np.uint8))
            words.append(numbers)
            labels.append(np.where(numbers >= 0, tags[numbers], _IGNORED))
            last = int(numbers.max(initial=-1))
            was_cut = bool(encoded.encodings[number].overflowing)
            cut += len(sentence) - 1 - last if was_cut else 0
            seen = last + 1 if was_cut else len(sentence)
            dropped += seen - int((numbers >= 0).sum())
    lengths = [len(each) for each in ids]
    all_types = np.concatenate(types)
    return TaggedRows(
        np.concatenate(ids),
        all_types if all_types.any() else None,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate(labels).astype(np.int64),
        np.concatenate(words),
        cut,
        dropped,
    )


def _first_tokens(words: Sequence[int | None]) -> NDArray[np.int32]:
    """Return the number of the word that begins at each token; -1 where none does."""
    before: Sequence[int | None] = [None, *words]
    numbers = [
        -1 if word is None or word == previous else word
        for previous, word in zip(before, words, strict=False)
    ]
    return np.array(numbers, dtype=np.int32)


def evaluate(
    run: Run,
    model: PreTrainedModel,
    data: TaskData[TaggedSplit],
    rows: Mapping[str, TaggedRows],
    pad_id: int,
) -> Evaluation:
    """Tag the words of the evaluated splits and score the entities in them.

    Args:
        run: the run, with the task and the settings of evaluation.
        model: the fine-tuned model.
        data: the task's data.
        rows: the token ids of every split, by its name.
        pad_id: the token id that batches are padded with.

    Raises:
        RunFailed: a logit is not finite.
    """
    tags, bf16 = run.task.labels, run.settings.task["values"]["bf16"]
    batch_size = run.neutral.get("per_device_eval_batch_size", EVAL_BATCH)
    gold: list[list[str]] = []
    predicted: list[list[str]] = []
    scores: dict[str, dict[str, float | None]] = {}
    marks: list[str] = []
    for split in data.evaluation:
        of_split = rows[split.name]
        found = answers_of(model, of_split, pad_id, batch_size=batch_size, bf16=bf16)
        if found is None:
            raise RunFailed(f"{run}: the model's predictions are not finite")
        theirs = [[tags[each] for each in sentence] for sentence in split.tags]
        ours = _by_word(theirs, of_split, found, tags)
        gold += theirs
        predicted += ours
        metrics = entity_metrics(theirs, ours)
        score = sum(metrics[name] for name in run.task.primary) / len(run.task.primary)
        scores[split.name] = {**metrics, "score": score}
        marks += _marks(split.name, ours, of_split)
    names = [split.name for split in data.evaluation for _ in split.ids]
    ids = [name for split in data.evaluation for name in split.ids]
    return Evaluation(TaggedSentences(names, ids, gold, predicted), scores, tuple(marks))


def answers_of(
    model: PreTrainedModel, rows: TaggedRows, pad_id: int, *, batch_size: int, bf16: bool
) -> NDArray[np.int64] | None:
    """Return the predicted tag of every token; None if a logit is not finite.

    Args:
        model: the model, which is set to evaluation mode.
        rows: the sentences' token ids.
        pad_id: the token id that batches are padded with.
        batch_size: sentences per batch.
        bf16: whether to run the model in bfloat16 autocast.
    """
    answers: NDArray[np.int64] = np.empty(len(rows.ids), np.int64)
    for indices, output in outputs_of(model, rows, pad_id, batch_size=batch_size, bf16=bf16):
        logits = output.logits.float().cpu().numpy()
        columns = np.arange(logits.shape[1])
        attended = columns < rows.lengths[indices][:, None]
        if not np.isfinite(logits[attended]).all():
            return None
        # Where each token of the batch lies in the flat array of all tokens.
        positions = (rows.starts[indices][:, None] + columns)[attended]
        answers[positions] = logits.argmax(axis=-1)[attended]
    return answers


def _by_word(
    gold: Sequence[Sequence[str]], rows: TaggedRows, answers: NDArray[np.int64], tags: Sequence[str]
) -> list[list[str]]:
    """Return a tag for every word, from those at the words' first tokens."""
    found = [[OUTSIDE] * len(sentence) for sentence in gold]
    sentence_of = np.repeat(np.arange(len(rows)), rows.lengths)
    for place in np.flatnonzero(rows.words >= 0):
        found[sentence_of[place]][rows.words[place]] = tags[answers[place]]
    return found


def _marks(split: str, tagged: Sequence[Sequence[str]], rows: TaggedRows) -> list[str]:
    """Return what a reader must know of a split: words without an answer, or one for all."""
    marks = []
    if len({tag for sentence in tagged for tag in sentence}) == 1:
        marks.append(f"degenerate: one answer for all of {split}")
    if rows.cut:
        marks.append(f"words of {split} cut off by the length and so judged as O: {rows.cut}")
    if rows.dropped:
        marks.append(f"words of {split} without a token and so judged as O: {rows.dropped}")
    return marks


def outputs(task: Task) -> HeadOutputs:
    """Return the outputs of a task's head: its tags."""
    return HeadOutputs(task.labels, None)


def loss(output: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """Return the summed cross-entropy over the words' first tokens.

    Args:
        output: what the model returned.
        batch: the inputs, with their labels.
        smoothing: the share of a label that is spread evenly over all tags.
    """
    return functional.cross_entropy(
        output.logits.float().flatten(0, 1),
        batch["labels"].flatten(),
        reduction="sum",
        ignore_index=_IGNORED,
        label_smoothing=smoothing,
    )


def count_labels(batch: Batch) -> int:
    """Return the number of labelled tokens in a batch."""
    return int((batch["labels"] != _IGNORED).sum())
