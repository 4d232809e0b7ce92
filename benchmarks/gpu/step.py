"""One pre-training step, BERT-base into DistilBERT: ours, plain, the textbook's, liger-kernel's."""

import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

import distil_trainer
from benchmarks import machine
from benchmarks.gpu import check
from benchmarks.gpu.parts import (
    Figure,
    Part,
    Setup,
    forget_peak,
    peak_gigabytes,
    rate_of_products,
)
from benchmarks.setting import Batch, Pair, Recipe, Size, teacher_config
from benchmarks.variants import textbook

FULL = Size(width=768, heads=12, depth=12, sequences=32, length=512)
SMALL = Size(width=32, heads=2, depth=2, sequences=4, length=32, vocabulary=160)
WARM, TIMED = 4, 12
RECIPE = Recipe()


def size_of(setup: Setup) -> Size:
    return SMALL if setup.small else FULL


def _counts(setup: Setup) -> tuple[int, int]:
    return (1, 1) if setup.small else (WARM, TIMED)


def _pair(size: Size) -> tuple[Any, Any]:
    """Return a BERT as teacher and the DistilBERT that is made of it."""
    torch.manual_seed(0)
    config = teacher_config(size, max_position_embeddings=max(512, size.length))
    teacher = transformers.BertForMaskedLM(config)
    student = distil_trainer.make_student(teacher, num_layers=size.depth // 2)
    return teacher.eval().requires_grad_(requires_grad=False), student


def _rows(size: Size, steps: int) -> list[dict[str, Any]]:
    """Return sequences without padding for a number of steps."""
    draw = np.random.default_rng(0)
    count = size.sequences * steps
    ids = draw.integers(len(check.SPECIAL), size.vocabulary, (count, size.length))
    ids[:, 0], ids[:, -1] = 2, 3
    return [{"input_ids": row} for row in ids]


class Clock(transformers.TrainerCallback):
    """Times the steps after the first ones; the host waits for the device only around them."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.warm, self.timed = _counts(setup)
        self.seconds = 0.0

    def on_step_end(self, args, state, control, **_) -> None:
        """Start or stop the clock."""
        if state.global_step not in (self.warm, self.warm + self.timed):
            return
        machine.finish(self._setup.device)
        if state.global_step == self.warm:
            forget_peak(self._setup)
            self.seconds = -time.perf_counter()
        else:
            self.seconds = (self.seconds + time.perf_counter()) / self.timed


def arguments(setup: Setup, folder: str, batch_size: int, **more: Any) -> dict[str, Any]:
    """Return the arguments of a Trainer that writes nothing."""
    given = {
        "output_dir": folder,
        "use_cpu": setup.device == "cpu",
        "per_device_train_batch_size": batch_size,
        "max_steps": sum(_counts(setup)),
        "bf16": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_num_workers": 0 if setup.small else 4,
        "optim": "adamw_torch_fused",
        "remove_unused_columns": False,
    }
    return given | more


def our_trainer(setup: Setup, folder: str, **more: Any) -> Any:
    """Return a DistilTrainer, and what else a run on it needs."""
    size = size_of(setup)
    teacher, student = _pair(size)
    given = arguments(setup, folder, size.sequences, **more)
    given.pop("remove_unused_columns")
    trainer = distil_trainer.DistilTrainer(
        student,
        distil_trainer.DistilTrainingArguments(**given),
        teacher=teacher,
        train_dataset=_rows(size, given["max_steps"]),
        processing_class=check._tokenizer(check.Size(0, size.vocabulary, 0, 0)),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def timed(trainer: Any, setup: Setup) -> float:
    """Return the seconds of one of a trainer's steps."""
    clock = Clock(setup)
    trainer.add_callback(clock)
    trainer.train()
    return clock.seconds


def figures(setup: Setup, seconds: float) -> Iterator[Figure]:
    """Return what the seconds of a step mean."""
    size = size_of(setup)
    yield Figure("step", 1e3 * seconds, "ms")
    yield Figure("tokens", size.tokens / seconds, "tokens/s")
    yield peak_gigabytes(setup)
    rate = rate_of_products(setup)
    assert rate.value is not None
    share = (
        size.operations([size.length] * size.sequences, size.tokens) / seconds / (1e12 * rate.value)
    )
    yield Figure("of the product rate", 100 * share, "%", f"measured beside it: {rate.value:.4g}")


def ours(setup: Setup) -> Iterator[Figure]:
    """Measure DistilTrainer."""
    with tempfile.TemporaryDirectory() as folder:
        yield from figures(setup, timed(our_trainer(setup, folder), setup))


class PlainTrainer(transformers.Trainer):
    """What one writes first: a Trainer with the divergence on all logits in `compute_loss`."""

    teacher: Any

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: FBT002
        """Return the three terms on the logits of all tokens."""
        labels = inputs.pop("labels")
        theirs = self.teacher
        with torch.no_grad(), self.accelerator.autocast():
            theirs = theirs(**inputs, output_hidden_states=True)
        outputs = model(**inputs, output_hidden_states=True)
        hot = RECIPE.temperature
        width = outputs.logits.shape[-1]
        soft = functional.kl_div(
            (outputs.logits / hot).log_softmax(-1).view(-1, width),
            (theirs.logits / hot).softmax(-1).view(-1, width),
            reduction="batchmean",
        )
        hard = functional.cross_entropy(outputs.logits.view(-1, width), labels.view(-1))
        cosine = textbook._cosine(
            outputs.hidden_states[-1].flatten(0, 1), theirs.hidden_states[-1].flatten(0, 1)
        )
        loss = RECIPE.ce * hot**2 * soft + RECIPE.mlm * hard + RECIPE.cos * cosine
        return (loss, outputs) if return_outputs else loss


def plain(setup: Setup) -> Iterator[Figure]:
    """Measure a subclass of transformers' Trainer, its own loader and collator."""
    size = size_of(setup)
    teacher, student = _pair(size)
    tokenizer = check._tokenizer(check.Size(0, size.vocabulary, 0, 0))
    with tempfile.TemporaryDirectory() as folder:
        given = transformers.TrainingArguments(**arguments(setup, folder, size.sequences))
        trainer = PlainTrainer(
            student,
            given,
            train_dataset=_rows(size, given.max_steps),
            data_collator=transformers.DataCollatorForLanguageModeling(tokenizer),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.teacher = teacher.to(given.device)
        yield from figures(setup, timed(trainer, setup))


def _loop(
    setup: Setup,
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], Tensor],
) -> float:
    """Return the seconds of a step of a plain loop."""

    def step() -> None:
        with torch.autocast(setup.device, torch.bfloat16):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    warm, count = _counts(setup)
    for _ in range(warm):
        step()
    forget_peak(setup)
    return machine.seconds(lambda: [step() for _ in range(count)], setup.device) / count


def _batch(size: Size, device: str) -> Batch:
    ids = torch.from_numpy(np.stack([row["input_ids"] for row in _rows(size, 1)]))
    targets = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.15
    labels = ids.masked_fill(~targets, -100)
    ids = ids.masked_fill(targets, check.SPECIAL.index("[MASK]"))
    return Batch(*(each.to(device) for each in (ids, torch.ones_like(ids), labels)))


def as_published(setup: Setup) -> Iterator[Figure]:
    """Measure the original algorithm, written plainly."""
    size = size_of(setup)
    teacher, student = (each.to(setup.device) for each in _pair(size))
    for each in (teacher, student):
        each.set_attn_implementation("eager")
    batch = _batch(size, setup.device)
    seconds = _loop(
        setup,
        student.train(),
        textbook.make_optimizer(student),
        lambda: textbook.loss(Pair(student, teacher), batch, RECIPE, restrict=False),
    )
    yield from figures(setup, seconds)


def liger(setup: Setup) -> Iterator[Figure]:
    """Measure a loop around liger-kernel's fused divergence, whose decoders have no bias."""
    try:
        from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD
    except ImportError:
        yield Figure("liger-kernel", None, note="not installed")
        return
    size = size_of(setup)
    teacher, student = (each.to(setup.device) for each in _pair(size))
    batch = _batch(size, setup.device)
    inputs = {"input_ids": batch.input_ids}
    divergence = LigerFusedLinearJSD(jsd_beta=0.0, temperature=RECIPE.temperature)
    targets = (batch.labels.view(-1) != -100).nonzero().squeeze(1)
    hard_labels = batch.labels.view(-1)[targets]

    def loss() -> Tensor:
        with torch.no_grad():
            theirs = teacher.bert(**inputs).last_hidden_state.flatten(0, 1)
            their_rows = teacher.cls.predictions.transform(theirs)
        ours = student.distilbert(**inputs).last_hidden_state.flatten(0, 1)
        rows = student.vocab_layer_norm(student.activation(student.vocab_transform(ours)))
        soft = divergence(
            rows.bfloat16(),
            student.vocab_projector.weight.bfloat16(),
            their_rows.bfloat16(),
            teacher.cls.predictions.decoder.weight.bfloat16(),
            None,
        )
        hard = functional.cross_entropy(student.vocab_projector(rows[targets]), hard_labels)
        cosine = textbook._cosine(ours, theirs)
        return RECIPE.ce * RECIPE.temperature**2 * soft + RECIPE.mlm * hard + RECIPE.cos * cosine

    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4, fused=True)
    yield from figures(setup, _loop(setup, student.train(), optimizer, loss))


def compiled(setup: Setup) -> Iterator[Figure]:
    """Measure DistilTrainer with both bodies compiled."""
    backend = "eager" if setup.small else "inductor"
    with tempfile.TemporaryDirectory() as folder:
        trainer = our_trainer(setup, folder)
        trainer.student.distilbert.compile(backend=backend)
        trainer.teachers[0].bert.compile(backend=backend)
        yield from figures(setup, timed(trainer, setup))


class Profiled(transformers.TrainerCallback):
    """Profiles one step."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._warm = _counts(setup)[0]
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if setup.device == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        self.profile = torch.profiler.profile(activities=kinds)

    def on_step_end(self, args, state, control, **_) -> None:
        """Begin or end the profile."""
        if state.global_step not in (self._warm, self._warm + 1):
            return
        machine.finish(self._setup.device)
        if state.global_step == self._warm:
            self.profile.start()
        else:
            self.profile.stop()


WAITS = {
    "aten::item": "of the CPU's own tensors, too",
    "aten::_local_scalar_dense": "likewise",
    "cudaStreamSynchronize": "one is meant to be there",
    "cudaDeviceSynchronize": "one is the profile's own",
    "cudaMemcpyAsync": "",
    "cudaLaunchKernel": "",
}


def profile(setup: Setup) -> Iterator[Figure]:
    """Count what the host waits for in a step, and name the kernels that take longest."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = our_trainer(setup, folder)
        seen = Profiled(setup)
        trainer.add_callback(seen)
        trainer.train()
    events = seen.profile.key_averages()
    calls = {event.key: event.count for event in events}
    for name in WAITS:
        yield Figure(name, calls.get(name, 0), "calls", WAITS[name])
    on_gpu = setup.device == "cuda"
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    # On a GPU an operation bears the time of its kernels, which are events of their own.
    kernels = [each for each in events if not on_gpu or "CUDA" in str(each.device_type)]
    kernels.sort(key=lambda event: -getattr(event, field))
    total = sum(getattr(event, field) for event in kernels)
    yield Figure("all kernels", total / 1e3, "ms")
    for event in kernels[:15]:
        share = 100 * getattr(event, field) / max(total, 1e-9)
        yield Figure(event.key[:80].replace("|", "/"), share, "%", f"{event.count} calls")


def precision(setup: Setup) -> Iterator[Figure]:
    """Say whether products in float32 use TF32, and measure both."""
    matmul = torch.backends.cuda.matmul
    yield Figure("TF32", None, note=f"by default {'on' if matmul.allow_tf32 else 'off'}")
    for state in (False, True):
        name = "on" if state else "off"
        matmul.allow_tf32 = state
        side = 128 if setup.small else 8192
        rate = machine.product_rate(setup.device, side=side, dtype=torch.float32)
        yield Figure(f"float32 product, TF32 {name}", rate / 1e12, "TFLOP/s")
        with tempfile.TemporaryDirectory() as folder:
            seconds = timed(our_trainer(setup, folder, bf16=False), setup)
        yield Figure(f"step in float32, TF32 {name}", 1e3 * seconds, "ms")


PARTS = [
    Part("ours", 60, ours),
    Part("plain", 50, plain),
    Part("textbook", 50, as_published),
    Part("liger", 40, liger),
    Part("profile", 45, profile),
    Part("compiled", 90, compiled),
    Part("tf32", 50, precision),
]
