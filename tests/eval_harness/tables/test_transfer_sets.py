"""Rows whose students learned from texts without labels: marked, counted, and never mixed."""

import json

import made_results as made
import pytest
from made_results import BERT, HUB, cells, note, seeds

from angels_share.card.render import CardFacts, CardShape, render
from eval_harness.publish.card_results import card_results
from eval_harness.publish.results_data import row_of
from eval_harness.results.record import from_record, texts_added, to_record
from eval_harness.results.store import find
from eval_harness.rows.grouping import rows_of
from eval_harness.tables.write import write_tables


def student(task, texts, *, blank=0, evaluated=0, content="0" * 16, score=0.6, **more):
    """Return one result of a student that learned from that many texts."""
    given = made.settings(
        task,
        inputs={"transfer_set": content},
        method=made.distilled_from(BERT, transfer_set=content),
    )
    added = {
        "files": [{"name": "more.txt", "sha256": "ab" * 32}],
        "texts": texts,
        "dropped": {"blank": blank, "evaluated": evaluated},
        "content": content,
    }
    data = {**HUB, "content": given.task["data"], "examples": {"train": 9, "validation": 4}}
    return seeds(score, task=task, given=given, data={**data, "transfer_set": added}, **more)


def test_a_row_says_with_how_many_texts(tmp_path):
    """Prevents a score made with more data from standing beside one without, as if alike."""
    made.put(tmp_path, *seeds(0.5, given=made.settings(method=made.distilled_from(BERT))))
    made.put(tmp_path, *student("rte", 12_000, blank=2, evaluated=31))
    table = write_tables(tmp_path)[0]
    assert {"distilbert (D)", "distilbert (D) [a]"} <= cells(table).keys()
    assert note(table, "[a]") == "[a] with 12,000 unlabelled texts."
    assert note(table, "Unlabelled texts") == (
        "Unlabelled texts, learned by the teacher's answers: RTE 12,000 of more.txt, less 2 blank "
        "and 31 evaluated (distilbert (D) [a])."
    )


def test_tasks_that_drop_other_numbers_share_a_row(tmp_path):
    """Prevents a row for each task, since each is evaluated on other texts of one set."""
    made.put(tmp_path, *student("rte", 12_000), *student("wnli", 11_990, evaluated=10))
    (row,) = rows_of(find(tmp_path))
    assert row.label == "distilbert (D), transfer_set 11,990 to 12,000"
    assert row.footnote == "[a] with 11,990 to 12,000 unlabelled texts"


def test_two_sets_of_one_size_are_two_rows(tmp_path):
    """Prevents a median over two transfer sets."""
    for content in ("0" * 16, "1" * 16):
        made.put(tmp_path, *student("rte", 100, content=content))
    labels = [row.label for row in rows_of(find(tmp_path))]
    assert labels == [
        f"distilbert (D), transfer_set 100, transfer_set {content}"
        for content in ("0" * 16, "1" * 16)
    ]


def test_cards_and_the_data_set_of_results_say_it_too(tmp_path):
    """Prevents a model on the Hub whose card hides a part of what it was trained on."""
    (result,) = student("rte", 12_000)
    made.put(tmp_path, result, said=made.scoring(0.6))
    measured = card_results(tmp_path, "distilbert", task="rte")
    text = render(
        CardFacts(
            "me/x", CardShape("DistilBertForSequenceClassification", "rte"), measured=measured
        )
    )
    said = " ".join(text.split())
    assert "9 examples of the training split, and 12,000 texts without labels" in said
    assert "on up to 12,000 texts without labels the teacher's outputs alone were learned" in said
    assert "(D), 12,000 unlabelled texts" in said
    assert row_of(next(iter(find(tmp_path).by_key.values())))["transfer_texts"] == 12_000


@pytest.mark.parametrize(
    "added", [{"texts": "many"}, {"files": [{"name": 3}]}, {"dropped": {"blank": "2"}}, {"odd": 1}]
)
def test_a_damaged_record_counts_as_none(added):
    """Prevents a file by which a table fails."""
    (result,) = student("rte", 12_000)
    assert texts_added(result) == 12_000
    record = json.loads(json.dumps(to_record(result))) | {"seal": "x"}
    record["withheld"] = {"name": "p", "size": 1, "sha256": "s"}
    assert texts_added(from_record(record)) == 12_000
    record["data"]["transfer_set"] |= added
    with pytest.raises(ValueError, match=r"data\.transfer_set"):
        from_record(record)
