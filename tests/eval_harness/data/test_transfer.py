"""Transfer sets: what is read of them, what is dropped, and what is refused in one line."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet
import pytest
import tagged
import worlds

from angels_share.errors import UserError
from eval_harness.data.splits import load_task
from eval_harness.data.transfer import find_transfer_files, read_transfer_set
from eval_harness.tasks.lookup import task_named


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    return worlds.glue_folder(tmp_path_factory.mktemp("glue"))


def read(folder, task, *names, limit=None):
    task = task_named(task) if isinstance(task, str) else task
    return read_transfer_set(task, find_transfer_files(names), load_task(task, folder, limit=limit))


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_lines_are_texts_and_blank_ones_are_counted(glue, tmp_path):
    """Prevents blank texts from being learned from, and a count that doesn't say so."""
    name = written(tmp_path / "more.txt", "a river\n\n \t\nan angel's share\n")
    found = read(glue, "cola", name)
    assert found.part.rows == [("a river",), ("an angel's share",)]
    assert (found.facts.texts, found.facts.blank, found.facts.evaluated) == (2, 2, 0)


def test_texts_that_are_evaluated_are_dropped_whatever_their_case_and_spaces(glue, tmp_path):
    """Prevents contamination: a student that learned its teacher's answers to dev itself.

    A text of the training split stays: a teacher's answer to it is no leak.
    """
    data = load_task(task_named("cola"), glue)
    known = {text for (text,) in data.evaluation[0].rows}
    ours = next(text for (text,) in data.train.rows if text not in known)
    (dev,), (other,) = data.evaluation[0].rows[:2]
    texts = [f"  {dev.upper()} ", other.replace(" ", "  "), ours, dev, "something new"]
    found = read(glue, "cola", written(tmp_path / "more.txt", "\n".join(texts)))
    assert found.part.rows == [(ours,), ("something new",)]
    assert (found.facts.blank, found.facts.evaluated) == (0, 3)


def test_a_pair_is_dropped_if_both_of_its_texts_are_evaluated_together(glue, tmp_path):
    """Prevents new pairs from being lost since one text is known, or swapped ones kept."""
    first, second = load_task(task_named("rte"), glue).evaluation[0].rows[0]
    rows = [(first, second), (first, "quite another"), ("", second), (second, first)]
    lines = [json.dumps({"sentence1": a, "sentence2": b}) for a, b in rows]
    found = read(glue, "rte", written(tmp_path / "more.jsonl", "\n".join(lines)))
    assert found.part.rows == [(first, "quite another")]
    assert (found.facts.blank, found.facts.evaluated) == (1, 2)


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_labels_in_a_file_are_not_read(glue, tmp_path, ending):
    """Prevents a file from being refused for labels, or their lack, that nobody asks for."""
    rows = [{"label": "?", "sentence": "a river"}, {"label": "", "sentence": "an angel"}]
    path = tmp_path / f"more.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif ending == "json":
        path.write_text(json.dumps([rows[0], {"sentence": "an angel"}]))
    elif ending == "jsonl":
        path.write_text(f'{json.dumps(rows[0])}\n{{"sentence": "an angel"}}\n')
    else:
        sign = "," if ending == "csv" else "\t"
        cells = [["label", "sentence"], *([*row.values()] for row in rows)]
        path.write_text("\n".join(map(sign.join, cells)))
    found = read(glue, "cola", str(path))
    assert found.part.rows == [("a river",), ("an angel",)]
    assert set(found.part.labels) == {0}


def test_a_regressions_filler_is_a_number(glue, tmp_path):
    """Prevents integers among a regression's labels, which a batch would round the others to."""
    name = written(tmp_path / "more.csv", "sentence1,sentence2\na river,old barrels\n")
    assert read(glue, "stsb", name).part.labels.dtype.kind == "f"


def test_words_without_tags(tmp_path):
    """Prevents tagged words from having no transfer set, or one with the evaluated sentences."""
    folder = tagged.folder(tmp_path)
    task = task_named("conll2003")
    dev = list(load_task(task, folder).evaluation[0].words[0])
    (column,) = task.columns
    lines = [json.dumps({column: words}) for words in (dev, ["angels", "sleep"])]
    found = read(folder, task, written(tmp_path / "more.jsonl", "\n".join(lines)))
    assert found.part.rows == [("angels", "sleep")]
    assert found.facts.evaluated == 1
    with pytest.raises(UserError, match=r"more\.txt: .* reads lists of words; use one of \.parq"):
        read(folder, task, written(tmp_path / "more.txt", "angels sleep\n"))


def test_a_limit_is_for_labelled_rows(glue, tmp_path):
    """Prevents --limit, which makes labels few, from making few what stands in for them."""
    name = written(tmp_path / "more.txt", "\n".join(f"text {n}" for n in range(30)))
    assert read(glue, "cola", name, limit=10).facts.texts == 30


def test_it_is_known_by_its_content(glue, tmp_path):
    """Prevents a key that depends on where a file lies, and two sets that share a key."""
    (tmp_path / "elsewhere").mkdir()
    one = written(tmp_path / "a.txt", "a river\n")
    same = written(tmp_path / "elsewhere" / "b.txt", "a river\n")
    other = written(tmp_path / "c.txt", "a rivers\n")
    found = [read(glue, "cola", name).facts for name in (one, same, other)]
    assert found[0].content == found[1].content != found[2].content
    (first,), (second,), (third,) = (facts.files for facts in found)
    assert first.identity == second.identity != third.identity
    assert str(tmp_path) not in json.dumps(found[0].record)
    assert found[0].record["files"] == [{"name": "a.txt", "sha256": first.sha256}]


@pytest.mark.parametrize(
    ("task", "name", "text", "said"),
    [
        (
            "rte",
            "x.txt",
            "a river\n",
            r"x\.txt: a line is one text, and RTE reads 2 \(sentence1, s",
        ),
        ("rte", "x.csv", "sentence1\na river\n", r"no column 'sentence2'; the columns are 'sent"),
        ("cola", "x.txt", " \n\n", "no text is left for CoLA: 2 are blank, 0 are texts that it is"),
        ("cola", "x.txt", "", r"x\.txt: has no rows"),
        ("cola", "x.xml", "<a/>", r"x\.xml: unsupported file type; use one of \.txt, \.parquet"),
        ("cola", "x.jsonl", '{"sentence": 3}\n', r"x\.jsonl:1: column 'sentence' holds int, not t"),
    ],
)
def test_what_cannot_be_used_is_refused(glue, tmp_path, task, name, text, said):
    """Prevents a run that fails after the teacher's, or silently learns from nothing."""
    with pytest.raises(UserError, match=said):
        read(glue, task, written(tmp_path / name, text))


def test_names_that_are_no_transfer_set_are_refused(glue, tmp_path):
    """Prevents texts that count twice, and names that are looked for in the wrong place."""
    one, twin = (written(tmp_path / name, "a river\n") for name in ("a.txt", "b.txt"))
    with pytest.raises(UserError, match=r"a\.txt and b\.txt have one content; drop one"):
        find_transfer_files([one, twin])
    with pytest.raises(UserError, match="is a folder; name the files in it"):
        find_transfer_files([str(tmp_path)])
    with pytest.raises(UserError, match=r"no\.txt: no such file"):
        find_transfer_files([str(tmp_path / "no.txt")])
    with pytest.raises(UserError, match="no such file, nor a name on the Hub"):
        find_transfer_files(["some/where/else"])


def test_questions_have_no_transfer_set(tmp_path):
    """Prevents a window without an answer from being taken for one whose answer is nowhere."""
    worlds.squad_files(tmp_path)
    files = {"train": str(tmp_path / "train.json"), "validation": str(tmp_path / "dev.json")}
    squad = replace(task_named("squad"), files=files)
    name = written(tmp_path / "more.txt", "a river\n")
    with pytest.raises(UserError, match=r"SQuAD.* has answers that stand in the text"):
        read(None, squad, name)
