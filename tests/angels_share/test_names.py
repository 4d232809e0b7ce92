"""Names of models: short names, and mistyped ones."""

import pytest

from angels_share.names import SHORT_NAMES, nearest, short_name_of


def test_every_name_is_in_the_table_once():
    """Prevents a short name that means two models."""
    every = [name for row in SHORT_NAMES for name in row.names]
    assert len(every) == len(set(every))
    assert short_name_of("distilbert").repo_id == "distilbert/distilbert-base-uncased"
    assert short_name_of("bert-base-uncased").short == "bert"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("distlbert", "distilbert"), ("BERT", "bert"), ("distil-roberta", "distilroberta")],
)
def test_the_nearest_name(typed, meant):
    """Prevents a suggestion that is further off than what was meant."""
    assert nearest(typed, [row.short for row in SHORT_NAMES]) == f"; did you mean '{meant}'?"
    assert nearest("zzzzzz", ["bert"]) == ""
