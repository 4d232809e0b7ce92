"""Divide a corpus for `evidence.py`: text to train on, held-out text, and minimal pairs from it.

An article is held out by a hash of its title, so the division depends on nothing but the articles.
The pairs are sentences of held-out articles in which one word was replaced by a form of another
number or case, which nearly always makes them ungrammatical: real text, but not BLiMP, and checked
by nobody.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from angels_share.cli import DONE, Command, run_command
from angels_share.files import write_atomically
from angels_share.flags import Flag, Options

HELD_OUT_OF = 10
"""One article in so many is held out."""
MOST_PAIRS = 1000
OF_AN_ARTICLE = 2
"""The most pairs of a kind, so that one article's style doesn't decide."""
_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")
_WORDS = range(6, 26)

# fmt: off
SWAPS = {
    "verbs": (("is", "are"), ("was", "were"), ("has", "have")),
    "determiners": (("this", "these"), ("much", "many"), ("another", "other")),
    "pronouns": (("he", "him"), ("they", "them"), ("we", "us")),
}
# fmt: on
"""Kinds of pairs: of two words each stands where the other must not."""


class Article(NamedTuple):
    """An article of the corpus."""

    title: str
    text: str


def is_held_out(title: str) -> bool:
    """Return whether an article is kept from training, by a hash of its title."""
    return int(hashlib.sha256(title.encode()).hexdigest(), 16) % HELD_OUT_OF == 0


def pairs_of(article: Article, swaps: tuple[tuple[str, str], ...]) -> Iterator[dict[str, str]]:
    """Yield sentences of an article with exactly one of some words, beside the swapped ones."""
    others = {word: other for pair in swaps for word, other in (pair, pair[::-1])}
    found = 0
    for sentence in _SENTENCE.split(article.text.replace("\n", " ")):
        words = sentence.split(" ")
        places = [place for place, word in enumerate(words) if word in others]
        if len(words) not in _WORDS or len(places) != 1 or not sentence.endswith((".", "!", "?")):
            continue
        swapped = list(words)
        swapped[places[0]] = others[words[places[0]]]
        yield {"sentence_good": sentence, "sentence_bad": " ".join(swapped)}
        found += 1
        if found == OF_AN_ARTICLE:
            return


def divide(options: Options) -> int:
    """Write train.jsonl, held-out.jsonl and pairs/*.jsonl."""
    folder = Path(options.folder)
    (folder / "pairs").mkdir(parents=True, exist_ok=True)
    table = pq.read_table(options.corpus, columns=["title", "text"])
    articles = [Article(**row) for row in table.to_pylist()]
    held_out = [article for article in articles if is_held_out(article.title)]
    for kind, swaps in SWAPS.items():
        found = [pair for article in held_out for pair in pairs_of(article, swaps)]
        _write(folder / "pairs" / f"{kind}.jsonl", found[:MOST_PAIRS])
    _write(folder / "held-out.jsonl", [{"text": article.text} for article in held_out])
    rest = ({"text": article.text} for article in articles if not is_held_out(article.title))
    _write(folder / "train.jsonl", list(rest))
    print(f"{len(held_out)} of {len(articles)} articles held out")
    return DONE


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


COMMAND = Command(
    name="evidence_text",
    summary="divides a corpus into text to train on, held-out text and minimal pairs",
    flags=(
        Flag("folder", "folder for the files", required=True, metavar="DIR", first=True),
        Flag("corpus", "a parquet file with the columns title and text", required=True),
    ),
    run=divide,
    examples=("python examples/evidence_text.py text --corpus wikipedia.parquet",),
)


if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
