"""Texts without labels from the Hub: of one commit, by columns, without their labels."""

import io

import pyarrow as pa
import pyarrow.parquet
import pytest
import worlds

from angels_share.errors import UserError
from eval_harness.data.splits import load_task
from eval_harness.data.transfer import find_transfer_files, read_transfer_set
from eval_harness.tasks.lookup import task_named

COLA = task_named("cola")


def parquet(**columns):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def read(data, *names):
    return read_transfer_set(COLA, find_transfer_files(names), data)


def test_a_train_split_is_read_of_one_commit(hub, tmp_path, forget):
    """Prevents labels from being asked for, and a result that doesn't name the commit.

    With the commit that the record names, the same texts are read after the Hub has newer ones.
    """
    data = load_task(COLA, worlds.glue_folder(tmp_path / "glue"))
    name = "train-00000-of-00001.parquet"
    first = {f"data/{name}": parquet(sentence=["a river", " "]),
             f"other/{name}": parquet(sentence=["an angel"], label=["?"])}  # fmt: skip
    sha = hub.add("someone/texts", first, what="dataset")
    found = read(data, "someone/texts")
    assert found.part.rows == [("a river",)]
    assert found.facts.record["files"] == [{"name": "someone/texts", "revision": sha}]
    of_config = read(data, "someone/texts:other")
    assert of_config.part.rows == [("an angel",)]
    assert of_config.facts.files[0].identity != found.facts.files[0].identity
    newer = hub.add("someone/texts", {f"data/{name}": parquet(sentence=["new"])}, what="dataset")
    forget()
    assert newer != sha
    assert read(data, f"someone/texts@{sha}").facts == found.facts
    assert read(data, f"someone/texts@{newer}").part.rows == [("new",)]


def test_columns_and_absence_are_told(hub, tmp_path):
    """Prevents advice about the task's own data where the texts are at fault."""
    data = load_task(COLA, worlds.glue_folder(tmp_path / "glue"))
    file = {"data/train-00000-of-00001.parquet": parquet(text=["a river"])}
    hub.add("someone/texts", file, what="dataset")
    with pytest.raises(UserError, match="no column 'sentence'; the columns are 'text'"):
        read(data, "someone/texts")
    with pytest.raises(UserError, match="no dataset 'someone/nothing'"):
        read(data, "someone/nothing")
