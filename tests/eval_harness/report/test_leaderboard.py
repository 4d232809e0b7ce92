"""The leaderboard: any number of models over the same tasks and the same examples."""

import made_results as made
import numpy as np
import pytest
from made_report import TIMED, session
from made_results import BERT, STUDENT, seeds

from eval_harness.report.leaderboard import leaderboard
from eval_harness.results.speed import Speeds
from eval_harness.results.store import find
from eval_harness.rows.grouping import rows_of
from eval_harness.tasks.registry import GLUE

NONE = Speeds()
OTHER = made.model("other", "77777777")


def board(root, speeds=NONE):
    """Return the table's rows by model, and the table."""
    table = leaderboard(rows_of(find(root)), speeds, root)
    if table is None:
        return None, None
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}, table


def test_one_model_is_no_leaderboard(tmp_path):
    """Prevents a ranking of one, and of one model's two settings."""
    assert leaderboard([], Speeds(), tmp_path) is None
    made.put(tmp_path, *seeds(0.5), *seeds(0.6, given=made.settings(limit=10)))
    assert board(tmp_path) == (None, None)


def test_the_best_is_first_over_what_all_share(tmp_path):
    """Prevents a model from leading for having been evaluated on an easier task."""
    for of, rte, cola in ((STUDENT, 0.6, 0.3), (BERT, 0.8, 0.5)):
        made.put(tmp_path, *seeds(rte, of=of), *seeds(cola, of=of, task="cola"))
    rows, _ = board(tmp_path)
    assert [(name, row["Score"]) for name, row in rows.items()] == [
        ("bert", "65.0"), ("distilbert", "45.0"),
    ]  # fmt: skip
    made.put(tmp_path, *seeds(0.7, of=OTHER))
    rows, table = board(tmp_path)
    assert [row["Score"] for row in rows.values()] == ["80.0", "70.0", "60.0"]
    assert table.notes[0].startswith("Score: RTE, which all have;")


def test_glue_leads_where_most_have_all_nine(tmp_path):
    """Prevents one model with one task from making the table about that task; it is named."""
    for of in (BERT, STUDENT):
        for task in GLUE:
            made.put(tmp_path, *seeds(0.8 if of is BERT else 0.7, of=of, task=task))
    made.put(tmp_path, *seeds(0.99, of=OTHER))
    rows, table = board(tmp_path)
    assert list(rows) == ["bert", "distilbert"]
    assert table.notes[0].startswith("Score: GLUE: the mean of its nine tasks;")
    assert table.notes[-1] == "Not here, since not evaluated on the same: other."


def test_other_examples_are_no_rivals(tmp_path):
    """Prevents a score on a hundred easy examples from leading those on the whole dev set."""
    made.put(tmp_path, *seeds(0.5), *seeds(0.6, of=BERT))
    made.put(tmp_path, *seeds(0.9, of=OTHER, given=made.settings(content="f" * 16)))
    rows, table = board(tmp_path)
    assert list(rows) == ["bert", "distilbert"]
    assert table.notes[-1].endswith("other.")


@pytest.mark.parametrize("task", ["imdb", "spam"])
def test_without_glue_other_tasks_count(tmp_path, task):
    """Prevents an empty table for who evaluates on IMDb or a task of their own."""
    made.put(tmp_path, *seeds(0.5, task=task), *seeds(0.6, of=BERT, task=task))
    rows, _ = board(tmp_path)
    assert [row["Score"] for row in rows.values()] == ["60.0", "50.0"]


def test_an_interval_is_of_the_score(tmp_path):
    """Prevents an interval that isn't about the printed number: here, 80 of 100 are right."""
    made.put(tmp_path, *seeds(0.8, of=BERT), said=made.scoring(0.8))
    made.put(tmp_path, *seeds(0.5), said=made.scoring(0.5))
    _, table = board(tmp_path)
    column = table.columns.index("95 % interval")
    low, high = table.cells[0][column].more["interval"]
    assert low < 80 < high
    expected = 2 * 1.96 * 100 * np.sqrt(0.8 * 0.2 / 100)  # of a share of 100 examples
    assert high - low == pytest.approx(expected, rel=0.15)
    path = next((tmp_path / "runs" / BERT.key).rglob("*.parquet"))
    path.unlink()
    for cached in (tmp_path / "intervals").iterdir():
        cached.unlink()
    made.rewrite(next((tmp_path / "runs" / BERT.key).rglob("*.json")), _withheld)
    rows, _ = board(tmp_path)
    assert rows["bert"]["95 % interval"] == ""
    assert rows["distilbert"]["95 % interval"]


def _withheld(record):
    return {**record, "predictions": None, "withheld": record["predictions"]}


def test_costs_are_those_of_the_model(tmp_path):
    """Prevents a neighbour's size, and times of two sessions in one column."""
    made.put(tmp_path, *seeds(0.5), *seeds(0.6, of=BERT), *seeds(0.4, of=OTHER))
    alone = session(("other", OTHER.key, 5_000_000, 0.5), finished="2026-02-01T00:00:00")
    rows, _ = board(tmp_path, Speeds((TIMED, alone)))
    assert {name: (row["Parameters (M)"], row["ms a pair"]) for name, row in rows.items()} == {
        "bert": ("109.5", "40"), "distilbert": ("66.4", "20"), "other": ("5.0", ""),
    }  # fmt: skip
