"""Masks: pure functions of (seed, epoch, example, position) with the promised distribution."""

import pickle

import numpy as np
import pytest
import tiny
from scipy import stats

from angels_share.errors import UserError
from distil_trainer.data.masking import IGNORED, Draw, Masker, MaskingOptions, uniform

VOCAB, MASK, SPECIAL = 1000, 4, (0, 1, 2, 3, 4)
# Chosen beforehand: with this many checks, chance alone fails one in about a thousand runs of
# another seed. With ours the outcome is fixed.
UNLIKELY = 1e-4


def masker(seed=7, counts=None, **options):
    counts = np.ones(VOCAB, dtype=np.int64) if counts is None else counts
    return Masker(
        MaskingOptions(**options), seed=seed, token_counts=counts, mask_id=MASK, special_ids=SPECIAL
    )


def rows(count, width, *, seed=0):
    """`count` full rows [CLS] words [SEP] and the arguments that a batch of them needs."""
    tokens = np.random.default_rng(seed).integers(5, VOCAB, size=(count, width))
    tokens[:, 0], tokens[:, -1] = 2, 3
    return tokens, np.full(count, width), np.zeros(count, dtype=np.int64), np.arange(count)


def targets_of(masked):
    return masked.labels != IGNORED


def test_uniform_is_pinned():
    """A change of the hash would silently change every mask of every resumed run."""
    assert uniform(0, 1, 2, [3, 4]).tolist() == [0.0796997209214046, 0.7249230035082868]
    assert uniform(-1, 2**40)[0] == 0.21490558507703067


def test_uniform_is_splitmix64_in_plain_integers():
    """Vectorised unsigned arithmetic that overflows in another way would not be this function."""
    full = 2**64 - 1
    state = 0
    for word in (5, -3, 2**31, 123_456_789):
        state = ((state ^ (word & full)) + 0x9E3779B97F4A7C15) & full
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & full
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & full
        state ^= state >> 31
    assert uniform(5, -3, 2**31, 123_456_789)[0] == ((state >> 11) + 0.5) / 2**53


def test_masks_are_pinned():
    """A change of the key, the quota or the corruption would silently change resumed runs."""
    tokens = np.array([2, *range(10, 28), 3])
    masked = masker().mask_example(tokens, epoch=1, example=5)
    assert np.flatnonzero(targets_of(masked)).tolist() == [1, 15, 17]
    assert masked.input_ids[[1, 15, 17]].tolist() == [MASK, 410, MASK]


def test_draws_for_each_purpose_are_pinned():
    """Prevents a renumbered purpose, which would train on what an earlier version held out."""
    held_out = uniform(Draw.HOLD_OUT, 0, np.arange(1000)) < 0.005
    assert np.flatnonzero(held_out).tolist() == [216, 884]
    assert {purpose.name: purpose.value for purpose in Draw} == {
        "TARGET": 0, "CORRUPTION": 1, "REPLACEMENT": 2, "EXAMPLE_ORDER": 3, "STEP_ORDER": 4,
        "HOLD_OUT": 5,
    }  # fmt: skip


@pytest.mark.parametrize("word", range(4))
def test_uniform_is_uniform_along_every_argument(word):
    """A hash that is weak in one argument would give neighbouring examples or epochs one mask."""
    words = [3, 1, 4, 1]
    words[word] = np.arange(100_000)
    draws = uniform(*words)
    assert stats.kstest(draws, "uniform").pvalue > UNLIKELY
    pairs = np.histogram2d(draws[:-1], draws[1:], bins=20)[0]
    assert stats.chisquare(pairs.ravel()).pvalue > UNLIKELY


def test_uniform_tells_its_arguments_apart():
    """A hash that adds its arguments up would give (1, 2) the mask of (2, 1)."""
    words = np.stack(np.meshgrid(*[np.arange(-2, 10)] * 4), axis=-1).reshape(-1, 4).T
    assert len(np.unique(uniform(*words))) == words.shape[1]


def test_uniform_never_reaches_its_ends():
    """A draw of 0 would make an infinite key, a draw of 1 a token outside of the vocabulary."""
    draws = uniform(np.arange(200_000))
    assert draws.min() > 0
    assert draws.max() < 1


@pytest.mark.parametrize("width", [2, 7, 20, 21, 64])
def test_example_scope_masks_its_share_of_each_example(width):
    """A quota over the batch would leave some examples without a target."""
    masked = masker().mask_batch(*rows(50, width))
    expected = min(int(np.ceil(0.15 * width)), width - 2)
    assert (targets_of(masked).sum(axis=1) == expected).all()


def test_batch_scope_masks_its_share_of_the_batch():
    """The original's quota: special tokens count, padding does not."""
    tokens, lengths, epochs, examples = rows(10, 64)
    lengths = np.arange(4, 64, 6)
    masked = masker(scope="batch").mask_batch(tokens, lengths, epochs, examples)
    per_row = targets_of(masked).sum(axis=1)
    assert per_row.sum() == np.ceil(0.15 * lengths.sum())
    assert (per_row != np.ceil(0.15 * lengths)).any()


def test_token_scope_draws_each_token_alone():
    """BERT's own way: the number of targets must vary as a binomial number does."""
    masked = masker(scope="token").mask_batch(*rows(4000, 102))
    per_row = targets_of(masked).sum(axis=1)
    assert per_row.mean() == pytest.approx(15, abs=0.2)
    assert per_row.var() == pytest.approx(100 * 0.15 * 0.85, rel=0.1)


@pytest.mark.parametrize("scope", ["example", "batch", "token"])
def test_special_tokens_and_padding_are_never_targets(scope):
    """A target on [SEP] or padding teaches nonsense."""
    tokens, lengths, epochs, examples = rows(200, 40)
    tokens[:, 5:30] = 1  # [UNK], so many that the quota can't be filled everywhere
    lengths = np.full(200, 33)
    tokens[:, 32] = 3
    masked = masker(scope=scope).mask_batch(tokens, lengths, epochs, examples)
    hit = targets_of(masked)
    assert hit.any()
    assert not hit[np.isin(tokens, SPECIAL)].any()
    assert not hit[:, 33:].any()
    assert (masked.labels[hit] == tokens[hit]).all()
    assert (masked.input_ids[~hit] == tokens[~hit]).all()


def test_nothing_to_mask_is_no_error():
    """An example of special tokens only must not take its neighbours' quota or divide by zero."""
    tokens = np.array([[2, 1, 1, 3]])
    masked = masker().mask_batch(tokens, np.array([4]), np.array([0]), np.array([0]))
    assert (masked.labels == IGNORED).all()


@pytest.mark.parametrize("scope", ["example", "batch"])
def test_every_position_is_equally_likely(scope):
    """A biased sort would mask the beginning of every line more often than its end."""
    masked = masker(scope=scope, smoothing=0).mask_batch(*rows(20_000, 22))
    hits = targets_of(masked)[:, 1:-1].sum(axis=0)
    assert stats.chisquare(hits).pvalue > UNLIKELY


def test_corruptions_have_their_shares():
    """80 % [MASK], 10 % kept, 10 % random: other shares are another objective."""
    tokens, lengths, epochs, examples = rows(20_000, 22)
    masked = masker().mask_batch(tokens, lengths, epochs, examples)
    hit = targets_of(masked)
    seen, true = masked.input_ids[hit], tokens[hit]
    hidden, kept = (seen == MASK).sum(), (seen == true).sum()
    by_chance = 0.1 / VOCAB  # a random token may be [MASK] or the true one
    expected = np.array([0.8 + by_chance, 0.1 + by_chance, 0.1 - 2 * by_chance]) * len(seen)
    observed = [hidden, kept, len(seen) - hidden - kept]
    assert stats.chisquare(observed, expected).pvalue > UNLIKELY
    random = seen[(seen != MASK) & (seen != true)]
    assert stats.kstest(random / VOCAB, "uniform").pvalue > UNLIKELY
    assert random.min() < 5  # from the whole vocabulary, special tokens too, as the original


def test_corruption_options_are_obeyed():
    """Shares that are accepted and then ignored would be a lie on the command line."""
    tokens, *place = rows(100, 40)
    always = masker(mask_share=1.0, keep_share=0.0).mask_batch(tokens, *place)
    assert (always.input_ids[targets_of(always)] == MASK).all()
    never = masker(mask_share=0.0, keep_share=1.0).mask_batch(tokens, *place)
    assert (never.input_ids == tokens).all()
    assert targets_of(never).any()


@pytest.mark.parametrize("smoothing", [0.0, 0.7, 1.0])
def test_rare_words_are_masked_as_their_weights_say(smoothing):
    """With one target a row the odds of two words are exactly their weights' ratio."""
    counts = np.ones(VOCAB, dtype=np.int64)
    counts[10], counts[11] = 100, 0  # a word that was never seen weighs as one seen once
    tokens = np.tile([2, 10, 11, 3], (40_000, 1))
    place = (np.full(40_000, 4), np.zeros(40_000, dtype=np.int64), np.arange(40_000))
    hit = targets_of(masker(counts=counts, smoothing=smoothing).mask_batch(tokens, *place))
    weights = np.array([100.0, 1.0]) ** -smoothing
    expected = weights / weights.sum() * hit.sum()
    assert hit.sum() == 40_000
    assert stats.chisquare(hit[:, 1:3].sum(axis=0), expected).pvalue > UNLIKELY


def test_second_targets_are_drawn_without_replacement_by_weight():
    """Sorting by key/weight must be the sequential weighted draw, not just its first pick."""
    counts = np.ones(VOCAB, dtype=np.int64)
    counts[10:13] = 1, 4, 9
    weights = counts[10:13] ** -0.5
    share = weights / weights.sum()
    # Two of three are chosen: the one left out is drawn last.
    last = [
        sum(share[i] * share[j] / (1 - share[i]) for i, j in [(a, b), (b, a)])
        for a, b in [(1, 2), (0, 2), (0, 1)]
    ]
    tokens = np.tile([2, 10, 11, 12, 3], (40_000, 1))
    place = (np.full(40_000, 5), np.zeros(40_000, dtype=np.int64), np.arange(40_000))
    chosen = masker(counts=counts, smoothing=0.5, probability=0.4).mask_batch(tokens, *place)
    left_out = 40_000 - targets_of(chosen)[:, 1:4].sum(axis=0)
    assert stats.chisquare(left_out, np.array(last) * 40_000).pvalue > UNLIKELY


@pytest.mark.parametrize("change", ["epoch", "example", "seed"])
def test_epochs_examples_and_seeds_are_uncorrelated(change):
    """Dynamic masking is worth nothing if the next epoch, or the next example, masks the same."""
    tokens, lengths, epochs, examples = rows(5000, 42)
    first = targets_of(masker(smoothing=0).mask_batch(tokens, lengths, epochs, examples))
    other = masker(smoothing=0, seed=8 if change == "seed" else 7).mask_batch(
        tokens, lengths, epochs + (change == "epoch"), examples + (change == "example")
    )
    a, b = first[:, 1:-1].ravel(), targets_of(other)[:, 1:-1].ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(a.size)


@pytest.mark.parametrize("scope", ["example", "token"])
def test_an_example_is_masked_alike_in_any_batch(scope):
    """Resuming, another batch size or another process must not change one mask."""
    tokens, lengths, epochs, examples = rows(6, 30)
    lengths = np.array([30, 12, 25, 30, 8, 19])
    subject = masker(scope=scope)
    together = subject.mask_batch(np.pad(tokens, ((0, 0), (0, 10))), lengths, epochs + 3, examples)
    for row in reversed(range(6)):
        alone = pickle.loads(pickle.dumps(subject)).mask_example(
            tokens[row, : lengths[row]], epoch=3, example=row
        )
        np.testing.assert_array_equal(alone.labels, together.labels[row, : lengths[row]])
        np.testing.assert_array_equal(alone.input_ids, together.input_ids[row, : lengths[row]])


def test_global_generators_are_not_touched():
    """A masker that drew from numpy's generator would depend on what ran before it."""
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    masker().mask_batch(*rows(5, 20))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_for_tokenizer_knows_the_special_tokens():
    """[UNK] is special too: it can't be predicted from anything."""
    tokenizer = tiny.wordpiece()
    subject = Masker.for_tokenizer(
        tokenizer, MaskingOptions(), seed=0, token_counts=np.ones(len(tokenizer))
    )
    special = tokenizer.all_special_ids
    assert tokenizer.unk_token_id in special
    masked = subject.mask_example(np.array(special * 4 + [20]), epoch=0, example=0)
    assert np.flatnonzero(targets_of(masked)).tolist() == [len(special) * 4]


def test_a_tokenizer_without_a_mask_is_refused():
    """GPT-2 with a masked objective must fail before the corpus is prepared, in one line."""
    with pytest.raises(UserError, match="no mask token"):
        Masker.for_tokenizer(tiny.byte_bpe(), MaskingOptions(), seed=0, token_counts=np.ones(400))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"probability": 0.0}, "mlm_probability 0.0"),
        ({"probability": 1.5}, "mlm_probability 1.5"),
        ({"smoothing": -0.1}, "mlm_smoothing -0.1"),
        ({"scope": "corpus"}, "mask_scope 'corpus'"),
        ({"mask_share": 0.9, "keep_share": 0.2}, "mask_share and keep_share"),
    ],
)
def test_impossible_options_are_refused(options, named):
    """A typo must not become a mask of nothing."""
    with pytest.raises(UserError, match=named):
        MaskingOptions(**options)
