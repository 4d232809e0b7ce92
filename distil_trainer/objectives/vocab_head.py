"""The vocabulary head: logits, losses and their gradients, a block of rows at a time.

The logits of all tokens are by far the largest tensors of a distillation step, and a textbook
implementation holds about eight of them. Here they are never materialised. One pass over a block of
rows computes the student's and the teachers' logits, the values of L_ce, L_mlm and L_mse, the
gradient with respect to the logits, and its products with the decoder and the hidden states.
Backward only scales these.

Values and gradients equal those of `losses` on full logits up to rounding, which is tested.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distil_trainer.objectives.losses import (
    FLAT_TEMPERATURE,
    IGNORED,
    Term,
    difference_from_mean,
    flat_kl,
    log_of_mean,
)
from distil_trainer.recipe import Divergence

Weight = float | Tensor


class Decoder(NamedTuple):
    """The projection onto the vocabulary."""

    weight: Tensor
    """[V, H]; it may be the embedding table itself."""
    bias: Tensor | None
    """[V]."""


class HeadWeights(NamedTuple):
    """The factor of each sum: its alpha divided by its count over the whole batch.

    The float 0.0 switches a term off, which then costs nothing. A tensor's value is never read,
    since that would make the host wait for a GPU.
    """

    ce: Weight = 0.0
    hard: Weight = 0.0
    mse: Weight = 0.0


class HeadLosses(NamedTuple):
    """The head's losses. Only `objective` carries a gradient; a term switched off is 0 over 0."""

    objective: Tensor
    ce: Term
    hard: Term
    mse: Term
    agreement: Term
    """Labelled rows where student and teacher rank the same token first."""


class Rows(NamedTuple):
    """The positions that the head computes, in the order that it requires.

    Rows with a label come first, so that they are a plain slice of every block and nothing as wide
    as the vocabulary is ever gathered.
    """

    positions: Tensor
    """[N] indices into the flattened batch."""
    labels: Tensor
    """[L] true tokens of the first L rows."""


def order_rows(labels: Tensor, soft: Tensor) -> Rows:
    """Find and order the rows of a batch for `head_losses`.

    Best called while the batch is still on the CPU: the number of rows depends on the data, so on a
    GPU the host waits for it.

    Args:
        labels: True tokens of any shape, -100 at positions without a target.
        soft: Boolean of the same shape, true where soft targets apply: all attended positions, or
            only those with a label. It covers every position with a label.
    """
    labels, soft = labels.reshape(-1), soft.reshape(-1)
    hard = labels != IGNORED
    labelled, others = (mask.nonzero().squeeze(1) for mask in (hard, soft & ~hard))
    return Rows(torch.cat((labelled, others)), labels[labelled])


# Already fused by hand; torch.compile would unroll its loops, again for each number of rows.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def head_losses(
    hidden: Tensor,
    decoder: Decoder,
    teachers: Sequence[tuple[Tensor, Decoder]],
    labels: Tensor,
    *,
    weights: HeadWeights,
    temperature: float,
    divergence: Divergence = "kl",
    count_agreement: bool = False,
    block_rows: int | None = None,
) -> HeadLosses:
    """Return the losses of the vocabulary head on ordered rows (see `Rows`), with their gradient.

    Inside `torch.autocast` products are computed in its dtype; softmax and sums always in float32,
    or in float64 for a float64 student. Float16 is for teachers only: the gradient with respect to
    the logits is computed before a loss scaler could keep it from underflowing.

    Args:
        hidden: [N, H], the input of the student's decoder.
        decoder: The student's decoder.
        teachers: Hidden states [N, H_t] and decoder of each teacher; empty if ce and mse are off.
        labels: [L] true tokens of the first L rows.
        weights: Factors of the three terms in the objective.
        temperature: T of the soft targets.
        divergence: How L_ce measures the distance from the soft targets.
        count_agreement: Also count the labelled rows where both rank the same token first.
        block_rows: How many rows have logits at the same time [what suits the device].
    """
    at_once = _block_rows(decoder.weight) if block_rows is None else block_rows
    call = _Call(labels, weights, temperature, divergence, count_agreement, at_once)
    objective, *totals = _Head.apply(  # type: ignore[no-untyped-call]  # apply has no types
        hidden, decoder.weight, decoder.bias, teachers, call, torch.is_grad_enabled()
    )
    return HeadLosses(objective, *map(Term, totals, call.counts(hidden)))


@dataclass(frozen=True)
class _Call:
    """The arguments of one call that all blocks of rows share."""

    labels: Tensor
    weights: HeadWeights
    temperature: float
    divergence: Divergence
    count_agreement: bool
    block_rows: int

    @property
    def needs_teachers(self) -> bool:
        """Whether any result depends on the teachers."""
        return _is_on(self.weights.ce) or _is_on(self.weights.mse) or self.count_agreement

    def factors(self, like: Tensor) -> Tensor:
        """Return the factors with which the gradients of ce, hard and mse are added up.

        T and 2 come from differentiating T² · KL(z / T) and d².
        """
        ce, hard, mse = self.weights
        return _stack_weights((ce * self.temperature, hard, mse * 2), like)

    def counts(self, hidden: Tensor) -> list[Tensor]:
        """Return the number of rows over which ce, hard, mse and agreement were summed."""
        rows = len(hidden)
        counts = (
            rows * _is_on(self.weights.ce),
            len(self.labels) * _is_on(self.weights.hard),
            rows * _is_on(self.weights.mse),
            len(self.labels) * self.count_agreement,
        )
        # Filled on the device: a copy from the host would wait for a GPU.
        return [torch.full((), n, dtype=torch.int64, device=hidden.device) for n in counts]


class _Head(torch.autograd.Function):
    """The head as one autograd node, whose forward computes values and gradients together."""

    @staticmethod
    def forward(  # noqa: PLR0917  (apply takes no keywords)
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teachers: Sequence[tuple[Tensor, Decoder]],
        call: _Call,
        grad_enabled: bool,  # noqa: FBT001  (as above)
    ) -> tuple[Tensor, ...]:
        # Inside forward autograd is off, so whether it was on is an argument.
        needed = [grad_enabled and needs_grad for needs_grad in ctx.needs_input_grad[:3]]
        device = hidden.device.type
        autocast = torch.is_autocast_enabled(device)
        product_dtype = torch.get_autocast_dtype(device) if autocast else None
        # Autocast doesn't apply to `out=`, so it is switched off and its dtype used explicitly.
        with torch.autocast(device, enabled=False):
            student = _Projection(hidden, Decoder(weight, bias), product_dtype, call.block_rows)
            gradients = _Gradients(student, needed)
            frozen = [
                _Projection(*teacher, product_dtype, call.block_rows)
                for teacher in teachers
                if call.needs_teachers
            ]
            values = _process_blocks(student, frozen, gradients, call)
        ctx.save_for_backward(*gradients.cast_like(hidden, weight, bias))
        totals = values.sum(1)
        objective = torch.dot(_stack_weights(call.weights, totals), totals[:3])
        outputs = totals.unbind()
        ctx.mark_non_differentiable(*outputs)
        return objective, *outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_objective: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        # In place, since one of these is as large as the embedding table; autograd itself then
        # raises on a second backward through the same graph.
        scaled = [g if g is None else g.mul_(grad_objective) for g in ctx.saved_tensors]
        return *scaled, None, None, None


class _Projection:
    """hidden · weightᵀ + bias, a block of rows at a time, in one buffer that all blocks reuse."""

    def __init__(
        self, hidden: Tensor, decoder: Decoder, product_dtype: torch.dtype | None, block_rows: int
    ) -> None:
        dtype = product_dtype or decoder.weight.dtype
        self.hidden = hidden.detach().to(dtype)
        self.weight = decoder.weight.detach().to(dtype)
        bias = decoder.bias
        self.bias = torch.zeros_like(self.weight[:, 0]) if bias is None else bias.detach().to(dtype)
        self.wide_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        shape = min(len(hidden), block_rows), len(self.weight)
        self._buffer = torch.empty(shape, dtype=self.wide_dtype, device=hidden.device)

    def logits(self, rows: slice, temperature: float) -> Tensor:
        """Return some rows' logits divided by the temperature, which is free inside the product."""
        hidden = self.hidden[rows]
        out = self._buffer[: len(hidden)]
        scale = 1 / temperature
        # Division by a T below 1 enlarges the rounding of a product in bf16: by 10 at T = 0.1,
        # where that alone moved a gradient by 5 %. So these products are rounded to float32.
        dtype = out.dtype if temperature < 1 else hidden.dtype
        hidden = hidden.to(dtype)
        for part in _slices(len(self.weight), _columns(hidden, self.weight)):
            bias, weight = self.bias[part].to(dtype), self.weight[part].to(dtype).t()
            if out.dtype == hidden.dtype:
                torch.addmm(bias, hidden, weight, beta=scale, alpha=scale, out=out[:, part])
            else:
                out[:, part] = torch.addmm(bias, hidden, weight, beta=scale, alpha=scale)
        return out


class _Gradients:
    """Gradients of the student's hidden states, weight and bias: those of them that are needed."""

    def __init__(self, student: _Projection, needed: Sequence[bool]) -> None:
        self._student = student
        self.hidden, self.weight, self.bias = (
            torch.zeros_like(tensor, dtype=student.wide_dtype) if is_needed else None
            for tensor, is_needed in zip(
                (student.hidden, student.weight, student.bias), needed, strict=True
            )
        )
        self.any = any(needed)

    def add(self, rows: slice, gradient: Tensor) -> None:
        """Accumulate from the gradient with respect to some rows' logits."""
        hidden, weight = self._student.hidden[rows], self._student.weight
        if self.bias is not None:
            self.bias += gradient.sum(0)
        gradient = gradient.to(hidden.dtype)
        if self.hidden is not None:
            _add_product(self.hidden[rows], gradient, weight)
        if self.weight is not None:
            _add_product(self.weight, gradient.t(), hidden)

    def cast_like(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """Return the gradients in the precision of the three inputs that they belong to."""
        parts = self.hidden, self.weight, self.bias
        return [
            None if part is None or like is None else part.to(like.dtype)
            for part, like in zip(parts, tensors, strict=True)
        ]


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left · right to total, in total's precision whatever that of the product is."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _process_blocks(
    student: _Projection, teachers: Sequence[_Projection], gradients: _Gradients, call: _Call
) -> Tensor:
    """Return the values [4, N] of ce, hard, mse and agreement per row; fill the gradients."""
    count = len(student.hidden)
    values = torch.zeros(4, count, dtype=student.wide_dtype, device=student.hidden.device)
    factors = call.factors(values)
    for block in _slices(count, call.block_rows):
        logits = student.logits(block, call.temperature)
        targets = [teacher.logits(block, call.temperature) for teacher in teachers]
        # A block is large enough for fast products; the element-wise passes over its logits run on
        # smaller parts that stay in the cache.
        for part in _slices(len(logits), _cached_rows(logits)):
            rows = slice(block.start + part.start, block.start + part.stop)
            ours, theirs = logits[part], [target[part] for target in targets]
            contributions = _write_values(ours, theirs, values[:, rows], rows, call)
            if gradients.any:
                # The logits are needed no more: their buffer takes their gradient.
                _combine(ours, contributions, factors)
        if gradients.any:
            gradients.add(block, logits)
    return values


class _Contribution(NamedTuple):
    """A term's gradient with respect to some rows' logits, not yet weighted."""

    term: int
    rows: slice
    gradient: Tensor


def _write_values(
    student: Tensor, teachers: Sequence[Tensor], values: Tensor, rows: slice, call: _Call
) -> list[_Contribution]:
    """Write some rows' values; return the terms' gradients with respect to the rows' logits.

    All logits come divided by T; the labels' cross-entropy and the squared error undo that.
    """
    ce, hard, mse, agreement = values
    temperature = call.temperature
    contributions = []
    labels = call.labels[rows]  # empty beyond the labelled rows, which come first
    if _is_on(call.weights.hard) and len(labels):
        labelled = slice(0, len(labels))
        hard[labelled], gradient = _cross_entropy(student[labelled] * temperature, labels)
        contributions.append(_Contribution(1, labelled, gradient))
    if _is_on(call.weights.ce):
        measure = _DIVERGENCES[call.divergence]
        divergence, gradient = measure(student, teachers, temperature)
        ce[:] = divergence * temperature**2
        contributions.append(_Contribution(0, slice(None), gradient))
    if _is_on(call.weights.mse):
        difference = (student - torch.stack(list(teachers)).mean(0)).mul_(temperature)
        mse[:] = difference.square().sum(-1)
        contributions.append(_Contribution(2, slice(None), difference))
    if call.count_agreement and len(labels):
        ours, *theirs = (logits[: len(labels)] for logits in (student, *teachers))
        agreement[: len(labels)] = ours.argmax(-1) == _average(theirs)[0].argmax(-1)
    return contributions


def _combine(logits: Tensor, contributions: Sequence[_Contribution], factors: Tensor) -> None:
    """Overwrite logits with the weighted sum of the gradients with respect to them."""
    logits.zero_()
    for term, rows, gradient in contributions:
        logits[rows].addcmul_(gradient, factors[term])


def _is_on(weight: Weight) -> bool:
    return isinstance(weight, Tensor) or weight != 0


def _stack_weights(weights: Sequence[Weight], like: Tensor) -> Tensor:
    """Return weights as one tensor, without a copy between host and device."""
    return torch.stack([like.new_zeros(()) + weight for weight in weights])


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each row and its gradient: softmax minus one-hot."""
    probabilities, log_normaliser = _softmax(logits)
    targets = labels.unsqueeze(1)
    loss = log_normaliser - logits.gather(1, targets).squeeze(1)
    return loss, probabilities.scatter_add_(1, targets, -torch.ones_like(loss).unsqueeze(1))


def _divergence(
    student: Tensor, teachers: Sequence[Tensor], temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the KL divergence of each row and its gradient, for logits already divided by T."""
    target, negative_entropy = _average(teachers)
    probabilities, log_normaliser = _softmax(student)
    divergence = negative_entropy - (target * student).sum(-1) + log_normaliser
    if temperature < FLAT_TEMPERATURE:
        return divergence, probabilities.sub_(target)
    flat = flat_kl(target, difference_from_mean(student, teachers), probabilities > 0)
    gradient = torch.where(flat.applies.unsqueeze(-1), flat.slope, probabilities - target)
    return torch.where(flat.applies, flat.divergence, divergence), gradient


def _reverse_divergence(
    student: Tensor, teachers: Sequence[Tensor], temperature: float
) -> tuple[Tensor, Tensor]:
    """Do the same for the divergence of the teachers' distribution from the student's.

    Its gradient q · (d - Σ q d), of the logits' differences d, is exact at any temperature.
    """
    probabilities, log_normaliser = _softmax(student)
    flat = temperature >= FLAT_TEMPERATURE
    difference = student - log_of_mean(teachers)
    if flat:
        possible = difference < torch.inf
        difference = difference_from_mean(student, teachers)
    difference.masked_fill_(probabilities == 0, 0.0)  # where both are -inf it is NaN: 0 · NaN
    mean = (probabilities * difference).sum(-1)
    divergence = mean - log_normaliser
    if flat:
        divergence += teachers[0].logsumexp(-1)
        exact = flat_kl(probabilities, -difference, possible)
        divergence = torch.where(exact.applies, exact.divergence, divergence)
    return divergence, difference.sub_(mean.unsqueeze(-1)).mul_(probabilities)


_DIVERGENCES = {"kl": _divergence, "reverse_kl": _reverse_divergence}


def _average(teachers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the teachers' mean distribution p, and Σ p log p of each row."""
    if len(teachers) == 1:
        (logits,) = teachers
        target, log_normaliser = _softmax(logits)
        return target, (target * logits).sum(-1) - log_normaliser
    target = torch.stack([logits.softmax(-1) for logits in teachers]).mean(0)
    return target, torch.special.xlogy(target, target).sum(-1)


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax of each row and the logarithm of its normaliser.

    The logarithm follows from the largest probability, so one pass of exponentials is enough.
    """
    probabilities = logits.softmax(-1)
    return probabilities, logits.amax(-1) - probabilities.amax(-1).log()


def _slices(length: int, step: int) -> Iterator[slice]:
    """Return consecutive slices that cover a length."""
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


# Block sizes were chosen on two shared CPU cores (2,048 rows, width 256, vocabulary 30,522). The
# numbers are the share of the machine's matrix-product rate that the four products reach, by rows
# per block, columns per product and rows per pass.
# One run: 512, 2048, 32: 0.77; 256, 512, 16: 0.74; 256, 4096, 32: 0.72; 256, 2048, 64: 0.68.
# Another: 256, 1024, 8: 0.69; 256, all, 8: 0.66; 256, 1024, all: 0.51. Repeats differ by 0.05.
# Small pieces stay in the cache, but all threads synchronise at each: with both cores busy
# elsewhere, 256, 512, 16 went from 0.9 s to 37 s, and 512, 2048, 32 to between 2 and 11 s.
# torch.compile was tried for the passes over the logits (inductor, with and without blocks of
# rows) and dropped: 13 to 28 ms per block against 9 to 13 ms for the plain operations above, whose
# softmax takes its exponentials once.


# Of 250,002 words, 384 wide, 1,024 rows took 7.1 to 10.4 s with 512 rows a block (2.7 GB), 6.6 to
# 7.8 with 256 (2.3), 6.9 to 9.1 with 128 (2.0), 8.3 to 9.7 with 64 (1.9), 10.8 to 12.0 with 32.
_MOST_LOGITS = 2**25
"""Of a block on a CPU, as float32 128 MB."""


def _block_rows(weight: Tensor) -> int:
    """Return how many rows have logits at the same time; off the CPU an unmeasured guess."""
    if weight.device.type != "cpu":
        return 2048
    possible = (512, 256, 128, 64)
    return next((rows for rows in possible if rows * len(weight) <= _MOST_LOGITS), possible[-1])


def _columns(hidden: Tensor, weight: Tensor) -> int:
    """Return how many columns of logits one product computes."""
    return 1024 * torch.get_num_threads() if hidden.device.type == "cpu" else len(weight)


def _cached_rows(logits: Tensor) -> int:
    """Return how many rows go through all passes together: on a CPU, what its L2 cache holds."""
    return 16 * torch.get_num_threads() if logits.device.type == "cpu" else len(logits)
