"""Sealed folders: accepted as they were written, refused once a file is missing or modified."""

import os

import pytest

from angels_share.errors import RunFailed
from angels_share.sealed_folder import faults, is_whole, listed_in, listing, require_unchanged, seal

DEEP = pytest.param("[" * 99_999, id="deep")


@pytest.fixture
def folder(tmp_path):
    """A sealed folder with a file in it and one in a sub-folder."""
    folder = tmp_path / "model"
    (folder / "tokens").mkdir(parents=True)
    (folder / "weights").write_bytes(b"0123456789")
    (folder / "tokens" / "vocab.txt").write_text("a\nb\n")
    seal(folder)
    return folder


def alter(path):
    """Change the content of a file, but not its size."""
    rewrite(path, path.read_bytes()[::-1])


def shorten(path):
    rewrite(path, path.read_bytes()[:-1])


def rewrite(path, content):
    """Write a file with a later time stamp, however coarse the clock of the file system."""
    later = path.stat().st_mtime_ns + 10**9
    path.write_bytes(content)
    os.utime(path, ns=(later, later))


def link_outside(path):
    """Put a link to the same content elsewhere in the place of a file."""
    outside = path.parents[1] / "elsewhere"
    path.rename(outside)
    path.symlink_to(outside)


def found_faults(folder, listed):
    return [(fault.name, fault.reason, fault.is_missing) for fault in faults(folder, listed)]


def test_a_sealed_folder_that_is_unchanged(folder):
    """Prevents a refusal of the folder as it was written, again and again."""
    for _ in range(2):
        require_unchanged(folder)
    assert is_whole(folder)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (os.unlink, "weights is missing"),
        (shorten, "weights has 9 bytes instead of 10"),
        (alter, "the checksum of weights is wrong"),
        (link_outside, "weights points outside of it"),
    ],
)
def test_a_damaged_file_is_named(folder, damage, reason):
    """Prevents runs that learn from half a teacher, or from another one."""
    damage(folder / "weights")
    with pytest.raises(RunFailed, match=f"{folder}: {reason}: remove the folder"):
        require_unchanged(folder)


@pytest.mark.parametrize("damage", [os.unlink, shorten, alter])
def test_damage_after_a_good_check_is_noticed(folder, damage):
    """Prevents a check that is remembered from vouching for what came after it."""
    require_unchanged(folder)
    damage(folder / "weights")
    with pytest.raises(RunFailed, match="weights"):
        require_unchanged(folder)


@pytest.mark.parametrize("damage", [os.unlink, shorten])
def test_a_file_that_is_missing_or_short_is_noticed_by_sizes(folder, damage):
    """Prevents a folder without a part of its weights from being reused."""
    damage(folder / "tokens" / "vocab.txt")
    assert not is_whole(folder)


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"weights": {}}', '{"weights": 3}', DEEP]
)
def test_a_list_that_is_missing_or_unreadable_is_no_whole_folder(folder, content):
    """Prevents a writer that was interrupted before its last file from passing for finished."""
    path = folder / "written.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert not is_whole(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"weights": {}}', '{"weights": 3}', "\udcff", DEEP]
)
def test_a_damaged_list_names_its_folder(folder, content):
    """Prevents a JSONDecodeError that doesn't say of which folder's list it speaks."""
    (folder / "written.json").write_text(content, errors="surrogateescape")
    with pytest.raises(RunFailed, match=rf"^{folder}: its written.json is damaged: remove the"):
        require_unchanged(folder)


@pytest.mark.parametrize("how", ["below", "size", "time kept"])
def test_no_damage_hides_from_a_check_that_is_remembered(folder, how):
    """Prevents a good check from vouching for sub-folders, and for files whose times were kept."""
    require_unchanged(folder)
    if how == "below":
        alter(folder / "tokens" / "vocab.txt")
    else:
        path = folder / "weights"
        before = path.stat()
        path.write_bytes(b"01234" if how == "size" else b"9876543210")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as rsync -t leaves it
    with pytest.raises(RunFailed, match="vocab.txt" if how == "below" else "weights"):
        require_unchanged(folder)


def test_a_folder_of_the_users_own_has_no_list(tmp_path):
    """Prevents a refusal of a model that somebody else saved."""
    (tmp_path / "weights").write_bytes(b"any")
    require_unchanged(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/hostname"])
def test_a_list_that_points_outside(folder, name):
    """Prevents a downloaded list from having any file of the machine read and hashed."""
    (folder.parent / "elsewhere").write_text("x")
    listed = listed_in({name: {"size": 1, "sha256": "0"}})
    assert found_faults(folder, listed) == [(name, f"{name} points outside of it", False)]


def test_only_a_file_that_is_gone_counts_as_missing(folder):
    """Prevents a modified file from being treated like one that may be left out."""
    listed = listed_in(listing(folder))
    (folder / "weights").unlink()
    shorten(folder / "tokens" / "vocab.txt")
    assert found_faults(folder, listed) == [
        ("tokens/vocab.txt", "tokens/vocab.txt has 3 bytes instead of 4", False),
        ("weights", "weights is missing", True),
    ]
