"""How long BERT-base and DistilBERT take to answer: one text and 32, bf16 and float32."""

import statistics
from collections.abc import Iterator
from functools import partial

import torch
import transformers

from benchmarks import machine
from benchmarks.gpu.parts import Figure, Part, Setup
from benchmarks.gpu.step import size_of
from benchmarks.setting import student_config, teacher_config

LENGTH = 128
BATCHES = (1, 32)


@torch.inference_mode()
def latency(setup: Setup) -> Iterator[Figure]:
    """Measure the median time of a forward pass of 128 tokens, the host's time included."""
    size = size_of(setup)
    teacher, student = teacher_config(size), student_config(size)
    models = {
        "BERT": transformers.BertForSequenceClassification(teacher),
        "DistilBERT": transformers.DistilBertForSequenceClassification(student),
    }
    warm, count = (1, 2) if setup.small else (10, 40)
    for name, model in models.items():
        for dtype in (torch.float32, torch.bfloat16):
            model.to(setup.device, dtype).eval()
            for batch in BATCHES:
                ids = torch.full(
                    (batch, size.length if setup.small else LENGTH), 7, device=setup.device
                )
                mask = torch.ones_like(ids)
                answer = partial(model, input_ids=ids, attention_mask=mask)
                times = [machine.seconds(answer, setup.device) for _ in range(warm + count)]
                kind = str(dtype).removeprefix("torch.")
                milliseconds = 1e3 * statistics.median(times[warm:])
                yield Figure(f"{name}, {kind}, {batch} of {ids.shape[1]}", milliseconds, "ms")


PARTS = [Part("latency", 40, latency)]
