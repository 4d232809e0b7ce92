"""The vocabulary head: logits, losses and their gradients, a block of rows at a time.

The logits of all tokens are by far the largest tensors of a distillation step, and the textbook
way keeps about eight of them. Here they never exist. One pass over a block of rows makes the
student's and the teachers' logits, the values of L_ce, L_mlm and L_mse, the gradient in the logits,
and at once its products with the decoder and the hidden states. Backward has only to scale them.

Values and gradients equal those of `losses` on full logits up to rounding; that is tested.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distil_trainer.objectives.losses import IGNORED, Term

Weight = float | Tensor


class Decoder(NamedTuple):
    """The projection onto the vocabulary."""

    weight: Tensor
    """[V, H]; it may be the embedding's own table."""
    bias: Tensor | None
    """[V]."""


class HeadWeights(NamedTuple):
    """What each sum is multiplied with: its alpha divided by its count over the whole batch.

    The float 0.0 switches a term off, and then it costs nothing. A tensor is never looked into,
    since that would make a GPU wait.
    """

    ce: Weight = 0.0
    hard: Weight = 0.0
    mse: Weight = 0.0


class HeadLosses(NamedTuple):
    """What the head found. Only `objective` carries a gradient; a term switched off is 0 over 0."""

    objective: Tensor
    ce: Term
    hard: Term
    mse: Term
    agreement: Term
    """On how many soft rows student and teacher put the same token first."""


class Rows(NamedTuple):
    """The positions that matter to the head, in the order that it wants them.

    Rows with a label come first, so that they are a plain slice of every block and nothing as wide
    as the vocabulary is ever gathered.
    """

    positions: Tensor
    """[N] places in the flattened batch."""
    labels: Tensor
    """[L] true tokens of the first L rows."""


def order_rows(labels: Tensor, soft: Tensor) -> Rows:
    """Find and order the rows of a batch for `head_losses`.

    Best called where the batch is still on the CPU: how many rows there are depends on the data, so
    on a GPU this waits for it.

    Args:
        labels: True tokens of any shape, -100 where there is no target.
        soft: Boolean of the same shape, true where soft targets apply: all attended positions, or
            only those with a label. It covers every position with a label.
    """
    labels, soft = labels.reshape(-1), soft.reshape(-1)
    hard = labels != IGNORED
    labelled, others = (mask.nonzero().squeeze(1) for mask in (hard, soft & ~hard))
    return Rows(torch.cat((labelled, others)), labels[labelled])


# Fused by hand already; torch.compile would unroll its loops, anew for each number of rows.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def head_losses(
    hidden: Tensor,
    decoder: Decoder,
    teachers: Sequence[tuple[Tensor, Decoder]],
    labels: Tensor,
    *,
    weights: HeadWeights,
    temperature: float,
    want_agreement: bool = False,
) -> HeadLosses:
    """Losses of the vocabulary head on ordered rows (see `Rows`), with their gradient.

    Inside `torch.autocast` the products are taken in its dtype; softmax and sums always in float32,
    or in float64 for a float64 student. Float16 is for teachers only: the gradient in the logits is
    made before a loss scaler could keep it from vanishing.

    Args:
        hidden: [N, H], what the student's head hands to its decoder.
        decoder: The student's.
        teachers: Hidden states [N, H_t] and decoder of each; empty if neither ce nor mse is wanted.
        labels: [L] true tokens of the first L rows.
        weights: Factors of the three terms in the objective.
        temperature: T of the soft targets.
        want_agreement: Also count at how many labelled rows both have one likeliest token.
    """
    request = _Request(labels, weights, temperature, want_agreement)
    objective, *totals = _Head.apply(  # type: ignore[no-untyped-call]  # apply has no types
        hidden, decoder.weight, decoder.bias, teachers, request, torch.is_grad_enabled()
    )
    return HeadLosses(objective, *map(Term, totals, request.counts(hidden)))


@dataclass(frozen=True)
class _Request:
    """What one call asks for: the same for all blocks of rows."""

    labels: Tensor
    weights: HeadWeights
    temperature: float
    want_agreement: bool

    @property
    def wants_teachers(self) -> bool:
        """Whether anything here looks at the teachers."""
        return _is_on(self.weights.ce) or _is_on(self.weights.mse) or self.want_agreement

    def factors(self, like: Tensor) -> Tensor:
        """What the gradients of ce, hard and mse are multiplied with where they are added up.

        T and 2 come from differentiating T² · KL(z / T) and d².
        """
        ce, hard, mse = self.weights
        return _stacked((ce * self.temperature, hard, mse * 2), like)

    def counts(self, hidden: Tensor) -> list[Tensor]:
        """Over how many rows ce, hard, mse and agreement were summed."""
        softened = len(hidden)
        counts = (
            softened * _is_on(self.weights.ce),
            len(self.labels) * _is_on(self.weights.hard),
            softened * _is_on(self.weights.mse),
            len(self.labels) * self.want_agreement,
        )
        # Filled rather than copied: a copy from the host would make a GPU wait.
        return [torch.full((), n, dtype=torch.int64, device=hidden.device) for n in counts]


class _Head(torch.autograd.Function):
    """The gradient is known as soon as the value is, so forward makes both."""

    @staticmethod
    def forward(  # noqa: PLR0917  (apply takes no keywords)
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teachers: Sequence[tuple[Tensor, Decoder]],
        request: _Request,
        grad_enabled: bool,  # noqa: FBT001  (as above)
    ) -> tuple[Tensor, ...]:
        wanted = [grad_enabled and needed for needed in ctx.needs_input_grad[:3]]
        device = hidden.device.type
        autocast = torch.is_autocast_enabled(device)
        product_dtype = torch.get_autocast_dtype(device) if autocast else None
        # Autocast is switched off because it is followed by hand: it would not reach into `out=`.
        with torch.autocast(device, enabled=False):
            student = _Projection(hidden, Decoder(weight, bias), product_dtype)
            gradients = _Gradients(student, wanted)
            frozen = [
                _Projection(*teacher, product_dtype)
                for teacher in teachers
                if request.wants_teachers
            ]
            values = _sweep(student, frozen, gradients, request)
        ctx.save_for_backward(*gradients.cast_like(hidden, weight, bias))
        totals = values.sum(1)
        objective = torch.dot(_stacked(request.weights, totals), totals[:3])
        outputs = totals.unbind()
        ctx.mark_non_differentiable(*outputs)
        return objective, *outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_objective: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        # In place, since one of these is as large as the embedding table; a second backward through
        # the same graph is then autograd's own error.
        scaled = [g if g is None else g.mul_(grad_objective) for g in ctx.saved_tensors]
        return *scaled, None, None, None


class _Projection:
    """hidden · weightᵀ + bias, some rows at a time, into one buffer that every block reuses."""

    def __init__(self, hidden: Tensor, decoder: Decoder, product_dtype: torch.dtype | None) -> None:
        dtype = product_dtype or decoder.weight.dtype
        self.hidden = hidden.detach().to(dtype)
        self.weight = decoder.weight.detach().to(dtype)
        bias = decoder.bias
        self.bias = torch.zeros_like(self.weight[:, 0]) if bias is None else bias.detach().to(dtype)
        self.wide_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        shape = min(len(hidden), _block_rows(hidden)), len(self.weight)
        self._buffer = torch.empty(shape, dtype=self.wide_dtype, device=hidden.device)

    def logits(self, rows: slice, temperature: float) -> Tensor:
        """Logits of some rows divided by the temperature, which is free inside the product."""
        hidden = self.hidden[rows]
        out = self._buffer[: len(hidden)]
        scale = 1 / temperature
        for part in _slices(len(self.weight), _columns(hidden, self.weight)):
            bias, weight = self.bias[part], self.weight[part].t()
            if out.dtype == hidden.dtype:
                torch.addmm(bias, hidden, weight, beta=scale, alpha=scale, out=out[:, part])
            else:
                out[:, part] = torch.addmm(bias, hidden, weight, beta=scale, alpha=scale)
        return out


class _Gradients:
    """What the gradient in the logits leaves behind; only the parts that somebody needs."""

    def __init__(self, student: _Projection, wanted: Sequence[bool]) -> None:
        self._student = student
        self.hidden, self.weight, self.bias = (
            torch.zeros_like(tensor, dtype=student.wide_dtype) if want else None
            for tensor, want in zip(
                (student.hidden, student.weight, student.bias), wanted, strict=True
            )
        )
        self.any = any(wanted)

    def add(self, rows: slice, gradient: Tensor) -> None:
        """Take in the gradient in the logits of some rows."""
        hidden, weight = self._student.hidden[rows], self._student.weight
        if self.bias is not None:
            self.bias += gradient.sum(0)
        gradient = gradient.to(hidden.dtype)
        if self.hidden is not None:
            _add_product(self.hidden[rows], gradient, weight)
        if self.weight is not None:
            _add_product(self.weight, gradient.t(), hidden)

    def cast_like(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """The gradients of these three inputs, in their own precision."""
        parts = self.hidden, self.weight, self.bias
        return [
            None if part is None or like is None else part.to(like.dtype)
            for part, like in zip(parts, tensors, strict=True)
        ]


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left · right to total: summed in the wide precision, whatever the products have."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _sweep(
    student: _Projection, teachers: Sequence[_Projection], gradients: _Gradients, request: _Request
) -> Tensor:
    """Values [4, N] of ce, hard, mse and agreement for each row; fills the gradients."""
    count = len(student.hidden)
    values = torch.zeros(4, count, dtype=student.wide_dtype, device=student.hidden.device)
    factors = request.factors(values)
    for block in _slices(count, _block_rows(student.hidden)):
        logits = student.logits(block, request.temperature)
        targets = [teacher.logits(block, request.temperature) for teacher in teachers]
        for part in _slices(len(logits), _cached_rows(logits)):
            rows = slice(block.start + part.start, block.start + part.stop)
            ours, theirs = logits[part], [target[part] for target in targets]
            contributions = _visit(ours, theirs, values[:, rows], rows, request)
            if gradients.any:
                _combine(ours, contributions, factors)
        if gradients.any:
            gradients.add(block, logits)
    return values


class _Contribution(NamedTuple):
    """A term's gradient in the logits of some rows, before its weight."""

    term: int
    rows: slice
    gradient: Tensor


def _visit(
    student: Tensor, teachers: Sequence[Tensor], values: Tensor, rows: slice, request: _Request
) -> list[_Contribution]:
    """Write the values of some rows; say what the gradient in their logits is made of."""
    ce, hard, mse, agreement = values
    temperature = request.temperature
    found = []
    labels = request.labels[rows]
    if _is_on(request.weights.hard) and len(labels):
        labelled = slice(0, len(labels))
        hard[labelled], gradient = _cross_entropy(student[labelled] * temperature, labels)
        found.append(_Contribution(1, labelled, gradient))
    if _is_on(request.weights.ce):
        divergence, gradient = _divergence(student, teachers)
        ce[:] = divergence * temperature**2
        found.append(_Contribution(0, slice(None), gradient))
    if _is_on(request.weights.mse):
        difference = (student - torch.stack(list(teachers)).mean(0)).mul_(temperature)
        mse[:] = difference.square().sum(-1)
        found.append(_Contribution(2, slice(None), difference))
    if request.want_agreement and len(labels):
        first = [each[: len(labels)] for each in (student, *teachers)]
        agreement[: len(labels)] = first[0].argmax(-1) == _average(first[1:])[0].argmax(-1)
    return found


def _combine(logits: Tensor, contributions: Sequence[_Contribution], factors: Tensor) -> None:
    """Overwrite logits with the weighted sum of the gradients in them."""
    logits.zero_()
    for term, rows, gradient in contributions:
        logits[rows].addcmul_(gradient, factors[term])


def _is_on(weight: Weight) -> bool:
    return isinstance(weight, Tensor) or weight != 0


def _stacked(weights: Sequence[Weight], like: Tensor) -> Tensor:
    """Weights as one tensor, without a copy between host and device."""
    return torch.stack([like.new_zeros(()) + weight for weight in weights])


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each row and its gradient."""
    probabilities, log_normaliser = _softmax(logits)
    chosen = labels.unsqueeze(1)
    loss = log_normaliser - logits.gather(1, chosen).squeeze(1)
    return loss, probabilities.scatter_add_(1, chosen, -torch.ones_like(loss).unsqueeze(1))


def _divergence(student: Tensor, teachers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """KL divergence of each row and its gradient, of logits already divided by T."""
    target, negative_entropy = _average(teachers)
    probabilities, log_normaliser = _softmax(student)
    divergence = negative_entropy - (target * student).sum(-1) + log_normaliser
    return divergence, probabilities.sub_(target)


def _average(teachers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The teachers' mean distribution, and Σ p log p of each row."""
    if len(teachers) == 1:
        (logits,) = teachers
        target, log_normaliser = _softmax(logits)
        return target, (target * logits).sum(-1) - log_normaliser
    target = torch.stack([logits.softmax(-1) for logits in teachers]).mean(0)
    return target, torch.special.xlogy(target, target).sum(-1)


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of each row and the logarithm of what it was divided by.

    The largest probability gives that logarithm away, so there is only one pass of exponentials.
    """
    probabilities = logits.softmax(-1)
    return probabilities, logits.amax(-1) - probabilities.amax(-1).log()


def _slices(length: int, step: int) -> Iterator[slice]:
    """Consecutive slices that cover a length."""
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


# Tried on two shared CPU cores (2,048 rows, width 256, 30,522 words): the share of the machine's
# product rate that the four products reach, by rows a block, columns a product and rows in a pass.
# One run: 512, 2048, 32: 0.77; 256, 512, 16: 0.74; 256, 4096, 32: 0.72; 256, 2048, 64: 0.68.
# Another: 256, 1024, 8: 0.69; 256, all, 8: 0.66; 256, 1024, all: 0.51. Repeats differ by 0.05.
# Small pieces stay in the cache, but at each all threads meet: with both cores busy elsewhere,
# 256, 512, 16 went from 0.9 s to 37 s, and 512, 2048, 32 to between 2 and 11 s.
# torch.compile was tried for the passes over the logits (inductor, with and without blocks of
# rows): 13 to 28 ms a block against 9 to 13 ms for the plain operations below, whose softmax takes
# its exponentials once. It was dropped.


def _block_rows(hidden: Tensor) -> int:
    """How many rows have logits at the same time. Off the CPU a guess, measured nowhere."""
    return 512 if hidden.device.type == "cpu" else 2048


def _columns(hidden: Tensor, weight: Tensor) -> int:
    """How many columns of logits one product makes."""
    return 1024 * torch.get_num_threads() if hidden.device.type == "cpu" else len(weight)


def _cached_rows(logits: Tensor) -> int:
    """How many rows to take through all passes together: on a CPU, what its second cache holds."""
    return 16 * torch.get_num_threads() if logits.device.type == "cpu" else len(logits)
