"""Labelled rows and rows without labels as one data set: fields, places and marks."""

import numpy as np
import pytest

from angels_share.inputs import UNLABELLED
from eval_harness.training.encoding import Collator, Encoded, WithUnlabelled
from eval_harness.training.token_classification import TaggedRows

IDS, STARTS = np.arange(7, dtype=np.int32), np.array([0, 3, 7])
ONE_TYPE, TWO_TYPES = None, np.array([0, 0, 1, 0, 1, 1, 1], np.uint8)


@pytest.mark.parametrize(("ours", "theirs"), [(ONE_TYPE, TWO_TYPES), (TWO_TYPES, ONE_TYPE)])
def test_all_rows_have_the_same_fields(ours, theirs):
    """Prevents a batch's token types from being those of its first row alone."""
    data = WithUnlabelled(
        Encoded(IDS, ours, STARTS, np.array([1, 1])), Encoded(IDS, theirs, STARTS, np.array([0, 0]))
    )
    assert len(data) == 4
    assert data.lengths.tolist() == [3, 4, 3, 4]
    batch = Collator(0)([data[number] for number in range(4)])
    assert batch[UNLABELLED].tolist() == [0, 0, 1, 1]
    types = [[0, 0, 1, 0], [0, 1, 1, 1]], [[0, 0, 0, 0]] * 2
    assert batch["token_type_ids"].tolist() == [
        *types[ours is ONE_TYPE], *types[theirs is ONE_TYPE],
    ]  # fmt: skip
    with pytest.raises(IndexError):
        data[4]


def test_tokens_are_marked_where_a_label_would_stand():
    """Prevents soft targets at word pieces and padding, where labelled rows have none."""
    labels = np.array([-100, 2, -100, -100, 1, 0, -100])
    rows = TaggedRows(IDS, None, STARTS, labels, np.zeros(7, np.int32), 0, 0)
    batch = Collator(0)([WithUnlabelled(rows, rows)[number] for number in range(4)])
    where = [[False, True, False, False], [False, True, True, False]]
    assert batch[UNLABELLED].tolist() == [[False] * 4, [False] * 4, *where]
