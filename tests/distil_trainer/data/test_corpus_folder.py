"""A prepared corpus on disk: complete or absent, prepared once, its damage seen."""

import errno
import json
import logging
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from corpora import ALL, CONTENTS, encoded, many, rows, write, write_lines
from disks import file_size_limit, small_disk

from angels_share.errors import RunFailed, UserError
from distil_trainer.data import checksums
from distil_trainer.data import corpus as corpus_module
from distil_trainer.data import sources as sources_module
from distil_trainer.data.corpus import Corpus, prepare_corpus
from distil_trainer.data.sequence_maker import CorpusOptions


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


@pytest.mark.parametrize("name", ["corpus.json", "checksums.json"])
def test_a_corpus_of_deep_nesting_is_refused(tmp_path, prepare, name):
    """Prevents a RecursionError without a file's name, for a hostile corpus."""
    folder = prepare(write_lines(tmp_path / "a.txt", many(20))).folder
    (folder / name).write_text("[" * 99_999)
    if name == "corpus.json":  # which is otherwise named by its checksum
        (folder / "checksums.json").unlink()
    with pytest.raises(UserError, match="not a prepared corpus"):
        Corpus.open(folder)


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
