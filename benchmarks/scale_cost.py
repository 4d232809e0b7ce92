"""The arithmetic of pre-training on many GPUs: hours, network, memory and disk. Nothing is timed.

`python -m benchmarks.scale_cost` prints the tables of docs/scale-training.md, for DistilBERT from
BERT-base and a student of ModernBERT-base's size from ModernBERT-large.
"""

from typing import NamedTuple

import torch
from torch import nn
from transformers import BertConfig, DistilBertConfig, ModernBertConfig, PreTrainedConfig

from distil_trainer.models.families import family_of

PEAK = 989e12
"""bf16 operations a second of an H100 (SXM), without sparsity, as its maker states them."""
SHARE = 0.30
"""The share of the peak that a step is assumed to reach: an estimate, measured nowhere."""
NETWORK = 50e9
"""Bytes a second that a GPU is assumed to send and receive: 400 Gbit/s for each."""
BYTES = 4
"""Of a weight or a gradient: float32; --bf16 computes in bf16 and keeps these."""
GPUS = (8, 32, 128)


class Training(NamedTuple):
    """A student, its teacher, and how much it reads."""

    name: str
    teacher: PreTrainedConfig
    student: PreTrainedConfig
    length: int
    tokens: float
    tokens_per_update: int
    epochs: int = 1


def _trainings() -> tuple[Training, ...]:
    large = ModernBertConfig(
        hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, intermediate_size=2624
    )
    # 3 epochs of 3.3 billion words, at 1.3 tokens a word.
    paper = 3 * 3.3e9 * 1.3
    return (
        Training("DistilBERT", BertConfig(), DistilBertConfig(), 512, paper, 4_000 * 512, 3),
        Training("ModernBERT, 150 M", large, ModernBertConfig(), 1_024, 100e9, 4_096 * 1_024),
    )


def on_paper(config: PreTrainedConfig) -> nn.Module:
    """Return a language model whose weights take no memory."""
    with torch.device("meta"):
        return family_of(config).model_class(config)


def parameters(config: PreTrainedConfig) -> int:
    """Return a model's parameters, one that is tied once."""
    return sum(weight.numel() for weight in on_paper(config).parameters())


def outside_of_layers(config: PreTrainedConfig) -> int:
    """Return the parameters of embeddings and head, one that is tied once."""
    model = on_paper(config)
    layers = model.get_submodule(family_of(config).paths.layers)
    return parameters(config) - sum(weight.numel() for weight in layers.parameters())


def forward(config: PreTrainedConfig, length: int, *, head: bool = True) -> float:
    """Return the operations of a forward pass per token, two per multiply-add.

    Local attention counts as global: with a mask, torch's attention computes all of it.

    Args:
        config: of a language model; its projections are Linear modules, its head's included.
        length: tokens in a sequence.
        head: whether logits of the vocabulary are computed.
    """
    linear = sum(
        module.weight.numel()
        for module in on_paper(config).modules()
        if isinstance(module, nn.Linear) and (head or module.weight.shape[0] != config.vocab_size)
    )
    shape = family_of(config).shape(config)
    return 2.0 * linear + 4 * shape.width * shape.depth * length


def step(training: Training) -> float:
    """Return an update's operations per token: a backward pass is twice a forward pass."""
    teacher, student = (
        forward(each, training.length) for each in (training.teacher, training.student)
    )
    return teacher + 3 * student


def _time_table(training: Training) -> None:
    per_token = step(training)
    weights = parameters(training.student)
    print(
        f"\n{training.name}: {weights / 1e6:.0f} M parameters, teacher "
        f"{parameters(training.teacher) / 1e6:.0f} M; {per_token / 1e6:,.0f} MFLOP a token; "
        f"{training.tokens / 1e9:.1f} G tokens, {training.tokens_per_update / 1e6:.2f} M an update"
    )
    print(
        "| GPUs | tokens a second | computing an update | sending it | sending, sharded | hours |"
    )
    print("|---|---|---|---|---|---|")
    for gpus in GPUS:
        rate = gpus * PEAK * SHARE / per_token
        compute = training.tokens_per_update / rate
        once = (gpus - 1) / gpus * weights * BYTES / NETWORK
        # An all-reduce sends everything twice; shards are gathered twice and reduced once.
        replicated, sharded = 2 * once, 3 * once
        updates = training.tokens / training.tokens_per_update
        low, high = (
            updates * seconds / 3600 for seconds in (max(compute, replicated), compute + replicated)
        )
        print(
            f"| {gpus} | {rate / 1e6:.1f} M | {compute * 1e3:,.0f} ms | {replicated * 1e3:.0f} ms "
            f"| {sharded * 1e3:.0f} ms | {low:.2f} to {high:.2f} |"
        )


def _memory_table(trainings: tuple[Training, ...]) -> None:
    print(
        "\n| | replicated | sharded over 8 | over 128 | its teacher | a checkpoint | the corpus |"
    )
    print("|---|---|---|---|---|---|---|")
    for training in trainings:
        weights, teacher = map(parameters, (training.student, training.teacher))
        # Weight, gradient, and AdamW's two moments.
        state = 4 * BYTES * weights
        # What isn't in a layer is gathered from the forward to the end of the backward, and so is
        # its whole gradient before it is shared out.
        gathered = 2 * BYTES * outside_of_layers(training.student)
        sharded = [state / gpus + gathered for gpus in (8, 128)]
        cells = [state, *sharded, BYTES * teacher, 3 * BYTES * weights]
        shown = " | ".join(f"{cell / 1e9:.2f} GB" for cell in cells)
        corpus = 2 * training.tokens / training.epochs / 1e9
        print(f"| {training.name} | {shown} | {corpus:,.0f} GB |")


def main() -> None:
    """Print the tables."""
    trainings = _trainings()
    for training in trainings:
        _time_table(training)
    _memory_table(trainings)


if __name__ == "__main__":
    main()
