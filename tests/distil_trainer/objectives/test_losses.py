"""The loss terms against float64 formulas written out by hand, in value and gradient."""

import math
from decimal import Decimal, localcontext

import pytest
import torch

from distil_trainer.objectives.losses import (
    SOFT_TARGETS,
    cross_entropy,
    flat_kl,
    hidden_cosine,
    logit_mse,
    soft_target_kl,
    soft_target_reverse_kl,
    squared_error,
)


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def numeric_gradient(function, point, step=1e-6):
    """Central differences, one coordinate at a time."""
    gradient = torch.zeros_like(point)
    for place in range(point.numel()):
        shift = torch.zeros_like(point).view(-1)
        shift[place] = step
        shift = shift.view_as(point)
        gradient.view(-1)[place] = (function(point + shift) - function(point - shift)) / (2 * step)
    return gradient


def assert_gradient(function, point):
    point = point.clone().requires_grad_()
    (exact,) = torch.autograd.grad(function(point), point)
    torch.testing.assert_close(exact, numeric_gradient(function, point.detach()), rtol=0, atol=2e-7)


def softened(row, temperature):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("divergence", SOFT_TARGETS)
def test_kl_equals_the_definition(draw, temperature, divergence):
    """Catches a softmax over the wrong axis, a lost T², a mean of logits, the other direction."""
    student, teachers = draw(3, 4, 5), [draw(3, 4, 5), draw(3, 4, 5)]
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]]).bool()
    expected = 0.0
    for at in mask.nonzero().tolist():
        many = [softened(t[tuple(at)].tolist(), temperature) for t in teachers]
        target = [sum(column) / 2 for column in zip(*many, strict=True)]
        ours = softened(student[tuple(at)].tolist(), temperature)
        first, second = (target, ours) if divergence == "kl" else (ours, target)
        expected += sum(p * math.log(p / q) for p, q in zip(first, second, strict=True))
    term = SOFT_TARGETS[divergence](student, teachers, mask, temperature)
    assert term.total.item() == pytest.approx(temperature**2 * expected, rel=1e-12)
    assert term.count.item() == 7


@pytest.mark.parametrize("temperature", [0.5, 2.0, 10.0])
@pytest.mark.parametrize("divergence", SOFT_TARGETS)
def test_kl_gradient_equals_finite_differences(draw, temperature, divergence):
    """Catches a gradient that flows into masked positions or misses a factor of T."""
    teachers, mask = [draw(2, 3, 4), draw(2, 3, 4)], torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()
    loss = SOFT_TARGETS[divergence]
    assert_gradient(lambda logits: loss(logits, teachers, mask, temperature).total, draw(2, 3, 4))


NEAR = 0.05


def exact_kl(student, teachers, temperature, divergence="kl"):
    """T² · KL and its gradient in float64, from the definition; `student` is a leaf."""
    target = torch.stack([(each.double() / temperature).softmax(-1) for each in teachers]).mean(0)
    logs = target.log(), (student.double() / temperature).log_softmax(-1)
    first, second = logs if divergence == "kl" else reversed(logs)
    total = temperature**2 * (first.exp() * (first - second)).sum()
    return total, torch.autograd.grad(total, student)[0]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0, 3.9, 4.0, 100.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("divergence", SOFT_TARGETS)
def test_kl_keeps_its_digits_at_any_temperature(draw, temperature, dtype, teachers, divergence):
    """Prevents a value that is all rounding where two flat distributions are subtracted."""
    first = draw(6, 3000).mul(3)
    many = [(first + NEAR * number * draw(6, 3000)).to(dtype) for number in range(teachers)]
    distance = NEAR if temperature >= 4 else 1.0
    student = (first + distance * draw(6, 3000)).to(dtype).requires_grad_()
    everywhere = torch.ones(6, dtype=torch.bool)
    term = SOFT_TARGETS[divergence](student, many, everywhere, temperature)
    (gradient,) = torch.autograd.grad(term.total, student)
    wide = student.detach().double().requires_grad_()
    value, slope = exact_kl(wide, many, temperature, divergence)
    assert term.total.item() == pytest.approx(value.item(), rel=1e-5)
    error = 5e-3 if dtype == torch.bfloat16 else 1e-5
    assert (gradient.double() - slope).norm() < error * slope.norm()


@pytest.mark.parametrize("temperature", [4.0, 100.0])
def test_kl_of_far_logits_at_a_high_temperature(draw, temperature):
    """Prevents infinity or NaN where a student is so far off that exp(difference) overflows."""
    student, teacher = draw(5, 7).float() * 30 * temperature, draw(5, 7).float() * 30 * temperature
    teacher[0, :3] = -torch.inf  # ruled out for the teacher only
    student[1, :3] = teacher[1, :3] = -torch.inf
    student.requires_grad_()
    term = soft_target_kl(student, [teacher], torch.ones(5, dtype=torch.bool), temperature)
    (gradient,) = torch.autograd.grad(term.total, student)
    wide = student.detach().double().requires_grad_()
    target = (teacher.double() / temperature).softmax(-1)
    ours = (wide / temperature).log_softmax(-1)
    value = temperature**2 * torch.where(target > 0, target * (target.log() - ours), 0.0).sum()
    (slope,) = torch.autograd.grad(value, wide)
    assert term.total.item() == pytest.approx(value.item(), rel=1e-5)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=1e-4)


def test_kl_at_a_high_temperature_does_not_hide_what_is_not_finite(draw):
    """Prevents a NaN, or a class that only the student rules out, from passing as a 0."""
    for poison in (torch.nan, -torch.inf):
        student = draw(3, 5)
        student[1, 2] = poison
        term = soft_target_kl(student, [draw(3, 5)], torch.ones(3, dtype=torch.bool), 100.0)
        assert not term.total.isfinite()


HALVES = (0.5, 0.25, 0.125, 0.0625, 0.0625)  # without rounding, their sum included


def exact_flat_kl(target, difference):
    """KL(p ‖ q) and q - p to 50 digits, where q is p·exp(d), normalised."""
    with localcontext() as context:
        context.prec = 50
        p, d = ([Decimal(value) for value in row] for row in (target, difference))
        masses = [each * by.exp() for each, by in zip(p, d, strict=True)]
        total = sum(masses)
        divergence = total.ln() - sum(each * by for each, by in zip(p, d, strict=True))
        slope = [mass / total - each for mass, each in zip(masses, p, strict=True)]
        return float(divergence), torch.tensor(list(map(float, slope)), dtype=torch.float64)


@pytest.mark.parametrize(
    "largest", [1e-9, 1e-3, 0.12, 0.2, 0.24, 0.26, 0.5, 2.0, 25.0, -0.24, -1.0, -40.0]
)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1.5e-15), (torch.float32, 5e-7)])
def test_a_flat_divergence_and_its_slope_keep_all_digits(largest, dtype, error):
    """Prevents a wrong slope where the divergence isn't small, and a series that stops early."""
    target = torch.tensor(HALVES, dtype=dtype)
    factors = torch.tensor([0.25, -0.125, 0.25, 1.0, -0.375], dtype=dtype)
    difference = (largest * factors).requires_grad_()
    found = flat_kl(target, difference, torch.ones(5, dtype=torch.bool))
    value, slope = exact_flat_kl(HALVES, difference.tolist())
    (gradient,) = torch.autograd.grad(found.divergence, difference)
    assert found.applies
    assert found.divergence.item() == pytest.approx(value, rel=error, abs=0)
    assert (found.slope.double() - slope).norm() < error * slope.norm()
    assert (gradient.double() - slope).norm() < error * slope.norm()


def test_rows_that_a_flat_divergence_is_not_for():
    """Prevents a class that only the teacher rules out from being left out of the divergence."""
    many = torch.tensor(HALVES).expand(5, 5).clone()
    many[:3, 4], many[:3, 3] = 0.0, 0.125
    many[2] = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    near = torch.tensor([0.5, 0.25, -0.5, 0.5, -0.25]).expand(5, 5).clone()
    near[3, 4], near[4, 0] = 99.0, torch.nan
    possible = torch.ones(5, 5, dtype=torch.bool)
    possible[1, 4] = False
    possible[2] = many[2] > 0
    found = flat_kl(many, near, possible)
    assert found.applies.tolist() == [False, True, True, False, False]
    value, slope = exact_flat_kl(many[1].tolist(), near[1].tolist())
    assert found.divergence[1].item() == pytest.approx(value, rel=1e-6)
    torch.testing.assert_close(found.slope[1].double(), slope, rtol=1e-6, atol=1e-8)
    assert (found.divergence[2], found.slope[2].abs().max()) == (0, 0)
    for row in (0, 3, 4):
        assert (found.divergence[row], found.slope[row].abs().max()) == (0, 0)


@pytest.mark.parametrize("temperature", [4.0, 100.0])
def test_a_class_that_only_the_teacher_rules_out_still_costs(draw, temperature):
    """Prevents mass on a class that the teacher rules out from being free at a high T."""
    student, teacher = draw(3, 6), draw(3, 6)
    teacher[:, 4:] = -torch.inf
    student.requires_grad_()
    term = soft_target_kl(student, [teacher], torch.ones(3, dtype=torch.bool), temperature)
    p, q = (teacher[:, :4] / temperature).softmax(-1), (student / temperature).softmax(-1)[:, :4]
    expected = temperature**2 * (p * (p / q).log()).sum()
    assert expected > temperature**2  # log(6/4) in each row, and some
    assert term.total.item() == pytest.approx(expected.item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(each, student)[0] for each in (term.total, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("divergence", SOFT_TARGETS)
@pytest.mark.parametrize("temperature", [2.0, 20.0])
def test_kl_of_equal_logits_is_zero(draw, divergence, temperature):
    """Catches a constant offset, such as a cross-entropy passed off as a divergence."""
    logits = draw(2, 3, 4)
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert SOFT_TARGETS[divergence](logits, [logits], mask, temperature).total.abs() < 1e-14


@pytest.mark.parametrize("temperature", [2.0, 4.0, 100.0])
def test_reverse_kl_of_far_logits(draw, temperature):
    """Prevents infinity or NaN where a class's student probability underflows, or is ruled out."""
    student, teacher = draw(5, 7).float() * 30 * temperature, draw(5, 7).float() * 30 * temperature
    student[0, :3] = -torch.inf  # ruled out by the student only: costs nothing
    student[1, :3] = teacher[1, :3] = -torch.inf
    student.requires_grad_()
    term = soft_target_reverse_kl(student, [teacher], torch.ones(5, dtype=torch.bool), temperature)
    (gradient,) = torch.autograd.grad(term.total, student)
    wide = student.detach().double().requires_grad_()
    target = (teacher.double() / temperature).log_softmax(-1)
    ours = (wide / temperature).log_softmax(-1)
    kept = ours.exp() > 0
    difference = torch.where(kept, ours, 0.0) - torch.where(kept, target, 0.0)
    value = temperature**2 * (ours.exp() * difference).sum()
    (slope,) = torch.autograd.grad(value, wide)
    assert term.total.item() == pytest.approx(value.item(), rel=1e-5)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("temperature", [2.0, 100.0])
def test_reverse_kl_does_not_hide_what_is_not_finite(draw, temperature):
    """Prevents a NaN, or mass on a class that the teacher rules out, from passing as a 0."""
    for poison, at_teacher in ((torch.nan, False), (torch.nan, True), (-torch.inf, True)):
        student, teacher = draw(3, 5), draw(3, 5)
        (teacher if at_teacher else student)[1, 2] = poison
        everywhere = torch.ones(3, dtype=torch.bool)
        term = soft_target_reverse_kl(student, [teacher], everywhere, temperature)
        assert not term.total.isfinite()


def test_cross_entropy_equals_the_definition(draw):
    """Catches a mean instead of a sum, and ignored positions that count."""
    logits, labels = draw(2, 3, 4), torch.tensor([[1, -100, 3], [-100, 0, -100]])
    expected = sum(
        -math.log(softened(logits[i, j].tolist(), 1)[labels[i, j]])
        for i, j in ((0, 0), (0, 2), (1, 1))
    )
    term = cross_entropy(logits, labels)
    assert term.total.item() == pytest.approx(expected, rel=1e-12)
    assert term.count.item() == 3
    assert_gradient(lambda z: cross_entropy(z, labels).total, logits)


def test_squared_error_equals_the_definition(draw):
    """Catches logits [N, 1] against labels [N] being broadcast to N x N."""
    logits, labels = draw(5, 1), draw(5)
    term = squared_error(logits, labels)
    expected = sum((logits[i, 0] - labels[i]) ** 2 for i in range(5))
    torch.testing.assert_close(term.total, expected)
    assert term.count.item() == 5
    assert_gradient(lambda z: squared_error(z, labels).total, logits)


def test_logit_mse_equals_the_definition(draw):
    """Catches a mean over the vocabulary where the sum belongs, and a mask that is ignored."""
    student, teachers = draw(2, 2, 3), [draw(2, 2, 3), draw(2, 2, 3), draw(2, 2, 3)]
    mask = torch.tensor([[True, False], [True, True]])
    target = sum(teachers) / 3
    expected = sum(((student - target)[i, j] ** 2).sum() for i, j in ((0, 0), (1, 0), (1, 1)))
    term = logit_mse(student, teachers, mask)
    torch.testing.assert_close(term.total, expected)
    assert term.count.item() == 3
    assert_gradient(lambda z: logit_mse(z, teachers, mask).total, student)


def test_hidden_cosine_equals_the_definition(draw):
    """Catches a cosine over the wrong axis or over padding."""
    student, teacher = draw(2, 2, 3), draw(2, 2, 3)
    mask = torch.tensor([[True, True], [False, True]])
    expected = sum(
        1 - student[i, j] @ teacher[i, j] / (student[i, j].norm() * teacher[i, j].norm())
        for i, j in ((0, 0), (0, 1), (1, 1))
    )
    term = hidden_cosine(student, teacher, mask)
    torch.testing.assert_close(term.total, expected)
    assert term.count.item() == 3
    assert_gradient(lambda h: hidden_cosine(h, teacher, mask).total, student)


MASKED_TERMS = {
    "ce": lambda s, t, mask: soft_target_kl(s, [t], mask, 2.0),
    "reverse": lambda s, t, mask: soft_target_reverse_kl(s, [t], mask, 2.0),
    "flat reverse": lambda s, t, mask: soft_target_reverse_kl(s, [t], mask, 20.0),
    "mse": lambda s, t, mask: logit_mse(s, [t], mask),
    "cos": hidden_cosine,
    "hard": lambda s, t, mask: cross_entropy(s, torch.where(mask, 1, -100)),
}


@pytest.mark.parametrize("name", MASKED_TERMS)
def test_an_empty_mask_is_zero_over_zero(draw, name):
    """Catches 0/0: a batch without a target would otherwise turn every weight into NaN."""
    student = draw(2, 3, 4).requires_grad_()
    term = MASKED_TERMS[name](student, draw(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(term.total, student)
    assert (term.total.item(), term.count.item()) == (0, 0)
    assert gradient.eq(0).all()


@pytest.mark.parametrize("name", ["ce", "reverse", "flat reverse", "mse", "cos"])
def test_padding_cannot_reach_value_or_gradient(draw, name):
    """Catches a mask that multiplies: 0 · NaN from a padded position would poison the step."""
    student, teacher = draw(2, 3, 4), draw(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    clean = MASKED_TERMS[name](student, teacher, mask).total
    student[~mask], teacher[~mask] = torch.nan, torch.inf
    student.requires_grad_()
    dirty = MASKED_TERMS[name](student, teacher, mask).total
    (gradient,) = torch.autograd.grad(dirty, student)
    assert torch.equal(clean, dirty)
    assert gradient.isfinite().all()
    assert gradient[~mask].eq(0).all()


@pytest.mark.parametrize("name", ["ce", "reverse", "flat reverse", "mse", "hard"])
def test_classes_ruled_out_for_both_change_nothing(draw, name):
    """Catches NaN from -inf logits: SQuAD positions that cannot be an answer."""
    student, teacher, mask = draw(3, 6), draw(3, 6), torch.ones(3, dtype=torch.bool)
    narrow = student[:, :4].clone().requires_grad_()
    student[:, 4:], teacher[:, 4:] = -torch.inf, -torch.inf
    student.requires_grad_()
    expected = MASKED_TERMS[name](narrow, teacher[:, :4], mask).total
    found = MASKED_TERMS[name](student, teacher, mask).total
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, student)
    (narrow_gradient,) = torch.autograd.grad(expected, narrow)
    torch.testing.assert_close(gradient[:, :4], narrow_gradient)
    assert gradient[:, 4:].eq(0).all()


@pytest.mark.parametrize("name", MASKED_TERMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_sums_are_taken_in_float32(draw, name, dtype):
    """Catches a sum in half precision, which stops growing after a few hundred tokens."""
    student, teacher = draw(400, 8).to(dtype), draw(400, 8).to(dtype)
    mask = torch.ones(400, dtype=torch.bool)
    term = MASKED_TERMS[name](student, teacher, mask)
    exact = MASKED_TERMS[name](student.double(), teacher.double(), mask)
    assert term.total.dtype == torch.float32
    torch.testing.assert_close(term.total.double(), exact.total, rtol=1e-5, atol=0)


def test_no_gradient_reaches_the_teacher(draw):
    """Catches a teacher that is dragged towards its student."""
    student, teacher = draw(2, 3, 4).requires_grad_(), draw(2, 3, 4).requires_grad_()
    mask = torch.ones(2, 3, dtype=torch.bool)
    compared = ("ce", "reverse", "mse", "cos")
    total = sum(MASKED_TERMS[name](student, teacher, mask).total for name in compared)
    total.backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
