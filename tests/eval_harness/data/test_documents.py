"""Documents: WikiText's lines put together, splits that may lack, text of one's own."""

import json
from pathlib import Path

import letters
import pyarrow as pa
import pyarrow.parquet
import pytest

from angels_share.errors import UserError
from eval_harness.data.splits import load_task
from eval_harness.tasks.custom import make_task
from eval_harness.tasks.lookup import task_named

RAW = task_named("wikitext-2-raw")


def read(folder, **how):
    return load_task(RAW, Path(folder), **how)


def test_documents_begin_at_headings_of_the_first_level(tmp_path):
    """Prevents sections that count as documents, and a line that is in none or in two."""
    data = read(letters.folder(tmp_path, train=2, test=3))
    (test,) = data.evaluation
    assert (test.name, len(data.train), len(test), test.ids) == ("test", 2, 3, ["0", "1", "2"])
    lines = "".join(test.texts).split("\n")
    rows = letters.split(3, seed=1)
    assert lines == [*(row.rstrip("\n") or " " for row in rows), ""]
    assert test.texts[0].startswith(" \n = Cask 0 = \n \n")
    assert all(" = = Its past = = \n" in text for text in test.texts)


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        (" = A = \n", True),
        (" = Kiss ( song ) = \n", True),
        (" = a = b = \n", True),
        (" = = Career = = \n", False),
        (" = = = 2000 = = = \n", False),
        (" = National record \n", False),
        ("x = y = \n", False),
    ],
)
def test_what_is_a_heading(tmp_path, line, begins):
    """Prevents documents that are cut at a section or at a table's legend."""
    rows = [" = First = \n", " one \n", line, " two \n"]
    place = tmp_path / "wikitext-2-raw"
    place.mkdir()
    pa.parquet.write_table(pa.table({"text": rows}), place / "test.parquet")
    (test,) = read(tmp_path, train=False).evaluation
    assert len(test) == (2 if begins else 1)
    assert "".join(test.texts) == "".join(rows)


def test_only_what_is_needed_must_be_there(tmp_path):
    """Prevents a test set that can't be judged without training files, or is trained on nothing."""
    folder = letters.folder(tmp_path, test=2)
    data = read(folder, train=False)
    assert data.train is None
    assert [split.name for split in data.evaluation] == ["test"]
    assert [split.name for split in data.splits] == ["test"]
    with pytest.raises(UserError, match=r"train\.parquet"):
        read(folder)
    with pytest.raises(UserError, match=r"looked for .*validation\.parquet"):
        load_task(task_named("wikitext-103"), folder, train=False)


def test_text_without_a_split_to_be_judged_on(tmp_path):
    """Prevents hours of training whose model nothing judges."""
    with pytest.raises(UserError, match="no validation or test split to be judged on"):
        read(letters.folder(tmp_path, train=2))


def test_the_limit_counts_documents(tmp_path):
    """Prevents a limit of lines, which would cut documents."""
    data = read(letters.folder(tmp_path, train=9, test=6), limit=3)
    assert (len(data.train), len(data.evaluation[0])) == (3, 3)
    assert data.evaluation[0].ids == ["0", "2", "4"]


def test_content_is_that_of_what_is_read(tmp_path):
    """Prevents one key for a run with a training set and for one without, or for other text."""
    folder = letters.folder(tmp_path, train=2, test=2)
    known = {read(folder).content, read(folder, train=False).content, read(folder, limit=1).content}
    assert len(known) == 3
    assert read(folder).content in known


WAYS = {
    "txt": lambda path, texts: path.write_text("\n\n".join(texts)),
    "jsonl": lambda path, texts: path.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ["  ", *texts])
    ),
    "parquet": lambda path, texts: pa.parquet.write_table(pa.table({"text": texts}), path),
}


@pytest.mark.parametrize("ending", WAYS)
def test_text_of_ones_own(tmp_path, ending):
    """Prevents a blank line that counts as a document, or a format that loses a text."""
    texts = ["the old river", " angels share ", "oak"]
    WAYS[ending](tmp_path / f"dev.{ending}", texts)
    given = {"name": "own", "kind": "perplexity", "files": {"validation": f"dev.{ending}"}}
    task = make_task(given, tmp_path)
    (split,) = load_task(task, None, train=False).evaluation
    assert list(split.texts) == texts
    with pytest.raises(UserError, match="no train split to fine-tune on; --eval_only"):
        load_task(task, None)


def test_text_of_ones_own_with_headings(tmp_path):
    """Prevents WikiText's own files from being read as a document a line."""
    lines = [row or " \n" for row in letters.split(3)]
    (tmp_path / "wiki.test.txt").write_text("".join(lines))
    given = {"name": "own", "kind": "perplexity", "headings": True, "evaluation": ["test"],
             "files": {"test": "wiki.test.txt"}}  # fmt: skip
    (split,) = load_task(make_task(given, tmp_path), None, train=False).evaluation
    assert len(split) == 3
    assert "".join(split.texts) == "".join(lines)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("labels", ["a", "b"], "labels: is for tasks with labels; a perplexity has none"),
        ("primary", ["accuracy"], "primary: is for tasks with labels"),
        ("columns", ["a", "b"], "expected one, of text"),
        ("files", {"train": "a.txt"}, "validation is missing"),
        ("files", {"validation": "a.pdf"}, r"must end in one of .*\.txt"),
    ],
)
def test_what_a_text_of_ones_own_has_not(tmp_path, key, value, message):
    """Prevents a key that is ignored."""
    given = {"name": "own", "kind": "perplexity", "files": {"validation": "a.txt"}, key: value}
    with pytest.raises(UserError, match=message):
        make_task(given, tmp_path)


def test_headings_are_for_text(tmp_path):
    """Prevents a key that a task of another kind ignores."""
    given = {"name": "own", "columns": ["a"], "labels": ["x", "y"], "primary": ["accuracy"],
             "files": {"train": "a.csv", "validation": "b.csv"}, "headings": True}  # fmt: skip
    with pytest.raises(UserError, match="headings: is for kind: perplexity"):
        make_task(given, tmp_path)


def test_wikitext_itself(real_data):
    """Prevents another count of articles than the 62 that lm-eval's pages have."""
    folder = real_data / "data" / "hub"
    for name in ("wikitext-2-raw", "wikitext-2"):
        data = load_task(task_named(name), folder, train=False)
        assert len(data.evaluation[-1]) == 62
