"""What a model said of each evaluation example: one class per kind of task, saved as parquet."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from angels_share.imports import resolve
from eval_harness.tasks.kinds import KINDS


@dataclass(frozen=True)
class Predictions(ABC):
    """What a model said, an entry for each example in the order of the data.

    Attributes:
        split: the split of each example.
        ids: what the data call each example.
    """

    split: Sequence[str]
    ids: Sequence[str]

    @abstractmethod
    def finite(self) -> NDArray[np.bool_]:
        """Return for each example whether its numbers are ones."""

    @abstractmethod
    def to_table(self) -> Any:
        """Return pyarrow's table of these predictions."""

    @classmethod
    @abstractmethod
    def from_table(cls, table: Any) -> Self | None:
        """Return the predictions in a table; None where it holds those of another kind."""

    def fault(self) -> str | None:
        """Return the first example with a number that isn't one; no table should be made of it.

        Raises:
            ValueError: something is said of some examples only.
        """
        if len({len(each) for each in vars(self).values()}) > 1:
            raise ValueError("predictions of unequal lengths")
        finite = self.finite()
        return None if finite.all() else f"predictions of {self.ids[int(np.argmin(finite))]!r}"


@dataclass(frozen=True)
class ClassPredictions(Predictions):
    """Logits of classes, or one number each of a regression.

    Attributes:
        labels: class ids, or numbers; NaN in a test split, whose labels are the server's secret.
        logits: [examples, classes]; one column for a regression.
    """

    labels: NDArray[Any]
    logits: NDArray[np.float32]

    def finite(self) -> NDArray[np.bool_]:
        """Return for each example whether its logits are finite."""
        return np.asarray(np.isfinite(self.logits).all(axis=1))

    def to_table(self) -> Any:
        """Return pyarrow's table of these predictions."""
        import pyarrow as pa

        logits = np.asarray(self.logits, dtype=np.float32)
        examples, classes = logits.shape
        starts = np.arange(examples + 1, dtype=np.int32) * classes
        columns = {
            "split": pa.array(self.split, pa.string()),
            "id": pa.array(self.ids, pa.string()),
            "label": pa.array(np.asarray(self.labels)),
            "logits": pa.ListArray.from_arrays(pa.array(starts), pa.array(logits.ravel())),
        }
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: Any) -> Self | None:
        """Return the predictions in a table with exactly these columns."""
        if table.column_names != ["split", "id", "label", "logits"]:
            return None
        split, ids, labels, lists = table.columns
        logits = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return cls(
            split.to_pylist(), ids.to_pylist(), labels.to_numpy(), logits.reshape(len(table), -1)
        )


@dataclass(frozen=True)
class AnsweredQuestions(Predictions):
    """Answers to questions, and the score of each: what a paired test of two models takes.

    Attributes:
        texts: the answers; empty for "no answer".
        exact: 1 where the answer is a gold one, else 0.
        f1: the overlap with the gold answer that it shares most with.
        null_odds: how much "no answer" scores above the best answer; infinite where no token could
            be one.
    """

    texts: Sequence[str]
    exact: NDArray[np.float64]
    f1: NDArray[np.float64]
    null_odds: NDArray[np.float64]

    def finite(self) -> NDArray[np.bool_]:
        """Return for each question whether its scores are finite; odds may be infinite upwards."""
        finite: NDArray[np.bool_] = np.isfinite(self.exact) & np.isfinite(self.f1)
        return finite & (self.null_odds > -np.inf)

    def to_table(self) -> Any:
        """Return pyarrow's table of these predictions."""
        import pyarrow as pa

        numbers = map(np.asarray, (self.exact, self.f1, self.null_odds))
        columns = [self.split, self.ids, self.texts, *numbers]
        return pa.table(columns, schema=self._schema())

    @classmethod
    def from_table(cls, table: Any) -> Self | None:
        """Return the predictions in a table of exactly this schema."""
        if table.schema != cls._schema():
            return None
        *named, exact, f1, null_odds = table.columns
        split, ids, texts = (column.to_pylist() for column in named)
        return cls(split, ids, texts, *(each.to_numpy() for each in (exact, f1, null_odds)))

    @staticmethod
    def _schema() -> Any:
        import pyarrow as pa

        texts = dict.fromkeys(("split", "id", "text"), pa.string())
        return pa.schema({**texts, **dict.fromkeys(("exact", "f1", "null_odds"), pa.float64())})


def to_parquet(predictions: Predictions) -> bytes:
    """Return predictions as they are written."""
    import pyarrow as pa
    from pyarrow import parquet

    stream = pa.BufferOutputStream()
    parquet.write_table(predictions.to_table(), stream)
    return bytes(stream.getvalue())


def from_parquet(data: bytes) -> Predictions:
    """Return what `to_parquet` wrote: the columns tell which kind's they are.

    Raises:
        ValueError: no kind's predictions look like that, in half a line.
    """
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(pa.BufferReader(data)).combine_chunks()
    for kind in KINDS:
        found: Predictions | None = resolve(kind.predictions).from_table(table)
        if found is not None:
            return found
    columns = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
    raise ValueError(f"are no predictions that this version knows: {columns or 'no columns'}")
