"""Differences: how often their intervals cover the truth, and what p-values say."""

from dataclasses import replace

import made_results as made
import numpy as np
import pytest

from eval_harness.intervals.bootstrap import draws
from eval_harness.intervals.differences import Difference, Scores, difference, holm
from eval_harness.results.store import find
from eval_harness.rows.grouping import rows_of
from eval_harness.tables import comparison
from eval_harness.tables.comparison import scores_by_seed

EXAMPLES, RESAMPLES, EXPERIMENTS = 80, 100, 1000


def scores_of(values, counts, seeds=None):
    """Scores of models whose value of each example is given, [models, examples]."""
    seeds = tuple(range(len(values))) if seeds is None else seeds
    return Scores(values.mean(axis=1), values @ counts.T / values.shape[1], seeds, values.shape[1])


def experiments(*, seeds, over_seeds, over_examples, noise=0.0, paired=True, seed=1, truth=0.3):
    """Yield differences of two models that were made anew each time, from new examples.

    The spreads are those of a model's mean score: each seed's luck, what an example is easier for
    one of the models, and what is both at once.
    """
    random = np.random.default_rng(seed)
    wide = np.sqrt(EXAMPLES)
    ours, theirs = seeds if isinstance(seeds, tuple) else (seeds, seeds)
    for _ in range(EXPERIMENTS):
        hardness = random.normal(size=EXAMPLES) * 5  # the same for both models
        values = [
            mean
            + hardness
            + easier * over_examples * wide
            + random.normal(size=(count, 1)) * over_seeds
            + random.normal(size=(count, EXAMPLES)) * noise * wide
            for mean, count, easier in (
                (truth, ours, random.normal(size=EXAMPLES)),
                (0.0, theirs, 0.0),
            )
        ]
        (counts,) = draws(random, EXAMPLES, RESAMPLES)
        others = None if paired else tuple(range(100, 100 + theirs))
        yield difference(scores_of(values[0], counts), scores_of(values[1], counts, others))


CASES = {
    "three seeds, which decide": {"seeds": 3, "over_seeds": 1.0, "over_examples": 0.05},
    "three seeds, as much as examples": {"seeds": 3, "over_seeds": 1.0, "over_examples": 1.0},
    "three seeds, examples decide": {"seeds": 3, "over_seeds": 0.02, "over_examples": 1.0},
    "three seeds, all at once": {
        "seeds": 3, "over_seeds": 0.5, "over_examples": 0.5, "noise": 0.5,
    },
    "five seeds, which decide": {"seeds": 5, "over_seeds": 1.0, "over_examples": 0.05},
    "five seeds, as much as examples": {"seeds": 5, "over_seeds": 1.0, "over_examples": 0.6},
    "five seeds, examples decide": {"seeds": 5, "over_seeds": 0.02, "over_examples": 1.0},
    "three seeds, not paired": {
        "seeds": 3, "over_seeds": 1.0, "over_examples": 0.3, "paired": False,
    },
    "three seeds against one model": {"seeds": (3, 1), "over_seeds": 0.0, "over_examples": 1.0},
    "one model each": {"seeds": 1, "over_seeds": 0.0, "over_examples": 1.0},
}  # fmt: skip
EXACT = {name for name in CASES if "decide" in name or "one model each" in name}
"""Where one source alone decides, an interval must not be too wide, either."""


@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_the_truth(case):
    """Prevents intervals that are too narrow: differences that are none would be told.

    Of 95 % intervals of 1,000 simulated experiments at least 93 % must cover.
    """
    found = list(experiments(**CASES[case]))
    covered = np.mean([abs(each.value - 0.3) <= each.half for each in found])
    assert covered >= 0.93
    if case in EXACT:
        assert covered <= 0.97


def test_a_difference_of_nothing_is_rarely_told():
    """Prevents more than one false alarm in twenty."""
    setting = {"seeds": 3, "over_seeds": 0.7, "over_examples": 0.7, "truth": 0.0}
    assert np.mean([each.p < 0.05 for each in experiments(**setting)]) <= 0.07
    clear = {"seeds": 5, "over_seeds": 0.05, "over_examples": 0.05, "truth": 1.0}
    assert np.mean([each.p < 0.05 for each in experiments(**clear)]) > 0.99


@pytest.mark.parametrize("case", CASES)
def test_the_p_value_agrees_with_the_interval(monkeypatch, case):
    """Prevents a star beside an interval that reaches 0, and none beside one that doesn't."""
    monkeypatch.setattr(f"{__name__}.EXPERIMENTS", 60)
    told = []
    for each in experiments(**{**CASES[case], "truth": 1.5}):
        assert (each.p < 0.05) == (abs(each.value) > each.half)
        assert 0 <= each.p <= 1
        told.append(each.p < 0.05)
    assert any(told)


def some(count=3, seed=0, shift=0.0, seeds=None):
    random = np.random.default_rng(seed)
    (counts,) = draws(np.random.default_rng(9), EXAMPLES, RESAMPLES)
    return scores_of(random.normal(size=(count, EXAMPLES)) + shift, counts, seeds)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_identical_scores_differ_by_nothing(count):
    """Prevents a difference, or an interval, between a model and itself."""
    found = difference(some(count), some(count))
    assert (found.value, found.half, found.p, found.why) == (0, 0, 1, "")


def test_a_constant_difference_is_certain():
    """Prevents a division by a variance of 0, and a p-value of 1 where nothing varies."""
    ours = some(3)
    theirs = Scores(ours.points - 0.5, ours.resampled - 0.5, ours.seeds, ours.examples)
    found = difference(ours, theirs)
    assert (found.value, found.half, found.p) == (pytest.approx(0.5), 0, 0)


@pytest.mark.parametrize(("ours", "theirs"), [(2, 2), (2, 3), (3, 2), (1, 2), (2, 1)])
def test_two_seeds_are_too_few(ours, theirs):
    """Prevents a t interval of one degree of freedom, thirteen standard errors wide."""
    found = difference(some(ours), some(theirs, seed=1))
    assert (found.half, found.p, found.why) == (None, None, "n too small")
    assert found.value == some(ours).points.mean() - some(theirs, seed=1).points.mean()


def test_the_sign_is_that_of_the_first():
    """Prevents a better model from being shown as the worse one."""
    found = difference(some(3, shift=2.0), some(3, seed=1))
    assert 1.5 < found.value < 2.5
    back = difference(some(3, seed=1), some(3, shift=2.0))
    assert (back.value, back.half, back.p) == pytest.approx((-found.value, found.half, found.p))


def test_seeds_that_are_the_same_are_paired():
    """Prevents the luck that both models share from hiding a difference, or from being lost."""
    luck = np.array([[-3.0], [0.0], [3.0]])
    (counts,) = draws(np.random.default_rng(9), EXAMPLES, RESAMPLES)
    noise = np.random.default_rng(2).normal(size=(3, EXAMPLES))
    ours, theirs = noise + luck + 1, np.roll(noise, 1, axis=1) + luck
    paired = difference(scores_of(ours, counts), scores_of(theirs, counts))
    apart = difference(scores_of(ours, counts), scores_of(theirs, counts, (7, 8, 9)))
    assert paired.value == apart.value
    assert paired.half < 1 < apart.half
    # Two means of three, each with t of 2 degrees of freedom.
    of_seeds = 4.302653 * np.sqrt(2 * 9 / 3)
    assert apart.half == pytest.approx(of_seeds, rel=0.05)


def test_one_model_has_no_luck_of_its_own():
    """Prevents a teacher, of which there is one, from making every interval undefined."""
    students = some(3)
    points = students.points + np.array([-3, 0, 3])
    students = Scores(points, students.resampled, students.seeds, EXAMPLES)
    teacher = some(1, seed=4, seeds=(None,))
    expected = 4.302653 * np.sqrt(students.points.var(ddof=1) / 3)
    assert difference(students, teacher).half == pytest.approx(expected, rel=0.01)
    alone = Scores(students.points[:1], students.resampled[:1], (0,), EXAMPLES)
    assert difference(alone, teacher).half < 0.5


def test_the_width_is_that_of_a_t_test():
    """Prevents a normal interval of few seeds: of three, half as wide as it should be."""
    points = np.array([1.0, 2.0, 4.0])
    still = np.repeat(points[:, None], RESAMPLES, axis=1)
    theirs = Scores(np.zeros(3), np.zeros((3, RESAMPLES)), (0, 1, 2), EXAMPLES)
    found = difference(Scores(points, still, (0, 1, 2), EXAMPLES), theirs)
    assert found.half == pytest.approx(4.302653 * points.std(ddof=1) / np.sqrt(3), rel=1e-6)
    # t = 7/3 / (1.527525 / sqrt(3)) = 2.645751, of 2 degrees of freedom: p = 1 - t / sqrt(t^2 + 2).
    assert found.p == pytest.approx(1 - 2.645751 / np.sqrt(2.645751**2 + 2), abs=1e-6)


def test_undefined_resamples():
    """Prevents an interval of nan, or of the few resamples that have a value."""
    ours, theirs = some(3), some(3, seed=1)
    whole = difference(ours, theirs)
    few, many = ours.resampled.copy(), ours.resampled.copy()
    few[1, :2] = np.nan
    many[1, :3] = np.nan
    almost = difference(Scores(ours.points, few, ours.seeds, EXAMPLES), theirs)
    assert almost.half == pytest.approx(whole.half, rel=0.1)
    found = difference(Scores(ours.points, many, ours.seeds, EXAMPLES), theirs)
    assert (found.half, found.p) == (None, None)
    assert found.why == "undefined in too many resamples"
    undefined = Scores(np.array([np.nan, 1, 2]), ours.resampled, ours.seeds, EXAMPLES)
    assert difference(undefined, theirs) is None


def test_holm_by_hand():
    """Prevents many differences of which one is told by chance, and p-values out of order."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
    # The second is not smaller than the first, though 1 x 0.03 < 2 x 0.02.
    assert holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.01, 0.01, 0.01]) == pytest.approx([0.03] * 3)


def test_scores_by_seed_are_of_the_seed_that_they_are_said_to_be(tmp_path, monkeypatch):
    """Prevents seed 10's score under the name of seed 2, and seeds that a task lacks."""
    monkeypatch.setattr(comparison, "RESAMPLES", 20)
    accuracy = {
        ("rte", 2): 0.9,
        ("rte", 10): 0.6,
        ("rte", 3): 0.5,
        ("mrpc", 10): 0.4,
        ("mrpc", 2): 0.8,
    }
    for (task, seed), share in accuracy.items():
        score = share if task == "rte" else 0.5
        given = made.settings(task)
        result = made.result(made.STUDENT, task, seed=seed, score=score, given=given)
        made.put(tmp_path, result, said=made.scoring(share))
    (row,) = rows_of(find(tmp_path))
    found = scores_by_seed(row, ["rte"], tmp_path)
    assert found.seeds == (2, 3, 10)
    assert found.points == pytest.approx([90, 50, 60])
    assert found.resampled.shape == (3, 20)
    assert found.resampled.mean(axis=1) == pytest.approx(found.points, abs=4)
    assert found.examples == 100
    both = scores_by_seed(row, ["rte", "mrpc"], tmp_path)
    assert both.seeds == (2, 10)
    assert both.examples == 200


def test_a_handful_of_examples_has_no_interval():
    """Prevents three pairs, all of them won, from being called certain."""
    ones = Scores(np.array([100.0]), np.full((1, 50), 100.0), (None,), 3)
    none = Scores(np.array([0.0]), np.zeros((1, 50)), (None,), 3)
    assert difference(ones, none) == Difference(100.0, why="too few examples")
    assert difference(ones, ones) == Difference(0.0, 0.0, 1.0)
    assert difference(replace(ones, examples=30), replace(none, examples=30)).p == 0


def test_other_words_are_not_compared():
    """Prevents a loss of few words of a text from being set against one of many."""
    ours = Scores(np.array([1.0]), np.ones((1, 50)), (None,), 40, (2.0, 3.0))
    assert difference(ours, replace(ours, counted="other")) == Difference(
        0.0, why="other tokenizer"
    )
    assert difference(ours, ours) == Difference(0.0, 0.0, 1.0)
