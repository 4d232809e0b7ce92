"""Corpus preparation against a line-by-line loop over the same tokenizer, and its memory.

    python -m benchmarks.corpus_prep
    python -m benchmarks.corpus_prep --corpus my.txt --tokenizer bert-base-uncased

Both run in turns in one process; the ratio of their medians is what counts. The loop does the bare
minimum: it neither cleans nor writes anything. Memory is the peak above what was resident before,
measured in a fresh process for each of two corpora, the second four times as large: equal peaks
mean that memory does not grow with the corpus. Without `--corpus` the text is generated:
pseudo-words with Zipf's frequencies, and a WordPiece vocabulary of 30,000 trained on them.
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

from distil_trainer.data.corpus import prepare_corpus
from distil_trainer.data.sequence_maker import CorpusOptions


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, help="a .txt file [generated text]")
    parser.add_argument("--tokenizer", help="a folder or Hub id [trained on the text]")
    parser.add_argument("--megabytes", type=float, default=8, help="size of the text [8]")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each [3]")
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
    """Print the tokens per second of both and their ratio."""
    tokens = prepare(file, tokenizer)  # counts them, and warms up
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
    """Print the peak memory of a fresh process for each file."""
    for file in files:
        command = [sys.executable, "-m", "benchmarks.corpus_prep"]
        command += ["--memory-of", str(file), "--tokenizer", tokenizer_name]
        child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        megabytes = file.stat().st_size / 1e6
        print(
            f"peak memory     {float(child.stdout):12.0f} MB above import, {megabytes:.0f} MB text"
        )


def loop(file: Path, tokenizer: Any) -> int:
    """Tokenize line by line, without transformers' wrapper, which would be slower still."""
    backend = tokenizer.backend_tokenizer
    with file.open(encoding="utf-8") as lines:
        return sum(len(backend.encode(line.rstrip("\n")).ids) for line in lines)


def prepare(file: Path, tokenizer: Any) -> int:
    """Prepare a corpus on disk from scratch; return its number of tokens."""
    with tempfile.TemporaryDirectory() as cache:
        options = CorpusOptions(validation_fraction=0.005)
        corpus = prepare_corpus([str(file)], tokenizer, cache_dir=cache, options=options)
        return int(corpus.train.lengths.sum() + corpus.validation.lengths.sum())


def seconds(work: Any, *arguments: Any) -> float:
    """Return the wall-clock time of a call."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def peak_of(file: Path, tokenizer_name: str) -> float:
    """Return the megabytes that a preparation needs beyond the imports and the tokenizer."""
    tokenizer = load(tokenizer_name)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = status("VmRSS")
    prepare(file, tokenizer)
    return (status("VmHWM") - before) / 1e3


def status(field: str) -> float:
    """Return a memory field of this process, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field))


def load(name: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(name)


def write_text(file: Path, source: Path | None, megabytes: float) -> None:
    """Write the first megabytes of the source, or of generated text, in whole lines."""
    size = 0
    with file.open("w", encoding="utf-8") as out:
        for line in source.open(encoding="utf-8") if source else generated_lines():
            size += out.write(line)
            if size >= megabytes * 1e6:
                return


def generated_lines() -> Iterator[str]:
    """Yield lines of pseudo-words without end, always the same ones."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(random.choice(letters, size)) for size in random.integers(2, 10, 30_000)]
    frequencies = 1 / np.arange(10, 30_010)
    frequencies /= frequencies.sum()
    while True:
        for size in random.integers(10, 150, 100):
            yield " ".join(words[i] for i in random.choice(30_000, size, p=frequencies)) + "\n"


def train_tokenizer(file: Path, folder: Path) -> str:
    """Train a BERT WordPiece tokenizer; return the folder that it was saved to."""
    trained = tokenizers.BertWordPieceTokenizer(lowercase=True)
    trained.train([str(file)], vocab_size=30_000, show_progress=False)
    fast = transformers.BertTokenizerFast(tokenizer_object=trained._tokenizer)
    fast.save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
