"""Files of text for corpora, and what was prepared of them."""

import numpy as np
import tiny

from distil_trainer.data.sequence_maker import CorpusOptions

ALL = CorpusOptions(min_tokens=1, validation_fraction=0.0, max_length=64)
WORDS = " ".join(tiny.LINES).split()

CONTENTS = {
    "checksums.json", "corpus.json", "token_counts.npy", "train.arrow", "validation.arrow",
}  # fmt: skip


def text(words, seed=0):
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def many(count):
    return [text(5 + i % 23, seed=i) for i in range(count)]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_lines(path, lines):
    return write(path, "\n".join(lines) + "\n")


def rows(sequences):
    return [sequences[i].tolist() for i in range(len(sequences))]


def encoded(tokenizer, lines):
    return [tokenizer(line)["input_ids"] for line in lines]
