"""Paths of the repository, independent of the folder that a test is in."""

from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
PAPER = ROOT / "results" / "reference" / "paper.json"
