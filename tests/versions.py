"""Check that everything that states the version states the same one: `python tests/versions.py`.

A release runs it with the tag, the fast tests without. Needs nothing but Python.
"""

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def found_in(name, pattern):
    """Return the first group of a pattern's first match in a file, or what was not found."""
    found = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else f"no version ({pattern})"


def stated():
    """Return the version that each file states, and the day of its release in two of them."""
    newest = r"^## (\d+\.\d+\.\d+) - \d{4}-\d{2}-\d{2}$"
    versions = {
        "angels_share/__init__.py": found_in("angels_share/__init__.py", r'^__version__ = "(.+)"$'),
        "CHANGELOG.md": found_in("CHANGELOG.md", newest),
        "CITATION.cff": found_in("CITATION.cff", r"^version: (.+)$"),
    }
    days = {
        "CHANGELOG.md": found_in("CHANGELOG.md", r"^## \d+\.\d+\.\d+ - (\d{4}-\d{2}-\d{2})$"),
        "CITATION.cff": found_in("CITATION.cff", r"^date-released: (.+)$"),
    }
    return versions, days


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tag", help="the tag of the release, such as v0.1.0")
    given = parser.parse_args()
    versions, days = stated()
    if given.tag is not None:
        versions["the tag"] = given.tag.removeprefix("v")
    for what in (versions, days):
        if len(set(what.values())) > 1:
            raise SystemExit("; ".join(f"{name}: {value}" for name, value in what.items()))
    print(f"{versions['CHANGELOG.md']} of {days['CHANGELOG.md']}, everywhere")


if __name__ == "__main__":
    main()
