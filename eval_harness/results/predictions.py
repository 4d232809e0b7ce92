"""Per-example predictions of a model: one class per kind of task, saved as parquet."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from angels_share.imports import resolve
from eval_harness.tasks.kinds import KINDS
from eval_harness.tasks.perplexity import perplexities


@dataclass(frozen=True)
class Predictions(ABC):
    """A model's predictions, one entry per example in the order of the data.

    Attributes:
        split: the split of each example.
        ids: the id of each example in the data.
    """

    split: Sequence[str]
    ids: Sequence[str]

    @abstractmethod
    def finite(self) -> NDArray[np.bool_]:
        """Return a mask of the examples whose numbers are finite."""

    @abstractmethod
    def to_table(self) -> Any:
        """Return these predictions as a pyarrow table."""

    @classmethod
    @abstractmethod
    def from_table(cls, table: Any) -> Self | None:
        """Return the predictions in a table; None if its columns belong to another kind."""

    def fault(self) -> str | None:
        """Return which example is the first with a non-finite number; None if all are finite.

        Raises:
            ValueError: the columns differ in length.
        """
        if len({len(column) for column in vars(self).values()}) > 1:
            raise ValueError("predictions of unequal lengths")
        finite = self.finite()
        return None if finite.all() else f"predictions of {self.ids[int(np.argmin(finite))]!r}"


@dataclass(frozen=True)
class ClassPredictions(Predictions):
    """Class logits, or one number per example for a regression.

    Attributes:
        labels: class ids, or numbers; NaN in a test split, whose labels only GLUE's server knows.
        logits: [examples, classes]; one column for a regression.
    """

    labels: NDArray[Any]
    logits: NDArray[np.float32]

    def finite(self) -> NDArray[np.bool_]:
        """Return a mask of the examples whose logits are finite."""
        return np.asarray(np.isfinite(self.logits).all(axis=1))

    def to_table(self) -> Any:
        """Return these predictions as a pyarrow table."""
        import pyarrow as pa

        logits = np.asarray(self.logits, dtype=np.float32)
        examples, classes = logits.shape
        offsets = np.arange(examples + 1, dtype=np.int32) * classes
        columns = {
            "split": pa.array(self.split, pa.string()),
            "id": pa.array(self.ids, pa.string()),
            "label": pa.array(np.asarray(self.labels)),
            "logits": pa.ListArray.from_arrays(pa.array(offsets), pa.array(logits.ravel())),
        }
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: Any) -> Self | None:
        """Return the predictions in a table; None unless it has exactly these columns."""
        if table.column_names != ["split", "id", "label", "logits"]:
            return None
        split, ids, labels, lists = table.columns
        logits = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return cls(
            split.to_pylist(), ids.to_pylist(), labels.to_numpy(), logits.reshape(len(table), -1)
        )


@dataclass(frozen=True)
class AnsweredQuestions(Predictions):
    """Answers to questions with the scores of each, as a paired test of two models needs them.

    Attributes:
        texts: the answers; empty for "no answer".
        exact: 1 where the answer matches a gold answer, else 0.
        f1: the highest token F1 with any gold answer.
        null_odds: the score of "no answer" minus that of the best answer; infinite where no token
            could be an answer.
    """

    texts: Sequence[str]
    exact: NDArray[np.float64]
    f1: NDArray[np.float64]
    null_odds: NDArray[np.float64]

    def finite(self) -> NDArray[np.bool_]:
        """Return a mask of the questions whose scores are finite; `null_odds` may be +inf."""
        finite: NDArray[np.bool_] = np.isfinite(self.exact) & np.isfinite(self.f1)
        return finite & (self.null_odds > -np.inf)

    def to_table(self) -> Any:
        """Return these predictions as a pyarrow table."""
        import pyarrow as pa

        scores = map(np.asarray, (self.exact, self.f1, self.null_odds))
        columns = [self.split, self.ids, self.texts, *scores]
        return pa.table(columns, schema=self._schema())

    @classmethod
    def from_table(cls, table: Any) -> Self | None:
        """Return the predictions in a table; None unless it has exactly this schema."""
        if table.schema != cls._schema():
            return None
        split, ids, texts = (column.to_pylist() for column in table.columns[:3])
        exact, f1, null_odds = (column.to_numpy() for column in table.columns[3:])
        return cls(split, ids, texts, exact, f1, null_odds)

    @staticmethod
    def _schema() -> Any:
        import pyarrow as pa

        texts = dict.fromkeys(("split", "id", "text"), pa.string())
        return pa.schema({**texts, **dict.fromkeys(("exact", "f1", "null_odds"), pa.float64())})


@dataclass(frozen=True)
class TaggedSentences(Predictions):
    """A tag for every word of each sentence, beside the right one, as the metrics need them.

    Attributes:
        gold: the right tags of each sentence, as IOB2.
        tags: the predicted ones.
    """

    gold: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]]

    def finite(self) -> NDArray[np.bool_]:
        """Return true for every sentence: tags are no numbers."""
        return np.ones(len(self.ids), dtype=np.bool_)

    def to_table(self) -> Any:
        """Return these predictions as a pyarrow table."""
        import pyarrow as pa

        columns = [list(self.split), list(self.ids), list(self.gold), list(self.tags)]
        return pa.table(columns, schema=self._schema())

    @classmethod
    def from_table(cls, table: Any) -> Self | None:
        """Return the predictions in a table; None unless it has exactly this schema."""
        if table.schema != cls._schema():
            return None
        return cls(*(column.to_pylist() for column in table.columns))

    @staticmethod
    def _schema() -> Any:
        import pyarrow as pa

        texts = dict.fromkeys(("split", "id"), pa.string())
        lists = dict.fromkeys(("gold", "tags"), pa.list_(pa.string()))
        return pa.schema({**texts, **lists})


@dataclass(frozen=True)
class ScoredDocuments(Predictions):
    """How well a language model predicts each document: all that its perplexities are made of.

    Attributes:
        nll: the summed negative log-likelihood of the scored tokens, in nats.
        tokens: how many tokens were scored.
        unscored: how many could not be.
        words: the words of the original text.
        size: its bytes in UTF-8.
    """

    nll: NDArray[np.float64]
    tokens: NDArray[np.int64]
    unscored: NDArray[np.int64]
    words: NDArray[np.int64]
    size: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return several splits' documents as one."""
        split, ids = ([each for part in parts for each in getattr(part, name)] for name in
                      ("split", "ids"))  # fmt: skip
        numbers = (np.concatenate([getattr(part, name) for part in parts]) for name in cls._NUMBERS)
        return cls(split, ids, *numbers)

    def measures(
        self, scoring: str, chosen: NDArray[np.bool_] | None = None
    ) -> dict[str, float | None]:
        """Return the perplexities of all documents together, or of some of them.

        Args:
            scoring: how tokens were scored.
            chosen: a mask of the documents that count [all].
        """
        nll, tokens, words, size = (
            (column if chosen is None else column[chosen]).sum()
            for column in (self.nll, self.tokens, self.words, self.size)
        )
        return perplexities(
            scoring, float(nll), tokens=int(tokens), words=int(words), size=int(size)
        )

    def finite(self) -> NDArray[np.bool_]:
        """Return a mask of the documents whose likelihood is finite."""
        return np.asarray(np.isfinite(self.nll))

    def to_table(self) -> Any:
        """Return these predictions as a pyarrow table."""
        import pyarrow as pa

        numbers = [np.asarray(getattr(self, name)) for name in self._NUMBERS]
        return pa.table([list(self.split), list(self.ids), *numbers], schema=self._schema())

    @classmethod
    def from_table(cls, table: Any) -> Self | None:
        """Return the predictions in a table; None unless it has exactly this schema."""
        if table.schema != cls._schema():
            return None
        split, ids = (column.to_pylist() for column in table.columns[:2])
        return cls(split, ids, *(column.to_numpy() for column in table.columns[2:]))

    _NUMBERS: ClassVar = ("nll", "tokens", "unscored", "words", "size")

    @classmethod
    def _schema(cls) -> Any:
        import pyarrow as pa

        texts = dict.fromkeys(("split", "id"), pa.string())
        kinds = (pa.float64(), *[pa.int64()] * (len(cls._NUMBERS) - 1))
        names = [*cls._NUMBERS[:-1], "bytes"]
        return pa.schema({**texts, **dict(zip(names, kinds, strict=True))})


def to_parquet(predictions: Predictions) -> bytes:
    """Return the content of a parquet file with these predictions."""
    import pyarrow as pa
    from pyarrow import parquet

    stream = pa.BufferOutputStream()
    parquet.write_table(predictions.to_table(), stream)
    return bytes(stream.getvalue())


def from_parquet(data: bytes) -> Predictions:
    """Return the predictions in a parquet file; its columns determine their class.

    Raises:
        ValueError: the columns belong to no known kind of predictions.
    """
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(pa.BufferReader(data)).combine_chunks()
    for kind in KINDS:
        found: Predictions | None = resolve(kind.predictions).from_table(table)
        if found is not None:
            return found
    columns = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
    raise ValueError(f"contains no known kind of predictions: {columns or 'no columns'}")
