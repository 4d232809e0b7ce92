"""Data that isn't clean: each fault is one line with path, place and reason."""

import pyarrow as pa
import pyarrow.parquet
import pytest
from tasks_on_disk import as_csv, as_glue

from angels_share.errors import UserError
from eval_harness.data.splits import load_task
from eval_harness.tasks.lookup import task_named


def rte(folder, content, name="train.tsv"):
    """GLUE's RTE with one file replaced."""
    path = as_glue(folder, task_named("rte")) / "RTE" / name
    path.write_bytes(content)
    return path


HEAD = b"index\tsentence1\tsentence2\tlabel\n"
BAD_TSV = {
    "empty": (b"", ": has no rows"),
    "header only": (HEAD, ": has no rows"),
    "ragged": (HEAD + b"0\ta\tb\tentailment\n1\ta\tb\n", ":3: 3 columns instead of 4"),
    "too wide": (HEAD + b"0\ta\tb\tentailment\tx\n", ":2: 5 columns instead of 4"),
    "blank line": (HEAD + b"0\ta\tb\tentailment\n\n", ":3: 1 column instead of 4"),
    "latin-1": (HEAD + b"0\ta\tb\tentailment\n1\t\xe9\tb\tc\n", ":3: not UTF-8 (byte 0xe9)"),
    "UTF-16": (HEAD.decode().encode("utf-16"), ":1: not UTF-8 (byte 0xff)"),
    "NUL": (HEAD + b"0\ta\tb\0\tentailment\n", ":2: contains a NUL"),
    "label": (HEAD + b"0\ta\tb\tentails\n", ":2: unknown label 'entails'; known: entailment, not"),
    "no label": (HEAD + b"0\ta\tb\t\n", ":2: unknown label ''"),
    "unlabelled": (HEAD + b"0\ta\tb\t-1\n", ":2: unknown label '-1'"),
    "column": (HEAD.replace(b"sentence2", b"b") + b"0\ta\tb\tc\n", ":1: no column 'sentence2'"),
    "twice": (b"label\t" + HEAD + b"x\t0\ta\tb\tentailment\n", ":1: column 'label' appears twice"),
}  # fmt: skip


def refusal(task, folder):
    with pytest.raises(UserError) as caught:
        load_task(task, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["train.tsv", "dev.tsv"])
@pytest.mark.parametrize("fault", BAD_TSV)
def test_bad_tsvs_are_named_with_line_and_reason(fault, name, tmp_path):
    """Prevents half a file, or mojibake, from giving a number like any other."""
    content, message = BAD_TSV[fault]
    path = rte(tmp_path, content, name)
    assert refusal(task_named("rte"), tmp_path).startswith(f"{path}{message}")


@pytest.mark.parametrize("score", ["5.001", "-0.1", "nan", "inf", "high", ""])
def test_numbers_off_the_scale(score, tmp_path):
    """Prevents one NaN, or a percentage among 0 to 5, from spoiling a regression."""
    task = task_named("stsb")
    path = as_glue(tmp_path, task) / "STS-B" / "dev.tsv"
    path.write_text(path.read_text().replace("1.100", score))
    assert refusal(task, tmp_path).startswith(f"{path}:4: label '{score}' is no")


CSV = b"idx,sentence,label\n0,a,acceptable\n"
BAD_TABLES = {
    "empty.csv": (b"", ": has no rows"),
    "header.csv": (b"idx,sentence,label\n", ": has no rows"),
    "ragged.csv": (CSV + b"1,b\n", ":3: 2 columns instead of 3"),
    "quote.csv": (CSV + b'1,"b,acceptable\n2,c,acceptable\n', ":3: unexpected end of data; a"),
    "span.csv": (CSV + b'1,"b\nb",acceptable\n2,c,good\n', ":5: unknown label 'good'; known: un"),
    "latin.csv": (CSV + b"1,\xe9,acceptable\n", ":3: not UTF-8 (byte 0xe9)"),
    "nul.csv": (CSV + b"1,a\0,acceptable\n", ":3: contains a NUL"),
    "column.csv": (
        b"idx,text,label\n0,a,1\n",
        ":1: no column 'sentence'; the columns are 'idx', 'text'",
    ),
    "id.csv": (CSV + b"1,b,2\n", ":3: unknown label '2'"),
    "empty.jsonl": (b"", ": has no rows"),
    "broken.jsonl": (b'{"sentence": "a", "label": 1}\n{"sentence"\n', ":2: not JSON ("),
    "key.jsonl": (b'{"sentence": "a", "label": 1}\n{"sentence": "b"}\n', ":2: no column 'label'"),
    "null.jsonl": (b'{"sentence": null, "label": 1}\n', ":1: column 'sentence' holds null, not"),
    "nul.jsonl": (rb'{"sentence": "a\u0000", "label": 1}', ":1: column 'sentence': "),
    "half.jsonl": (rb'{"sentence": "a\ud800", "label": 1}', ":1: column 'sentence': "),
    "list.jsonl": (b'["a", 1]\n', ":1: list instead of an object"),
    "bool.jsonl": (
        b'{"sentence": "a", "label": true}',
        ":1: the label is True; expected a class's",
    ),
    "none.jsonl": (
        b'{"sentence": "a", "label": null}',
        ":1: the label is null; expected a class's",
    ),
    "float.jsonl": (b'{"sentence": "a", "label": 1.0}', ":1: the label is 1.0; expected a class's"),
    "ids.jsonl": (
        b'{"sentence": "a", "label": 1, "id": [2]}',
        ":1: column 'id' holds list, not an id",
    ),
    "broken.json": (b'[{"sentence": "a",\n "label" 1}]', ":2: not JSON ("),
    "row.json": (b'[{"sentence": "a", "label": 1}, 3]', ": row 2: int instead of an object"),
    "not.parquet": (b"PAR1 not", ": not a readable parquet file ("),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_are_named_with_place_and_reason(name, tmp_path):
    """Prevents the libraries' own silence, or their tracebacks, for files that aren't clean."""
    content, message = BAD_TABLES[name]
    path = (tmp_path / "cola" / "train").with_suffix(f".{name.partition('.')[2]}")
    path.parent.mkdir()
    path.write_bytes(content)
    assert refusal(task_named("cola"), tmp_path).startswith(f"{path}{message}")


BAD_PARQUET = {
    "missing": ({"sentence": ["a"]}, ": no column 'label'; the columns are 'sentence'"),
    "null": ({"sentence": ["a", None], "label": [0, 0]}, ": row 2: column 'sentence' holds nu"),
    "NUL": ({"sentence": ["a", "\0"], "label": [0, 0]}, ": row 2: column 'sentence': contains"),
    "number": ({"sentence": [1], "label": [0]}, ": row 1: column 'sentence' holds int, not text"),
    "label": ({"sentence": ["a", "b"], "label": [0, 2]}, ": row 2: unknown label 2; known: unacc"),
    "unlabelled": ({"sentence": ["a"], "label": [-1]}, ": row 1: unknown label -1"),
    "no label": ({"sentence": ["a"], "label": pa.array([None], pa.int64())}, ": row 1: the label"),
    "no rows": ({"sentence": pa.array([], pa.string()), "label": []}, ": has no rows"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_PARQUET)
def test_bad_parquet_is_named_with_row_and_reason(fault, tmp_path):
    """Prevents a missing label from becoming class 0, and a number from becoming a text."""
    table, message = BAD_PARQUET[fault]
    path = tmp_path / "cola" / "train.parquet"
    path.parent.mkdir()
    pyarrow.parquet.write_table(pa.table(table), path)
    assert refusal(task_named("cola"), tmp_path).startswith(f"{path}{message}")


@pytest.mark.parametrize("note", [b"[]", b"{", b"[" * 100_000, b'{"info": {"features": [1]}}'])
def test_damaged_metadata_of_parquet(note, tmp_path):
    """Prevents a traceback with status 1 for what `datasets` would have written otherwise."""
    path = tmp_path / "cola" / "train.parquet"
    path.parent.mkdir()
    table = pa.table({"sentence": ["a"], "label": [0]}).replace_schema_metadata(
        {b"huggingface": note}
    )
    pyarrow.parquet.write_table(table, path)
    said = "not a readable parquet file (its 'huggingface' metadata are damaged)"
    assert refusal(task_named("cola"), tmp_path) == f"{path}: {said}"


def test_a_number_beyond_all_scales(tmp_path):
    """Prevents an OverflowError with status 1 for a label of 400 digits."""
    path = tmp_path / "stsb" / "train.jsonl"
    path.parent.mkdir()
    path.write_text('{"sentence1": "a", "sentence2": "b", "label": 1' + "0" * 400 + "}\n")
    assert refusal(task_named("stsb"), tmp_path).startswith(f"{path}:1: label 1000")


def test_quotes_are_literal_in_tsv_and_quotes_in_csv(tmp_path):
    """Prevents a lone quote in a TSV from swallowing the rows up to the next one."""
    rte(tmp_path, HEAD + b'0\t"a\tb\tentailment\n1\ta "b"\t"c"\tentailment\n')
    assert load_task(task_named("rte"), tmp_path).train.texts == (['"a', 'a "b"'], ["b", '"c"'])
    folder = as_csv(tmp_path / "csv", task_named("cola"))
    (folder / "cola" / "train.csv").write_bytes(CSV + b'1,"a ""b"", c\nd",0\n')
    assert load_task(task_named("cola"), folder).train.texts == (["a", 'a "b", c\nd'],)
