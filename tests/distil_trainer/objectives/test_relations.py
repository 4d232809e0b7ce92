"""Relations of queries, keys and values against a float64 loop over tokens, heads and models."""

import copy
import math

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from angels_share.errors import UserError
from distil_trainer import DistilTrainer, DistilTrainingArguments, make_student
from distil_trainer.models.families import family_of
from distil_trainer.objectives import relations
from distil_trainer.objectives.language_model import LanguageModelObjective
from distil_trainer.objectives.relations import captured_states, plan_relations, relation_loss


def by_hand(student, teacher, mask, heads, causal):
    """The loss in float64, one sequence, head and token at a time."""
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        for row, seen in enumerate(mask.tolist()):
            for token in range(len(seen)):
                if not seen[token]:
                    continue
                last = token + 1 if causal else len(seen)
                others = [n for n in range(last) if seen[n]]
                for head in range(heads):
                    logs = []
                    for states in (theirs, ours):
                        part = states[row].double().chunk(heads, dim=-1)[head]
                        scores = part[others] @ part[token] / math.sqrt(part.shape[-1])
                        logs.append(scores.log_softmax(0))
                    total = total + (logs[0].exp() * (logs[0] - logs[1])).sum() / heads
    return total


def draw_states(width, batch=3, length=7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, length, width, generator=generator, dtype=dtype).requires_grad_()
        for _ in range(3)
    ]


MASK = torch.tensor([[1] * 7, [1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0, 1]]).bool()


@pytest.mark.parametrize("block", [1, 5, 60, 10_000])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_value_and_gradient_equal_a_loop_in_float64(monkeypatch, heads, causal, block):
    """Catches a wrong mask, scale or head, a lost half of the gradient, blocks that overlap."""
    monkeypatch.setattr(relations, "_BLOCK", block)
    student, teacher = draw_states(8), draw_states(12, seed=1)
    term = relation_loss(student, teacher, MASK, heads=heads, causal=causal)
    expected = by_hand(student, teacher, MASK, heads, causal)
    torch.testing.assert_close(term.total, expected, rtol=1e-12, atol=1e-12)
    assert term.count == MASK.sum()
    found, wanted = (torch.autograd.grad(each, student) for each in (3 * term.total, 3 * expected))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_of_lower_precision(dtype):
    """Catches sums or softmax taken in the precision of the states."""
    student, teacher = draw_states(8, dtype=dtype), draw_states(8, seed=1, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        term = relation_loss(student, teacher, MASK, heads=2)
    wide = [states.detach().double().requires_grad_() for states in student]
    expected = by_hand(wide, teacher, MASK, 2, causal=False)
    assert term.total.item() == pytest.approx(float(expected), rel=1e-5)
    found, wanted = torch.autograd.grad(term.total, student), torch.autograd.grad(expected, wide)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        error = 5e-3 if dtype == torch.bfloat16 else 1e-5
        assert (one.double() - other).norm() < error * other.norm()


@pytest.mark.parametrize("causal", [False, True])
def test_padding_cannot_reach_value_or_gradient(causal):
    """Catches a mask that multiplies: 0 · NaN from a padded token would poison the step."""
    student, teacher = draw_states(8), draw_states(12, seed=1)
    clean = relation_loss(student, teacher, MASK, heads=2, causal=causal).total
    dirty = [states.detach().clone() for states in student]
    for mine, theirs in zip(dirty, teacher, strict=True):
        mine[~MASK], theirs.data[~MASK] = torch.nan, torch.inf
        mine.requires_grad_()
    total = relation_loss(dirty, teacher, MASK, heads=2, causal=causal).total
    assert torch.equal(clean, total)
    for gradient in torch.autograd.grad(total, dirty):
        assert gradient[~MASK].eq(0).all()
        assert gradient.isfinite().all()


def test_the_padded_width_and_neighbours_do_not_matter():
    """Prevents a result that depends on which sequences share a batch."""
    student, teacher = draw_states(8), draw_states(12, seed=1)
    together = relation_loss(student, teacher, MASK, heads=4).total
    alone = sum(
        relation_loss(
            *([states[row : row + 1, seen] for states in each] for each in (student, teacher)),
            torch.ones(1, int(seen.sum()), dtype=torch.bool),
            heads=4,
        ).total
        for row, seen in enumerate(MASK)
    )
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


def test_equal_states_are_exactly_zero_apart():
    """Catches a constant offset, and a gradient that moves a student that is its teacher."""
    student = draw_states(8, dtype=torch.float32)
    term = relation_loss(student, [states.detach() for states in student], MASK, heads=2)
    assert term.total == 0
    assert all(gradient.eq(0).all() for gradient in torch.autograd.grad(term.total, student))


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, torch.Tensor):
                self.entries = max(self.entries, each.numel())
        return result


@pytest.mark.parametrize("length", [40, 200])
def test_no_more_than_one_block_of_relations_exists(monkeypatch, length):
    """Prevents [batch, heads, length, length], which at 8,192 tokens is 13 GB for one sequence."""
    monkeypatch.setattr(relations, "_BLOCK", 4000)
    student, teacher = draw_states(8, length=length), draw_states(8, length=length, seed=1)
    mask = torch.ones(3, length, dtype=torch.bool)
    with Largest() as largest:
        relation_loss(student, teacher, mask, heads=4).total.backward()
    assert largest.entries <= max(4000, 3 * length * 8)
    assert largest.entries < 3 * 4 * length * length


# What each architecture's last layer does to its input before it projects it, and the projections'
# names, written down once more: a shared table of names could not show a wrong one.
INPUT_NORM = {
    "gpt2": "ln_1",
    "modernbert": "attn_norm",
    **dict.fromkeys(("eurobert", "llama", "qwen2", "qwen3", "gemma3_text"), "input_layernorm"),
}
PROJECTIONS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), "attention.self.{query,key,value}"),
    "distilbert": "attention.{q_lin,k_lin,v_lin}",
    "gpt2": "attn.c_attn",
    "modernbert": "attn.Wqkv",
}


def states_by_hand(model, layer, inputs):
    """Queries, keys and values from the layer's input, by the model's own modules."""
    family = family_of(model)
    name = model.config.model_type
    hidden = model.base_model(**inputs, output_hidden_states=True).hidden_states[layer]
    block = family.layers(model)[layer]
    if name in INPUT_NORM:
        hidden = block.get_submodule(INPUT_NORM[name])(hidden)
    where = PROJECTIONS.get(name, "self_attn.{q_proj,k_proj,v_proj}")
    if "{" not in where:
        return block.get_submodule(where)(hidden).chunk(3, -1)
    place, _, names = where.rstrip("}").partition("{")
    return [block.get_submodule(place + each)(hidden) for each in names.split(",")]


def batch_for(model):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 150, (2, 11), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, -4:] = 0
    labels = ids.where(mask == 1, torch.tensor(-100))
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def other_width(name, **settings):
    """A student of half the width and depth; its random weights are no copy of anything."""
    return tiny.ARCHITECTURES[name](layers=2, hidden=16, seed=3, **settings)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_every_architecture_against_its_own_modules(name):
    """A fused projection split wrongly, another layer than the one named, a gradient cut off."""
    teacher = tiny.shaken(tiny.ARCHITECTURES[name](layers=4))
    student = tiny.shaken(other_width(name))
    plan = plan_relations(student, teacher, layer=2, heads=2)
    objective = LanguageModelObjective(
        student, temperature=2.0, restrict_to_mask=False, soft=False, relations=plan
    )
    given = batch_for(teacher)
    batch = objective.prepare(given)
    value = objective(
        batch, [objective.run_teacher(teacher, batch)], [0.0, 0.0, 0.0, 0.0, 0.5]
    ).objective
    value.backward()
    exact, wide = copy.deepcopy(student).double(), copy.deepcopy(teacher).double()
    exact.zero_grad()
    inputs = {key: given[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        theirs = states_by_hand(wide, 2, inputs)
    ours = states_by_hand(exact, 1, inputs)
    mask = given["attention_mask"].bool()
    expected = 0.5 * by_hand(ours, theirs, mask, 2, causal=family_of(student).causal)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    wanted = {key: p.grad for key, p in exact.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for key, parameter in student.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(
            found.double(),
            wanted.get(key, torch.zeros_like(found).double()),
            rtol=1e-3,
            atol=1e-5 * largest,
            msg=key,
        )


def test_hooks_do_not_stay():
    """Prevents a student that goes on collecting states after it was trained."""
    model = tiny.bert()
    with captured_states(model, 1) as states:
        model(torch.tensor([[5, 6, 7]]))
    assert len(states) == 3
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["bert", "modernbert", "gpt2", "qwen3"])
def test_a_student_that_is_its_teacher_learns_nothing(name):
    """Catches layers counted from the wrong end: then they would not be equal."""
    teacher = tiny.ARCHITECTURES[name](layers=3)
    student = make_student(teacher, num_layers=3, architecture=teacher.config.model_type)
    objective = LanguageModelObjective(
        student,
        temperature=2.0,
        restrict_to_mask=False,
        soft=False,
        relations=plan_relations(student, teacher),
    )
    batch = objective.prepare(batch_for(teacher))
    out = objective(batch, [objective.run_teacher(teacher, batch)], [0.0, 0.0, 0.0, 0.0, 1.0])
    assert out.sums.tolist() == [0, 0, 0, 0, 0]


def test_how_many_heads_and_which_layer():
    """Prevents heads that don't divide every width, and losing the paper's 48 of 768 and 384."""
    base, small = tiny.bert(hidden=768, layers=12).config, tiny.bert(hidden=384, layers=6).config
    assert plan_relations(small, base) == (5, 11, 48)
    assert plan_relations(small, base, layer=9, heads=12) == (5, 9, 12)
    # Queries 96 and 48 wide, keys 32 and 48: heads must divide the keys, too.
    teacher = tiny.qwen3(num_attention_heads=6, num_key_value_heads=2, head_dim=16).config
    student = tiny.qwen3(num_attention_heads=3, num_key_value_heads=3, head_dim=16).config
    assert plan_relations(student, teacher).heads == 4
    with pytest.raises(UserError, match=r"32, 48, 96 wide .* use one of 1, 2, 4, 8, 16"):
        plan_relations(student, teacher, heads=12)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layer": 4}, "relation_layer 4: the teacher has 4 layers, counted from 0: use 0 to 3"),
        ({"layer": -1}, "relation_layer -1"),
        ({"heads": 5}, "16, 32 wide in student and teacher, so use one of 1, 2, 4, 8, 16"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings, says):
    """Prevents a negative layer that counts from the end, and heads of unequal size."""
    with pytest.raises(UserError, match=says):
        plan_relations(tiny.bert(layers=2, hidden=16), tiny.bert(), **settings)


@pytest.mark.parametrize("settings", [{"relation_layer": 1}, {"relation_heads": 2}])
def test_settings_of_a_term_that_is_off_are_refused(tmp_path, settings):
    """Prevents a layer that somebody chose from being ignored."""
    args = DistilTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **settings)
    with pytest.raises(UserError, match="set alpha_rel above 0"):
        args.weights("masked")


def rows(count=12):
    generator = torch.Generator().manual_seed(0)
    return [
        {"input_ids": torch.randint(5, 150, (9,), generator=generator).tolist()}
        for _ in range(count)
    ]


class Rows(list):
    column_names = ("input_ids",)


def trained(tmp_path, student, teacher, **settings):
    args = DistilTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        max_steps=3,
        per_device_train_batch_size=4,
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
        **{"alpha_cos": 0.0, "alpha_rel": 1.0, "learning_rate": 1e-3, **settings},
    )
    trainer = DistilTrainer(
        student,
        args,
        teacher=teacher,
        train_dataset=rows(),
        processing_class=tiny.wordpiece(),
    )
    trainer.train()
    return trainer


def test_recomputed_activations_change_nothing(tmp_path):
    """Catches a gradient that is lost, or counted twice, where activations are recomputed."""
    weights = {}
    for recomputed in (False, True):
        student = other_width("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        trained(tmp_path, student, tiny.bert(), gradient_checkpointing=recomputed)
        weights[recomputed] = student.state_dict()
    torch.testing.assert_close(weights[True], weights[False], rtol=0, atol=1e-6)


def test_reentrant_recomputation_is_refused(tmp_path):
    """Prevents relations without a gradient: such checkpoints run the forward without autograd."""
    settings = {"use_reentrant": True}
    with pytest.raises(UserError, match="reentrant"):
        trained(
            tmp_path,
            other_width("bert"),
            tiny.bert(),
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs=settings,
        )


def test_a_run_logs_the_term_and_records_what_was_compared(tmp_path):
    """Prevents a record from which the run could not be repeated."""
    trainer = trained(tmp_path, other_width("bert"), [tiny.bert(), tiny.bert(layers=3, seed=5)])
    assert trainer.state.log_history[0]["loss_rel"] > 0
    settings = trainer.result_settings()
    assert (settings["alpha_rel"], settings["relation_layer"], settings["relation_heads"]) == (
        1.0,
        3,
        2,
    )
