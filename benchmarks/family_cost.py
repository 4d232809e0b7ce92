"""The arithmetic of pre-training each student of the original's README, in matrix products.

`python -m benchmarks.family_cost` prints, of each teacher and its student, the operations per
token and what a billion tokens cost. Nothing is timed: divide by what your machine does.
"""

from typing import NamedTuple

from transformers import BertConfig, DistilBertConfig, GPT2Config, PreTrainedConfig, RobertaConfig

from distil_trainer.models.families import family_of

LENGTH = 512
RATE = 100e12
"""Operations a second for the column of hours: a round number to scale from, not a measurement."""


class Pair(NamedTuple):
    """A published student and its teacher."""

    student: str
    teacher_config: PreTrainedConfig
    student_config: PreTrainedConfig


def _of_bert(student: str, vocab_size: int) -> Pair:
    small = DistilBertConfig(vocab_size=vocab_size)
    return Pair(student, BertConfig(vocab_size=vocab_size), small)


def _roberta(layers: int) -> PreTrainedConfig:
    return RobertaConfig(num_hidden_layers=layers, max_position_embeddings=514)


PAIRS = (
    _of_bert("distilbert-base-uncased", 30_522),
    _of_bert("distilbert-base-cased", 28_996),
    _of_bert("distilbert-base-german-cased", 31_102),
    _of_bert("distilbert-base-multilingual-cased", 119_547),
    Pair("distilroberta-base", _roberta(12), _roberta(6)),
    Pair("distilgpt2", GPT2Config(), GPT2Config(n_layer=6)),
)


def forward(config: PreTrainedConfig) -> float:
    """Return the operations of a forward pass per token, two per multiply-add."""
    shape = family_of(config).shape(config)
    projections = 2 * (4 * shape.width**2 + 2 * shape.width * shape.ffn)
    attention = 4 * LENGTH * shape.width
    transform = 0 if family_of(config).causal else 2 * shape.width**2
    return shape.depth * (projections + attention) + transform + 2 * shape.width * shape.vocabulary


def main() -> None:
    """Print the table."""
    print(f"{'student':36}{'MFLOP a token':>14}{'h a billion tokens':>20}")
    for pair in PAIRS:
        # The teacher runs forward; the student's backward pass is twice its forward pass.
        step = forward(pair.teacher_config) + 3 * forward(pair.student_config)
        print(f"{pair.student:36}{step / 1e6:14.0f}{step * 1e9 / RATE / 3600:20.1f}")


if __name__ == "__main__":
    main()
