"""CONTRIBUTING's picture of the house is the tree, and its numbers are filled in."""

import re

from import_graph import PACKAGES, WINGS, files_of
from places import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z_/]+)/` \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


def in_the_table():
    return {folder: set(re.findall(r"`(\w+)`", modules)) for folder, modules in ROW.findall(TEXT)}


def in_the_tree():
    found = {}
    for package in PACKAGES:
        for path in files_of(package):
            if not path.stem.startswith("__"):
                folder = path.parent.relative_to(ROOT).as_posix()
                found.setdefault(folder, set()).add(path.stem)
    return found


def test_the_table_of_wings_is_the_tree():
    """Prevents a map that leads a newcomer to a folder or a module that isn't there."""
    assert in_the_table() == in_the_tree()


def test_the_table_is_in_the_order_of_imports():
    """Prevents a table whose 'below' isn't the rule that the imports are held to."""
    for package in ("distil_trainer", "eval_harness"):
        wings = [folder.partition("/")[2] for folder, _ in ROW.findall(TEXT)
                 if folder.startswith(f"{package}/")]  # fmt: skip
        order = [wing for wing in WINGS[package] if wing in wings]
        assert wings == order


def test_each_way_to_add_something_was_counted():
    """Prevents a promise of one row that nobody tried."""
    ways = re.findall(r"^- \*\*(An? [\w ]+)\*\* \((\d+) files?\)", TEXT, re.MULTILINE)
    assert {"A task", "A kind of task", "A loss", "An architecture", "An executor"} <= {
        name for name, _ in ways
    }
