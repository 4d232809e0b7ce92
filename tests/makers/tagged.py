"""Tiny tagged sentences in CoNLL's column format, generated from a seed."""

import random

from worlds import WORDS

SIZES = {"train": 48, "validation": 20, "test": 20}
NAMES = {"angels": "PER", "river": "LOC"}


def sentences(count, seed=0):
    """Return words and IOB2 tags: `angels` and `river` are names, alone or with `old` behind."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        words = draw.choices(WORDS, k=draw.randint(3, 9))
        tags, before = [], "O"
        for word in words:
            goes_on = word == "old" and before != "O"
            kind = NAMES.get(word)
            tag = f"I{before[1:]}" if goes_on else f"B-{kind}" if kind else "O"
            tags.append(tag)
            before = tag
        found.append((words, tags))
    return found


def text_of(rows, *, scheme="IOB2", columns="{word} NN {tag}"):
    """Return sentences as a column file."""
    lines = ["-DOCSTART- -X- O", ""]
    for words, tags in rows:
        shown = tags if scheme == "IOB2" else in_iob1(tags)
        lines += [columns.format(word=w, tag=t) for w, t in zip(words, shown, strict=True)]
        lines.append("")
    return "\n".join(lines)


def in_iob1(tags):
    """Return IOB2 tags as IOB1, where B- stands only behind an entity of the same type."""
    before = ["O", *tags]
    return [
        f"I{tag[1:]}" if tag[0] == "B" and tag[1:] != last[1:] else tag
        for last, tag in zip(before, tags, strict=False)
    ]


def folder(path, task="conll2003", **how):
    """Write a task's splits into a data folder."""
    (path / task).mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate(SIZES.items()):
        file = path / task / f"{split}.conll"
        file.write_text(text_of(sentences(count, seed), **how), encoding="utf-8")
    return path
