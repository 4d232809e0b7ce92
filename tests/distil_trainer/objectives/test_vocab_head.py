"""The vocabulary head against a float64 computation from `losses` on the logits of all tokens."""

import itertools
from typing import NamedTuple

import pytest
import torch

from distil_trainer.objectives import losses, vocab_head
from distil_trainer.objectives.vocab_head import Decoder, HeadWeights, head_losses, order_rows


class Case(NamedTuple):
    """A head on ordered rows: what `head_losses` is called with."""

    hidden: torch.Tensor
    decoder: Decoder
    teachers: list
    labels: torch.Tensor

    def to(self, dtype):
        """The same numbers in another precision, as leaves that want a gradient."""
        leaf = lambda tensor: tensor.detach().to(dtype).requires_grad_()  # noqa: E731
        bias = self.decoder.bias
        decoder = Decoder(leaf(self.decoder.weight), None if bias is None else leaf(bias))
        frozen = [
            (h.to(dtype), Decoder(d.weight.to(dtype), None if d.bias is None else d.bias.to(dtype)))
            for h, d in self.teachers
        ]
        return Case(leaf(self.hidden), decoder, frozen, self.labels)

    @property
    def leaves(self):
        return [t for t in (self.hidden, *self.decoder) if t is not None]

    def run(self, weights, temperature=2.0, **options):
        return head_losses(*self, weights=weights, temperature=temperature, **options)


def make_case(rows, labelled, widths=(5,), vocabulary=37, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    teachers = [
        (draw(rows, width), Decoder(draw(vocabulary, width), draw(vocabulary) if bias else None))
        for width in widths
    ]
    labels = torch.randint(vocabulary, (labelled,), generator=generator)
    decoder = Decoder(draw(vocabulary, 6), draw(vocabulary) if bias else None)
    return Case(draw(rows, 6), decoder, teachers, labels).to(torch.float32)


def project(hidden, decoder):
    logits = hidden @ decoder.weight.t()
    return logits if decoder.bias is None else logits + decoder.bias


def textbook(case, weights, temperature=2.0, divergence="kl"):
    """The same objective and totals from the logits of all rows at once."""
    student = project(case.hidden, case.decoder)
    teachers = [project(*teacher) for teacher in case.teachers]
    everywhere = torch.ones(len(student), dtype=torch.bool)
    padded = torch.full((len(student),), losses.IGNORED)
    padded[: len(case.labels)] = case.labels
    terms = {"hard": losses.cross_entropy(student, padded)}
    if teachers:
        soft_targets = losses.SOFT_TARGETS[divergence]
        terms["ce"] = soft_targets(student, teachers, everywhere, temperature)
        terms["mse"] = losses.logit_mse(student, teachers, everywhere)
    return sum(getattr(weights, name) * term.total for name, term in terms.items()), terms


def gradients(objective, leaves):
    return torch.autograd.grad(objective, leaves)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Small enough that a tiny case has several blocks of every kind, none of them full."""
    monkeypatch.setattr(vocab_head, "_block_rows", lambda weight: 16)
    monkeypatch.setattr(vocab_head, "_columns", lambda hidden, weight: 10)
    monkeypatch.setattr(vocab_head, "_cached_rows", lambda logits: 5)


WEIGHTS = HeadWeights(ce=0.3, hard=0.2, mse=0.01)
CASES = {
    "several blocks": make_case(50, 13, seed=1),
    "one exact block": make_case(16, 16, seed=2),
    "labels end with a block": make_case(40, 16, seed=3),
    "no labels": make_case(20, 0, seed=4),
    "all labelled": make_case(23, 23, seed=5),
    "one row": make_case(1, 1, seed=6),
    "no rows": make_case(0, 0, seed=7),
    "no bias": make_case(21, 6, bias=False, seed=8),
    "three teachers": make_case(35, 9, widths=(3, 7, 6), seed=9),
    "width one": make_case(9, 3, widths=(1,), bias=False, seed=10),
}


@pytest.mark.parametrize(
    ("words", "rows"), [(8, 512), (30_522, 512), (128_256, 256), (250_002, 128), (10**6, 64)]
)
def test_a_block_has_fewer_rows_where_there_are_more_words(words, rows, monkeypatch):
    """Prevents a gigabyte of logits for a vocabulary of many languages."""
    monkeypatch.undo()
    assert vocab_head._block_rows(torch.empty(words, 1)) == rows


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_the_size_of_a_block_is_no_part_of_the_result(block_rows, monkeypatch):
    """Prevents a size that is ignored, and rows that are lost at the end of another block."""
    case = CASES["several blocks"].to(torch.float64)
    seen = []
    step_sizes = vocab_head._slices
    monkeypatch.setattr(
        vocab_head, "_slices", lambda length, step: seen.append(step) or step_sizes(length, step)
    )
    found = case.run(WEIGHTS, block_rows=block_rows)
    assert seen[0] == block_rows
    expected, _ = textbook(case, WEIGHTS)
    torch.testing.assert_close(found.objective, expected.double(), rtol=1e-10, atol=1e-11)
    pairs = zip(
        gradients(found.objective, case.leaves), gradients(expected, case.leaves), strict=True
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 3.7, 10.0])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("divergence", losses.SOFT_TARGETS)
def test_float64_equals_the_textbook(name, temperature, divergence):
    """Catches any error in the block arithmetic: value, counts and all gradients to 1e-10."""
    case = CASES[name].to(torch.float64)
    found = case.run(WEIGHTS, temperature, divergence=divergence)
    expected, terms = textbook(case, WEIGHTS, temperature, divergence)
    torch.testing.assert_close(found.objective, expected.double(), rtol=1e-10, atol=1e-11)
    for term in ("ce", "hard", "mse"):
        torch.testing.assert_close(
            getattr(found, term).total, terms[term].total, rtol=1e-10, atol=1e-11
        )
        assert torch.equal(getattr(found, term).count, terms[term].count)
    ours, theirs = gradients(found.objective, case.leaves), gradients(expected, case.leaves)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("divergence", losses.SOFT_TARGETS)
def test_float32_equals_float64(name, divergence):
    """Catches a formula that is right on paper and cancels in float32."""
    narrow, wide = CASES[name], CASES[name].to(torch.float64)
    found = narrow.run(WEIGHTS, divergence=divergence)
    expected = textbook(wide, WEIGHTS, divergence=divergence)[0]
    torch.testing.assert_close(found.objective.double(), expected, rtol=2e-6, atol=1e-6)
    ours, theirs = gradients(found.objective, narrow.leaves), gradients(expected, wide.leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5)


def close_case(teachers, dtype, distance):
    """Return a student and teachers that differ little from each other, in a larger vocabulary."""
    case = make_case(40, 0, vocabulary=700, widths=(6,) * teachers, seed=11)
    generator = torch.Generator().manual_seed(12)
    decoder = Decoder(*(part.detach() for part in case.decoder))
    frozen = [
        (case.hidden.detach() + distance * torch.randn(40, 6, generator=generator), decoder)
        for _ in range(teachers)
    ]
    return case._replace(teachers=frozen).to(dtype)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0, 4.0, 100.0, 1000.0])
@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("divergence", losses.SOFT_TARGETS)
def test_soft_targets_keep_their_digits_at_any_temperature(
    temperature, teachers, dtype, divergence
):
    """Prevents L_ce that is all rounding: of flat distributions, or of products in bf16."""
    weights = HeadWeights(ce=1.0)
    bf16 = dtype == torch.bfloat16
    case = close_case(teachers, dtype, 0.05 if temperature >= 4 and not bf16 else 1.0)
    found = case.run(weights, temperature, divergence=divergence)
    wide = case.to(torch.float64)
    expected = textbook(wide, weights, temperature, divergence)[0]
    # From T = 1 on a product in bf16 is as exact as was asked for.
    error = 0.03 if bf16 and temperature >= 1 else 1e-5
    assert found.ce.total.item() == pytest.approx(expected.item(), rel=error)
    ours, theirs = gradients(found.objective, case.leaves), gradients(expected, wide.leaves)
    error = (0.05 if temperature >= 1 else 5e-3) if bf16 else 1e-5
    for one, other in zip(ours, theirs, strict=True):
        assert (one.double() - other).norm() < error * other.norm()


@pytest.mark.parametrize("temperature", [4.0, 100.0])
def test_far_logits_at_a_high_temperature(temperature):
    """Prevents an overflow of exp(difference) where a student is far off its teacher."""
    case = make_case(20, 0).to(torch.float64)
    case = case._replace(hidden=(case.hidden * 100 * temperature).detach().requires_grad_())
    narrow, weights = case.to(torch.float32), HeadWeights(ce=1.0)
    expected = textbook(case, weights, temperature)[0]
    found = narrow.run(weights, temperature).objective
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    ours, theirs = gradients(found, narrow.leaves), gradients(expected, case.leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-3)


def test_tokens_ruled_out_for_both_leave_the_others_their_digits():
    """Prevents one token of a padded vocabulary from making the divergence of the rest rounding."""
    case = close_case(1, torch.float32, 0.05)
    with torch.no_grad():
        for decoder in (case.decoder, case.teachers[0][1]):
            decoder.bias[-3:] = -1e5
    wide = case.to(torch.float64)
    target, ours = (
        (project(*each) / 100.0).softmax(-1)[:, :-3]
        for each in (wide.teachers[0], (wide.hidden, wide.decoder))
    )
    expected = 100.0**2 * (target * (target / ours).log()).sum()
    found = case.run(HeadWeights(ce=1.0), 100.0).objective
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    mine, theirs = gradients(found, case.leaves), gradients(expected, wide.leaves)
    for one, other in zip(mine, theirs, strict=True):
        assert (one.double() - other).norm() < 1e-5 * other.norm()


@pytest.mark.parametrize("on", list(itertools.product([0.0, 0.7], repeat=3)))
def test_every_mix_of_terms_equals_the_textbook(on):
    """Catches a term that leaks into another one's gradient, or that cannot be switched off."""
    case, weights = make_case(37, 11).to(torch.float64), HeadWeights(*on)
    found, expected = case.run(weights), textbook(case, weights)[0]
    torch.testing.assert_close(found.objective, expected)
    for name, weight in zip(("ce", "hard", "mse"), on, strict=True):
        assert bool(getattr(found, name).count) == bool(weight)
    torch.testing.assert_close(
        gradients(found.objective, case.leaves), gradients(expected, case.leaves)
    )


def test_only_the_objective_carries_a_gradient():
    """Prevents a part of the loss from being trained on alone, with zeros for its gradient."""
    found = make_case(9, 3).run(WEIGHTS)
    assert found.objective.requires_grad
    parts = (found.ce, found.hard, found.mse, found.agreement)
    assert not any(part.total.requires_grad for part in parts)


def test_weights_may_be_tensors():
    """Catches counts that had to be copied to the host, and a backward that ignores its input."""
    case = make_case(37, 11).to(torch.float64)
    found = case.run(HeadWeights(*(torch.tensor(weight) for weight in WEIGHTS)))
    expected = textbook(case, WEIGHTS)[0]
    torch.testing.assert_close(found.objective, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        gradients(-3 * found.objective, case.leaves),
        gradients(-3 * expected, case.leaves),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_decoder_tied_to_the_embedding_gets_both_gradients():
    """Catches a head that overwrites what the embedding itself contributes, or is lost with it."""
    case = make_case(20, 8).to(torch.float64)
    table = case.decoder.weight
    inputs = torch.arange(20) % len(table)
    tied = case._replace(hidden=table[inputs] * 0.5)
    ours = gradients(tied.run(WEIGHTS).objective, [table])
    tied = case._replace(hidden=table[inputs] * 0.5)
    theirs = gradients(textbook(tied, WEIGHTS)[0], [table])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_only_what_is_trained_gets_a_gradient(frozen):
    """Catches a frozen decoder that is trained, or a frozen part that takes the others with it."""
    case = make_case(20, 8).to(torch.float64)
    case.leaves[frozen].requires_grad_(False)
    trained = [leaf for leaf in case.leaves if leaf.requires_grad]
    ours = gradients(case.run(WEIGHTS).objective, trained)
    torch.testing.assert_close(ours, gradients(textbook(case, WEIGHTS)[0], trained))
    assert case.leaves[frozen].grad is None


def test_evaluation_gives_the_same_values_and_makes_no_gradients(monkeypatch):
    """Catches an evaluation that pays for gradients, or that sees another loss than training."""
    case = make_case(37, 11)
    trained = case.run(WEIGHTS)
    monkeypatch.setattr(vocab_head._Gradients, "add", lambda *_: pytest.fail("made a gradient"))
    with torch.no_grad():
        evaluated = case.run(WEIGHTS)
    assert not evaluated.objective.requires_grad
    assert torch.equal(evaluated.objective, trained.objective)


def test_agreement_counts_equal_first_choices():
    """Catches agreement with one teacher where the average of all decides."""
    case = make_case(37, 11, widths=(3, 7), vocabulary=4)
    with torch.no_grad():
        found = case.run(HeadWeights(), count_agreement=True)
        average = sum(project(*teacher).div(2.0).softmax(-1) for teacher in case.teachers)
        same = project(case.hidden, case.decoder).argmax(-1) == average.argmax(-1)
    assert 0 < found.agreement.total.item() == same[:11].sum().item() < 11
    assert found.agreement.count.item() == 11


def test_nobody_asks_a_teacher_that_no_term_needs(monkeypatch):
    """Catches plain masked-LM that pays for its teacher's half of the head."""
    case = make_case(20, 8)
    made = []
    projection = vocab_head._Projection
    monkeypatch.setattr(
        vocab_head, "_Projection", lambda *parts: made.append(1) or projection(*parts)
    )
    alone = case._replace(teachers=[]).run(HeadWeights(hard=0.2)).objective
    assert torch.equal(case.run(HeadWeights(hard=0.2)).objective, alone)
    assert len(made) == 2  # the student's, once in each call


def test_bf16_autocast_is_as_close_as_its_products():
    """Catches a softmax or a sum in bf16, far worse than the products that were asked for."""
    case = make_case(300, 80, vocabulary=200)
    weights = HeadWeights(1 / 300, 1 / 80, 0.01 / 300)
    wide = case.to(torch.float64)
    expected = textbook(wide, weights)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = case.run(weights)
    assert found.objective.dtype == torch.float32
    torch.testing.assert_close(found.objective.double(), expected, rtol=5e-3, atol=0)
    exact = gradients(expected, wide.leaves)
    for one, other in zip(gradients(found.objective, case.leaves), exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.01 * other.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_teacher_may_be_narrower_than_its_student(dtype):
    """Catches a teacher in half precision that drags the student's own products down with it."""
    case = make_case(40, 10)
    narrow = case._replace(
        teachers=[
            (h.to(dtype), Decoder(d.weight.to(dtype), d.bias.to(dtype))) for h, d in case.teachers
        ]
    )
    hard = HeadWeights(hard=1.0)
    assert torch.equal(narrow.run(hard).objective, case.run(hard).objective)
    torch.testing.assert_close(
        narrow.run(WEIGHTS).objective, case.run(WEIGHTS).objective, rtol=0.02, atol=0
    )


def test_a_bf16_student_gets_bf16_gradients():
    """Catches autograd's refusal of a gradient in another precision than its parameter."""
    case = make_case(40, 10).to(torch.bfloat16)
    found = gradients(case.run(WEIGHTS).objective, case.leaves)
    wide = case.to(torch.float64)
    exact = gradients(textbook(wide, WEIGHTS)[0], wide.leaves)
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one.double() - other).norm() < 0.03 * other.norm()


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("row", [0, 30])
def test_what_is_not_finite_stays_visible(poison, whose, row):
    """Catches a broken model whose loss looks fine, so that its run goes on for days."""
    case = make_case(37, 11)
    with torch.no_grad():
        (case.hidden if whose == "student" else case.teachers[0][0])[row, 2] = poison
    for weights in (HeadWeights(ce=1.0), HeadWeights(mse=1.0), WEIGHTS):
        assert not case.run(weights).objective.isfinite()


def test_large_logits_do_not_overflow():
    """Catches exponentials taken without subtracting the largest logit first."""
    case = make_case(20, 8).to(torch.float64)
    case = case._replace(hidden=(case.hidden * 1e4).detach().requires_grad_())
    expected = textbook(case, WEIGHTS, 0.5)[0]
    torch.testing.assert_close(case.run(WEIGHTS, 0.5).objective, expected)
    assert case.to(torch.float32).run(WEIGHTS, 0.5).objective.isfinite()


def test_the_same_input_gives_the_same_bits():
    """Catches sums whose order depends on chance: a resumed run would drift away from its twin."""
    case = make_case(200, 60, vocabulary=500)
    once, again = case.run(WEIGHTS), case.run(WEIGHTS)
    assert torch.equal(once.objective, again.objective)
    first, second = (gradients(out.objective, case.leaves) for out in (once, again))
    assert all(map(torch.equal, first, second))


def test_the_sizes_of_the_pieces_do_not_matter(monkeypatch):
    """Catches real block sizes that do what the small ones of these tests do not."""
    case = make_case(600, 190, vocabulary=1100)
    small = case.run(WEIGHTS)
    few = gradients(small.objective, case.leaves)
    monkeypatch.undo()
    real = case.run(WEIGHTS)
    torch.testing.assert_close(real.objective, small.objective)
    torch.testing.assert_close(gradients(real.objective, case.leaves), few, rtol=1e-4, atol=1e-5)


def test_passes_are_over_parts_on_a_cpu_alone(monkeypatch):
    """Prevents a GPU from being given a few rows at a time, and a CPU more than its cache holds."""
    monkeypatch.undo()
    rows = 16 * torch.get_num_threads()
    assert vocab_head._cached_rows(torch.empty(3 * rows, 2)) == rows
    assert vocab_head._cached_rows(torch.empty(3 * rows, 2, device="meta")) == 3 * rows


@pytest.mark.parametrize(
    ("temperature", "dtype"), [(0.9, torch.float32), (1.0, torch.bfloat16), (1.9, torch.bfloat16)]
)
def test_products_of_bf16_are_widened_below_a_temperature_of_1_only(temperature, dtype):
    """Prevents a bf16 model at T = 1 from paying for products in float32."""
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            if function._overloadpacket is torch.ops.aten.addmm:
                seen.extend(each.dtype for each in arguments[1:3])
            return function(*arguments, **(keywords or {}))

    case = make_case(20, 8).to(torch.bfloat16)
    with Watch():
        case.run(WEIGHTS, temperature)
    assert set(seen) == {dtype}


def test_logits_of_all_tokens_never_exist(monkeypatch):
    """Catches a tensor as long as the batch and as wide as the vocabulary: the whole point."""
    monkeypatch.undo()
    rows, vocabulary, sizes = 2_000, 3_000, []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            sizes.extend(r.numel() for r in [result] if isinstance(r, torch.Tensor))
            return result

    case = make_case(rows, 300, vocabulary=vocabulary)
    with Watch():
        case.run(WEIGHTS).objective.backward()
    assert max(sizes) <= 512 * vocabulary


def test_torch_compile_leaves_the_head_alone():
    """Catches a compiler that unrolls the head's loops, for half a minute at every new length."""
    case, graphs = make_case(37, 11), []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def step(hidden):
        return case._replace(hidden=hidden * 2).run(WEIGHTS).objective

    compiled = torch.compile(step, backend=keep)(case.hidden)
    assert torch.equal(compiled, step(case.hidden))
    assert sum(len(graph.graph.nodes) for graph in graphs) < 30


def test_ordered_rows_put_labels_first_and_lose_nobody():
    """Catches padding that is paid for, and labels that end up beside another token's logits."""
    labels = torch.tensor([[-100, 7, -100, -100], [5, -100, 9, -100]])
    attended = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    rows = order_rows(labels, attended)
    assert rows.positions.tolist() == [1, 4, 6, 0, 2, 5, 7]
    assert rows.labels.tolist() == [7, 5, 9]
    restricted = order_rows(labels, labels != losses.IGNORED)
    assert restricted.positions.tolist() == [1, 4, 6]
    assert restricted.labels.tolist() == [7, 5, 9]


@pytest.mark.parametrize("seed", range(5))
def test_a_padded_batch_equals_the_masked_losses(seed):
    """Catches a wrong way from a batch to rows: both ways start from the same padded batch."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 9, (6, 1), generator=generator)
    attended = torch.arange(8) < lengths
    targets = attended & (torch.rand(6, 8, generator=generator) < 0.3)
    labels = torch.where(targets, torch.randint(37, (6, 8), generator=generator), losses.IGNORED)
    batch = make_case(48, 0, seed=seed).to(torch.float64)
    student = project(batch.hidden, batch.decoder).view(6, 8, -1)
    teacher = project(*batch.teachers[0]).view(6, 8, -1)
    for soft in (attended, targets):
        expected = 0.3 * losses.soft_target_kl(student, [teacher], soft, 2.0).total
        expected = expected + 0.2 * losses.cross_entropy(student, labels).total
        rows = order_rows(labels, soft)
        hidden, decoder = batch.teachers[0]
        found = head_losses(
            batch.hidden[rows.positions],
            batch.decoder,
            [(hidden[rows.positions], decoder)],
            rows.labels,
            weights=HeadWeights(ce=0.3, hard=0.2),
            temperature=2.0,
        ).objective
        torch.testing.assert_close(found, expected)
        theirs = torch.autograd.grad(expected, batch.leaves, retain_graph=True)
        torch.testing.assert_close(gradients(found, batch.leaves), theirs)


@pytest.mark.parametrize("restricted", [False, True])
def test_the_benchmark_compares_the_same_mathematics(restricted):
    """Catches a speed-up over the textbook that comes from computing something else."""
    from benchmarks import setting
    from benchmarks.variants import ours, textbook

    size = setting.SIZES["tiny", "cpu"]
    batch = setting.make_batch(size, setting.make_lengths(size, ragged=True), range(3))
    pairs = [setting.make_pair(size, how, "cpu", dropout=0.0) for how in ("eager", "sdpa")]
    plain, fast = pairs
    expected, found = (
        variant.make_objective(pair, setting.Recipe(), restrict=restricted)[1](batch)
        for variant, pair in zip((textbook, ours), pairs, strict=True)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    expected.backward()
    found.backward()
    for one, other in zip(fast.student.parameters(), plain.student.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
