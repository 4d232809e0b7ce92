"""What `make mutants` draws from."""

import json

import pytest
from places import ROOT, TESTS

SOURCE = '''
"""A module's docstring is no code."""
LIMIT: int = 5


def take(items: list[int], *, strict: bool = True) -> int:
    """Return the first item."""
    items.pop(0)
    if len(items) < LIMIT and strict:
        raise ValueError(f"too few: {len(items)}")
    return max(items, default=-1)
'''


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(TESTS)
    import mutants

    return mutants


def test_every_kind_of_change_is_made(mutants):
    """Prevents a kind of mistake from being left out, and one in a place that does nothing."""
    found = mutants.mutants_of("m.py", SOURCE)
    assert {(each.was, each.says or each.becomes) for each in found} == {
        ("5", "6"),
        ("True", "False"),
        ("items.pop(0)", "pass"),
        ("0", "1"),
        ("len(items) < LIMIT", "((len(items)) <= (LIMIT))"),
        ("len(items) < LIMIT and strict", "((len(items) < LIMIT) or (strict))"),
        ('raise ValueError(f"too few: {len(items)}")', "pass"),
        ("return max(items, default=-1)", "return None"),
        ("max(items, default=-1)", "without `default=-1`"),
        ("-1", "(1)"),
        ("1", "2"),
    }
    for each in found:
        compile(each.applied(SOURCE), "m.py", "exec")


def test_what_once_survived_can_be_drawn(mutants):
    """Prevents a sample that could not hold the mistakes that the tests once let through."""
    everything, total = mutants.drawn(ROOT, 10**6, 13)
    assert len(everything) == total > 1500
    assert len({each.place for each in everything}) == total
    changes = {(each.module.split("/")[-1], each.text, each.becomes) for each in everything}
    assert ("grouping.py", "variants.pop(_TEACHER, None)  # the teacher's run changes with every "
            "other setting", "pass") in changes  # fmt: skip
    assert ("bootstrap.py", "_UNDEFINED = 0.025", "0.05") in changes
    assert any(file == "metrics.py" and "_ARTICLES.sub" in line and text == "''"
               for file, line, text in changes)  # fmt: skip
    assert any("zero_division=0" in line and "zero_division" not in text
               for _, line, text in changes)  # fmt: skip


def test_a_larger_sample_begins_with_a_smaller_one(mutants):
    """Prevents a day's work from being thrown away when more mutants are wanted."""
    few, _ = mutants.drawn(ROOT, 10, 13)
    assert mutants.drawn(ROOT, 20, 13)[0][:10] == few
    assert mutants.drawn(ROOT, 10, 14)[0] != few


def test_the_modules_and_their_tests_are_there(mutants):
    """Prevents a renamed module or test from leaving the sample unnoticed."""
    for module, tests in mutants.MODULES.items():
        assert all((ROOT / path).exists() for path in (module, *tests))


def test_a_table_counts_what_can_be_killed(mutants):
    """Prevents equivalent mutants from lowering the share, or unknown ones from raising it."""
    found = [
        {"place": f"a.py:{n}", "name": f"a.py: {n}", "line": n, "survives": n > 3}
        for n in (1, 2, 3, 4, 5)
    ]
    text = mutants.table(found, {"a.py: 5": "it is the same"}, "5 of 9")
    assert "Killed of the non-equivalent: 75.0 %." in text
    assert "| a.py | 3 | 1 | 1 |" in text
    assert "- a.py: 4, line 4: SURVIVED" in text
    assert "- a.py: 5, line 5: it is the same" in text
    assert all(mutants.equivalents().values()), json.dumps(mutants.equivalents())
