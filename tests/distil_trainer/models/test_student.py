"""Students: which layers, equal copies, and refusals before anything is built."""

import copy
import itertools
import random

import pytest
import tiny
import torch
import transformers

from angels_share.errors import UserError
from distil_trainer.models.families import family_named, family_of
from distil_trainer.models.student import (
    check_pair,
    choose_layers,
    default_layers,
    layers_by_type,
    make_student,
    plan_student,
)


def shaken(model, seed=0):
    """Adds noise everywhere: LayerNorms of ones and biases of zeros would hide a missed copy."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


TEACHERS = tiny.ARCHITECTURES
SAME = [(name, name) for name in TEACHERS]
EVERY_PAIR = [("bert", "distilbert"), *SAME]
every_pair = pytest.mark.parametrize(("origin", "architecture"), EVERY_PAIR)


def some_ids(rows=3, length=11):
    return torch.randint(5, 150, (rows, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("depth", "num_layers", "layers"),
    [
        (12, 6, (0, 2, 4, 7, 9, 11)),
        (6, 3, (0, 3, 5)),
        (12, 1, (0,)),
        (12, 2, (0, 11)),
        (24, 12, (0, 2, 4, 6, 8, 10, 13, 15, 17, 19, 21, 23)),
        (5, 5, (0, 1, 2, 3, 4)),
    ],
)
def test_default_layers(depth, num_layers, layers):
    """The paper's layers, and what rounding half up gives elsewhere."""
    assert default_layers(depth, num_layers) == layers


def test_default_layers_are_ascending_for_every_depth():
    """Rounding must never name a layer twice, nor leave the ends out."""
    for depth in range(2, 40):
        for num_layers in range(2, depth + 1):
            layers = default_layers(depth, num_layers)
            assert (layers[0], layers[-1], len(layers)) == (0, depth - 1, num_layers)
            assert list(layers) == sorted(set(layers))


def test_half_the_depth_rounded_up_is_the_default():
    """Five layers become three, not two."""
    assert choose_layers(5) == (0, 2, 4)
    assert choose_layers(12) == (0, 2, 4, 7, 9, 11)
    assert choose_layers(1) == (0,)


@pytest.mark.parametrize(
    ("layers", "num_layers", "message"),
    [
        ([0, 12], None, r"layer 12 of 12: .* 0\.\.11 are allowed"),
        ([-1, 3], None, r"layer -1 of 12: .* 0\.\.11 are allowed"),
        ([], None, "no layers"),
        ([0, 0, 3], None, "layers 0,0,3: .* each once, 0,3"),
        ([3, 0], None, "layers 3,0: give them in the teacher's order .* 0,3"),
        ([0, 3], 3, r"num_layers 3 and layers 0,3 \(2 of them\) disagree"),
        (None, 13, "a student of 13 layers: its teacher has 12, so use 1 to 12"),
        (None, 0, "a student of 0 layers"),
    ],
)
def test_impossible_layers_are_refused(layers, num_layers, message):
    """An index error, or a negative index that quietly means the last layer, after minutes."""
    with pytest.raises(UserError, match=message):
        choose_layers(12, layers, num_layers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "zeros"}, "unknown init 'zeros'"),
        ({"architecture": "distillbert"}, "did you mean 'distilbert'"),
        ({"architecture": "gpt2"}, "bert teacher can't have a gpt2 student"),
        ({"architecture": "bert", "fold_token_types": True}, "bert to bert loses none"),
        ({"init": "random", "fold_token_types": True}, "needs init teacher"),
    ],
)
def test_impossible_options_are_refused(options, message):
    """Options that can't be met would be ignored, or fail after the weights are read."""
    with pytest.raises(UserError, match=message):
        plan_student(transformers.BertConfig(), **options)


def test_another_epsilon_needs_a_bert_student():
    """DistilBERT's epsilon is hard-coded: copies at 1e-5 would be 1e-3 off from the start."""
    config = tiny.bert(layer_norm_eps=1e-5).config
    with pytest.raises(UserError, match=r'1e-05 .* distilbert always uses 1e-12.*="bert"'):
        plan_student(config)
    assert plan_student(config, architecture="bert").student.model_type == "bert"
    assert plan_student(config, init="random").student.model_type == "distilbert"


def test_refused_before_anything_is_built(monkeypatch):
    """A model of gigabytes must not be built to learn that a layer doesn't exist."""
    teacher = tiny.bert()
    monkeypatch.setattr(transformers.DistilBertForMaskedLM, "__init__", None)
    with pytest.raises(UserError, match="layer 4 of 4"):
        make_student(teacher, layers=[0, 4])


def test_types_that_are_not_lost_are_not_folded():
    """Prevents a BERT student from adding its token type twice, at the same time as keeping it."""
    with pytest.raises(UserError, match="bert to bert loses none"):
        make_student(tiny.bert(layers=2), architecture="bert", fold_token_types=True)
    with pytest.raises(UserError, match="needs init teacher"):
        make_student(tiny.bert(layers=2), init="random", fold_token_types=True)


def test_a_teacher_with_a_task_head_is_refused():
    """It has no vocabulary head to copy: the student's would be random without a word."""
    teacher = tiny.bert(model_class=transformers.BertForSequenceClassification)
    with pytest.raises(UserError, match=r"BertForSequenceClassification.*BertForMaskedLM"):
        make_student(teacher)


@pytest.mark.parametrize("origin", TEACHERS)
def test_same_architecture_copies_every_tensor(origin):
    """A tensor that isn't copied starts at random and looks like a bad recipe."""
    teacher = shaken(TEACHERS[origin](layers=4))
    family, weights = family_of(teacher), teacher.state_dict()
    first = 0 if family.first_layer_differs else 1
    student = make_student(teacher, layers=[first, 3], architecture=origin)
    for name, tensor in student.state_dict().items():
        for to, layer in ((1, 3), (0, first)):
            name = name.replace(f"{family.paths.layers}.{to}.", f"{family.paths.layers}.={layer}.")
        assert torch.equal(tensor, weights[name.replace("=", "")]), name


def test_distilbert_copies_every_tensor_of_a_bert():
    """The same, where the names differ: both list a layer's tensors in the order of use."""
    teacher = shaken(tiny.bert(layers=6, intermediate_size=72))
    student = make_student(teacher)
    assert isinstance(student, transformers.DistilBertForMaskedLM)
    bert, small = teacher.bert, student.distilbert
    assert len(small.transformer.layer) == 3
    for mine, layer in zip(small.transformer.layer, (0, 3, 5), strict=True):
        originals = bert.encoder.layer[layer].state_dict().values()
        for copied, original in zip(mine.state_dict().values(), originals, strict=True):
            assert torch.equal(copied, original)
    pairs = [
        (small.embeddings.word_embeddings, bert.embeddings.word_embeddings),
        (small.embeddings.position_embeddings, bert.embeddings.position_embeddings),
        (small.embeddings.LayerNorm, bert.embeddings.LayerNorm),
        (student.vocab_transform, teacher.cls.predictions.transform.dense),
        (student.vocab_layer_norm, teacher.cls.predictions.transform.LayerNorm),
        (student.vocab_projector, teacher.cls.predictions.decoder),
    ]
    for mine, original in pairs:
        for copied, tensor in zip(mine.parameters(), original.parameters(), strict=True):
            assert torch.equal(copied, tensor)


@every_pair
@torch.no_grad()
def test_full_depth_copy_equals_the_teacher(origin, architecture):
    """Any weight in the wrong place shows in the outputs, whatever the names say."""
    teacher = shaken(TEACHERS[origin](layers=3))
    fold = origin != architecture
    student = make_student(teacher, num_layers=3, architecture=architecture, fold_token_types=fold)
    ids = some_ids()
    difference = (student(ids).logits - teacher(ids).logits).abs().max()
    assert difference <= (2e-6 if fold else 0)  # sums in another order; else the very same


def logits_of_layers(teacher, layers, batch):
    """Return the logits of a teacher that is run with some of its layers only, by hand.

    Each layer is called with what the teacher's own forward gave it (its mask, its positions), so
    that no config decides how a layer works.
    """
    family, given, seen = family_of(teacher), {}, []

    def note(module, args, kwargs):
        given[module] = (args, kwargs)

    stack = family.layers(teacher)
    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in stack]
    hooks.append(stack[-1].register_forward_hook(lambda *_: seen.append(True)))
    family.body(teacher)(**family.model_inputs(batch))
    for hook in hooks:
        hook.remove()
    assert seen
    hidden = given[stack[0]][0][0]
    for layer in layers:
        (_, *args), kwargs = given[stack[layer]]
        hidden = stack[layer](hidden, *args, **kwargs)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    if family.paths.final_norm:
        hidden = teacher.get_submodule(family.paths.final_norm)(hidden)
    rows = family.transform(teacher, hidden.flatten(0, 1))
    return torch.nn.functional.linear(rows, *family.decoder(teacher)).view(*hidden.shape[:2], -1)


@pytest.mark.parametrize("layers", [(0, 1, 2, 3, 4, 5), (0, 3, 4), (0, 1, 3), (0, 5)])
@pytest.mark.parametrize("origin", TEACHERS)
@torch.no_grad()
def test_chosen_layers_work_as_they_do_in_the_teacher(origin, layers):
    """A layer of local attention that becomes global in the student, or the other way round."""
    teacher = shaken(TEACHERS[origin](layers=6))
    ids = some_ids(length=23)  # longer than the windows of local attention
    mask = torch.ones_like(ids)
    mask[-1, -5:] = 0
    batch = {"input_ids": ids, "attention_mask": mask}
    expected = logits_of_layers(teacher, layers, batch)
    student = make_student(teacher, layers=layers, architecture=origin)
    found = student(**batch).logits
    torch.testing.assert_close(found[mask == 1], expected[mask == 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("types", "num_layers", "layers"),
    [
        # ModernBERT-base: global attention in every third layer; of 22, half.
        ("Gll" * 7 + "G", 11, (0, 2, 4, 6, 8, 11, 12, 14, 17, 18, 20)),
        ("Gll" * 2, 3, (0, 2, 5)),
        # Gemma 3: in every sixth.
        ("lllllG" * 3, 9, (0, 2, 4, 6, 9, 11, 13, 15, 16)),
        ("lllllG" * 4 + "ll", 13, (0, 2, 4, 6, 8, 11, 13, 15, 16, 19, 21, 23, 25)),
    ],
)
def test_layers_keep_the_rhythm_of_their_teacher(types, num_layers, layers):
    """Evenly spaced layers of a ModernBERT would be global, local, global, local, ..."""
    chosen = layers_by_type(types, num_layers)
    assert chosen == layers
    assert [types[layer] for layer in chosen] == list(types[:num_layers])


@pytest.mark.parametrize(
    ("types", "num_layers"),
    [
        ("GGGlll", 3),  # Qwen2's windows: its first types alone would be half of the model
        ("lllllG", 3),  # no repetition to be kept
        ("lllllG" * 3, 4),  # shorter than what repeats: its first types would all be local
        ("GlGGGG", 4),
        ("GGGGGG", 3),
    ],
)
def test_layers_without_a_rhythm_are_evenly_spaced(types, num_layers):
    """The first types of such a teacher, in order, would be its first layers, or of one kind."""
    assert layers_by_type(types, num_layers) == default_layers(len(types), num_layers)


def test_layers_by_type_are_the_best_there_are():
    """A search that gives up early would leave layers bunched together."""
    draw = random.Random(0)
    for _ in range(200):
        depth = draw.randint(4, 10)
        period = draw.randint(1, depth // 2)
        types = (draw.choices("Gl", k=period) * depth)[:depth]
        num_layers = draw.randint(period, depth)
        even = default_layers(depth, num_layers)

        def cost(layers, types=types, even=even):
            wrong = sum(types[layer] != types[n] for n, layer in enumerate(layers))
            return wrong, sum((a - b) ** 2 for a, b in zip(layers, even, strict=True)), layers

        choices = itertools.combinations(range(depth), num_layers)
        best = min((layers for layers in choices if layers[0] == 0), key=cost)
        assert layers_by_type(types, num_layers) == best


def test_a_modernbert_has_its_rhythm_by_default_and_any_other_when_asked():
    """What the user names is taken, whatever its rhythm; without a word the rhythm stays."""
    teacher = tiny.modernbert(layers=6)
    kinds = {"full_attention": "G", "sliding_attention": "l"}

    def rhythm(**options):
        plan = plan_student(teacher.config, **options)
        return plan.layers, "".join(kinds[kind] for kind in plan.config.layer_types)

    assert rhythm() == ((0, 2, 5), "Gll")
    assert rhythm(layers=[0, 3, 4]) == ((0, 3, 4), "GGl")
    assert rhythm(layers=[1, 2], init="random") == ((1, 2), "ll")


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (
            tiny.modernbert,
            {"layers": [1, 3]},
            "layers 1,3: a modernbert student begins with its teacher's layer 0, which has no "
            "attention norm.*add 0",
        ),
        (
            lambda: tiny.gpt2(scale_attn_by_inverse_layer_idx=True),
            {"layers": [0, 2]},
            r"layers 0,2.*divides attention by the layer's number.*\(0,1\)",
        ),
        (tiny.modernbert, {"fold_token_types": True}, "fold_token_types: a modernbert.*rotary"),
        (tiny.nomic_bert, {"fold_token_types": True}, "fold_token_types: a nomic_bert.*rotary"),
        (tiny.llama, {"freeze_positions": True}, "freeze_positions: a llama.*rotary"),
    ],
)
def test_what_an_architecture_cannot_have_is_refused(make, options, said):
    """Each would be ignored, or make a student whose layers don't work as its teacher's."""
    with pytest.raises(UserError, match=said):
        make_student(make(), **options)


@torch.no_grad()
def test_unfolded_token_types_are_lost():
    """Folding is what makes the copy equal: without it the first layer reads something else."""
    teacher = shaken(tiny.bert(layers=2))
    student = make_student(teacher, num_layers=2)
    ids = some_ids()
    assert (student(ids).logits - teacher(ids).logits).abs().max() > 0.01


@torch.no_grad()
def test_the_head_transform_is_left_random_when_asked():
    """The original's default must be there to compare with, and must change nothing else."""
    teacher = shaken(tiny.bert(layers=2))
    with_transform, without = (
        make_student(teacher, copy_head_transform=copied).state_dict() for copied in (True, False)
    )
    differing = {name for name in without if not torch.equal(without[name], with_transform[name])}
    assert differing == {
        f"{module}.{tensor}"
        for module in ("vocab_transform", "vocab_layer_norm")
        for tensor in ("weight", "bias")
    }


@every_pair
def test_random_init_is_reproducible_and_leaves_the_global_generator(origin, architecture):
    """A random student must depend on its seed only, and must not shift anybody's draws."""
    teacher = shaken(TEACHERS[origin](layers=4))
    before = torch.get_rng_state()
    first, again, other = (
        make_student(teacher, init="random", architecture=architecture, seed=seed)
        for seed in (5, 5, 6)
    )
    assert torch.equal(torch.get_rng_state(), before)
    drawn = [model.get_input_embeddings().weight for model in (first, again, other, teacher)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])
    assert family_of(first).shape(first.config).depth == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_teacher_gives_a_float32_student(dtype):
    """Training would go on in the teacher's half precision without anybody having asked."""
    teacher = shaken(tiny.bert(layers=2)).to(dtype)
    student = make_student(teacher, fold_token_types=True)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    assert student.config.dtype == torch.float32
    embeddings = teacher.bert.embeddings
    expected = embeddings.position_embeddings.weight.float()
    expected = expected + embeddings.token_type_embeddings.weight[0].float()
    positions = student.distilbert.embeddings.position_embeddings.weight
    assert torch.equal(positions, expected)


@pytest.mark.parametrize("tied", [True, False])
@every_pair
def test_the_decoder_is_tied_as_the_teachers(origin, architecture, tied):
    """A decoder that came loose trains apart from the embeddings and is saved twice."""
    teacher = shaken(TEACHERS[origin](layers=2, tie_word_embeddings=tied))
    student = make_student(teacher, architecture=architecture)
    words = student.get_input_embeddings().weight
    decoder, bias = family_of(student).decoder(student)
    assert (decoder is words) is tied
    expected, expected_bias = family_of(teacher).decoder(teacher)
    assert torch.equal(decoder, expected)
    assert bias is expected_bias is None or torch.equal(bias, expected_bias)


def train(student, steps=3):
    ids = some_ids()
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1)
    for _ in range(steps):
        student(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@every_pair
def test_training_the_student_leaves_the_teacher_alone(origin, architecture):
    """Shared memory would train the teacher along, and the soft targets with it."""
    teacher = shaken(TEACHERS[origin](layers=2))
    before = copy.deepcopy(teacher.state_dict())
    student = make_student(teacher, architecture=architecture)
    train(student)
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("origin", "architecture"),
    [(origin, to) for origin, to in EVERY_PAIR if family_named(to).paths.position_embeddings],
)
def test_frozen_positions_stay_and_all_else_moves(origin, architecture):
    """Weight decay or a wrong name would move the table, or freeze more than it."""
    teacher = shaken(TEACHERS[origin](layers=2))
    student = make_student(teacher, architecture=architecture, freeze_positions=True)
    before = copy.deepcopy(dict(student.named_parameters()))
    train(student)
    moved = {
        name
        for name, parameter in student.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    positions = f"{family_of(student).paths.position_embeddings}.weight"
    assert set(before) - moved == {positions}


@every_pair
@torch.no_grad()
def test_a_student_survives_saving(origin, architecture, tmp_path):
    """A folder that from_pretrained can't load, or loads as something else, is no student."""
    student = make_student(shaken(TEACHERS[origin](layers=5)), architecture=architecture)
    student.save_pretrained(tmp_path)
    causal = family_of(student).causal
    plain = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
    loaded = plain.from_pretrained(tmp_path)
    assert type(loaded) is type(student)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, student.state_dict()[name]), name
    ids = some_ids(length=23)
    assert torch.equal(loaded.eval()(ids).logits, student(ids).logits)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            tiny.distilbert(vocab_size=161),
            tiny.bert(),
            "student's vocabulary has 161 tokens and the teacher's 160",
        ),
        (tiny.bert(layers=5), tiny.bert(layers=4), "student has 5 layers and its teacher 4"),
        (
            tiny.distilbert(hidden=16),
            tiny.bert(),
            "hidden size is 16 and the teacher's 32.*alpha_cos",
        ),
        (
            tiny.distilbert(max_position_embeddings=32),
            tiny.bert(),
            "student accepts at most 32 tokens and the teacher 64: limit sequences to 32",
        ),
        (tiny.gpt2(vocab_size=160), tiny.bert(), "gpt2 student and a bert teacher"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(student, teacher, message):
    """Each would crash inside a step, or worse, train on nonsense."""
    with pytest.raises(UserError, match=message):
        check_pair(student, teacher, needs_equal_width=True)


def test_pairs_that_fit_pass():
    """The checks must not refuse what works."""
    teacher = tiny.bert()
    check_pair(make_student(teacher), teacher, needs_equal_width=True)
    check_pair(tiny.distilbert(hidden=16).config, teacher.config, needs_equal_width=False)
    short = tiny.distilbert(max_position_embeddings=32)
    check_pair(short, teacher, needs_equal_width=True, max_length=32)


def test_sequences_longer_than_either_reads_are_refused():
    """RoBERTa's reserved positions count: 66 rows read 64 tokens."""
    model = tiny.roberta()
    check_pair(model, model, needs_equal_width=True, max_length=64)
    with pytest.raises(UserError, match=r"sequences of 65 tokens: .* so use 64 or fewer"):
        check_pair(model, model, needs_equal_width=True, max_length=65)


def test_permuted_vocabularies_are_refused():
    """Vocabularies of one size whose ids differ: soft targets for other words."""
    teacher = tiny.bert()
    mine = tiny.wordpiece()
    vocabulary = mine.get_vocab()
    same, other = copy.deepcopy(mine), copy.deepcopy(mine)
    swapped = vocabulary | {"the": vocabulary["teacher"], "teacher": vocabulary["the"]}
    other.get_vocab = lambda: swapped
    pair = {"student": make_student(teacher), "teacher": teacher, "needs_equal_width": True}
    check_pair(**pair, student_tokenizer=mine, teacher_tokenizer=same)
    with pytest.raises(
        UserError, match=r"token '(the|teacher)' has id \d+ for the student and \d+"
    ):
        check_pair(**pair, student_tokenizer=mine, teacher_tokenizer=other)


def test_real_bert_full_depth(real_data):
    """Trained weights, with their large values, keep the equality that tiny ones have."""
    teacher = transformers.BertForMaskedLM.from_pretrained(real_data / "models" / "tiny-bert")
    student = make_student(teacher.eval(), num_layers=2, fold_token_types=True)
    ids = torch.randint(1000, 30000, (2, 40), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(student(ids).logits, teacher(ids).logits, rtol=1e-5, atol=1e-5)
