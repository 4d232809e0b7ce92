"""Atomic writes, hashes and explained OS errors."""

import errno
import fcntl
import os
import threading

import pytest
from disks import file_size_limit, small_disk

from angels_share import files
from angels_share.errors import UserError


def test_a_file_is_written_whole(tmp_path):
    """Prevents leftovers beside a finished file, and a missing folder from being an error."""
    path = files.write_atomically(tmp_path / "a" / "b.txt", "one")
    files.write_atomically(path, b"two")
    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, failing):
    """Fault 12: prevents half a file in the place of a whole one."""
    path = files.write_atomically(tmp_path / "b.txt", "old")

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        *((os, "fsync") if failing == "fsync" else (files.Path, "replace")), no_space
    )
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.txt"]


def test_json_holds_no_nan(tmp_path):
    """Prevents a NaN in a result, which other readers of JSON would choke on."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"score": float("nan")})
    assert not (tmp_path / "x.json").exists()
    assert files.write_json(tmp_path / "x.json", {"b": 1, "a": "é"}).read_text() == (
        '{\n  "a": "é",\n  "b": 1\n}\n'
    )


def test_hashes_tell_content_and_nothing_else(tmp_path):
    """Prevents equal settings under two keys, and different ones under one."""
    assert files.hash_of({"a": 1, "b": 2.0}) == files.hash_of({"b": 2.0, "a": 1})
    assert files.hash_of({"a": 1}) != files.hash_of({"a": 2})
    path = files.write_atomically(tmp_path / "x", "abc")
    assert files.sha256_of_file(path) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize(
    ("code", "hint"),
    [(errno.EROFS, "read-only"), (errno.EACCES, "no permission"), (errno.ENOSPC, "disk is full")],
)
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, code, hint):
    """Fault 13: prevents a refusal after hours instead of at once."""

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.Path, "write_bytes", refuse)
    with pytest.raises(UserError, match=f"--output_dir .*{hint}"):
        files.require_writable_folder(tmp_path / "out", "--output_dir")


def test_a_lock_that_is_not_let_go_is_waited_for_with_a_word(tmp_path, caplog):
    """Prevents a wait without end and without a word for a machine that died with a lock."""
    lock = tmp_path / "x.lock"
    handle = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    held = []

    def take():
        with files.locked(lock, poll_seconds=0.01, warn_seconds=0.02):
            held.append(True)

    waiting = threading.Thread(target=take)
    waiting.start()
    while not caplog.messages:
        assert waiting.is_alive()
    assert f"waiting for {lock}, which another process holds" in caplog.text
    assert not held
    lock.unlink()  # as the line says
    waiting.join(timeout=30)
    assert held
    os.close(handle)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_no_locks_are_one_line(tmp_path, monkeypatch, number):
    """Prevents a traceback, or a lock that a killed process keeps, where flock is missing."""

    def missing(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", missing)
    with (
        pytest.raises(UserError, match=f"^{tmp_path}: that file system has no file locks"),
        files.locked(tmp_path / "x.lock"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_names_the_file(tmp_path):
    """Prevents "a file: the disk is full": a failing write() itself knows no name."""
    with small_disk(tmp_path / "small", "64k") as folder:
        with pytest.raises(OSError, match="No space left") as caught:
            files.write_atomically(folder / "x.json", "x" * 100_000)
        assert caught.value.filename == str(folder / "x.json")
        assert list(folder.iterdir()) == []


def test_a_file_size_limit_is_no_full_disk(tmp_path):
    """Prevents an hour of making room on a disk that has room."""
    with file_size_limit(10_000), pytest.raises(OSError, match="File too large") as caught:
        files.write_atomically(tmp_path / "x.json", "x" * 100_000)
    assert "file size limit is reached" in files.explain(caught.value)
    assert not files.is_path_error(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", [None, "rename", "remove"])
def test_a_folder_is_replaced_as_a_whole(tmp_path, monkeypatch, failing):
    """Prevents half of an old folder under the name of a whole one, or none at all."""
    new, target, aside = (tmp_path / name for name in ("new", "target", "aside"))
    for folder, content in ((new, "new"), (target, "old")):
        folder.mkdir()
        (folder / "x").write_text(content)
    if failing == "rename":
        monkeypatch.setattr(files.Path, "replace", raises_no_space)
        with pytest.raises(OSError, match="No space"):
            files.replace_folder(new, target, aside)
        assert (target / "x").read_text() == "old"
        return
    if failing == "remove":  # a kill, as far as that can be had here
        monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
    files.replace_folder(new, target, aside)
    assert [(target / "x").read_text(), aside.exists()] == ["new", failing == "remove"]


def raises_no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")
