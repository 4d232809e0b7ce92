"""The family's table: published students whose results are here, below their teachers."""

from dataclasses import replace

import made_results as made
import pytest
from made_results import BERT, STUDENT, cells, note, seeds

from eval_harness.tables.formats import FORMATS
from eval_harness.tables.write import write_by_name
from eval_harness.tasks.registry import GLUE

ROBERTA = made.model("roberta", "22222222")
DISTILROBERTA = made.model("distilroberta", "33333333", teacher="roberta")


@pytest.fixture
def root(tmp_path):
    return tmp_path


def family(root):
    return write_by_name(root).get("family")


def test_it_is_there_where_a_student_is(root):
    """Prevents an empty table, and one of teachers alone."""
    made.put(root, *seeds(0.8, of=BERT))
    assert family(root) is None
    assert not (root / "family.md").exists()
    made.put(root, *seeds(0.6, of=DISTILROBERTA))
    text = family(root)
    assert (root / "family.md").read_text() == text
    names = list(cells(text))
    assert names[-1] == "distilroberta"
    # Every model of the README, whichever was evaluated.
    assert {
        "bert-base-uncased (README)", "distilbert-base-uncased (README)",
        "bert-base-cased (README)", "distilbert-base-cased (README)", "roberta-base (README)",
        "distilroberta-base (README)", "bert-base-multilingual-cased (README)",
        "distilbert-base-multilingual-cased (README)", "distilbert-base-german-cased (README)",
    } <= set(names)  # fmt: skip
    assert {"gpt2 (README)", "distilgpt2 (README)"} <= set(names)


def test_it_goes_with_its_results(root):
    """Prevents a table of files that aren't there any more."""
    made.put(root, *seeds(0.6))
    assert family(root)
    for form in FORMATS:
        write_by_name(root, form=form)
    for path in (root / "runs").rglob("*.*"):
        path.unlink()
    assert family(root) is None
    assert not list(root.glob("family.*"))


def test_it_is_the_readmes(root):
    """Prevents other columns than the README's, and a macro-score of some tasks."""
    for task in GLUE:
        made.put(root, *seeds(0.5, 0.6, 0.8, of=BERT, task=task))
    made.put(root, *seeds(0.7, 0.5, asked=[1, 2, 3]))
    text = family(root)
    rows = cells(text)
    assert list(rows["bert"])[:11] == [
        "Model", "Macro-score", "CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B",
        "WNLI",
    ]  # fmt: skip
    assert list(rows)[-2:] == ["bert", "distilbert"]
    assert (rows["bert"]["Macro-score"], rows["bert"]["QQP"]) == ("60.0", "60.0")
    assert (rows["distilbert"]["Macro-score"], rows["distilbert"]["RTE"]) == ("", "60.0")
    assert rows["distilbert-base-uncased (README)"]["Macro-score"] == "77.0"
    assert note(text, "Ours are medians").endswith("number of seeds: bert 3; distilbert 2/3.")
    assert note(text, "Hyper-parameters (ours")


def test_scores_without_wnli_are_robertas(root):
    """Prevents the README's footnote from being lost, or from standing under another family."""
    made.put(root, *seeds(0.6, of=DISTILROBERTA), *seeds(0.8, of=ROBERTA))
    said = "The README's macro-scores without WNLI: roberta-base 86.4, distilroberta-base 82.3."
    assert note(family(root), "The README's macro-scores") == said


def test_a_folder_of_that_name_is_no_member(root):
    """Prevents somebody's own `distilbert` from passing for the published one."""
    own = replace(STUDENT, revision=None, source="/models/distilbert", teacher=None)
    made.put(root, *seeds(0.6, of=own))
    assert family(root) is None


def test_a_family_without_published_rows(root):
    """Prevents a student that the README has no row of from stopping the table."""
    made.put(root, *seeds(0.6, of=made.model("distilbert-squad", "44444444", teacher="bert")))
    assert "distilbert-squad (README)" not in cells(family(root))
    assert "distilbert-squad" in cells(family(root))
