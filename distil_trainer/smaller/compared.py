"""What was made from a model beside that model, on real rows or on seeded ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from angels_share.errors import UserError
from angels_share.exported.session import OnnxSession
from angels_share.inputs import chosen, inputs_of
from distil_trainer.smaller.rows import Row

SEEDED = 32
"""How many rows are drawn where no data are given."""


@dataclass
class Comparison:
    """How far a file's outputs are from the model's."""

    data: str
    rows: int = 0
    largest_difference: float = 0.0
    """Of a logit."""
    answers: int = 0
    equal_answers: int = 0
    judged: list[tuple[float, float, float]] = field(default_factory=list)
    """The label of each row that has one, the model's answer and that of what was made from it."""
    is_regression: bool = False

    @property
    def share_of_equal_answers(self) -> float:
        """Of all answers: classes of rows or tokens, starts and ends, next or hidden tokens."""
        return self.equal_answers / self.answers if self.answers else 1.0

    def add(self, ours: NDArray[Any], theirs: NDArray[Any], label: float | None = None) -> None:
        """Add one output of one row, without padding: [..., classes], and the row's label."""
        if ours.shape != theirs.shape:
            raise UserError(f"the file's output is {theirs.shape} and the model's {ours.shape}")
        difference = np.abs(ours - theirs)
        # NaN is no number's equal, and must not be lost in a maximum.
        worst = float(difference.max(initial=0.0)) if not np.isnan(difference).any() else np.inf
        self.largest_difference = max(self.largest_difference, worst)
        self.answers += int(np.prod(ours.shape[:-1]))
        self.is_regression = ours.shape[-1] == 1
        if self.is_regression:  # there are no classes; the answer is the number, rounded
            self.equal_answers += int((np.round(ours, 1) == np.round(theirs, 1)).sum())
            answers = [ours, theirs]
        else:
            answers = [ours.argmax(-1), theirs.argmax(-1)]
            self.equal_answers += int((answers[0] == answers[1]).sum())
        if label is not None:
            self.judged.append((label, answers[0].item(), answers[1].item()))

    def score(self) -> dict[str, Any] | None:
        """Return what the model scores on the labels, and what was made from it; None without."""
        if not self.judged:
            return None
        labels, ours, theirs = np.array(self.judged).T
        if self.is_regression:
            with np.errstate(invalid="ignore"):  # of equal numbers, whose correlation is none
                found = [float(np.corrcoef(labels, each)[0, 1]) for each in (ours, theirs)]
            before, after = (None if np.isnan(each) else round(each, 4) for each in found)
            return {"metric": "pearson", "before": before, "after": after}
        right, still = ours == labels, theirs == labels
        return {
            "metric": "accuracy",
            "before": round(float(right.mean()), 4),
            "after": round(float(still.mean()), 4),
            "lost": int((right & ~still).sum()),
            "won": int((still & ~right).sum()),
        }

    def record(self) -> dict[str, Any]:
        """Return it for a record."""
        return {
            "data": self.data,
            "rows": self.rows,
            "largest_difference": self.largest_difference,
            "answers": self.answers,
            "share_of_equal_answers": round(self.share_of_equal_answers, 4),
            "score": self.score(),
        }


def compare(
    model: PreTrainedModel,
    exported: OnnxSession,
    rows: Sequence[Row],
    data: str,
    labels: Sequence[float] | None = None,
) -> Comparison:
    """Return how far a file's outputs are from the model's, one row at a time.

    A row alone has no padding, and in an int8 file no neighbours whose size would decide how its
    numbers are rounded.

    Args:
        model: the model that the file was made from.
        exported: the file.
        rows: the fields of each row.
        data: what the rows are, for the record.
        labels: of each row, its class or number.
    """
    comparison, names = Comparison(data, len(rows)), inputs_of(model)
    model.eval()
    for row, label in zip(rows, labels or repeat(None, len(rows)), strict=True):
        batch = {name: torch.tensor([list(value)]) for name, value in row.items()}
        with torch.inference_mode():
            inputs: dict[str, Any] = dict(chosen(batch, names))
            output = model(**inputs)
        theirs = exported.run({name: value.numpy() for name, value in batch.items()})
        for name in exported.outputs:
            logits = output[name][0].numpy()
            comparison.add(logits, theirs[name][0], label)
    return comparison


def compare_cut(
    model: PreTrainedModel,
    cut: PreTrainedModel,
    batches: Sequence[Mapping[str, Tensor]],
    data: str,
    labels: Sequence[float] | None = None,
) -> Comparison:
    """Return how far the outputs of what is left of a model are from the model's.

    Args:
        model: the model.
        cut: what is left of it.
        batches: rows with an `attention_mask`; their own labels are left out.
        data: what the rows are, for the record.
        labels: of each row of all batches, its class or number.
    """
    comparison = Comparison(data, sum(len(batch["input_ids"]) for batch in batches))
    names = inputs_of(model)
    truth = iter(labels or repeat(None, comparison.rows))
    for batch in batches:
        inputs: dict[str, Any] = dict(chosen(batch, names))
        of_rows = list(islice(truth, len(batch["input_ids"])))
        with torch.inference_mode():
            outputs = [each.eval()(**inputs) for each in (model, cut)]
        for name in (name for name in outputs[0] if name.endswith("logits")):
            of_tokens = name != "logits" or outputs[0][name].ndim == 3
            for row, attended in enumerate(batch["attention_mask"].bool()):
                kept = attended if of_tokens else ...
                ours, theirs = (output[name][row][kept].numpy() for output in outputs)
                comparison.add(ours, theirs, of_rows[row])
    return comparison


def said(comparison: Comparison) -> str:
    """Return what was scored, to follow on a line about what was compared; empty without labels."""
    score = comparison.score()
    if score is None:
        return ""
    found = (score["before"], score["after"])
    before, after = ("none" if each is None else f"{100 * each:.1f}" for each in found)
    return f" ({score['metric']} {before} before, {after} after)"


def seeded_rows(model: PreTrainedModel, max_length: int) -> list[Row]:
    """Return rows of tokens drawn at random, of lengths from 1 to 64."""
    generator = np.random.default_rng(0)
    longest = min(64, max_length)
    rows: list[Row] = []
    for length in np.linspace(1, longest, SEEDED, dtype=int):
        ids = generator.integers(model.config.vocab_size, size=length).tolist()
        ones, zeros = [1] * len(ids), [0] * len(ids)
        rows.append({"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros})
    return rows
