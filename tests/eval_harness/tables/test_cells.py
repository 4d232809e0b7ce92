"""Numbers in cells: what is printed, and what a program reads."""

import pytest

from eval_harness.tables.cells import percent_text, to_percent


@pytest.mark.parametrize(
    ("share", "percent"), [(0.57, 57.0), (1 / 3, 33.3333333333), (-1e-15, 0.0), (-0.3, -30.0)]
)
def test_a_percentage_has_ten_decimals(share, percent):
    """Prevents 56.99999999999999 and -0.0 in the JSON, and digits that no measurement has."""
    assert to_percent(share) == percent
    assert str(to_percent(share)) == str(percent)


@pytest.mark.parametrize(
    ("share", "text"), [(0.57, "57.0"), (-1e-4, "0.0"), (1 / 3, "33.3"), (-0.02, "-2.0")]
)
def test_a_percentage_is_printed_with_one_decimal(share, text):
    """Prevents "-0.0", and decimals that differ from cell to cell."""
    assert percent_text(share) == text
