"""SQuAD's pre- and post-processing: questions to features and logits to answers, against loops.

    DISTIL_DATA=... python -m benchmarks.squad_speed
    python -m benchmarks.squad_speed --questions my.json --tokenizer bert-base-uncased

Features: `make_windows` against one example at a time with the same fast tokenizer and labels found
by walking the offsets; against transformers' `run_qa.py`, which does the same for 1,000 examples in
a call; and against the original scripts, which tokenize word by word (here without labels, measured
on a tenth of the questions). Answers: `answers_of` against the double loop over the 20 best starts
and ends of each window; the logits are random, and both must find the same answers. Everything runs
on one core; times are CPU times, medians over rounds in turns. Memory is the peak above what was
resident before, for `--copies` times the questions: SQuAD's training set has 88,000.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from angels_share.tokenizing import load_tokenizer
from benchmarks.machine import peak_bytes
from eval_harness.data.squad_files import Questions, read_squad
from eval_harness.squad.answers import answers_of
from eval_harness.squad.windows import Windows, make_windows

LENGTHS = {"max_length": 384, "stride": 128}
BATCH = 1_000


def main() -> None:
    """Parse the command line and measure."""
    data = Path(os.environ.get("DISTIL_DATA", "."))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--questions",
        type=Path,
        default=data / "data" / "squad" / "dev-v1.1.json",
        help="a file in SQuAD's format [dev-v1.1.json of DISTIL_DATA]",
    )
    parser.add_argument(
        "--tokenizer",
        default=str(data / "models" / "minilm-l6"),
        help="folder or Hub id [minilm-l6 of DISTIL_DATA]",
    )
    parser.add_argument("--limit", type=int, default=10_000, help="questions [10,000]")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each [3]")
    parser.add_argument(
        "--copies", type=int, default=8, help="copies of the questions to measure memory on [8]"
    )
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    questions = read_squad(arguments.questions, limit=arguments.limit)
    tokenizer = load_tokenizer(arguments.tokenizer)
    print(f"{len(questions):,} questions about {len(questions.contexts):,} contexts, one core")
    features(questions, tokenizer, arguments.rounds)
    answers(questions, tokenizer, arguments.rounds)
    if arguments.copies:
        memory(questions, tokenizer, arguments.copies)


def features(questions: Questions, tokenizer: Any, rounds: int) -> None:
    """Print the time of each implementation for the same windows and labels."""
    windows = make_windows(questions, tokenizer)
    assert list(one_by_one(questions, tokenizer)) == windows.positions.tolist()
    ours, single, batched = in_turns(
        rounds,
        lambda: make_windows(questions, tokenizer),
        lambda: list(one_by_one(questions, tokenizer)),
        lambda: list(batch_by_batch(questions, tokenizer)),
    )
    tenth = len(questions) // 10
    (words,) = in_turns(1, lambda: list(word_by_word(questions, tenth, tokenizer)))
    words *= len(questions) / tenth
    print(f"features        {ours:8.2f} s, {len(windows):,} windows, {len(windows.ids):,} tokens")
    print(f"one by one      {single:8.2f} s, {single / ours:.1f} times that")
    print(f"as run_qa.py    {batched:8.2f} s, {batched / ours:.1f} times that")
    print(
        f"word by word    {words:8.2f} s, {words / ours:.1f} times that, from {tenth:,} questions"
    )


def answers(questions: Questions, tokenizer: Any, rounds: int) -> None:
    """Print the time of both implementations for the same answers."""
    windows = make_windows(questions, tokenizer)
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, len(windows.ids))).astype(np.float32)
    answered = answers_of(questions, windows, *logits, version2=False)
    assert double_loop(questions, windows, *logits) == answered.texts
    ours, loop = in_turns(
        rounds,
        lambda: answers_of(questions, windows, *logits, version2=False),
        lambda: double_loop(questions, windows, *logits),
    )
    print(f"answers         {ours:8.2f} s")
    print(f"double loop     {loop:8.2f} s, {loop / ours:.1f} times that")


def memory(questions: Questions, tokenizer: Any, copies: int) -> None:
    """Print the peak memory for the features of many questions; copies share no context."""
    many = repeated(questions, copies)
    peak = peak_bytes(lambda: make_windows(many, tokenizer), "cpu")
    print(f"peak memory     {peak / 1e6:8.0f} MB for the features of {len(many):,} questions")


def repeated(questions: Questions, copies: int) -> Questions:
    shift = np.repeat(np.arange(copies), len(questions)) * len(questions.contexts)
    return replace(
        questions,
        ids=[f"{name}-{copy}" for copy in range(copies) for name in questions.ids],
        texts=list(questions.texts) * copies,
        contexts=list(questions.contexts) * copies,
        context_of=(np.tile(questions.context_of, copies) + shift).astype(np.int32),
        answers=list(questions.answers) * copies,
        answer_starts=np.tile(questions.answer_starts, copies),
    )


def in_turns(rounds: int, *functions: Callable[[], object]) -> list[float]:
    """Call the functions in turns; return the median CPU seconds of each."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, seconds in zip(functions, times, strict=True):
            start = time.process_time()
            function()
            seconds.append(time.process_time() - start)
    return [statistics.median(seconds) for seconds in times]


def one_by_one(questions: Questions, tokenizer: Any) -> Iterator[list[int]]:
    """Yield each window's labels, one example at a time."""
    for number in range(len(questions)):
        encoded = with_windows(tokenizer, *texts_of(questions, number))
        for window, offsets in enumerate(encoded["offset_mapping"]):
            yield label(offsets, encoded.sequence_ids(window), *answer(questions, number))


def batch_by_batch(questions: Questions, tokenizer: Any) -> Iterator[list[int]]:
    """Yield the same with many examples in a call."""
    for first in range(0, len(questions), BATCH):
        numbers = range(first, min(first + BATCH, len(questions)))
        texts, contexts = zip(*(texts_of(questions, i) for i in numbers), strict=True)
        encoded = with_windows(tokenizer, list(texts), list(contexts))
        for window, offsets in enumerate(encoded["offset_mapping"]):
            number = first + encoded["overflow_to_sample_mapping"][window]
            yield label(offsets, encoded.sequence_ids(window), *answer(questions, number))


def word_by_word(questions: Questions, count: int, tokenizer: Any) -> Iterator[list[list[int]]]:
    """Yield each window's ids, mask and types, padded, for `count` evenly spaced questions."""
    for number in np.linspace(0, len(questions) - 1, count).astype(int):
        text, context = texts_of(questions, number)
        query = tokenizer.tokenize(text)[:64]
        tokens = [piece for word in context.split() for piece in tokenizer.tokenize(word)]
        size = LENGTHS["max_length"] - 3 - len(query)  # without [CLS] and twice [SEP]
        for first in range(0, max(1, len(tokens) - LENGTHS["stride"]), size - LENGTHS["stride"]):
            part = tokens[first : first + size]
            window = ["[CLS]", *query, "[SEP]", *part, "[SEP]"]
            padding = [0] * (LENGTHS["max_length"] - len(window))
            types = [0] * (len(query) + 2) + [1] * (len(part) + 1)
            ids = tokenizer.convert_tokens_to_ids(window)
            yield [ids + padding, [1] * len(window) + padding, types + padding]


def texts_of(questions: Questions, number: int) -> tuple[str, str]:
    return questions.texts[number].strip(), questions.contexts[questions.context_of[number]]


def answer(questions: Questions, number: int) -> tuple[int, int]:
    """Return begin and end of the first gold answer, in characters."""
    start = int(questions.answer_starts[number])
    return start, start + len(questions.answers[number][0])


def with_windows(tokenizer: Any, texts: Any, contexts: Any) -> Any:
    return tokenizer(
        texts,
        contexts,
        truncation="only_second",
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=False,
        **LENGTHS,
    )


def label(offsets: list[Any], sides: list[Any], begin: int, end: int) -> list[int]:
    """Return first and last token of the answer, or [CLS] if the window doesn't hold all of it."""
    first, last = sides.index(1), len(sides) - 1
    while sides[last] != 1:
        last -= 1
    if offsets[first][0] > begin or offsets[last][1] < end:
        return [0, 0]
    while first < last and offsets[first][1] <= begin:
        first += 1
    while offsets[last][0] >= end:
        last -= 1
    return [first, last]


def double_loop(questions: Questions, windows: Windows, starts: Any, ends: Any) -> list[str]:
    """Return the best span of each question, trying one pair of start and end after the other.

    If no pair of a window's best starts and ends is a span, all pairs are tried, as in ours.
    """
    best: list[tuple[float, str]] = [(-np.inf, "")] * len(questions)
    for window, question in enumerate(windows.question.tolist()):
        first, size = int(windows.first[window]), int(windows.size[window])
        begin = int(windows.starts[window] + windows.place[window])
        scores = [logits[begin : begin + size] for logits in (starts, ends)]
        offsets = windows.offsets[first : first + size].tolist()
        context = questions.contexts[questions.context_of[question]]
        for count in (20, size):
            tops = [np.argsort(logits)[::-1][:count].tolist() for logits in scores]
            values = [logits.tolist() for logits in scores]
            spans = [
                (values[0][a] + values[1][b], context[offsets[a][0] : offsets[b][1]])
                for a in tops[0]
                for b in tops[1]
                if a <= b < a + 30
            ]
            if spans:
                break
        best[question] = max(best[question], *spans, key=lambda span: span[0])
    return [text for _, text in best]


if __name__ == "__main__":
    main()
