"""The published numbers: they add up, and where they don't the erratum says so."""

import pytest

from angels_share.errors import UserError
from eval_harness.tables import paper as paper_module
from eval_harness.tables.paper import corrected, footnotes, load_paper
from eval_harness.tasks.registry import GLUE

PAPER = load_paper()
ROWS = [
    (table, name, row)
    for table in ("table1", "readme_glue")
    for name, row in PAPER[table]["rows"].items()
]


def macro_score(row):
    """As the paper computes it: the plain mean of nine, WNLI included."""
    return sum(row[task] for task in GLUE) / len(GLUE)


@pytest.mark.parametrize(("table", "name", "row"), ROWS)
def test_macro_scores_add_up(table, name, row):
    """Prevents a mistyped number: nine of them must average to the score that was printed."""
    tolerance = 0.051 if name != "roberta-base" else 0.06
    assert macro_score(corrected(PAPER, table, name)) == pytest.approx(row["score"], abs=tolerance)


def test_the_misprint_is_found():
    """Prevents the erratum from outliving its evidence: as printed the row doesn't add up."""
    wrong = [
        (table, name) for table, name, row in ROWS if abs(macro_score(row) - row["score"]) > 0.06
    ]
    assert wrong == [("table1", "BERT-base")]
    assert PAPER["readme_glue"]["rows"]["bert-base-uncased"]["mnli"] == 84.7


def test_every_table_shows_its_errata():
    """Prevents a slip of the paper's from being repeated without a word."""
    assert "should be 84.7" in footnotes(PAPER, "table1")[0]
    assert footnotes(PAPER, "table2")[0].startswith("Erratum: DistilBERT (D), SQuAD F1: printed")
    assert len(footnotes(PAPER, "table2")) == len(footnotes(PAPER, "table3")) == 1
    assert footnotes(PAPER, "table4") == []


def test_what_was_retained():
    """Prevents the sentence '97 %' from being repeated without having been added up."""
    rows = PAPER["table1"]["rows"]
    share = rows["DistilBERT"]["score"] / rows["BERT-base"]["score"]
    assert share == pytest.approx(0.969, abs=0.0005)
    seconds = {name: row["seconds"] for name, row in PAPER["table3"]["rows"].items()}
    ratio = seconds["BERT-base"] / seconds["DistilBERT"]
    assert ratio == pytest.approx(PAPER["table3"]["ratio_bert_over_distilbert"], abs=0.005)


def test_a_removed_results_folder_is_one_line(tmp_path, monkeypatch):
    """Prevents a traceback's line after `rm -rf results`, by which people start anew."""
    monkeypatch.setattr(paper_module, "__file__", str(tmp_path / "a" / "b" / "paper.py"))
    with pytest.raises(UserError, match=r"paper\.json: the paper's numbers are missing: `git"):
        paper_module.load_paper()
