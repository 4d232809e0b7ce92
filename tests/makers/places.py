"""Where things of the repository are, whatever folder a test lies in."""

from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
PAPER = ROOT / "results" / "reference" / "paper.json"
