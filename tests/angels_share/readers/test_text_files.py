"""Readers of text files: strict about every fault, and exact about where it is."""

import re
from pathlib import Path

import pytest

from angels_share.errors import UserError
from angels_share.readers import text_files
from angels_share.readers.text_files import (
    fault_in_text,
    open_parquet,
    read_csv,
    read_json,
    read_jsonl,
    read_lines,
    read_tsv,
    require_columns,
)

BOM = b"\xef\xbb\xbf"


@pytest.fixture
def written(tmp_path):
    """Return a function that writes bytes to a file and returns its path."""

    def write(content):
        path = tmp_path / "data.txt"
        path.write_bytes(content)
        return path

    return write


def refusal(read, path):
    """Return the error of a reader behind the file's name."""
    with pytest.raises(UserError, match=re.escape(str(path))) as refused:
        list(read(path))
    line = str(refused.value)
    assert "\n" not in line
    return line.removeprefix(str(path))


def test_a_byte_order_mark_and_windows_line_ends(written):
    """Prevents a first column named '\\ufeffid', and labels that end in a carriage return."""
    assert list(read_lines(written(BOM + b"a\r\nb\r\n"))) == [(1, "a"), (2, "b")]
    rows = [(1, ["id", "text"]), (2, ["1", "x"])]
    assert list(read_csv(written(BOM + b"id,text\r\n1,x\r\n"))) == rows
    assert list(read_tsv(written(BOM + b"id\ttext\r\n1\tx\r\n"))) == rows
    assert list(read_jsonl(written(BOM + b'{"a": 1}\r\n'))) == [(1, {"a": 1})]
    assert read_json(written(BOM + b'{\r\n"a": 1}\r\n')) == {"a": 1}


def test_only_a_line_feed_ends_a_line(written):
    """Prevents a text with another of Unicode's separators from being torn in two."""
    text = "a\u2028b\x0bc\x85d"
    assert list(read_lines(written(f"{text}\nlast".encode()))) == [(1, text), (2, "last")]
    # And a mark is only one at the beginning of a file.
    assert list(read_lines(written(b"a\n" + BOM + b"b"))) == [(1, "a"), (2, "\ufeffb")]


@pytest.mark.parametrize("read", [read_lines, read_csv, read_tsv, read_jsonl])
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"1\n\x002\n", ":2: contains a NUL byte; is it a text file?"),
        (b"1\n2\ncaf\xe9\n", ":3: not UTF-8 (byte 0xe9); convert it first"),
        ("1\n".encode("utf-16"), ":1: not UTF-8 (byte 0xff); convert it first"),
    ],
)
def test_what_is_not_text_is_refused_with_its_line(written, read, content, fault):
    """Prevents a binary file, or another encoding, from becoming strange but valid tokens."""
    assert refusal(read, written(content)) == fault


def test_a_file_that_is_not_there(tmp_path):
    """Prevents a traceback for a mistyped path."""
    assert refusal(read_lines, tmp_path / "nothing.txt") == ": No such file or directory"


@pytest.mark.parametrize(
    ("read", "content", "fault"),
    [
        (read_csv, b"a,b\n1,2\n3\n", ":3: 1 column instead of 2"),
        (read_csv, b"a,b\n1,2,3\n", ":2: 3 columns instead of 2"),
        (read_csv, b'a,b\n"1\n2",3\n4\n', ":4: 1 column instead of 2"),
        (read_tsv, b"a\tb\n1\t2\n\n", ":3: 1 column instead of 2"),
        (read_tsv, b"a\tb\n1\t2\t3\n", ":2: 3 columns instead of 2"),
    ],
)
def test_a_ragged_row_is_refused_with_its_line(written, read, content, fault):
    """Prevents half a file, or an unquoted comma, from shifting columns."""
    assert refusal(read, written(content)) == fault


def test_a_tsv_of_a_given_width_has_it_from_the_first_line(written):
    """Prevents a file without a header from setting its own, wrong, width."""

    def read(path):
        return read_tsv(path, 3)

    assert refusal(read, written(b"1\t2\n")) == ":1: 2 columns instead of 3"


def test_quotes(written, monkeypatch):
    """Prevents one forgotten quote from swallowing the rest of a file as a single field."""
    assert list(read_csv(written(b'a,b\n"1,\n""x""",2\n\n3,4\n'))) == [
        (1, ["a", "b"]),
        (2, ['1,\n"x"', "2"]),
        (5, ["3", "4"]),
    ]
    assert list(read_tsv(written(b'a\tb\n"1\t2\n')))[1] == (2, ['"1', "2"])
    path = written(b'a,b\n1,2\n"3,4\n5,6\n')
    assert refusal(read_csv, path) == ":3: unexpected end of data; a quote that is not closed?"
    monkeypatch.setattr(text_files, "_LONGEST_CSV_FIELD", 4)
    path = written(b'a,b\n"34567,4\n5,6"\n')
    assert refusal(read_csv, path).startswith(":2: field larger than field limit (4); a quote")


def test_json_faults_are_told_with_their_line(written):
    """Prevents a line that was cut off from being skipped like a blank one."""
    assert list(read_jsonl(written(b"1\n\n  \n[2]\n"))) == [(1, 1), (4, [2])]
    assert refusal(read_jsonl, written(b'{"a": 1}\n{"a": \n')).startswith(":2: not JSON (Expecting")
    assert refusal(read_json, written(b'{"a": 1,\n"b": }')).startswith(":2: not JSON (Expecting")


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"a":\n' + DEEP + b"}", ":2: is nested too deeply"),
        (b'[1,\n"[[",\n' + b"7" * 5000 + b"]", ":3: has a number of 5000 digits"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', ": key 'b' appears twice; keep one"),
    ],
)
def test_hostile_json_is_refused_with_its_line(written, content, fault):
    """Prevents a traceback with status 1, and the first of two values from being lost unseen."""
    assert refusal(read_json, written(content)) == fault
    on_one_line = b"1\n" + content.replace(b"\n", b" ")
    assert refusal(read_jsonl, written(on_one_line)) == f":2: {fault.partition(': ')[2]}"


def test_a_line_without_an_end(written, monkeypatch):
    """Prevents a file without a line feed, or a device, from filling the memory."""
    monkeypatch.setattr(text_files, "_LONGEST_LINE", 1 << 20)
    assert refusal(read_lines, written(b"a\n" + b"x" * ((1 << 20) + 1))).startswith(
        ":2: a line of more than 1 MiB; is it a text file?"
    )
    assert [number for number, _ in read_lines(written(b"x" * ((1 << 20) - 1) + b"\nb"))] == [1, 2]
    assert refusal(read_lines, Path("/dev/zero")).startswith(":1: a line of more than 1 MiB")


def test_columns_that_are_missing_or_there_twice():
    """Prevents the second of two equal columns from silently winning."""
    require_columns(["id", "text", "id"], ["text"], "x.csv:1")
    with pytest.raises(UserError, match=r"^x\.csv:1: no column 'label'; .* are 'id', 'text'$"):
        require_columns(["id", "text"], ["label"], "x.csv:1")
    with pytest.raises(UserError, match="the columns are none"):
        require_columns([], ["label"], "x.csv:1")
    with pytest.raises(UserError, match=r"^x\.csv:1: column 'id' appears twice; remove one$"):
        require_columns(["id", "text", "id"], ["id"], "x.csv:1")


@pytest.mark.parametrize("content", [b"", b"id,text\n1,x\n", b"PAR1 and no more"])
def test_a_parquet_file_that_is_none(written, content):
    """Prevents pyarrow's traceback for a file that was renamed or cut off."""
    assert refusal(open_parquet, written(content)).startswith(": not a readable parquet file (")


def test_texts_that_a_tokenizer_cannot_read():
    """Prevents a text from JSON or parquet from ending in a tokenizer's traceback."""
    assert fault_in_text("caf\u00e9 \U0001f600") is None
    assert fault_in_text("a\0b") == "contains a NUL character"
    assert fault_in_text("ab\ud83d") == "character 2 is an unpaired surrogate"
