"""The cost of the paper's own size, and of ModernBERT's, by arithmetic from measured rates.

`python -m benchmarks.full_size` prints the tables of docs/full-size.md; a test holds the page to
them. Nothing is timed. What enters stands in this file as named numbers, each with its origin:
counted from a configuration, measured (results/README.md), or assumed. `--achieved` is the one that
decides: how many TFLOP/s a GPU of yours does in a step, which `make gpu` measures.
"""

import argparse
import math
from typing import NamedTuple

from transformers import (
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    PreTrainedConfig,
)

from benchmarks.scale_cost import forward, parameters

# --- measured by this project
BYTES_A_TOKEN = 4.7  # English Wikipedia, 2,000 articles, the vocabulary of bert-base-uncased
PREPARED_A_SECOND = 1_166_571  # tokens, two cores (benchmarks.corpus_prep)
PADDING = 1.047  # of batches of texts of many lengths (benchmarks.trainer_overhead)
CPU_SECONDS_A_TOKEN = 4_344e-6  # BERT-base -> DistilBERT, two cores (make bench-peers, base)
SQUAD_TOKENS = 175  # a question of dev-v1.1 and its paragraph, cut to 384
IMDB_TOKENS = 276  # a review of train, cut to 512
# --- assumed
ACHIEVED = 237.0
"""TFLOP/s of one GPU in a step: 30 % of the 790 that products in bf16 are said to reach
on an H200, which nobody here has measured."""
STEP_SECONDS = {"teacher": 0.04, "student": 0.025}
"""The least time of a step of fine-tuning: kernels are launched one by one; batches are small."""
ACTIVATIONS = 34
"""Bytes a token, layer and unit of width that training keeps in bf16, attention's weights not
among them (Korthikanti et al. 2022, arXiv:2205.05198)."""

GPUS = 8
FINE_TUNING_SEEDS = 5
UINT16 = 2


class Part(NamedTuple):
    """A part of a corpus: its name, and how much text it is."""

    name: str
    gigabytes: float
    download: float


class Setting(NamedTuple):
    """A pre-training: its models and its text.

    Attributes:
        title: what the table calls it.
        teacher: the teacher's configuration.
        student: the student's.
        corpus: the parts of the corpus.
        epochs: how often it is read.
        length: the longest sequence.
        batch: tokens of a micro-batch, padding included.
        accumulation: micro-batches of an update, in each process.
    """

    title: str
    teacher: PreTrainedConfig
    student: PreTrainedConfig
    corpus: tuple[Part, ...]
    epochs: int
    length: int
    batch: int
    accumulation: int

    @property
    def gigabytes(self) -> float:
        """The text."""
        return sum(part.gigabytes for part in self.corpus)

    @property
    def tokens(self) -> float:
        """The tokens of the corpus."""
        return self.gigabytes * 1e9 / BYTES_A_TOKEN

    @property
    def operations(self) -> float:
        """The operations of a step per token: one pass of the teacher, three of the student."""
        return forward(self.teacher, self.length) + 3 * forward(self.student, self.length)

    @property
    def updates(self) -> int:
        """The updates of the whole training on all GPUs."""
        update = self.batch * self.accumulation * GPUS
        return math.ceil(self.epochs * self.tokens * PADDING / update)

    def gpu_hours(self, achieved: float) -> float:
        """Return the hours of one GPU."""
        operations = self.epochs * self.tokens * PADDING * self.operations
        return operations / (achieved * 1e12) / 3600


BOOKS_OF_LOC = 19 / 140
"""Nineteen of the data set's files: 6.4 GB of text, where BookCorpus had 4.9."""
PAPER = Setting(
    "BERT-base → DistilBERT",
    BertConfig(),
    DistilBertConfig(),
    # 20 GB: dumps of 2023 and 2024 in this form hold 21 to 22 with titles and addresses. Books:
    # 47 GB of text, 26 to download, says the data set's card.
    (Part("Wikipedia", 20.2, 11.6), Part("books", 47 * BOOKS_OF_LOC, 26 * BOOKS_OF_LOC)),
    epochs=3,
    length=512,
    batch=32_768,
    accumulation=8,
)
MODERN = Setting(
    "ModernBERT-base → 11 layers",
    ModernBertConfig(),
    ModernBertConfig(num_hidden_layers=11),
    (Part("FineWeb-Edu, 10 billion tokens", 10 * BYTES_A_TOKEN, 28.0),),
    epochs=1,
    length=1024,
    batch=32_768,
    accumulation=8,
)


class Tuning(NamedTuple):
    """Data to fine-tune on: examples, epochs, tokens an example, examples a batch."""

    title: str
    examples: int
    evaluated: int
    epochs: int
    tokens: float
    batch: int


# Tokens: measured on train, MNLI and QNLI on dev; QQP, which was not at hand, as long as MNLI.
GLUE = (
    Tuning("CoLA", 8_551, 1_043, 3, 11, 32),
    Tuning("MNLI", 392_702, 19_647, 3, 39, 32),
    Tuning("MRPC", 3_668, 408, 3, 53, 32),
    Tuning("QNLI", 104_743, 5_463, 3, 51, 32),
    Tuning("QQP", 363_846, 40_430, 3, 39, 32),
    Tuning("RTE", 2_490, 277, 3, 67, 32),
    Tuning("SST-2", 67_349, 872, 3, 13, 32),
    Tuning("STS-B", 5_749, 1_500, 3, 28, 32),
    Tuning("WNLI", 635, 71, 3, 37, 32),
)
IMDB = Tuning("IMDb", 25_000, 25_000, 3, IMDB_TOKENS, 16)
SQUAD = Tuning("SQuAD", 87_599, 10_570, 2, SQUAD_TOKENS, 12)


def memory(setting: Setting) -> float:
    """Return the gigabytes of a GPU in pre-training: weights, gradients, Adam, activations."""
    student, teacher = parameters(setting.student), parameters(setting.teacher)
    kept = ACTIVATIONS * setting.student.hidden_size * setting.student.num_hidden_layers
    return (16 * student + 4 * teacher + kept * setting.batch) / 1e9


def disk(setting: Setting) -> float:
    """Return the gigabytes on disk: the download, the prepared corpus, two checkpoints."""
    checkpoint = 12 * parameters(setting.student)
    download = sum(part.download for part in setting.corpus)
    return download + (UINT16 * setting.tokens + 2 * checkpoint) / 1e9


def tuning_hours(
    config: PreTrainedConfig, data: tuple[Tuning, ...], least: float, achieved: float
) -> tuple[int, float]:
    """Return the steps of one seed, and the hours of one GPU: arithmetic, or launches."""
    all_steps, seconds = 0, 0.0
    for each in data:
        steps = math.ceil(each.examples / each.batch) * each.epochs
        one = forward(config, round(each.tokens), head=False) * each.tokens
        computed = 3 * each.epochs * each.examples * one / (achieved * 1e12)
        judged = max(each.evaluated * one / (achieved * 1e12), each.evaluated / 128 * least / 3)
        all_steps += steps
        seconds += max(computed, steps * least) + judged
    return all_steps, seconds / 3600


def pretraining_table(settings: tuple[Setting, ...], achieved: float) -> list[str]:
    """Return the table of pre-training, a column per setting."""
    rows = {
        "text": [f"{each.gigabytes:.1f} GB" for each in settings],
        "tokens, once": [f"{each.tokens / 1e9:.1f} billion" for each in settings],
        "tokens in training": [
            f"{each.epochs * each.tokens / 1e9:.1f} billion" for each in settings
        ],
        "prepared on two cores": [
            f"{each.tokens / PREPARED_A_SECOND / 3600:.1f} h" for each in settings
        ],
        "parameters, teacher and student": [
            f"{parameters(each.teacher) / 1e6:.0f} M, {parameters(each.student) / 1e6:.0f} M"
            for each in settings
        ],
        "MFLOP a token": [f"{each.operations / 1e6:.0f}" for each in settings],
        "sequences an update": [
            f"{each.batch * each.accumulation * GPUS // each.length:,}" for each in settings
        ],
        "updates": [f"{each.updates:,}" for each in settings],
        "GPU hours": [f"{each.gpu_hours(achieved):.1f}" for each in settings],
        f"hours on {GPUS} GPUs": [f"{each.gpu_hours(achieved) / GPUS:.1f}" for each in settings],
        "memory of a GPU": [f"{memory(each):.0f} GB" for each in settings],
        "disk": [f"{disk(each):.0f} GB" for each in settings],
    }
    head = ["pre-training", *(each.title for each in settings)]
    return _table(head, [[name, *values] for name, values in rows.items()])


def tuning_table(setting: Setting, achieved: float) -> list[str]:
    """Return the table of everything after pre-training."""
    rows = []
    for title, data in (("GLUE, nine tasks", GLUE), ("IMDb", (IMDB,)), ("SQuAD", (SQUAD,))):
        for who, config in (("teacher", setting.teacher), ("student", setting.student)):
            steps, hours = tuning_hours(config, data, STEP_SECONDS[who], achieved)
            rows.append(_row(f"{title}, {who}", steps, hours))
    steps, hours = tuning_hours(setting.student, (SQUAD,), STEP_SECONDS["student"], achieved)
    rows.append(_row("SQuAD, student (D)", steps, hours))
    gpu_hours = sum(float(row[-2]) for row in rows)
    rows.append(["together", "", "", f"{gpu_hours:.2f}", f"{gpu_hours / GPUS:.2f}"])
    head = ["fine-tuning", "steps a seed", "seeds", "GPU hours", f"hours on {GPUS} GPUs"]
    return _table(head, rows)


def _row(title: str, steps: int, hours: float) -> list[str]:
    together = FINE_TUNING_SEEDS * hours
    seeds = str(FINE_TUNING_SEEDS)
    return [title, f"{steps:,}", seeds, f"{together:.2f}", f"{together / GPUS:.2f}"]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def lines(achieved: float) -> list[str]:
    """Return what is printed."""
    cpu = PAPER.epochs * PAPER.tokens * CPU_SECONDS_A_TOKEN / 3600 / 24 / 365
    published = PAPER.epochs * 3.3e9 * 1.3 * PAPER.operations / (720 * 3600) / 1e12
    return [
        f"At {achieved:.0f} TFLOP/s a GPU:",
        "",
        *pretraining_table((PAPER, MODERN), achieved),
        "",
        *tuning_table(PAPER, achieved),
        "",
        f"On the two cores of results/README.md this pre-training would take {cpu:.1f} years. The "
        f"paper's 720 GPU hours are {published:.1f} TFLOP/s a V100, if BERT's 3.3 billion words "
        "were 1.3 tokens each.",
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--achieved", type=float, default=ACHIEVED,
        help=f"TFLOP/s of one GPU in a step [{ACHIEVED:.0f}, assumed]",
    )  # fmt: skip
    print("\n".join(lines(parser.parse_args().achieved)))


if __name__ == "__main__":
    main()
