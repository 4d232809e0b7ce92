"""Masks of padding that nothing has to be asked about: with them a model says the same."""

import pytest
import tiny
import torch
import transformers

from distil_trainer.models.families import FAMILIES, family_of
from distil_trainer.models.padding import hides_nothing, takes_whole_mask, whole_mask
from distil_trainer.objectives.language_model import last_hidden_state

PADDED = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]])
WHOLE = [name for name, family in FAMILIES.items() if family.one_mask]
CAUSAL = [name for name, family in FAMILIES.items() if family.causal]


def ids():
    return torch.randint(5, 150, PADDED.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_mask_says_the_same(name):
    """Prevents another result from a mask that transformers passes on unread."""
    model = tiny.shaken(tiny.ARCHITECTURES[name]())
    body = family_of(model).body(model)
    mask = whole_mask(model, PADDED)
    assert mask.shape == (3, 1, 6, 6)
    ours, theirs = (
        body(input_ids=ids(), attention_mask=each).last_hidden_state for each in (mask, PADDED)
    )
    assert torch.equal(ours, theirs)
    without = body(input_ids=ids()).last_hidden_state
    assert not torch.allclose(without, theirs)


@pytest.mark.parametrize("name", set(FAMILIES) - set(WHOLE))
def test_other_models_keep_theirs(name):
    """Prevents a window of attention, or a causal mask, that a whole mask would replace."""
    assert whole_mask(tiny.ARCHITECTURES[name](), PADDED) is PADDED


def test_attention_that_wants_a_plain_mask_gets_it():
    """Prevents a mask of booleans that eager attention would add to its scores."""
    model = tiny.bert()
    model.set_attn_implementation("eager")
    assert whole_mask(model, PADDED) is PADDED
    decoder = tiny.bert(is_decoder=True)
    assert not takes_whole_mask(decoder)
    given = PADDED[:, None, None, :]
    assert whole_mask(tiny.bert(), given) is given


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_model_needs_no_mask_of_the_padding_on_its_right(name, caplog):
    """Prevents tokens that see padding, or more than the ones before them, or a false warning."""
    model = tiny.shaken(tiny.ARCHITECTURES[name]())
    model.config.pad_token_id = int(ids()[0, 0])
    family = family_of(model)
    assert hides_nothing(PADDED, causal=True)
    ours = last_hidden_state(model, family, {"input_ids": ids()})
    theirs = family.body(model)(
        input_ids=ids(), attention_mask=PADDED, use_cache=False
    ).last_hidden_state
    attended = PADDED.bool()
    torch.testing.assert_close(ours[attended], theirs[attended], rtol=1e-5, atol=1e-6)
    assert "attention_mask" not in caplog.text


@pytest.mark.parametrize("name", CAUSAL)
def test_recomputed_activations_say_the_same(name, caplog):
    """Prevents a warning that a cache which holds nothing is switched off."""
    model = tiny.ARCHITECTURES[name]()
    family = family_of(model)
    plain = last_hidden_state(model, family, {"input_ids": ids()})
    model.train().gradient_checkpointing_enable()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    again = last_hidden_state(model, family, {"input_ids": ids()})
    torch.testing.assert_close(again, plain)
    assert "cach" not in caplog.text.lower()


@pytest.mark.parametrize(
    ("rows", "two_way", "causal"),
    [
        ([[1, 1, 1], [1, 1, 1]], True, True),
        ([[1, 1, 1], [1, 1, 0]], False, True),
        ([[1, 1, 1], [0, 1, 1]], False, False),
        ([[1, 0, 1], [1, 1, 1]], False, False),
        ([[1, 1, 1], [0, 0, 0]], False, False),
    ],
)
def test_what_hides_nothing(rows, two_way, causal):
    """Prevents a mask that is dropped though padding lies on the left or between tokens."""
    mask = torch.tensor(rows)
    assert hides_nothing(mask) is two_way
    assert hides_nothing(mask, causal=True) is causal


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
@pytest.mark.parametrize("name", ["Bert", "DistilBert", "Roberta", "NomicBert"])
def test_heads_pass_it_on(name, head):
    """Prevents a head that counts on a mask of two dimensions."""
    model_class = getattr(transformers, f"{name}For{head}", None)
    if model_class is None:
        pytest.skip(f"transformers has no {name}For{head}")
    model_type = model_class.config_class.model_type
    model = tiny.ARCHITECTURES[model_type](model_class=model_class)
    ours, theirs = (
        model(input_ids=ids(), attention_mask=each).logits
        for each in (whole_mask(model, PADDED), PADDED)
    )
    assert torch.equal(ours, theirs)
