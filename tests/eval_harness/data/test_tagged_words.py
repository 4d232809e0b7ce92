"""Tagged words from column files, parquet and JSON: the same rows, or one line that says why."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet
import pytest
import tagged

from angels_share.errors import UserError
from eval_harness.data.splits import load_task
from eval_harness.tasks.custom import make_task
from eval_harness.tasks.lookup import task_named

CONLL = task_named("conll2003")
SPLITS = tuple(tagged.SIZES)


def tags_of(split):
    return [[CONLL.labels[each] for each in tags] for tags in split.tags]


def as_tables(folder, *, ending, names=None, layout="List"):
    """Write the splits as the Hub has them: ids with names, in another order if asked."""
    names = names or CONLL.labels
    (folder / "conll2003").mkdir(parents=True)
    for seed, (split, count) in enumerate(tagged.SIZES.items()):
        rows = tagged.sentences(count, seed)
        words, tags = ([row[each] for row in rows] for each in (0, 1))
        path = folder / "conll2003" / f"{split}.{ending}"
        if ending == "jsonl":
            lines = [
                json.dumps({"tokens": w, "ner_tags": t}) for w, t in zip(words, tags, strict=True)
            ]
            path.write_text("\n".join(lines))
            continue
        ids = [[names.index(tag) for tag in each] for each in tags]
        label = {"names": list(names), "_type": "ClassLabel"}
        feature = [label] if layout == "old" else {"feature": label, "_type": layout}
        note = {"huggingface": json.dumps({"info": {"features": {"ner_tags": feature}}})}
        table = pa.table({"tokens": words, "ner_tags": ids}).replace_schema_metadata(note)
        pyarrow.parquet.write_table(table, path)
    return folder


@pytest.mark.parametrize(
    "write",
    [
        lambda path: tagged.folder(path),
        lambda path: tagged.folder(path, scheme="IOB1"),
        lambda path: tagged.folder(path, columns="{word}\tx\t {tag} "),
        lambda path: as_tables(path, ending="parquet"),
        lambda path: as_tables(path, ending="parquet", names=CONLL.labels[::-1], layout="old"),
        lambda path: as_tables(path, ending="parquet", layout="Sequence"),
        lambda path: as_tables(path, ending="jsonl"),
    ],
)
def test_every_format_gives_the_same_rows(write, tmp_path):
    """Prevents a format or a scheme from having other words, tags or hash: another number."""
    data = load_task(CONLL, write(tmp_path / "a"))
    for seed, split in enumerate((data.train, *data.evaluation)):
        expected = tagged.sentences(tagged.SIZES[split.name], seed)
        assert [list(words) for words in split.words] == [words for words, _ in expected]
        assert tags_of(split) == [tags for _, tags in expected]
    assert [split.name for split in data.evaluation] == ["validation", "test"]
    assert data.content == load_task(CONLL, tagged.folder(tmp_path / "b")).content
    assert (data.source, data.revision) == ("conll2003", None)


def test_a_limit_is_evenly_spaced(tmp_path):
    """Prevents the first sentences of a file, all of one article, from standing for it."""
    whole = load_task(CONLL, tagged.folder(tmp_path))
    some = load_task(CONLL, tmp_path, limit=10)
    assert len(some.train) == len(some.evaluation[0]) == 10
    assert list(some.train.ids) == [str(number * 48 // 10) for number in range(10)]
    assert some.train.words[3] == whole.train.words[3 * 48 // 10]
    assert some.content != whole.content


def one_file(tmp_path, text, *, task=CONLL, name="train.conll", encoding="utf-8"):
    folder = tagged.folder(tmp_path, task.name)
    (folder / task.name / "train.conll").unlink()
    (folder / task.name / name).write_bytes(text.encode(encoding))
    return load_task(task, folder)


def refusal(tmp_path, text, **how):
    with pytest.raises(UserError) as caught:
        one_file(tmp_path, text, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{tmp_path}/conll2003/")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a NN O\nb O\n", "train.conll:2: 2 columns instead of 3"),
        ("a\n", "train.conll:1: 1 column instead of at least 2"),
        ("a NN O\n\nb NN B-CAR\n", "train.conll:3: unknown label 'B-CAR'; known: O, B-PER"),
        ("a NN 3\n", "train.conll:1: unknown label '3'"),
        ("", "train.conll: no sentence in it"),
        ("-DOCSTART- -X- O\n\n", "train.conll: no sentence in it"),
        (
            "a NN B-PER\nb NN O\n\nc NN O\nd NN I-LOC\n",
            "train.conll:5: I-LOC begins an entity, as only IOB1 allows, but B-PER at ",
        ),
        ("a NN B-PER\nb NN I-LOC\n", "train.conll:2: I-LOC begins an entity"),
        ("a\0 NN O\n", "train.conll:1: contains a NUL"),
    ],
)
def test_a_column_file_that_is_not_clean(tmp_path, text, said):
    """Prevents a shifted column or a torn tag from becoming a score that looks like any other."""
    assert refusal(tmp_path, text).startswith(said)


def test_not_utf8_is_refused(tmp_path):
    """Prevents a word from being read as others, where the task doesn't say that it may be."""
    assert "train.conll:1: not UTF-8" in refusal(tmp_path, "größer NN O\n", encoding="latin-1")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_the_german_file_is_latin_1_or_was_converted(tmp_path, encoding):
    """Prevents umlauts from becoming two characters each, whichever way the file was passed on."""
    text = "-DOCSTART- -X- -X- -X- O\n\nMüller Müller NE I-NC I-PER\nging gehen V I-VC O\n"
    task = task_named("conll2003-de")
    data = one_file(tmp_path, text, task=task, name="deu.train", encoding=encoding)
    assert data.train.words == [["Müller", "ging"]]
    assert [task.labels[each] for each in data.train.tags[0]] == ["B-PER", "O"]


def test_germeval_is_its_outer_level(tmp_path):
    """Prevents the inner level, a comment or a line's number from being read as words or tags."""
    text = (
        "#\thttp://de.wikipedia.org/wiki/X [2009-10-17]\n1\tDie\tO\tO\n2\tTU\tB-ORG\tO\n"
        "3\tDarmstadt\tI-ORG\tB-LOC\n4\t#\tO\tO\n\n# n\td\n1\tdeutscher\tB-LOCderiv\tO\n"
    )
    task = task_named("germeval2014")
    for split in ("validation", "test"):
        (tmp_path / task.name).mkdir(exist_ok=True)
        (tmp_path / task.name / f"{split}.conll").write_text("1\tx\tO\tO\n")
    (tmp_path / task.name / "NER-de-train.tsv").write_text(text)
    data = load_task(task, tmp_path)
    assert data.train.words == [["Die", "TU", "Darmstadt", "#"], ["deutscher"]]
    tags = [[task.labels[each] for each in tags] for tags in data.train.tags]
    assert tags == [["O", "B-ORG", "I-ORG", "O"], ["B-LOCderiv"]]
    assert len(task.labels) == 25


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "train.jsonl:1: 1 tags for 2 words"),
        ({"tokens": [], "ner_tags": []}, "train.jsonl:1: column 'tokens' holds no list of words"),
        ({"tokens": "a b", "ner_tags": ["O"]}, "train.jsonl:1: column 'tokens' holds no list"),
        ({"tokens": ["a", " "], "ner_tags": ["O", "O"]}, "train.jsonl:1, item 2: ' ' is not a"),
        ({"tokens": ["a", "b"], "ner_tags": ["O", "X"]}, "train.jsonl:1, item 2: unknown label"),
        ({"tokens": ["a"], "ner_tags": [None]}, "train.jsonl:1, item 1: the label is null"),
        ({"tokens": ["a"]}, "train.jsonl:1: no column 'ner_tags'"),
        ({"tokens": ["\ud83d"], "ner_tags": ["O"]}, "train.jsonl:1, item 1: "),
    ],
)
def test_lists_that_are_not_clean(tmp_path, row, said):
    """Prevents tags that slid along their words, and words that no tokenizer can take."""
    assert refusal(tmp_path, json.dumps(row), name="train.jsonl").startswith(said)


def test_where_the_data_should_be_is_said(tmp_path):
    """Prevents a bare 'not found' for data that nobody may pass on."""
    with pytest.raises(UserError, match=r"not read from the Hub: .*conll2003/eng\.train in it"):
        load_task(CONLL, None)
    with pytest.raises(UserError, match=r"looked for .*conll2003/eng\.train, .*train\.parquet"):
        load_task(CONLL, tmp_path)


def test_two_languages_of_one_data_set_lie_side_by_side(tmp_path):
    """Prevents German from being read as English, whose folder is named by the same data set."""
    for language, word in (("de", "Fluss"), ("en", "river")):
        (tmp_path / "wikiann" / language).mkdir(parents=True)
        for split in ("train", "validation"):
            row = {"tokens": [word, split], "ner_tags": ["B-LOC", "O"]}
            (tmp_path / "wikiann" / language / f"{split}.jsonl").write_text(json.dumps(row))
    german = load_task(task_named("wikiann-de"), tmp_path)
    assert (german.train.words, german.source) == ([["Fluss", "train"]], "wikiann/de")
    assert load_task(task_named("wikiann-en"), tmp_path).train.words == [["river", "train"]]


def custom(tmp_path, **changes):
    given = {
        "name": "places",
        "kind": "tokens",
        "columns": ["tokens", "ner_tags"],
        "labels": ["O", "B-LOC", "I-LOC"],
        "files": {"train": "train.conll", "validation": "dev.conll"},
        **changes,
    }
    return make_task({key: value for key, value in given.items() if value is not None}, tmp_path)


def test_a_custom_task_of_column_files(tmp_path):
    """Prevents words and tags from being taken from other columns than were named."""
    text = "1 Fluss B-LOC x\n2 alt O x\n"
    for name in ("train.conll", "dev.conll"):
        (tmp_path / name).write_bytes(text.replace("alt", "groß").encode("latin-1"))
    task = custom(tmp_path, columns=[2, 3], encoding="latin-1")
    data = load_task(task, None)
    assert data.train.words == [["Fluss", "groß"]]
    assert data.train.tags[0].tolist() == [1, 0]
    assert (task.primary, task.table) == (("entity_f1",), "table-custom")
    assert set(task.also) == {"entity_precision", "entity_recall", "strict_f1",
                              "strict_precision", "strict_recall"}  # fmt: skip
    assert custom(tmp_path, primary=["strict_f1"]).primary == ("strict_f1",)


def test_a_custom_task_of_lists(tmp_path):
    """Prevents the tags' column from being looked for by another name than the file's."""
    row = {"words": ["Fluss"], "names": ["I-LOC"]}
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text(json.dumps(row))
    files = {"train": "train.jsonl", "validation": "dev.jsonl"}
    task = custom(tmp_path, columns=["words", "names"], files=files)
    assert load_task(task, None).train.tags[0].tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ["B-LOC", "I-LOC"]}, "labels: .*expected O"),
        ({"labels": ["O", "LOC"]}, "labels: 'LOC': expected O, or B- or I-"),
        ({"labels": ["O", "B-LOC"]}, "labels: I-LOC is missing beside B-LOC"),
        ({"scale": [0, 5]}, "scale: is for regressions"),
        ({"primary": ["f1"]}, "primary: 'f1' is not a metric for this task; choose from entity_f1"),
        ({"kind": "spans"}, "kind: 'spans' is no kind of custom task; choose from texts, tokens"),
        ({"columns": ["a", "b"]}, "columns: .*expected two numbers"),
        ({"columns": [1, 1]}, "columns: .*words and tags in one column"),
        ({"columns": [0, 1]}, "columns: .*expected two numbers"),
        ({"encoding": "utf-16"}, "encoding: 'utf-16': choose from utf-8, latin-1"),
        ({"label_column": "x"}, "label_column: the second of columns"),
        ({"files": {"train": "a.csv", "validation": "b.csv"}}, "files: train: 'a.csv': must end"),
        ({"kind": None}, "files: train: 'train.conll': must end"),
        ({"kind": None, "labels": ["a", "b"], "encoding": "latin-1", "primary": ["f1"],
          "files": {"train": "a.csv", "validation": "b.csv"}}, "encoding: is for files of one"),
    ],
)  # fmt: skip
def test_a_custom_task_that_contradicts_itself(tmp_path, changes, said):
    """Prevents a key from being ignored, or a score of tags that no word can have."""
    with pytest.raises(UserError, match=said):
        custom(tmp_path, **changes)


@pytest.mark.parametrize("name", ["conll2003", "wikiann-de"])
def test_real_files(name, real_data):
    """Prevents a reader that only our own made-up files satisfy."""
    data = load_task(task_named(name), real_data / "data" / "hub", limit=50)
    assert data.train.words[0]
    assert {type(word) for words in data.train.words for word in words} == {str}
    assert replace(data, limit=None).name is None
