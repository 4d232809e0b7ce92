"""Kept weights: a sealed folder, whole or absent, whatever the disk or a kill does."""

import multiprocessing
import os
import shutil
import signal

import pytest
import tiny
import transformers
from disks import file_size_limit, fill, small_disk

from angels_share.errors import RunFailed
from angels_share.sealed_folder import is_whole, require_unchanged
from eval_harness.training.model_loading import save_weights


@pytest.fixture(scope="module")
def model():
    return tiny.bert(2, model_class=transformers.BertForSequenceClassification)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.wordpiece()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("leave", [0, 60_000])
def test_a_really_full_disk(tmp_path, model, tokenizer, leave):
    """Fault 12: prevents half a teacher, the loss of the last one, and a line without a reason."""
    with small_disk(tmp_path / "models", "1m") as disk:
        folder = disk / "kept"
        save_weights(folder, model, tokenizer)
        before = content(folder)
        filler = fill(disk, leave)
        with pytest.raises(RunFailed, match=f"^{folder}: .* could not be saved: the disk is full"):
            save_weights(folder, model, tokenizer)
        filler.unlink()
        assert [path.name for path in disk.iterdir()] == ["kept"]
        assert content(folder) == before


def test_a_file_size_limit(tmp_path, model, tokenizer):
    """Prevents "disk full", or no reason at all, for a `ulimit -f`."""
    with file_size_limit(50_000), pytest.raises(RunFailed, match="file size limit is reached"):
        save_weights(tmp_path / "kept", model, tokenizer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["rmtree", "replace"])
def test_kill_9_while_an_older_folder_is_replaced(tmp_path, model, tokenizer, where):
    """Prevents half a folder without its list, which would pass for a model of the user's own."""
    folder = tmp_path / "kept"
    save_weights(folder, model, tokenizer)

    def save():
        def half_removed(path, *_, **__):
            if os.path.isdir(path) and (names := os.listdir(path)):  # noqa: PTH112, PTH208
                os.unlink(os.path.join(path, sorted(names)[-1]))  # noqa: PTH108, PTH118
                os.kill(os.getpid(), signal.SIGKILL)

        def killed(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        if where == "rmtree":
            shutil.rmtree = half_removed
        else:
            type(folder).replace = killed_at(type(folder).replace, killed)
        save_weights(folder, model, tokenizer)

    def killed_at(rename, kill):
        return lambda self, target: kill() if self.is_dir() else rename(self, target)

    process = multiprocessing.get_context("fork").Process(target=save)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    if folder.exists():
        assert is_whole(folder)
        require_unchanged(folder)
    save_weights(folder, model, tokenizer)
    assert is_whole(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
