"""Every architecture's objective against plain transformers: all logits at once, in float64."""

import copy

import pytest
import tiny
import torch
from torch.nn import functional

from distil_trainer import make_student
from distil_trainer.models.families import family_of
from distil_trainer.objectives.language_model import LanguageModelObjective, last_hidden_state

WEIGHTS = {"ce": 5.0, "hard": 2.0, "mse": 0.01, "cos": 1.0, "rel": 0.0}
TEMPERATURE = 2.0


def batch_for(model):
    """Three rows with padding on the right; labels as a masked or a causal collator makes them."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 150, (3, 19), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, -6:] = mask[2, -1:] = 0
    hidden = torch.rand(ids.shape, generator=generator) < (2 if family_of(model).causal else 0.3)
    labels = ids.where(hidden & (mask == 1), torch.tensor(-100))
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def of_the_objective(student, teacher, batch):
    """The value and all gradients of our objective."""
    objective = LanguageModelObjective(
        student, temperature=TEMPERATURE, restrict_to_mask=False, soft=True
    )
    batch = objective.prepare(dict(batch))
    counts = objective.counts(batch)
    weights = [weight / int(n) for weight, n in zip(WEIGHTS.values(), counts, strict=True)]
    states = objective.run_teacher(teacher, batch)
    value = objective(batch, [states], weights).objective
    value.backward()
    return value.detach(), {name: p.grad for name, p in student.named_parameters()}


def of_plain_transformers(student, teacher, batch):
    """The same from the models' own forwards, with full logits."""
    student, teacher = (copy.deepcopy(model).double() for model in (student, teacher))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        zt = teacher(**inputs).logits
        ht = teacher.base_model(**inputs).last_hidden_state
    zs, hs = student(**inputs).logits, student.base_model(**inputs).last_hidden_state
    attended, labels = batch["attention_mask"].bool(), batch["labels"]
    soft = (z[attended] / TEMPERATURE for z in (zs, zt))
    log_s, log_t = (z.log_softmax(-1) for z in soft)
    kl = (log_t.exp() * (log_t - log_s)).sum(-1).mean() * TEMPERATURE**2
    if family_of(student).causal:
        hard = functional.cross_entropy(zs[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    else:
        hard = functional.cross_entropy(zs.flatten(0, 1), labels.flatten())
    mse = (zs - zt)[attended].square().sum(-1).mean()
    cos = 1 - functional.cosine_similarity(hs[attended], ht[attended], dim=-1)
    terms = (kl, hard, mse, cos.mean(), torch.zeros(()))  # relations: test_relations.py
    value = sum(weight * term for weight, term in zip(WEIGHTS.values(), terms, strict=True))
    value.backward()
    return value.detach(), {name: p.grad for name, p in student.named_parameters()}


VARIANTS = [
    *(
        (name, {"tie_word_embeddings": tied})
        for name in tiny.ARCHITECTURES
        for tied in (True, False)
    ),
    ("modernbert", {"decoder_bias": False}),
    (
        "modernbert",
        dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True),
    ),
    ("eurobert", {"mlp_bias": True}),  # of its head, too
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("qwen3", {"num_key_value_heads": 2}),
]


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=str)
def test_value_and_gradient_equal_plain_transformers_in_float64(name, settings):
    """A head put together wrongly, a loss that isn't shifted, a gradient that a tie loses."""
    teacher = tiny.shaken(tiny.ARCHITECTURES[name](layers=4, **settings))
    student = tiny.shaken(make_student(teacher, num_layers=2))
    batch = batch_for(teacher)
    value, gradients = of_the_objective(student, teacher, batch)
    expected, wanted = of_plain_transformers(student, teacher, batch)
    assert value.double() == pytest.approx(float(expected), rel=1e-6)
    assert gradients.keys() == wanted.keys()
    unused = {parameter for parameter, gradient in wanted.items() if gradient is None}
    assert {parameter for parameter, gradient in gradients.items() if gradient is None} == unused
    largest = max(float(wanted[parameter].abs().max()) for parameter in wanted.keys() - unused)
    for parameter in wanted.keys() - unused:
        # Of a key's bias, for example, the gradient is zero, and what is found is its rounding.
        torch.testing.assert_close(
            gradients[parameter].double(),
            wanted[parameter],
            rtol=1e-4,
            atol=1e-6 * largest,
            msg=parameter,
        )


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text"])
def test_a_text_end_that_also_pads_is_learned(name):
    """Its embedding would stay as it was: the model's padding is left out of the gradient."""
    teacher = tiny.shaken(tiny.ARCHITECTURES[name](pad_token_id=0, tie_word_embeddings=False))
    student = tiny.shaken(copy.deepcopy(teacher))  # as one that was loaded
    batch = batch_for(teacher)
    batch["input_ids"][:, 0] = 0
    _, gradients = of_the_objective(student, teacher, batch)
    words = gradients["model.embed_tokens.weight"]
    assert words[0].abs().max() > 0
    unread = set(range(len(words))) - set(batch["input_ids"].unique().tolist())
    assert words[sorted(unread)].abs().max() == 0


@torch.no_grad()
def test_padding_on_the_right_changes_nothing():
    """A pad token that is read by the tokens before it would make a batch's width matter."""
    for name in ("llama", "modernbert"):
        model = tiny.shaken(tiny.ARCHITECTURES[name]())
        ids = batch_for(model)["input_ids"][:1, :11]
        wide = functional.pad(ids, (0, 8), value=7)
        mask = functional.pad(torch.ones_like(ids), (0, 8))
        family = family_of(model)
        alone, padded = (
            last_hidden_state(model, family, {"input_ids": rows, "attention_mask": seen})
            for rows, seen in ((ids, torch.ones_like(ids)), (wide, mask))
        )
        torch.testing.assert_close(padded[:, :11], alone, rtol=0, atol=1e-5)


def test_the_divergence_is_the_one_that_was_asked_for():
    """Prevents reverse KL that is accepted and never reaches the head, or reaches it twice."""
    teacher, student = tiny.shaken(tiny.bert()), tiny.shaken(tiny.bert(layers=2, seed=4))
    batch = batch_for(teacher)
    found = {}
    for divergence in ("kl", "reverse_kl"):
        objective = LanguageModelObjective(
            student,
            temperature=TEMPERATURE,
            restrict_to_mask=False,
            soft=True,
            divergence=divergence,
        )
        prepared = objective.prepare(dict(batch))
        states = [objective.run_teacher(teacher, prepared)]
        found[divergence] = objective(prepared, states, [1.0, 0.0, 0.0, 0.0, 0.0]).sums[0].item()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits = [copy.deepcopy(each).double()(**inputs).logits for each in (student, teacher)]
    attended = batch["attention_mask"].bool()
    ours, theirs = ((each[attended] / TEMPERATURE).log_softmax(-1) for each in logits)
    reverse = (ours.exp() * (ours - theirs)).sum() * TEMPERATURE**2
    assert found["reverse_kl"] == pytest.approx(reverse.item(), rel=1e-5)
    assert found["kl"] != pytest.approx(found["reverse_kl"], rel=1e-3)
