"""Corpus preparation against a line-by-line loop over the same tokenizer, and its memory.

    python -m benchmarks.corpus_prep
    python -m benchmarks.corpus_prep --corpus my.txt --tokenizer bert-base-uncased

Both ways run in turns in one process and the medians' ratio is what counts. The loop is the least
that anybody would write: no cleaning, nothing written. Memory is the peak above what was resident
before, of a process of its own for each of two corpora, the second four times the first: flat means
that the two are alike. Without `--corpus` the text is generated: pseudo-words with Zipf's
frequencies and a WordPiece vocabulary of 30,000 trained on them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import transformers

from distil_trainer.data.corpus import CorpusOptions, prepare_corpus


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, help="a .txt file; default: generated text")
    parser.add_argument("--tokenizer", help="a folder or Hub id; default: trained on the text")
    parser.add_argument("--megabytes", type=float, default=8, help="of text to measure on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(peak_of(arguments.memory_of, arguments.tokenizer))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, small = folder / "large.txt", folder / "small.txt"
        write_text(large, arguments.corpus, arguments.megabytes)
        write_text(small, large, arguments.megabytes / 4)
        tokenizer_name = arguments.tokenizer or train_tokenizer(large, folder / "tokenizer")
        speed(large, load(tokenizer_name), arguments.rounds)
        memory([small, large], tokenizer_name)


def speed(file: Path, tokenizer: Any, rounds: int) -> None:
    """Prints both ways' tokens per second and their ratio."""
    tokens = prepare(file, tokenizer)
    loops, preparations = [], []
    for _ in range(rounds):
        loops.append(seconds(loop, file, tokenizer))
        preparations.append(seconds(prepare, file, tokenizer))
    loop_time, prepare_time = statistics.median(loops), statistics.median(preparations)
    print(f"{tokens:,} tokens, {os.cpu_count()} cores, medians of {rounds}")
    print(f"line by line    {tokens / loop_time:12,.0f} tokens/s")
    print(f"prepare_corpus  {tokens / prepare_time:12,.0f} tokens/s")
    print(f"ratio           {loop_time / prepare_time:12.2f}")


def memory(files: list[Path], tokenizer_name: str) -> None:
    """Prints the peak of a process for each file."""
    for file in files:
        command = [sys.executable, "-m", "benchmarks.corpus_prep"]
        command += ["--memory-of", str(file), "--tokenizer", tokenizer_name]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        megabytes = file.stat().st_size / 1e6
        print(
            f"peak memory     {float(answer.stdout):12.0f} MB above import, {megabytes:.0f} MB text"
        )


def loop(file: Path, tokenizer: Any) -> int:
    """The line-by-line way, without transformers' wrapper, which would make it slower still."""
    backend = tokenizer.backend_tokenizer
    with file.open(encoding="utf-8") as lines:
        return sum(len(backend.encode(line.rstrip("\n")).ids) for line in lines)


def prepare(file: Path, tokenizer: Any) -> int:
    """Our way, from nothing to a corpus on disk; returns its tokens."""
    with tempfile.TemporaryDirectory() as cache:
        options = CorpusOptions(validation_fraction=0.005)
        made = prepare_corpus([str(file)], tokenizer, cache_dir=cache, options=options)
        return int(made.train.lengths.sum() + made.validation.lengths.sum())


def seconds(way: Any, *arguments: Any) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    way(*arguments)
    return time.perf_counter() - start


def peak_of(file: Path, tokenizer_name: str) -> float:
    """Megabytes that this process needed for a preparation beyond its imports and tokenizer."""
    tokenizer = load(tokenizer_name)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = status("VmRSS")
    prepare(file, tokenizer)
    return (status("VmHWM") - before) / 1e3


def status(field: str) -> float:
    """Kilobytes, from the kernel's own account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field))


def load(name: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(name)


def write_text(file: Path, source: Path | None, megabytes: float) -> None:
    """The first megabytes of the source, in whole lines."""
    size = 0
    with file.open("w", encoding="utf-8") as out:
        for line in source.open(encoding="utf-8") if source else generated_lines():
            size += out.write(line)
            if size >= megabytes * 1e6:
                return


def generated_lines() -> Iterator[str]:
    """Lines of pseudo-words without end, always the same ones."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(random.choice(letters, size)) for size in random.integers(2, 10, 30_000)]
    frequencies = 1 / np.arange(10, 30_010)
    frequencies /= frequencies.sum()
    while True:
        for size in random.integers(10, 150, 100):
            yield " ".join(words[i] for i in random.choice(30_000, size, p=frequencies)) + "\n"


def train_tokenizer(file: Path, folder: Path) -> str:
    """A WordPiece tokenizer of BERT's kind; returns the folder that it was saved to."""
    trained = tokenizers.BertWordPieceTokenizer(lowercase=True)
    trained.train([str(file)], vocab_size=30_000, show_progress=False)
    fast = transformers.BertTokenizerFast(tokenizer_object=trained._tokenizer)
    fast.save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
