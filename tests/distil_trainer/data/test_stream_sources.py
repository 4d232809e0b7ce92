"""Corpora that are read over a network: every reader has its own part, and no row is lost."""

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
from corpora import encoded, many

from angels_share.errors import UserError
from distil_trainer.data.batches import StreamedBatches, TextStream, stream_loader
from distil_trainer.data.corpus import maker_for, sources_for
from distil_trainer.data.sequence_maker import CorpusOptions
from distil_trainer.data.sources import find_sources, part_of
from distil_trainer.data.stream_sources import ObjectSource

LINES = [f"{line} {number}" for number, line in enumerate(many(120))]
FILES = 4


@pytest.fixture
def bucket():
    """Four files in what fsspec treats as it does object storage."""
    memory = fsspec.filesystem("memory")
    memory.mkdir("/bucket")
    tokenizer = tiny.wordpiece()
    for number in range(FILES):
        lines = LINES[number * 30 : (number + 1) * 30]
        table = pa.table({"text": lines, "input_ids": encoded(tokenizer, lines)})
        with memory.open(f"/bucket/part-{number}.parquet", "wb") as file:
            pyarrow.parquet.write_table(table, file, row_group_size=10)
    yield "memory://bucket/*.parquet"
    memory.rm("/bucket", recursive=True)


def test_parts_are_the_whole(bucket):
    """Prevents a row that two readers have, or none."""
    sources = find_sources([bucket], streaming=True)
    for readers in (1, 2, 3, 4, 7):
        parts = [list(part_of(sources, reader, readers)) for reader in range(readers)]
        assert sorted(text for part in parts for text in part) == sorted(LINES)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_reader_of_its_own_files_reads_no_others(bucket, caplog):
    """Prevents every process of many from reading, and paying for, the whole corpus."""
    sources = find_sources([bucket], streaming=True)
    fsspec.filesystem("memory").rm("/bucket/part-3.parquet")
    fsspec.filesystem("memory").pipe("/bucket/part-3.parquet", b"PAR1 unreadable")
    assert list(part_of(sources, 0, 4)) == LINES[:30]
    assert not caplog.text
    with pytest.raises(UserError, match=r"\*\.parquet: can't be read from there \(Could not open"):
        list(part_of(sources, 0, 3))
    assert "4 files for 3 readers" in caplog.text
    assert "a multiple of 3 files" in caplog.text


@pytest.mark.parametrize("pretokenized", [False, True])
def test_workers_of_processes_lose_nothing(bucket, pretokenized):
    """Prevents `datasets` from splitting a part among the loader's workers a second time."""
    maker = maker_for(
        tiny.wordpiece(), CorpusOptions(min_tokens=1), causal=False, pretokenized=pretokenized
    )
    stream = TextStream(sources_for(maker, [bucket], streaming=True), maker)
    seen = []
    for process in (0, 1):
        batches = StreamedBatches(
            stream, process_index=process, num_processes=2, tokens_per_batch=64
        )
        for batch in stream_loader(batches, list, num_workers=2):
            if batch[0].key.epoch == 0:
                seen += [(example.key.example, example.tokens.tolist()) for example in batch]
            if batch[0].key.epoch == 2:
                break
    assert sorted(tokens for _, tokens in seen) == sorted(encoded(tiny.wordpiece(), LINES))
    assert len({number for number, _ in seen}) == len(LINES)


def test_an_address_keeps_its_secrets():
    """Prevents a signed address from being published with the student."""
    (source,) = find_sources(["https://me:pw@host:1/a/b.parquet?X-Signature=secret"])
    assert source.name == "https://host:1/a/b.parquet"
    with pytest.raises(UserError, match=r"https://host:1/a/b.parquet: it can only be streamed"):
        _ = source.identity


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("HTTPS://h/x.parquet?sig=SECRET#part", "HTTPS://h/x.parquet"),
        (
            "simplecache::https://me:pw@h/x.parquet?sig=SECRET",
            "simplecache::https://h/x.parquet",
        ),
        ("zip://a.parquet::https://me:pw@h/x.zip?token=S", "zip://a.parquet::https://h/x.zip"),
        ("webhdfs://h:50070/x.parquet?delegation=TOKEN", "webhdfs://h:50070/x.parquet"),
        ("s3://key:secret@bucket/part-?#.parquet", "s3://bucket/part-?#.parquet"),
    ],
)
def test_every_kind_of_address_keeps_its_secrets(address, name):
    """Prevents a token in an error or a card, and a pattern that is taken for a query."""
    assert ObjectSource(address).name == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("s3://bucket/wiki.txt", "only parquet files are read"),
        (
            "memory://bucket/none-*.parquet",
            r"none-\*.parquet: (can't be read from there|has no row)",
        ),
        ("nosuch://bucket/a.parquet", "nosuch://bucket/a.parquet: can't be read"),
    ],
)
def test_what_cannot_be_read(bucket, name, said):
    """Prevents a traceback of a library that nobody has heard of."""
    with pytest.raises(UserError, match=said) as error:
        list(part_of(find_sources([name], streaming=True), 0, 1))
    assert "\n" not in str(error.value)


def test_a_column_that_is_not_there(bucket):
    """Prevents an error in the first worker that doesn't say what to do."""
    with pytest.raises(UserError, match="row 1: no column 'body'; the columns are 'text'"):
        list(part_of(find_sources([bucket], text_column="body", streaming=True), 0, 1))
