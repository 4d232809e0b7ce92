"""Sensitivities against finite differences, and cuts against the models they were cut from."""

import copy

import pytest
import tiny
import torch
import transformers

from angels_share.errors import RunFailed, UserError
from distil_trainer.models.families import family_of
from distil_trainer.models.importance import Importance, measure_importance, norms_of_width
from distil_trainer.models.pruning import Sizes, prune

IDS = torch.randint(5, 150, (3, 11), generator=torch.Generator().manual_seed(0))


def shaken(name, **settings):
    return tiny.shaken(tiny.ARCHITECTURES[name](**settings))


def per_example(model, ids):
    """One number per example that depends on every part of the model."""
    return model(input_ids=ids).logits.log_softmax(-1)[..., 7].sum(1)


def measured(model, batches=(IDS,)):
    return measure_importance(model, batches, lambda ids: per_example(model, ids).sum())


def slope(model, change):
    """E |dL/dg| of each example by central differences; `change` scales a part's output by g."""
    step, values = 2e-3, []  # norms and rotary positions compute in float32
    for factor in (1 + step, 1 - step):
        changed = copy.deepcopy(model)
        with torch.no_grad():
            change(changed, factor)
            values.append(per_example(changed, IDS))
    return ((values[0] - values[1]) / (2 * step)).abs().mean().item()


def scale_inputs(module, columns, factor):
    """Scale what a projection reads: a head's output, or a neuron's."""
    if isinstance(module, transformers.pytorch_utils.Conv1D):
        module.weight[columns] *= factor
    else:
        module.weight[:, columns] *= factor


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_sensitivities_equal_finite_differences_in_float64(name):
    """Catches a gate at the wrong place, a head that is another, examples whose signs cancel."""
    model = shaken(name, layers=2).double()
    family = family_of(model)
    found = measured(model)
    size = family.head_size(model.config)
    for layer in (0, 1):
        for head in range(family.shape(model.config).heads):

            def on_head(changed, factor, layer=layer, head=head):
                out = family.layers(changed)[layer].get_submodule(family.layer.attention_output)
                scale_inputs(out, slice(head * size, (head + 1) * size), factor)

            expected = slope(model, on_head)
            assert found.heads[layer, head].item() == pytest.approx(expected, rel=2e-3, abs=1e-6)
        for neuron in (0, 17, 63):

            def on_neuron(changed, factor, layer=layer, neuron=neuron):
                out = family.layers(changed)[layer].get_submodule(family.layer.feed_forward_output)
                scale_inputs(out, neuron, factor)

            expected = slope(model, on_neuron)
            assert found.neurons[layer, neuron].item() == pytest.approx(
                expected, rel=2e-3, abs=1e-6
            )
    width = family.shape(model.config).width
    for unit in (0, 31):
        total = 0.0
        for place in range(len(norms_of_width(family.body(model), width))):

            def on_unit(changed, factor, place=place, unit=unit):
                norm = norms_of_width(family.body(changed), width)[place]
                norm.register_forward_hook(scaled(unit, factor))

            total += slope(model, on_unit)
        assert found.units[unit].item() == pytest.approx(total, rel=2e-3, abs=1e-6)


def scaled(unit, factor):
    def hook(_module, _inputs, output):
        gate = torch.ones(output.shape[-1], dtype=output.dtype)
        gate[unit] = factor
        return output * gate

    return hook


def test_measuring_leaves_the_model_as_it_was():
    """Prevents gates that stay, weights that stop learning, and dropout that stays off."""
    model = shaken("bert").train()
    model.bert.embeddings.position_embeddings.weight.requires_grad_(requires_grad=False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    measured(model)
    after = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert after == before
    assert model.training
    hooks = [(each._forward_hooks, each._forward_pre_hooks) for each in model.modules()]
    assert not any(map(any, hooks))


def test_how_examples_are_batched_does_not_matter():
    """Prevents a sum over a batch inside of the absolute value."""
    model = shaken("bert", layers=2)
    together, alone = measured(model), measured(model, [row[None] for row in IDS])
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_a_cut_of_nothing_is_the_model(name):
    """Catches weights that are taken apart and put together in another order."""
    model = shaken(name)
    pruned = prune(model, Sizes.of(model), measured(model))
    assert torch.equal(pruned(input_ids=IDS).logits, model(input_ids=IDS).logits)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_neurons_that_are_zero_can_be_cut(name):
    """Prevents a cut that keeps other neurons than the important ones, or mixes up a gate's."""
    model = shaken(name)
    family = family_of(model)
    ffn = family.shape(model.config).ffn
    kept = torch.randperm(ffn, generator=torch.Generator().manual_seed(1))[: ffn // 3]
    dead = sorted(set(range(ffn)) - set(kept.tolist()))
    with torch.no_grad():
        for layer in family.layers(model):
            scale_inputs(layer.get_submodule(family.layer.feed_forward_output), dead, 0.0)
    importance = measured(model)
    assert importance.neurons[:, dead].eq(0).all()
    pruned = prune(model, Sizes.of(model)._replace(ffn=len(kept)), importance)
    torch.testing.assert_close(
        pruned(input_ids=IDS).logits, model(input_ids=IDS).logits, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text", "eurobert", "nomic_bert"])
def test_heads_that_are_zero_can_be_cut(name):
    """Prevents a query that is given another group's keys."""
    settings = {"hidden": 48, "num_attention_heads": 6, "head_dim": 8}
    if name != "nomic_bert":
        settings["num_key_value_heads"] = 3
    model = shaken(name, **settings)
    family, size = family_of(model), 8
    dead = [1, 2, 3, 5] if "num_key_value_heads" in settings else [0, 1, 3, 5]
    kept = [head for head in range(6) if head not in dead]
    columns = [head * size + each for head in dead for each in range(size)]
    with torch.no_grad():
        for layer in family.layers(model):
            scale_inputs(layer.get_submodule(family.layer.attention_output), columns, 0.0)
    importance = measured(model)
    assert importance.heads[:, dead].eq(0).all()
    assert importance.heads[:, kept].gt(0).all()
    pruned = prune(model, Sizes.of(model)._replace(heads=2, key_value_heads=2), importance)
    torch.testing.assert_close(
        pruned(input_ids=IDS).logits, model(input_ids=IDS).logits, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_the_most_important_units_are_kept(name):
    """Prevents the least important units from being kept, or other ones of each table."""
    model = shaken(name)
    family, sizes = family_of(model), small(model)
    old = Sizes.of(model)
    draw = torch.Generator().manual_seed(3)
    depth = len(family.layers(model))
    shapes = ((depth, old.heads), (depth, old.ffn), (old.width,))
    importance = Importance(*(torch.rand(shape, generator=draw) for shape in shapes))
    kept = sorted(sorted(range(old.width), key=lambda n: -importance.units[n])[: sizes.width])
    neurons = sorted(sorted(range(old.ffn), key=lambda n: -importance.neurons[1, n])[: sizes.ffn])
    pruned = prune(model, sizes, importance)
    words = family.paths.word_embeddings
    found, whole = (each.get_submodule(words).weight for each in (pruned, model))
    assert torch.equal(found, whole[:, kept])
    out = family.layer.feed_forward_output
    found, whole = (family.layers(each)[1].get_submodule(out).weight for each in (pruned, model))
    if isinstance(family.layers(model)[1].get_submodule(out), transformers.pytorch_utils.Conv1D):
        found, whole = found.T, whole.T
    assert torch.equal(found, whole[kept][:, neurons])


def test_what_is_not_finite_is_no_importance():
    """Prevents a cut by NaN, which ranks parts by their place."""
    model = shaken("bert", layers=1)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0, 0] = torch.nan
    with pytest.raises(RunFailed, match="not finite"):
        measured(model)


def small(model):
    old = Sizes.of(model)
    return Sizes(old.width // 2, old.heads // 2, max(old.key_value_heads // 2, 1), old.ffn // 3)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_a_cut_is_an_ordinary_model(name, tmp_path):
    """Prevents a cut that only we can load, or one with a weight of the old width left in it."""
    model = shaken(name)
    pruned = prune(model, small(model), measured(model))
    assert Sizes.of(pruned) == small(model)
    pruned.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids=IDS).logits, pruned(input_ids=IDS).logits)
    before = model.state_dict()
    for weight in pruned.state_dict():
        assert weight in before


@pytest.mark.parametrize("width", [24, 32])
def test_tables_as_long_as_the_model_is_wide(width):
    """Prevents a table of positions, types or classes from losing rows that look like units."""
    model = tiny.shaken(
        tiny.bert(
            hidden=32,
            max_position_embeddings=32,
            vocab_size=160,
            num_labels=32,
            model_class=transformers.BertForSequenceClassification,
        )
    )
    importance = measured_of_classes(model)
    heads = width // 16
    if width % 16:
        with pytest.raises(UserError, match="use 16 or 1 head with 16"):
            prune(model, Sizes(width, 1, 1, 64), importance)
        return
    pruned = prune(model, Sizes(width, heads, heads, 64), importance)
    assert pruned.bert.embeddings.position_embeddings.weight.shape == (32, width)
    assert pruned.classifier.weight.shape == (32, width)


def measured_of_classes(model):
    return measure_importance(model, [IDS], lambda ids: model(input_ids=ids).logits[:, 0].sum())


HEADS = {
    "bert": "BertForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "modernbert": "ModernBertForSequenceClassification",
    "gpt2": "GPT2ForSequenceClassification",
    "qwen3": "Qwen3ForSequenceClassification",
}


@pytest.mark.parametrize("name", HEADS)
def test_a_model_with_a_tasks_head(name):
    """Prevents a pooler or a classifier whose width stays that of the model before."""
    model_class = getattr(transformers, HEADS[name])
    model = tiny.shaken(tiny.ARCHITECTURES[name](model_class=model_class, pad_token_id=0))
    importance = measured_of_classes(model)
    same = prune(model, Sizes.of(model), importance)
    assert torch.equal(same(input_ids=IDS).logits, model(input_ids=IDS).logits)
    pruned = prune(model, small(model), importance)
    assert pruned(input_ids=IDS).logits.shape == model(input_ids=IDS).logits.shape


@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("bert", Sizes(32, 1, 1, 64), "use 16 or 2 heads with 32"),
        ("bert", Sizes(32, 2, 2, 65), "feed-forward width 65: the model has 64"),
        ("bert", Sizes(0, 2, 2, 64), "hidden size 0"),
        ("qwen3", Sizes(32, 3, 1, 64), "heads 3: the model has 2"),
        ("gpt2", Sizes(16, 2, 2, 64), "use 32 or 1 head with 16"),
    ],
)
def test_sizes_that_no_cut_has(name, sizes, said):
    """Prevents a shape error deep in torch where somebody mistook a number."""
    model = tiny.ARCHITECTURES[name]()
    old = Sizes.of(model)
    equal = Importance(torch.ones(4, old.heads), torch.ones(4, old.ffn), torch.ones(old.width))
    with pytest.raises(UserError, match=said):
        prune(model, sizes, equal)


def test_queries_and_their_keys():
    """Prevents more queries to a key than the model had."""
    model = tiny.ARCHITECTURES["qwen3"](num_attention_heads=4, num_key_value_heads=2)
    equal = Importance(torch.ones(4, 4), torch.ones(4, 64), torch.ones(32))
    with pytest.raises(UserError, match="use 1 times 1 to 2"):
        prune(model, Sizes(32, 4, 1, 64), equal)
