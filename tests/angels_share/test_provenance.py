"""The hash of the code that a result was made with."""

import pytest

from angels_share.provenance import sources_hash

FILES = (
    "angels_share/files.py",
    "distil_trainer/data/corpus.py",
    "eval_harness/squad/answers.py",
    "eval_harness/report/page/layout.py",
)


@pytest.fixture
def tree(tmp_path):
    """A small tree of the three packages, with modules in sub-folders."""
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("VALUE = 1\n")
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_an_edit_in_any_module_changes_the_hash(tree, name):
    """Prevents results of edited code in a sub-folder from passing for those of the old code."""
    before = sources_hash(tree)
    (tree / name).write_text("VALUE = 2\n")
    assert sources_hash(tree) != before
    (tree / name).write_text("VALUE = 1\n")
    assert sources_hash(tree) == before


def test_a_module_that_is_new_or_moved_changes_the_hash(tree):
    """Prevents two layouts of the code, which import differently, from having one hash."""
    before = sources_hash(tree)
    moved = tree / "eval_harness" / "answers.py"
    (tree / "eval_harness" / "squad" / "answers.py").rename(moved)
    after_move = sources_hash(tree)
    moved.with_name("more.py").write_text("")
    assert len({before, after_move, sources_hash(tree)}) == 3


def test_only_modules_of_the_packages_count(tree):
    """Prevents a new result, test or note beside the code from changing the hash of the code."""
    before = sources_hash(tree)
    (tree / "tests").mkdir()
    (tree / "tests" / "test_files.py").write_text("")
    (tree / "eval_harness" / "notes.md").write_text("")
    assert sources_hash(tree) == before
