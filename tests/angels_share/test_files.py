"""Atomic writes, hashes and explained OS errors."""

import errno
import os

import pytest

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
