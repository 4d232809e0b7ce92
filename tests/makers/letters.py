"""Text to be predicted: documents in WikiText's format, in a folder as the Hub has them."""

import random

import pyarrow as pa
import pyarrow.parquet

WORDS = ("old", "river", "angels", "share", "barrels", "the", "of", "and", "cask", "oak")


def article(title, draw, sentences):
    """Return the rows of an article as the Hub has WikiText's lines."""
    rows = ["", f" = {title} = \n", ""]
    for number in range(sentences):
        rows.append(f" {' '.join(draw.choices(WORDS, k=9))} . \n")
        if number == 1:
            rows += ["", " = = Its past = = \n", ""]
    return rows


def split(count, seed=0, sentences=6):
    """Return the rows of several articles."""
    draw = random.Random(seed)
    return [row for n in range(count) for row in article(f"Cask {n}", draw, sentences)]


def folder(path, config="wikitext-2-raw-v1", **counts):
    """Write splits of so many articles each; return the folder for --data_dir."""
    place = path / "wikitext" / config
    place.mkdir(parents=True)
    for seed, (name, count) in enumerate(counts.items()):
        rows = split(count, seed)
        pa.parquet.write_table(pa.table({"text": rows}), place / f"{name}.parquet")
    return path
