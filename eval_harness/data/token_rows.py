"""Tokenized examples in one flat array, without padding. Imports no torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenRows:
    """Tokenized examples, as a map-style data set for a Trainer.

    Attributes:
        ids: the token ids of all examples, one after another.
        types: the token types; None if all are 0, which is the models' default.
        starts: where each example begins in `ids`, and the end of the last one.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.uint8] | None
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)  # ends a `for` loop over the rows
        part = slice(self.starts[index], self.starts[index + 1])
        example: dict[str, Any] = {"input_ids": self.ids[part]}
        if self.types is not None:
            example["token_type_ids"] = self.types[part]
        return example

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of each example."""
        return np.diff(self.starts)
