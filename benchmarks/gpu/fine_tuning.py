"""Fine-tuning BERT-base at 128 tokens with dynamic padding: the plain Trainer against ours."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers

import distil_trainer
from angels_share.errors import UserError
from benchmarks.gpu import check
from benchmarks.gpu.parts import Figure, Part, Setup, forget_peak, peak_gigabytes
from benchmarks.gpu.step import Clock, arguments, size_of, timed
from benchmarks.setting import teacher_config

BATCH, LONGEST = 32, 128


def _model(setup: Setup) -> Any:
    size = size_of(setup)
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(teacher_config(size, num_labels=2))


def _examples(setup: Setup) -> list[dict[str, Any]]:
    """Return sentences of very different lengths, as those of most tasks are."""
    draw = np.random.default_rng(0)
    clock = Clock(setup)
    rows = []
    for _ in range((clock.warm + clock.timed) * BATCH):
        length = int(draw.integers(8, LONGEST // (4 if setup.small else 1)))
        ids = draw.integers(len(check.SPECIAL), size_of(setup).vocabulary, length).tolist()
        label = int(draw.integers(2))
        rows.append({"input_ids": ids, "attention_mask": [1] * length, "labels": label})
    return rows


def _plain(model: Any, given: dict[str, Any], **rest: Any) -> Any:
    return transformers.Trainer(model, transformers.TrainingArguments(**given), **rest)


def _harness(model: Any, given: dict[str, Any], **rest: Any) -> Any:
    from eval_harness.training.fine_tuner import FineTuner

    return FineTuner(model, transformers.TrainingArguments(**given), **rest)


def _distil(model: Any, given: dict[str, Any], **rest: Any) -> Any:
    given = {name: value for name, value in given.items() if name != "remove_unused_columns"}
    arguments = distil_trainer.DistilTrainingArguments(**given, alpha_ce=0.0)
    return distil_trainer.DistilTrainer(model, arguments, **rest)


def measure(make: Callable[..., Any], setup: Setup) -> Iterator[Figure]:
    """Measure a way to make a trainer."""
    tokenizer = check._tokenizer(check.Size(0, size_of(setup).vocabulary, 0, 0))
    rows = _examples(setup)
    with tempfile.TemporaryDirectory() as folder:
        given = arguments(setup, folder, BATCH)
        try:
            trainer = make(
                _model(setup),
                given,
                train_dataset=rows,
                data_collator=transformers.DataCollatorWithPadding(tokenizer),
            )
        except (ImportError, UserError) as error:
            yield Figure("eval_harness", None, note=f"can't be imported here: {error}")
            return
        trainer.remove_callback(transformers.PrinterCallback)
        forget_peak(setup)
        seconds = timed(trainer, setup)
    yield Figure("step", 1e3 * seconds, "ms")
    yield Figure("examples", BATCH / seconds, "examples/s")
    yield peak_gigabytes(setup)


PARTS = [
    Part("fine-tuning-plain", 30, partial(measure, _plain)),
    Part("fine-tuning-harness", 30, partial(measure, _harness)),
    Part("fine-tuning-distil", 30, partial(measure, _distil)),
]
