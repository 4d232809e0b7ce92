"""Compares the results on a GPU with those in float64 on the CPU (`--check`).

It needs no network and no files: weights and tokens are random. `--device cpu` rehearses it. It
prints a table of the largest differences, and exits with 1 if one is above its tolerance. It was
never run on a GPU yet; it is meant to take three minutes there.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from torch import Tensor

import distil_trainer
from benchmarks import machine
from distil_trainer.objectives import losses
from distil_trainer.objectives.vocab_head import Decoder, HeadWeights, head_losses

KINDS = ("masked", "restricted", "causal", "classification", "tokens", "questions")
EXAMPLES = 8
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Size(NamedTuple):
    """The shape of all models and batches."""

    hidden: int
    vocabulary: int
    length: int
    rows: int


SIZES = {"small": Size(32, 160, 24, 40), "full": Size(384, 30522, 96, 2500)}


class Row(NamedTuple):
    """One line of the table."""

    name: str
    difference: float
    tolerance: float
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the difference is a number within the tolerance."""
        return not self.error and self.difference <= self.tolerance


class Tolerance(NamedTuple):
    """How far value and gradient may be from float64, relative to the largest number."""

    value: float
    gradient: float


FLOAT32 = Tolerance(5e-6, 1e-5)
BF16_SUMS = Tolerance(5e-6, 3e-2)  # the inputs are rounded before they are compared; sums are wide
BF16 = Tolerance(1e-3, 3e-2)


# Losses and head


def loss_terms(size: Size, device: str) -> Iterator[Row]:
    """Check every loss function on its own, in float32 and bf16."""
    draw = _drawer(size)
    rows, mask = size.rows, torch.rand(size.rows, generator=torch.Generator().manual_seed(1)) < 0.8
    student, teachers = draw(rows, 64), [draw(rows, 64), draw(rows, 64)]
    classes = torch.arange(rows) % 64
    classes[::5] = losses.IGNORED
    numbers, scores = draw(rows), draw(rows)
    terms: dict[str, tuple[Callable[..., losses.Term], Tensor, list[Any]]] = {
        "soft_target_kl": (
            lambda z, one, two, m: losses.soft_target_kl(z, [one, two], m, 2.0),
            student,
            [*teachers, mask],
        ),
        "cross_entropy": (losses.cross_entropy, student, [classes]),
        "logit_mse": (
            lambda z, one, two, m: losses.logit_mse(z, [one, two], m),
            student,
            [*teachers, mask],
        ),
        "hidden_cosine": (losses.hidden_cosine, student, [teachers[0], mask]),
        "squared_error": (losses.squared_error, numbers, [scores]),
    }
    for name, (function, leaf, rest) in terms.items():
        for dtype, allowed in ((torch.float32, FLOAT32), (torch.bfloat16, BF16_SUMS)):
            rounded = [_as(each, dtype) for each in (leaf, *rest)]
            ours = _summed(function, [each.to(device) for each in rounded])
            exact = _summed(function, [_as(each, torch.float64) for each in rounded])
            yield from _compared(f"{name}, {_short(dtype)}", ours, exact, allowed)


def vocabulary_head(size: Size, device: str) -> Iterator[Row]:
    """Check the fused head against the losses on full logits."""
    draw = _drawer(size)
    rows, width, words = size.rows, size.hidden, size.vocabulary
    labels = torch.randint(words, (rows // 6,), generator=torch.Generator().manual_seed(2))
    padded = torch.full((rows,), losses.IGNORED)
    padded[: len(labels)] = labels
    scale = 2 / math.sqrt(width)
    numbers = [draw(rows, width), draw(words, width) * scale, draw(words)]
    taught = [draw(rows, width), draw(words, width) * scale, draw(words)]
    weights = HeadWeights(ce=5 / rows, hard=2 / len(labels), mse=0.1 / rows)

    def ours(dtype: torch.dtype, *, autocast: bool) -> tuple[Tensor, list[Tensor]]:
        hidden, weight, bias = leaves = [
            each.to(device, dtype).requires_grad_() for each in numbers
        ]
        their_hidden, *theirs = (each.to(device, dtype) for each in taught)
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            result = head_losses(
                hidden,
                Decoder(weight, bias),
                [(their_hidden, Decoder(*theirs))],
                labels.to(device),
                weights=weights,
                temperature=2.0,
            )
        return result.objective, list(torch.autograd.grad(result.objective, leaves))

    def exact(dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        hidden, weight, bias = leaves = [
            each.to(dtype).double().requires_grad_() for each in numbers
        ]
        their_hidden, their_weight, their_bias = (each.to(dtype).double() for each in taught)
        logits = hidden @ weight.t() + bias
        theirs = [their_hidden @ their_weight.t() + their_bias]
        everywhere = torch.ones(rows, dtype=torch.bool)
        objective = (
            weights.ce * losses.soft_target_kl(logits, theirs, everywhere, 2.0).total
            + weights.hard * losses.cross_entropy(logits, padded).total
            + weights.mse * losses.logit_mse(logits, theirs, everywhere).total
        )
        return objective, list(torch.autograd.grad(objective, leaves))

    plain = exact(torch.float32)
    yield from _compared("head, float32", ours(torch.float32, autocast=False), plain, FLOAT32)
    yield from _compared("head, bf16 autocast", ours(torch.float32, autocast=True), plain, BF16)
    half = ours(torch.bfloat16, autocast=False)
    yield from _compared("head, bf16 weights", half, exact(torch.bfloat16), BF16)


def _drawer(size: Size) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(size.rows)
    return lambda *shape: torch.randn(*shape, generator=generator)


def _as(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return numbers in another precision; masks and labels stay what they are."""
    return values.to(dtype) if values.is_floating_point() else values


def _summed(
    function: Callable[..., losses.Term], inputs: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return a loss and its gradient with respect to the first input."""
    point = inputs[0].detach().requires_grad_()
    total = function(point, *inputs[1:]).total
    return total, list(torch.autograd.grad(total, point))


def _short(dtype: torch.dtype) -> str:
    return "bf16" if dtype == torch.bfloat16 else str(dtype).removeprefix("torch.")


# Updates


def updates(kind: str, size: Size, device: str) -> Iterator[Row]:
    """Check one update of a kind of objective, and that 8x1 = 4x2."""
    exact = one_update(kind, size, "cpu", exact=True)
    whole = one_update(kind, size, device)
    yield from _compared(f"{kind}, float32", whole, exact, FLOAT32)
    yield from _compared(f"{kind}, bf16", one_update(kind, size, device, bf16=True), exact, BF16)
    split = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    yield from _compared(f"{kind}, 4x2 = 8x1", one_update(kind, size, device, **split), whole)


def resuming(size: Size, device: str) -> Iterator[Row]:
    """Check that a resumed run ends in the bits of one that was not interrupted."""
    settings = {"max_steps": 4, "per_device_train_batch_size": 2, "save_steps": 2}

    def weights(folder: str, **more: Any) -> list[Tensor]:
        trainer = make_trainer(
            "masked", size, device, folder, dropout=0.1, save_strategy="steps", **settings
        )
        trainer.train(**more)
        return [each.detach().cpu() for each in trainer.student.state_dict().values()]

    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        whole = weights(first)
        yield Row("the same run twice", _largest(weights(second), whole), 0.0)
        resumed = weights(first, resume_from_checkpoint=f"{first}/checkpoint-2")
        yield Row("a resumed run", _largest(resumed, whole), 0.0)


def _largest(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    pairs = zip(ours, theirs, strict=True)
    differences = [(one.double() - other.double()).abs().max() for one, other in pairs]
    return float(torch.stack(differences).max())  # Python's max would lose a NaN


def one_update(
    kind: str, size: Size, device: str, *, exact: bool = False, **settings: Any
) -> tuple[Tensor, list[Tensor]]:
    """Return the loss and the unclipped gradient of an update over all examples.

    Args:
        kind: the kind of objective.
        size: the size of the models.
        device: where to compute.
        exact: whether models are float64.
        settings: further training arguments.
    """
    seen = _Gradients()
    arguments = {"max_steps": 1, "per_device_train_batch_size": EXAMPLES, "max_grad_norm": 1e9}
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(kind, size, device, folder, exact=exact, **(arguments | settings))
        trainer.add_callback(seen)
        trainer.train()
    (entry,) = (entry for entry in trainer.state.log_history if "loss" in entry)
    return torch.tensor(entry["loss"], dtype=torch.float64), seen.last


class _Gradients(transformers.TrainerCallback):
    """Keeps the gradient of the last update."""

    last: list[Tensor]

    def on_pre_optimizer_step(self, args, state, control, model=None, **_) -> None:
        self.last = [each.grad.clone() for each in model.parameters() if each.grad is not None]


def make_trainer(
    kind: str,
    size: Size,
    device: str,
    folder: str,
    *,
    dropout: float = 0.0,
    exact: bool = False,
    **settings: Any,
) -> Any:
    """Return a trainer of a small random student with a random teacher.

    Args:
        kind: the kind of objective.
        size: the size of the models.
        device: where to train.
        folder: for checkpoints.
        dropout: the student's and the teacher's; a teacher has none in use.
        exact: whether models are float64.
        settings: further training arguments.
    """
    teacher, student = _pair(kind, size, dropout)
    if exact:
        teacher, student = teacher.double(), student.double()
    tokenizer = None if kind == "causal" else _tokenizer(size)
    extra = {}
    if kind == "tokens":
        extra["data_collator"] = transformers.DataCollatorForTokenClassification(tokenizer)
    elif kind in ("classification", "questions"):
        extra["data_collator"] = transformers.DataCollatorWithPadding(tokenizer)
    arguments = {
        "output_dir": folder,
        "use_cpu": device == "cpu",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "restrict_ce_to_mask": kind == "restricted",
        "alpha_mse": 0.1 if kind in ("masked", "causal") else None,
    }
    trainer = distil_trainer.DistilTrainer(
        student,
        distil_trainer.DistilTrainingArguments(**(arguments | settings)),
        teacher=teacher,
        train_dataset=_examples(kind, size),
        processing_class=tokenizer,
        **extra,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _pair(kind: str, size: Size, dropout: float) -> tuple[Any, Any]:
    torch.manual_seed(0)
    if kind == "causal":
        config = transformers.GPT2Config(
            n_layer=4, n_embd=size.hidden, n_head=4, vocab_size=size.vocabulary,
            n_positions=2 * size.length, bos_token_id=0, eos_token_id=0, pad_token_id=0,
            resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
        )  # fmt: skip
        teacher = transformers.GPT2LMHeadModel(config)
        return teacher, distil_trainer.make_student(teacher, num_layers=2)
    labels = {} if kind == "questions" else {"num_labels": 3}
    big = transformers.BertConfig(
        num_hidden_layers=4, hidden_size=size.hidden, num_attention_heads=4,
        intermediate_size=4 * size.hidden, vocab_size=size.vocabulary,
        max_position_embeddings=2 * size.length, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout, **labels,
    )  # fmt: skip
    if kind in ("masked", "restricted"):
        teacher = transformers.BertForMaskedLM(big)
        return teacher, distil_trainer.make_student(teacher, num_layers=2)
    small = transformers.DistilBertConfig(
        n_layers=2, dim=size.hidden, n_heads=4, hidden_dim=4 * size.hidden,
        vocab_size=size.vocabulary, max_position_embeddings=2 * size.length, dropout=dropout,
        attention_dropout=dropout, qa_dropout=dropout, seq_classif_dropout=dropout, **labels,
    )  # fmt: skip
    head = {
        "classification": "SequenceClassification",
        "tokens": "TokenClassification",
        "questions": "QuestionAnswering",
    }[kind]
    teacher = getattr(transformers, f"BertFor{head}")(big)
    return teacher, getattr(transformers, f"DistilBertFor{head}")(small)


def _tokenizer(size: Size) -> Any:
    words = [*SPECIAL, *(f"w{number}" for number in range(size.vocabulary - len(SPECIAL)))]
    return transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words)})


def _examples(kind: str, size: Size) -> list[dict[str, Any]]:
    """Return random examples of very different lengths."""
    draw = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for length in np.linspace(4, size.length, EXAMPLES).astype(int):
        ids = [2, *draw.integers(len(SPECIAL), size.vocabulary, length).tolist(), 3]
        row: dict[str, Any] = {"input_ids": ids}
        if kind in ("classification", "tokens", "questions"):
            row["attention_mask"] = [1] * len(ids)
        if kind == "classification":
            row["labels"] = int(draw.integers(3))
        elif kind == "tokens":
            row["labels"] = draw.integers(0, 3, len(ids)).tolist()
        elif kind == "questions":
            row["start_positions"], row["end_positions"] = draw.integers(0, len(ids), 2).tolist()
        rows.append(row)
    return rows


# The table


def _compared(
    name: str,
    ours: tuple[Tensor, Sequence[Tensor]],
    exact: tuple[Tensor, Sequence[Tensor]],
    allowed: Tolerance = FLOAT32,
) -> Iterator[Row]:
    """Yield the differences of a value and its gradients, relative to the largest number."""
    value = _relative([ours[0]], [exact[0]])
    yield Row(f"{name}: value", value, allowed.value)
    yield Row(f"{name}: gradient", _relative(ours[1], exact[1]), allowed.gradient)


def _relative(ours: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    ours, exact = ([each.detach().cpu().double() for each in all_] for all_ in (ours, exact))
    largest = max(float(each.abs().max()) for each in exact)
    return _largest(ours, exact) / largest


def check(size: Size, device: str) -> list[Row]:
    """Return the table's rows; a check that breaks is a row too, and the others go on."""
    checks: Mapping[str, Callable[[], Iterator[Row]]] = {
        "losses": lambda: loss_terms(size, device),
        "head": lambda: vocabulary_head(size, device),
        **{kind: lambda kind=kind: updates(kind, size, device) for kind in KINDS},
        "resume": lambda: resuming(size, device),
    }
    rows: list[Row] = []
    for name, each in checks.items():
        try:
            rows.extend(each())
        except Exception as error:  # noqa: BLE001  (a GPU's time is rare: the others still count)
            line = str(error).strip().split("\n", maxsplit=1)[0]
            rows.append(Row(name, math.nan, math.nan, f"{type(error).__name__}: {line}"))
    return rows


def report(size: str, device: str) -> int:
    """Print the table; return the exit status."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"{machine.describe(device)}; transformers {transformers.__version__}; size {size}")
    started = time.perf_counter()
    rows = check(SIZES[size], device)
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}}  difference  tolerance")
    for row in rows:
        verdict = "ok" if row.ok else f"FAILED {row.error}".strip()
        print(f"{row.name:{width}}  {row.difference:10.1e}  {row.tolerance:9.0e}  {verdict}")
    failed = sum(not row.ok for row in rows)
    seconds = time.perf_counter() - started
    print(f"{len(rows) - failed} of {len(rows)} ok, {seconds:.0f} s")
    return 1 if failed else 0
