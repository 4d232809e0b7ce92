"""Token ids of other people's pipelines: taken as they are, or refused in a line."""

from collections.abc import Mapping

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
from corpora import encoded, many, rows, write_lines

from angels_share.errors import UserError
from distil_trainer.data.corpus import prepare_corpus
from distil_trainer.data.sequence_maker import CorpusOptions

OPTIONS = CorpusOptions(max_length=32, validation_fraction=0)


def prepare(tmp_path, *sources, **settings):
    """Take token ids as they are, with the tiny tokenizer said to be theirs."""
    settings = {"options": OPTIONS, "tokenizer": tiny.wordpiece()} | settings
    tokenizer = settings.pop("tokenizer")
    names = [str(source) for source in sources]
    return prepare_corpus(
        names, tokenizer, cache_dir=tmp_path / "cache", pretokenized=True, **settings
    )


@pytest.fixture(scope="module")
def ids():
    return encoded(tiny.wordpiece(), many(300))


def parquet(path, kind=None, **columns):
    arrays = {name: pa.array(values) for name, values in columns.items()}
    if kind is not None:
        arrays["input_ids"] = arrays["input_ids"].cast(kind)
    pyarrow.parquet.write_table(pa.table(arrays), path)
    return path


@pytest.mark.parametrize("kind", [pa.list_(pa.int16()), pa.large_list(pa.int64())])
def test_parquet(ids, tmp_path, kind):
    """Prevents rows that are lost, cut or cleaned on the way, whatever type their ids have."""
    made = prepare(tmp_path, parquet(tmp_path / "a.parquet", kind, input_ids=ids))
    assert rows(made.train) == ids
    assert made.report["pretokenized"] is True
    assert made.token_counts.sum() == sum(map(len, ids))


def test_rows_of_one_length(ids, tmp_path):
    """Prevents packed blocks, which pipelines write as lists of fixed size, from being refused."""
    blocks = np.concatenate([np.array(row) for row in ids])[: 32 * 20].reshape(20, 32).tolist()
    kind = pa.list_(pa.int64(), 32)
    made = prepare(tmp_path, parquet(tmp_path / "a.parquet", kind, input_ids=blocks))
    assert rows(made.train) == blocks


def test_what_datasets_saves(ids, tmp_path):
    """Prevents `save_to_disk`'s folder from being refused, and its caches from being read."""
    datasets.Dataset.from_dict({"input_ids": ids}).save_to_disk(tmp_path / "d", num_shards=3)
    datasets.Dataset.from_dict({"input_ids": [[1, 2]]}).save_to_disk(tmp_path / "e")
    stray = next((tmp_path / "e").glob("*.arrow"))
    stray.rename(tmp_path / "d" / "cache-0123.arrow")
    assert rows(prepare(tmp_path, tmp_path / "d").train) == ids


def test_an_arrow_file_with_an_index(ids, tmp_path):
    """Prevents Arrow's other format of files from being called damaged."""
    table = pa.table({"input_ids": ids})
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as out,
    ):
        out.write_table(table, max_chunksize=70)
    assert rows(prepare(tmp_path, tmp_path / "a.arrow").train) == ids


def test_padding_is_left_out(tmp_path):
    """Prevents a student that learns to predict padding."""
    file = parquet(
        tmp_path / "a.parquet",
        input_ids=[[2, 9, 3, 0, 0], [0, 2, 8, 9, 3], [0, 0, 0, 0, 0]],
        attention_mask=[[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]],
    )
    made = prepare(tmp_path, file)
    assert rows(made.train) == [[2, 9, 3], [2, 8, 9, 3]]
    assert made.report["tally"]["blank"] == 1


def test_a_causal_pipelines_copy_of_the_ids(tmp_path):
    """Prevents the labels that causal pipelines write, a copy of the ids, from being refused."""
    values = [[5, 9, 3], [7, 7]]
    file = parquet(tmp_path / "a.parquet", input_ids=values, labels=values)
    assert rows(prepare(tmp_path, file, tokenizer=tiny.byte_bpe()).train) == values
    with pytest.raises(UserError, match="row 1: labels are a copy of input_ids"):
        prepare(tmp_path, file)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"input_ids": [[2, 9], list(range(1, 34))]}, "row 2: 33 tokens, and a"),
        ({"input_ids": [[2, 9, 160]]}, "token id 160, and .* from 0 to 159"),
        ({"input_ids": [[2, -1]]}, "row 1: token id -1"),
        ({"input_ids": [[2.5, 1.0]]}, "row 1: input_ids has values that are no whole numbers"),
        ({"input_ids": [[2, None]]}, "row 1: input_ids has values that are no whole numbers"),
        ({"input_ids": [4, 5]}, "row 1: input_ids has 0 dimensions instead of 1"),
        ({"input_ids": [["a"]]}, "row 1: input_ids holds no token ids"),
        ({"text": ["a"]}, "no column 'input_ids'; the columns are 'text'"),
        ({"input_ids": [[2, 9]], "labels": [[-100, 9]]}, "row 1: a corpus has no place for labels"),
        ({"input_ids": [[2, 9, 3]], "token_type_ids": [[0, 0, 1]]}, "no place for token_type_ids"),
        ({"input_ids": [[2, 9]], "position_ids": [[0, 1]]}, "position_ids of a language"),
        ({"input_ids": [[2, 9]], "attention_mask": [[1]]}, "attention_mask has 1 values"),
        ({"input_ids": [[], []]}, "no sequence is left to train on"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_taken(tmp_path, columns, said):
    """Prevents a worse student in silence: rows cut, of another tokenizer, or said to be masked."""
    with pytest.raises(UserError, match=said):
        prepare(tmp_path, parquet(tmp_path / "a.parquet", **columns))


def test_files_that_cannot_be_taken(ids, tmp_path):
    """Prevents text from being read as ids, test splits as training data, and a traceback."""
    text = write_lines(tmp_path / "a.txt", ["some text"])
    with pytest.raises(UserError, match=r"unsupported file type; use \.parquet, \.arrow"):
        prepare(tmp_path, text)
    one = datasets.Dataset.from_dict({"input_ids": ids})
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "both")
    with pytest.raises(UserError, match=r"holds several splits; name one, such as .*both/train"):
        prepare(tmp_path, tmp_path / "both")
    assert rows(prepare(tmp_path, tmp_path / "both" / "train").train) == ids
    (tmp_path / "b.arrow").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not a readable Arrow file"):
        prepare(tmp_path, tmp_path / "b.arrow")


def test_ids_and_texts_are_different_corpora(ids, tmp_path):
    """Prevents a folder of one kind from being taken for the other."""
    file = parquet(tmp_path / "a.parquet", input_ids=ids, text=many(300))
    taken = prepare(tmp_path, file)
    made = prepare_corpus(
        [str(file)], tiny.wordpiece(), cache_dir=tmp_path / "cache", options=OPTIONS
    )
    assert made.fingerprint != taken.fingerprint
    assert isinstance(made.report, Mapping)
