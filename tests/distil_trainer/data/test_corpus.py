"""The corpus: strict about its sources, faithful in its cleaning."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
from corpora import ALL, CONTENTS, encoded, many, rows, text, write, write_lines
from tokenizers import processors

from angels_share.errors import UserError
from distil_trainer.data.batches import TextStream
from distil_trainer.data.corpus import prepare_corpus
from distil_trainer.data.sequence_maker import CorpusOptions, SequenceMaker
from distil_trainer.data.sources import HubSource, find_sources
from distil_trainer.training.fingerprints import of_data


def write_parquet(path, **columns):
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


# --- framing


def test_causal_text_stands_between_end_of_text_tokens(tmp_path, prepare):
    """Prevents a GPT-2 student from never seeing where a text begins and ends."""
    gpt2 = tiny.byte_bpe()
    lines = [text(12), text(9, 1), text(200, 2)]
    made = prepare(write_lines(tmp_path / "a.txt", lines), tokenizer=gpt2)
    found, (end,) = rows(made.train), gpt2("<|endoftext|>")["input_ids"]
    assert all(row[0] == row[-1] == end and end not in row[1:-1] for row in found)
    assert max(map(len, found)) == ALL.max_length  # the frame included
    assert [row[1:-1] for row in found[:2]] == encoded(gpt2, lines[:2])
    assert [token for row in found[2:] for token in row[1:-1]] == gpt2(lines[2])["input_ids"]


def test_the_frame_is_part_of_the_fingerprint(tmp_path, prepare):
    """Prevents a corpus without end-of-text tokens, of an older version, from being opened."""
    file = write_lines(tmp_path / "a.txt", [text(12)])
    assert prepare(file, tokenizer=tiny.byte_bpe()).report["frame"] == [[0], [0]]
    for tokenizer in (tiny.wordpiece(), tiny.byte_bpe(roberta=True)):
        assert "frame" not in prepare(file, tokenizer=tokenizer).report
    streams = [
        of_data(TextStream(find_sources([str(file)]), SequenceMaker(tokenizer, ALL)))
        for tokenizer in (tiny.byte_bpe(), tiny.wordpiece(), tiny.byte_bpe(roberta=True))
    ]
    assert streams[0] != streams[1] == streams[2]


def begins_only():
    """Return a tokenizer that marks a text's begin, but not its end, as Llama's does."""
    tokenizer = tiny.byte_bpe(roberta=True)
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begin)]
    )
    return tokenizer


def test_an_end_is_added_where_the_tokenizer_marks_the_begin_only(tmp_path, prepare):
    """Prevents a Llama's student that never sees an end of text, or sees two beginnings."""
    file = write_lines(tmp_path / "a.txt", [text(12), text(9, 1)])
    llama = begins_only()
    made = prepare(file, tokenizer=llama, causal=True)
    assert made.report["frame"] == [[llama.bos_token_id], [llama.eos_token_id]]
    for row, ids in zip(rows(made.train), encoded(llama, [text(12), text(9, 1)]), strict=True):
        assert row == [*ids, llama.eos_token_id]


def test_the_kind_of_model_decides_the_frame_where_it_is_known(tmp_path, prepare):
    """A mask token that a decoder's tokenizer has, as Gemma's, would leave its text without end."""
    file = write_lines(tmp_path / "a.txt", [text(12)])
    with_mask, gpt2, framed = begins_only(), tiny.byte_bpe(), tiny.byte_bpe(roberta=True)
    assert "frame" not in prepare(file, tokenizer=with_mask).report
    assert "frame" in prepare(file, tokenizer=with_mask, causal=True).report
    assert "frame" not in prepare(file, tokenizer=gpt2, causal=False).report
    # What a tokenizer marks at both ends needs nothing more: the same corpus as before.
    one, two, three = (prepare(file, tokenizer=framed, causal=c) for c in (None, True, False))
    assert one.fingerprint == two.fingerprint == three.fingerprint


# --- reading


def test_every_kind_of_file_gives_the_same_sequences(tmp_path, prepare, tokenizer):
    """Four readers must not disagree on what a text is: quotes, commas and umlauts included."""
    lines = [text(12), 'he said "the barrels, sleep" and left', "größer als der Fluß", text(9, 1)]
    table = {"id": list(range(4)), "text": lines}
    quoted = ['"' + line.replace('"', '""') + '"' for line in lines]
    files = [
        write_lines(tmp_path / "a.txt", lines),
        write_lines(tmp_path / "a.jsonl", [json.dumps({"text": line}) for line in lines]),
        write_lines(tmp_path / "a.csv", ["id,text", *(f"{i},{q}" for i, q in enumerate(quoted))]),
        write_parquet(tmp_path / "a.parquet", **table),
    ]
    for file in files:
        assert rows(prepare(file).train) == encoded(tokenizer, lines)


def test_byte_order_mark_and_crlf_are_accepted(tmp_path):
    """Files from Windows are clean text; their invisible characters would become tokens."""
    content = "\r\n".join(tiny.LINES).encode()
    write(tmp_path / "a.txt", b"\xef\xbb\xbf" + content)
    write(tmp_path / "b.csv", b"\xef\xbb\xbftext\r\n" + content + b"\r\n")
    for source in find_sources([str(tmp_path)]):
        assert list(source.texts()) == list(tiny.LINES)


def test_a_document_may_span_lines(tmp_path, prepare, tokenizer):
    """A csv field with line ends is one text, not several."""
    file = write(tmp_path / "a.csv", f'text\n"{tiny.LINES[0]}\n{tiny.LINES[1]}"\n{tiny.LINES[2]}\n')
    expected = [f"{tiny.LINES[0]}\n{tiny.LINES[1]}", tiny.LINES[2]]
    assert rows(prepare(file).train) == encoded(tokenizer, expected)


def test_blank_lines_are_counted_not_kept(tmp_path, prepare):
    """A blank line is a sequence of nothing: skipped, and said."""
    made = prepare(write(tmp_path / "a.txt", f"{text(12)}\n\n  \t\n{text(12, 1)}\n\n"))
    assert len(made.train) == 2
    assert made.report["tally"]["blank"] == 3
    assert made.report["tally"]["texts"] == 5


BAD = {
    "empty.txt": (b"", "empty.txt: contains no text"),
    "header.csv": (b"text,id\n", "header.csv: contains no text"),
    "latin.txt": ("fine\nFlüsse\n".encode("latin-1"), "latin.txt:2: not UTF-8 (byte 0xfc)"),
    "wide.txt": ("text\n".encode("utf-16"), "wide.txt:1: "),
    "nul.txt": (b"fine\nfine\nbad\0\n", "nul.txt:3: contains a NUL"),
    "nul.jsonl": (rb'{"text": "a\u0000b"}', "nul.jsonl:1: contains a NUL"),
    "half.jsonl": (rb'{"text": "a\ud800b"}', "half.jsonl:1: character 1 is an unpaired surrogate"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": "b"\n', "broken.jsonl:2: not JSON"),
    "column.jsonl": (b'{"text": "a"}\n{"body": "b"}\n', "column.jsonl:2: no column 'text'"),
    "null.jsonl": (b'{"text": null}\n', "null.jsonl:1: column 'text' holds NoneType"),
    "list.jsonl": (b'["text"]\n', "list.jsonl:1: list instead of an object"),
    "column.csv": (
        b"id,body\n1,a\n",
        "column.csv:1: no column 'text'; the columns are 'id', 'body'",
    ),
    "ragged.csv": (b"id,text\n1,a\n2,b,c\n", "ragged.csv:3: 3 columns instead of 2"),
    "quote.csv": (b'id,text\n1,a\n2,"b\n3,c\n', "quote.csv:3: "),
    "latin.csv": ("text\na\nß\n".encode("latin-1"), "latin.csv:3: not UTF-8"),
    "not.parquet": (b"text", "not.parquet: not a readable parquet file"),
    "table.xlsx": (b"PK", "table.xlsx: unsupported file type"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_line_and_reason(name, tmp_path, prepare):
    """A corpus that is read halfway, or as mojibake, trains a worse student without a word."""
    content, message = BAD[name]
    with pytest.raises(UserError) as caught:
        prepare(write(tmp_path / name, content))
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [file for file in (tmp_path / "cache").glob("*") if file.is_dir()]


def test_bad_parquet_columns_are_named(tmp_path, prepare):
    """A missing or numeric column must not become a stack of Arrow's own errors."""
    with pytest.raises(UserError, match="no column 'text'; the columns are 'body'"):
        prepare(write_parquet(tmp_path / "a.parquet", body=["a"]))
    with pytest.raises(UserError, match="row 1: column 'text' holds int"):
        prepare(write_parquet(tmp_path / "b.parquet", text=[1]))
    with pytest.raises(UserError, match="contains no text"):
        prepare(write_parquet(tmp_path / "c.parquet", text=pa.array([], pa.string())))


def test_folders_and_globs_are_read_in_order_and_once(tmp_path, prepare, tokenizer):
    """An order that depends on the disk would be another corpus on every machine."""
    for name, line in zip(["b.txt", "sub/a.txt", "a.txt"], tiny.LINES, strict=False):
        write_lines(tmp_path / "texts" / name, [line])
    write(tmp_path / "texts" / "README.md", "not a text")
    expected = encoded(tokenizer, [tiny.LINES[2], tiny.LINES[0], tiny.LINES[1]])
    folder = tmp_path / "texts"
    assert rows(prepare(folder).train) == expected
    assert rows(prepare(f"{folder}/*.txt").train) == expected[:2]
    assert rows(prepare(folder / "a.txt", f"{folder}/*.txt", folder).train) == expected


@pytest.mark.parametrize("name", ["absent.txt", "./absent", "nothing/*.txt", "empty"])
def test_what_is_not_there_is_refused(name, tmp_path, prepare, monkeypatch):
    """A path that is misspelt must not be asked for on the Hub, or skipped."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no such file|no text files found"):
        prepare(name)


def test_an_unknown_hub_id_is_one_line(prepare):
    """A typo in a folder's name ends here; the answer must fit both meanings."""
    with pytest.raises(UserError, match=r"^dataset 'my-texts' is neither a folder") as caught:
        prepare("my-texts")
    assert "\n" not in str(caught.value)


def test_hub_ids_are_told_from_paths():
    """Only a name that can be a Hub id may cause network traffic."""
    (source,) = find_sources(["wikimedia/wikipedia:20231101.en"], streaming=True)
    assert source == HubSource("wikimedia/wikipedia:20231101.en", "text", streaming=True)
    with pytest.raises(UserError, match="no such file"):
        find_sources(["a/b/c"])


# --- cleaning


def test_long_texts_are_cut_and_framed_again(tmp_path, prepare, tokenizer):
    """Every piece is a sequence of its own: special tokens back, no token lost or doubled."""
    lines = [text(5), text(300), text(40, 1)]
    options = CorpusOptions(min_tokens=1, validation_fraction=0, max_length=16)
    made = prepare(write_lines(tmp_path / "a.txt", lines), options=options)
    expected = []
    for line in lines:
        ids = tokenizer(line, add_special_tokens=False)["input_ids"]
        expected += [[2, *ids[start : start + 14], 3] for start in range(0, len(ids), 14)]
    assert rows(made.train) == expected
    assert made.train.lengths.tolist() == [len(row) for row in expected]
    assert made.report["tally"]["cut"] == sum(
        len(tokenizer(line)["input_ids"]) > 16 for line in lines
    )


def test_other_tokenizers_bring_their_own_frame(tmp_path, prepare):
    """RoBERTa's <s> and </s>: what the tokenizer adds, and no more."""
    tokenizer = tiny.byte_bpe(roberta=True)
    made = prepare(write_lines(tmp_path / "a.txt", tiny.LINES), tokenizer=tokenizer)
    assert rows(made.train) == encoded(tokenizer, tiny.LINES)
    first = tokenizer(tiny.LINES[0], add_special_tokens=False)["input_ids"]
    options = CorpusOptions(min_tokens=1, validation_fraction=0, max_length=10)
    cut = prepare(tmp_path / "a.txt", tokenizer=tokenizer, options=options)
    body = 10 - tokenizer.num_special_tokens_to_add()
    assert len(cut.train[0]) == 10
    assert cut.train[0].tolist()[1:][:body] == first[:body]


def test_short_sequences_are_dropped_as_the_original_does(tmp_path, prepare, tokenizer):
    """Eleven tokens or fewer, special ones counted: twelve stay."""
    line = [" ".join(["the"] * words) for words in (8, 9, 10, 11)]
    assert [len(ids) for ids in encoded(tokenizer, line)] == [10, 11, 12, 13]
    options = CorpusOptions(validation_fraction=0, max_length=64)
    made = prepare(write_lines(tmp_path / "a.txt", line), options=options)
    assert made.train.lengths.tolist() == [12, 13]
    assert made.report["tally"]["short"] == 2


def test_unknown_sequences_are_dropped_as_the_original_does(tmp_path, prepare, tokenizer):
    """Half or more [UNK], of all tokens: 6 of 12 go, 5 of 12 stay."""
    unknown = "\N{SNOWMAN}"
    assert tokenizer(unknown, add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]
    lines = [" ".join([unknown] * n + ["the"] * (10 - n)) for n in (6, 5, 0, 10)]
    lines.append(" ".join([unknown] * 3))
    options = CorpusOptions(validation_fraction=0, max_length=64)
    made = prepare(write_lines(tmp_path / "a.txt", lines), options=options)
    assert rows(made.train) == encoded(tokenizer, [lines[1], lines[2]])
    assert made.report["tally"]["unknown"] == 2
    assert made.report["tally"]["short"] == 1  # each is dropped for one reason


def test_a_corpus_of_nothing_says_why(tmp_path, prepare):
    """Zero sequences would fail much later as a division by zero."""
    with pytest.raises(UserError, match=r"no sequence is left.*'short': 2"):
        prepare(write_lines(tmp_path / "a.txt", ["a b", "c"]), options=CorpusOptions())


def test_token_counts_are_over_train(tmp_path, prepare):
    """Masking weights come from them; the held-out share must not leak in."""
    options = CorpusOptions(min_tokens=1, validation_fraction=0.2, max_length=64)
    made = prepare(write_lines(tmp_path / "a.txt", many(300)), options=options)
    counted = np.bincount(np.concatenate(rows(made.train)), minlength=160)
    assert made.token_counts.dtype == np.int64
    np.testing.assert_array_equal(made.token_counts, counted)
    assert made.report["train"] == {"sequences": len(made.train), "tokens": int(counted.sum())}


# --- validation


def test_splits_share_out_every_sequence(tmp_path, prepare, tokenizer):
    """Held out means held out: nothing in both splits, nothing lost, about the share asked for."""
    lines = many(2000)
    options = CorpusOptions(min_tokens=1, validation_fraction=0.1, max_length=64)
    file = write_lines(tmp_path / "a.txt", lines)
    made = prepare(file, options=options)
    held, kept = rows(made.validation), rows(made.train)
    assert sorted(held + kept) == sorted(encoded(tokenizer, lines))
    assert 150 < len(held) < 250
    numbers = [i for i, ids in enumerate(encoded(tokenizer, lines)) if ids in held]
    assert np.mean(numbers) == pytest.approx(1000, abs=150)  # from everywhere, not from the end
    other = prepare(file, options=replace(options, seed=1))
    assert rows(other.validation) != held


@pytest.mark.parametrize("count", [2, 3, 40])
def test_at_least_one_sequence_is_held_out(count, tmp_path, prepare, tokenizer):
    """A small corpus would have no validation loss at all."""
    lines = many(count)
    options = CorpusOptions(min_tokens=1, validation_fraction=1e-9, max_length=64)
    made = prepare(write_lines(tmp_path / "a.txt", lines), options=options)
    assert len(made.validation) == 1
    assert sorted(rows(made.validation) + rows(made.train)) == sorted(encoded(tokenizer, lines))
    assert made.token_counts.sum() == made.train.lengths.sum()
    assert {file.name for file in made.folder.iterdir()} == CONTENTS


def test_no_validation_is_possible(tmp_path, prepare):
    """Fraction 0 means none, not one."""
    made = prepare(write_lines(tmp_path / "a.txt", many(30)))
    assert len(made.validation) == 0
    assert len(made.train) == 30
    assert {file.name for file in made.folder.iterdir()} == CONTENTS


# --- options and reports


def test_reports_name_no_private_folder(tmp_path, prepare):
    """The report travels with published students."""
    made = prepare(write_lines(tmp_path / "a.txt", many(20)))
    assert str(tmp_path) not in (made.folder / "corpus.json").read_text()
    assert made.report["sources"][0]["name"] == "a.txt"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"min_tokens": 0}, "min_tokens 0"),
        ({"max_length": 8}, "min_tokens 12"),
        ({"max_unknown": 0}, "max_unknown 0"),
        ({"validation_fraction": 0.9}, "validation_fraction 0.9"),
        ({"validation_fraction": -0.1}, "validation_fraction -0.1"),
    ],
)
def test_impossible_options_are_refused(options, named):
    """Options that drop everything are a mistake, not a corpus."""
    with pytest.raises(UserError, match=named):
        CorpusOptions(**options)


def test_unusable_tokenizers_are_refused(tmp_path, prepare):
    """A slow tokenizer, or a length below the special tokens, must not surface as an attribute."""
    file = write_lines(tmp_path / "a.txt", many(2))
    with pytest.raises(UserError, match="fast tokenizer"):
        prepare(file, tokenizer=object())
    options = CorpusOptions(min_tokens=1, max_length=2)
    with pytest.raises(UserError, match="max_length 2: no room"):
        prepare(file, options=options)


@pytest.mark.skipif("DISTIL_DATA" not in os.environ, reason="needs real text: set DISTIL_DATA")
def test_real_text(tmp_path):
    """Documents of Wikipedia with BERT's own tokenizer: cut, complete, and counted right."""
    transformers = pytest.importorskip("transformers")
    data = Path(os.environ["DISTIL_DATA"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(data / "models" / "tiny-bert")
    table = pyarrow.parquet.read_table(data / "data" / "corpus" / "wikipedia-2015.parquet").slice(
        0, 100
    )
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, file)
    options = CorpusOptions(max_length=128, validation_fraction=0, min_tokens=1)
    made = prepare_corpus([str(file)], tokenizer, cache_dir=tmp_path / "cache", options=options)
    texts = table.column("text").to_pylist()
    whole = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    bodies = [made.train[i][1:-1] for i in range(len(made.train))]
    assert np.concatenate(bodies).tolist() == [token for text in whole for token in text.ids]
    assert made.train.lengths.max() == 128
