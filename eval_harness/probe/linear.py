"""Linear probes: what can be read off frozen features by a linear map alone.

The features of a text are the mean of its tokens' last hidden states; those of two texts, u and v,
are |u - v| and u * v, as in SentEval. The map is a ridge regression, on one column a class or on
the number itself, whose penalty the training examples choose by leave-one-out: it has no seed, no
learning rate and no number of steps.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

PENALTIES = tuple(10.0**exponent for exponent in range(-2, 5))
"""Of features that are scaled to a standard deviation of 1."""


def features_of(columns: Sequence[Numbers]) -> Numbers:
    """Return the features of examples: of one text as they are, of two combined.

    Args:
        columns: the features of the first texts, and of the second if there are any, each
            [examples, width].
    """
    if len(columns) == 1:
        return columns[0]
    first, second = columns
    return np.concatenate([np.abs(first - second), first * second], axis=1)


def fit_and_predict(
    train: Numbers, labels: NDArray[np.int64] | Numbers, features: Numbers, classes: int
) -> Numbers:
    """Fit a linear map and return its outputs, [examples, classes], or [examples, 1] for numbers.

    Args:
        train: features of the training examples.
        labels: their classes, or their numbers.
        features: features of the examples to predict.
        classes: number of classes; 0 for numbers.
    """
    from sklearn.linear_model import RidgeCV

    mean, scale = train.mean(axis=0), train.std(axis=0)
    scale[scale < 1e-12] = 1.0
    targets = np.asarray(labels, dtype=np.float64)[:, None]
    if classes:
        targets = 2.0 * (np.asarray(labels)[:, None] == np.arange(classes)) - 1.0
    ridge = RidgeCV(alphas=PENALTIES).fit((train - mean) / scale, targets)
    outputs: Numbers = np.asarray(ridge.predict((features - mean) / scale), dtype=np.float64)
    return outputs.reshape(len(features), -1)
