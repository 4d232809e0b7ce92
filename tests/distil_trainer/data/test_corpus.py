"""The corpus: strict about its sources, faithful in its cleaning, complete or absent on disk."""

import errno
import json
import logging
import multiprocessing
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
from disks import file_size_limit, small_disk

from angels_share.errors import RunFailed, UserError
from distil_trainer.data import checksums
from distil_trainer.data import corpus as corpus_module
from distil_trainer.data import sources as sources_module
from distil_trainer.data.batches import TextStream
from distil_trainer.data.corpus import Corpus, CorpusOptions, SequenceMaker, prepare_corpus
from distil_trainer.data.sources import HubSource, find_sources
from distil_trainer.training.fingerprints import of_data

ALL = CorpusOptions(min_tokens=1, validation_fraction=0.0, max_length=64)
WORDS = " ".join(tiny.LINES).split()


def text(words, seed=0):
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def many(count):
    return [text(5 + i % 23, seed=i) for i in range(count)]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.wordpiece()


@pytest.fixture
def prepare(tmp_path, tokenizer):
    def prepare(*names, options=ALL, tokenizer=tokenizer, cache_dir=tmp_path / "cache", **more):
        return prepare_corpus(
            [str(name) for name in names], tokenizer, cache_dir=cache_dir, options=options, **more
        )

    return prepare


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_lines(path, lines):
    return write(path, "\n".join(lines) + "\n")


def write_parquet(path, **columns):
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def rows(sequences):
    return [sequences[i].tolist() for i in range(len(sequences))]


def encoded(tokenizer, lines):
    return [tokenizer(line)["input_ids"] for line in lines]


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


@pytest.mark.parametrize("streaming", [False, True])
def test_hub_data_sets_are_read_streamed_or_not(streaming, tmp_path, prepare, tokenizer):
    """Both ways must give one corpus under one fingerprint that follows the revision."""
    made = prepare("someone/lines:plain", streaming=streaming)
    assert rows(made.train) == encoded(tokenizer, tiny.LINES)
    assert made.report["sources"] == [
        {"name": "someone/lines:plain", "identity": "hub:someone/lines:plain:revision-1"}
    ]


@pytest.fixture(autouse=True)
def hub(monkeypatch):
    """A Hub with one data set; everything else isn't there."""

    class Builder:
        hash = "revision-1"
        info = type("Info", (), {"splits": None})
        ready = False

        def download_and_prepare(self):
            self.ready = True

        def as_dataset(self, split):
            assert self.ready
            return self.as_streaming_dataset(split)

        def as_streaming_dataset(self, split):
            assert split == "train"
            return iter([{"text": line, "id": 1} for line in tiny.LINES])

    def load_dataset_builder(name, config):
        if (name, config) != ("someone/lines", "plain"):
            raise FileNotFoundError(f"Dataset '{name}' doesn't exist\nlong explanation")
        return Builder()

    module = type("datasets", (), {"load_dataset_builder": staticmethod(load_dataset_builder)})
    monkeypatch.setitem(__import__("sys").modules, "datasets", module)


def test_an_unknown_hub_id_is_one_line(prepare):
    """A typo in a folder's name ends here; the answer must fit both meanings."""
    with pytest.raises(UserError, match=r"^my-texts: neither a local file or folder") as caught:
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


CONTENTS = {
    "checksums.json", "corpus.json", "token_counts.npy", "train.arrow", "validation.arrow",
}  # fmt: skip


def test_no_validation_is_possible(tmp_path, prepare):
    """Fraction 0 means none, not one."""
    made = prepare(write_lines(tmp_path / "a.txt", many(30)))
    assert len(made.validation) == 0
    assert len(made.train) == 30
    assert {file.name for file in made.folder.iterdir()} == CONTENTS


# --- on disk


def test_chunks_and_record_batches_leave_no_seam(tmp_path, prepare, tokenizer, monkeypatch):
    """What is read, tokenized and written in parts must be what one part would have given."""
    lines = many(700)
    file = write_lines(tmp_path / "a.txt", lines)
    options = CorpusOptions(min_tokens=1, validation_fraction=0.1, max_length=20)
    whole = prepare(file, options=options)
    monkeypatch.setattr(sources_module, "_CHUNK_CHARACTERS", 1000)
    expected = [(rows(split), split.lengths.tolist()) for split in (whole.train, whole.validation)]
    monkeypatch.setattr(corpus_module, "_ROWS_PER_BATCH", 32)
    parts = prepare(file, options=options, cache_dir=tmp_path / "other")
    made = [(rows(split), split.lengths.tolist()) for split in (parts.train, parts.validation)]
    assert made == expected
    np.testing.assert_array_equal(parts.token_counts, whole.token_counts)
    assert parts.report == whole.report


def test_the_same_corpus_is_prepared_once(tmp_path, prepare, monkeypatch):
    """Tokenizing hours of text again, because a file was moved or a batch padded, is waste."""
    tokenizer = tiny.wordpiece()
    file = write_lines(tmp_path / "a.txt", many(20))
    first = prepare(file, tokenizer=tokenizer)
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=8)  # leaves its settings
    moved = shutil.copy(file, tmp_path / "moved.txt")
    monkeypatch.setattr(corpus_module, "_write_corpus", None)
    again = prepare(moved, tokenizer=tokenizer)
    assert again.fingerprint == first.fingerprint
    assert rows(again.train) == rows(first.train)


def test_the_fingerprint_follows_text_tokenizer_and_options(tmp_path, prepare):
    """A stale corpus would be trained on without a word."""
    one = write_lines(tmp_path / "a.txt", many(20))
    two = write_lines(tmp_path / "b.txt", many(21))
    option = CorpusOptions(min_tokens=2, validation_fraction=0.0, max_length=64)
    made = [
        prepare(one),
        prepare(two),
        prepare(one, two),
        prepare(two, one),
        prepare(one, options=option),
        prepare(one, tokenizer=tiny.wordpiece(vocab_size=150)),
    ]
    assert len({corpus.fingerprint for corpus in made}) == len(made)


def test_sequences_are_small_views_that_can_be_pickled(tmp_path, prepare):
    """A DataLoader's workers get the paths, not the corpus, and read the same."""
    made = prepare(write_lines(tmp_path / "a.txt", many(50)))
    assert made.train[3].dtype == np.uint16
    assert not made.train[3].flags.owndata
    assert not made.train[3].flags.writeable
    blob = pickle.dumps(made.train)
    assert len(blob) < 1000
    assert rows(pickle.loads(blob)) == rows(made.train)
    with pytest.raises(IndexError):
        made.train[50]
    with pytest.raises(IndexError):
        made.train[-1]


def test_a_large_vocabulary_needs_wider_tokens(tmp_path, prepare, monkeypatch):
    """Ids above 65,535 (XLM-R has 250,002) must not wrap around."""
    tokenizer = tiny.wordpiece()
    tokenizer.add_tokens([f"extra{i}" for i in range(66_000)])
    lines = ["extra1 extra65999 the", "extra65500 extra65376 extra65377"]
    made = prepare(write_lines(tmp_path / "a.txt", lines), tokenizer=tokenizer)
    assert made.train[0].dtype == np.int32
    assert rows(made.train) == encoded(tokenizer, lines)


def test_a_failed_preparation_leaves_nothing(tmp_path, prepare, monkeypatch):
    """A torn folder under the right name would be used for ever after."""
    file = write_lines(tmp_path / "a.txt", many(20))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(corpus_module.np, "save", full)
        with pytest.raises(RunFailed, match=r"cache/\w+: .*the disk is full"):
            prepare(file)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(prepare(file).train) == 20


def test_what_a_killed_preparation_left_is_not_used(tmp_path, prepare):
    """kill -9 while writing: the draft is thrown away and written again."""
    file = write_lines(tmp_path / "a.txt", many(20))
    folder = prepare(file).folder
    draft = folder.with_name(f"{folder.name}.draft")
    folder.rename(draft)
    (draft / "train.arrow").write_bytes(b"torn")
    assert len(prepare(file).train) == 20
    assert not draft.exists()


def test_a_damaged_corpus_is_refused(tmp_path, prepare):
    """A truncated file must be one line with its folder, not a crash in a worker."""
    folder = prepare(write_lines(tmp_path / "a.txt", many(20))).folder
    (folder / "train.arrow").write_bytes((folder / "train.arrow").read_bytes()[:-100])
    with pytest.raises(UserError, match="not a prepared corpus"):
        Corpus.open(folder)
    with pytest.raises(UserError, match="not a prepared corpus"):
        Corpus.open(tmp_path / "nowhere")


def zero(file, position, size=64):
    """Zero some bytes in the middle of a file, as a lost block of a disk does."""
    content = bytearray(file.read_bytes())
    assert any(content[position : position + size])
    content[position : position + size] = bytes(len(content[position : position + size]))
    file.write_bytes(content)


def test_zeroed_tokens_are_named_when_they_are_read_and_rebuilt_afterwards(
    tmp_path, prepare, caplog, monkeypatch
):
    """Prevents 64 zeroed bytes from training another student under the same fingerprint."""
    monkeypatch.setattr(corpus_module, "_ROWS_PER_BATCH", 400)
    file = write_lines(tmp_path / "a.txt", many(1000))
    made = prepare(file)
    expected = rows(made.train)
    # The tokens lie in the file as they are in memory: find sequence 500's.
    arrow = made.folder / "train.arrow"
    zero(arrow, arrow.read_bytes().index(made.train[500].tobytes()), size=len(made.train[500]))
    again = prepare(file)  # starts without reading the tokens
    assert again.train[0].tolist() == expected[0]  # what is whole may be used
    with pytest.raises(
        RunFailed, match=rf"{arrow}: sequences 400 to 527 are damaged .*start again"
    ):
        rows(again.train)
    with pytest.raises(RunFailed, match="damaged"):
        list(again.train.pieces())
    with pytest.raises(UserError, match="damaged"):
        Corpus.open(made.folder)
    with caplog.at_level(logging.WARNING):
        assert rows(prepare(file).train) == expected
    assert [str(made.folder) in line and "again" in line for line in caplog.messages] == [True]
    assert {path.name for path in made.folder.iterdir()} == CONTENTS
    assert len([path for path in made.folder.parent.iterdir() if path.is_dir()]) == 1


def test_damage_that_cannot_be_noted_says_what_to_delete(tmp_path, prepare, monkeypatch):
    """Prevents a promise that the next start rebuilds what lies in a folder that is read-only."""
    made = prepare(write_lines(tmp_path / "a.txt", many(50)))
    arrow = made.folder / "train.arrow"
    zero(arrow, arrow.read_bytes().index(made.train[20].tobytes()), size=len(made.train[20]))

    def read_only(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(checksums, "write_atomically", read_only)
    with pytest.raises(RunFailed, match=rf"damaged .*; delete {made.folder} and start again"):
        rows(Corpus.open(made.folder).train)


def everything_of(prepare, file, options):
    """Return all that a corpus holds, or the error for its damage."""
    try:
        made = prepare(file, options=options)
        return rows(made.train), rows(made.validation), made.token_counts.tolist(), made.report
    except RunFailed as error:
        return error


@pytest.mark.parametrize("name", sorted(CONTENTS))
@pytest.mark.parametrize("damage", ["zeroed", "truncated", "missing"])
def test_damage_anywhere_is_seen_or_harmless(name, damage, tmp_path, prepare, caplog):
    """Prevents any file of a corpus from being used after a disk has lost a part of it."""
    source = write_lines(tmp_path / "a.txt", many(300))
    options = CorpusOptions(min_tokens=1, validation_fraction=0.1, max_length=64)
    made = prepare(source, options=options)
    expected = everything_of(prepare, source, options)
    whole, size = (made.folder / name).read_bytes(), (made.folder / name).stat().st_size
    places = range(0, size, max(192, size // 40)) if damage == "zeroed" else [size // 2]
    for place in places:
        file = made.folder / name
        file.write_bytes(whole)
        if damage == "missing":
            file.unlink()
        elif damage == "truncated":
            os.truncate(file, place)
        elif any(whole[place : place + 64]):
            zero(file, place)
        caplog.clear()
        found = everything_of(prepare, source, options)
        if isinstance(found, RunFailed):  # seen when it was read: the next start rebuilds it
            assert str(made.folder) in str(found)
            found = everything_of(prepare, source, options)
        assert found == expected
        if damage != "zeroed":
            assert f"{made.folder}" in caplog.text


def test_a_large_corpus_starts_without_reading_its_tokens(tmp_path, prepare, monkeypatch):
    """Prevents a start that reads gigabytes before the first step, in every process."""
    made = prepare(write_lines(tmp_path / "a.txt", many(2000)))
    read = []
    crc32 = checksums.zlib.crc32
    monkeypatch.setattr(
        checksums.zlib, "crc32", lambda data, *seed: read.append(len(data)) or crc32(data, *seed)
    )
    again = prepare(tmp_path / "a.txt")
    assert again.train.lengths.sum() == made.train.lengths.sum()
    offsets = 4 * (len(made.train) + 1)
    assert sum(read) < offsets + 100
    for _ in range(3):
        again.train[0]
    # One piece, and only once.
    assert sum(read) < offsets + 100 + 2 * made.train.lengths[: checksums.ROWS].sum() + 100


def test_a_corpus_without_checksums_opens_with_a_warning(tmp_path, prepare, caplog):
    """Prevents hours of tokenizing from being thrown away because this version seals its work."""
    file = write_lines(tmp_path / "a.txt", many(300))
    made = prepare(file)
    expected = rows(made.train)
    (made.folder / "checksums.json").unlink()
    report = json.loads((made.folder / "corpus.json").read_text())
    del report["checksums"]  # as earlier versions wrote it
    (made.folder / "corpus.json").write_text(json.dumps(report, indent=2))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert rows(prepare(file).train) == expected
    assert len(caplog.messages) == 1
    assert f"{made.folder}: prepared by an earlier version, without checksums" in caplog.text


def test_a_corpus_is_on_disk_before_it_has_its_name(tmp_path, prepare, monkeypatch):
    """Prevents a power cut from leaving a finished folder of empty files."""
    synced, fsync, rename = [], os.fsync, Path.replace

    def note(handle):
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def renamed(self, target):
        if self.suffix == ".draft":
            assert CONTENTS | {self.name} <= set(synced)
            synced.append("renamed")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", renamed)
    prepare(write_lines(tmp_path / "a.txt", many(20)))
    assert synced[-2:] == ["renamed", "cache"]


def test_a_really_full_disk(tmp_path, prepare):
    """Prevents half a corpus, and a line that doesn't say that the disk is full or where."""
    file = write_lines(tmp_path / "a.txt", many(8000))
    with small_disk(tmp_path / "cache", "128k"):
        with pytest.raises(RunFailed, match=rf"{tmp_path}/cache/\w+: .*the disk is full"):
            prepare(file)
        assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(prepare(file).train) == 8000


def test_a_limit_of_the_file_size_is_no_full_disk(tmp_path, prepare):
    """Prevents an hour of making room on a disk that has room."""
    file = write_lines(tmp_path / "a.txt", many(8000))
    with file_size_limit(50_000), pytest.raises(RunFailed, match="file size limit"):
        prepare(file)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_an_unwritable_cache_is_one_line(tmp_path, prepare):
    """A cache folder that is a file, or read-only, is the user's to change."""
    write(tmp_path / "cache", "a file")
    with pytest.raises(UserError, match="cannot write"):
        prepare(write_lines(tmp_path / "a.txt", many(20)))


def _prepare_elsewhere(barrier, file, cache_dir):
    barrier.wait()
    made = prepare_corpus([file], tiny.wordpiece(), cache_dir=cache_dir, options=ALL)
    os._exit(0 if len(made.train) == 300 else 1)


def test_two_processes_may_prepare_at_once(tmp_path):
    """Two ranks, or two runs, that start together must both end well, with one folder."""
    file = write_lines(tmp_path / "a.txt", many(300))
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    arguments = (barrier, str(file), str(tmp_path / "cache"))
    both = [context.Process(target=_prepare_elsewhere, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(timeout=60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


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
