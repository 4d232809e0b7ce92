"""Token ids of many examples in one array, each example as long as it is. Imports no torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenRows:
    """What a Trainer takes for a data set.

    Attributes:
        ids: the tokens of all examples.
        types: their types; None where no token has another type than 0, as models take for granted.
        starts: where each example begins in `ids`, and at last their end.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.uint8] | None
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)  # what ends a loop over it
        part = slice(self.starts[index], self.starts[index + 1])
        example: dict[str, Any] = {"input_ids": self.ids[part]}
        if self.types is not None:
            example["token_type_ids"] = self.types[part]
        return example

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.starts)
