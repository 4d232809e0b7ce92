"""Intervals: the fast measures are the plain ones, and equal inputs give equal intervals."""

import json
from dataclasses import replace

import made_results as made
import numpy as np
import pytest
from pyarrow import parquet

from eval_harness.intervals import bootstrap
from eval_harness.results.predictions import ClassPredictions
from eval_harness.results.store import find, load, path_of, withhold
from eval_harness.rows.grouping import rows_of
from eval_harness.tables.comparison import _pair_predictions, cached_interval
from eval_harness.tables.retained import compare_with_teacher
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.metrics import compute_metrics
from eval_harness.tasks.registry import GLUE


def drawn(size, resamples, seed=0):
    return next(bootstrap.draws(np.random.default_rng(seed), size, resamples))


def invented(task, size, columns, random):
    """Labels, and predictions that agree with them more often than not; of numbers, many equal."""
    if task.is_regression:
        labels = random.integers(0, 26, size) / 5
        said = np.round(labels[:, None] + random.normal(0, 2, (size, columns)), 1)
        return labels, said.astype(np.float32)
    classes = len(task.labels)
    labels = random.integers(0, classes, size)
    wrong = random.random((size, columns)) < 0.3
    said = np.where(wrong, random.integers(0, classes, (size, columns)), labels[:, None])
    return labels, said


@pytest.mark.parametrize("name", [*GLUE, "imdb"])
def test_weighted_measures_are_those_of_the_resampled_data(name):
    """Prevents an interval about another measure than the one that the table shows."""
    task = task_named(name)
    labels, said = invented(task, 60, 3, np.random.default_rng(1))
    counts = drawn(60, 8)
    fast = bootstrap.task_scores(task, counts, said, labels)
    for row, weights in enumerate(counts):
        examples = np.repeat(np.arange(60), weights.astype(int))
        for column in range(3):
            plain = compute_metrics(task, said[examples, column], labels[examples])["score"]
            assert fast[row, column] == pytest.approx(plain, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ["f1_macro", "f1_micro"])
def test_weighted_f1_of_many_classes(name):
    """Prevents a custom task's interval from averaging over other classes than its score does.

    With 8 classes and 12 examples, most resamples lack a class.
    """
    task = replace(task_named("sst2"), labels=tuple("abcdefgh"), primary=(name,))
    labels, said = invented(task, 12, 3, np.random.default_rng(1))
    counts = drawn(12, 40)
    fast = bootstrap.task_scores(task, counts, said, labels)
    for row, weights in enumerate(counts):
        examples = np.repeat(np.arange(12), weights.astype(int))
        for column in range(3):
            plain = compute_metrics(task, said[examples, column], labels[examples])["score"]
            assert fast[row, column] == pytest.approx(plain, rel=1e-12, abs=1e-12)


def test_a_correlation_does_not_depend_on_offset_or_scale():
    """Prevents a model whose numbers are far from 0, or close together, from losing its digits.

    Each column is one seed's: what is subtracted from one must not be the mean of all.
    """
    task = task_named("stsb")
    labels, said = invented(task, 60, 1, np.random.default_rng(1))
    near = said.astype(float)
    columns = np.concatenate([near, near + 1e6, near * 1e-5], axis=1)
    scores = bootstrap.task_scores(task, drawn(60, 8), columns, labels)
    assert scores[:, 1:] == pytest.approx(np.repeat(scores[:, :1], 2, axis=1), rel=1e-9)
    assert scores[:, 0].min() > 0.1


def test_the_real_labels_of_stsb(real_data):
    """Prevents ties as they really are from being ranked otherwise than scipy ranks them."""
    path = real_data / "data" / "hub" / "glue" / "stsb" / "validation.parquet"
    labels = parquet.read_table(path)["label"].to_numpy().astype(float)
    random = np.random.default_rng(6)
    said = np.round(labels[:, None] + random.normal(0, 1, (len(labels), 2)), 1)
    task, counts = task_named("stsb"), drawn(len(labels), 3)
    fast = bootstrap.task_scores(task, counts, said, labels)
    for row, weights in enumerate(counts):
        examples = np.repeat(np.arange(len(labels)), weights.astype(int))
        for column in range(2):
            plain = compute_metrics(task, said[examples, column], labels[examples])["score"]
            assert fast[row, column] == pytest.approx(plain, rel=1e-12)


def test_test_splits_take_no_part(tmp_path):
    """Prevents examples without labels, or MNLI's second part, from entering an interval."""
    teacher, student = made.model("bert"), made.model("distilbert", teacher="bert")
    labels = np.arange(40) % 2
    for each, errors in ((teacher, 2), (student, 8)):
        said = np.where(np.arange(40) < errors, 1 - labels, labels)
        validation = made.predictions(labels, said)
        unknown = made.predictions(np.full(30, np.nan), labels[:30], split="test")
        logits = np.concatenate([validation.logits, np.eye(2, dtype=np.float32)[labels[:30]]])
        both = ClassPredictions(
            [*validation.split, *unknown.split],
            [*validation.ids, *unknown.ids],
            np.concatenate([validation.labels, unknown.labels]),
            logits,
        )
        made.put(tmp_path / "both", made.result(each, score=1 - errors / 40), said=both)
        made.put(tmp_path / "one", made.result(each, score=1 - errors / 40), said=validation)
    one, both = (
        _pair_predictions("rte", *(row.cells["rte"] for row in rows_of(find(root))), root)
        for root in (tmp_path / "one", tmp_path / "both")
    )
    assert np.array_equal(one.labels, both.labels)
    assert np.array_equal(one.student, both.student)
    assert np.array_equal(one.other, both.other)
    assert one.student.shape == (40, 1)


@pytest.mark.parametrize(
    ("name", "labels"), [("cola", [0, 1, 1, 0, 1]), ("mrpc", [0, 1, 1, 0, 1]), ("mrpc", [0] * 5)]
)
def test_a_model_that_always_says_the_same(name, labels):
    """Prevents a division by zero where scikit-learn gives 0, also if nothing is positive."""
    task, labels = task_named(name), np.array(labels)
    for said in (np.zeros((5, 1), int), np.ones((5, 1), int)):
        fast = bootstrap.task_scores(task, np.ones((1, 5)), said, labels)
        assert fast[0, 0] == pytest.approx(
            compute_metrics(task, said[:, 0], labels)["score"], abs=1e-12
        )


def shares(pairs, seed):
    student, teacher = bootstrap.bootstrap_totals(pairs, seed)
    return student / teacher


def test_a_resample_without_a_score_is_left_out():
    """Prevents an undefined correlation from becoming 0, or an interval of NaN."""
    labels = np.array([1.0, 2.0, 3.0, 3.5])
    said = np.array([[1.0], [2.0], [2.5], [2.5]])
    pairs = [bootstrap.PairedPredictions(task_named("stsb"), labels, said, said)]
    undefined = np.isnan(bootstrap.bootstrap_totals(pairs, 1)).any(axis=0).mean()
    assert 0.025 < undefined < 1
    few = bootstrap.share_interval(pairs, 1)
    assert few.percent is None
    assert few.why == f"in {100 * undefined:.1f} % of the resamples a score is not defined"
    labels, said = np.arange(6.0), np.array([[0.0], [1.0], [2.0], [2.5], [3.5], [5.0]])
    pairs = [bootstrap.PairedPredictions(task_named("stsb"), labels, said, said)]
    assert 0 < np.isnan(bootstrap.bootstrap_totals(pairs, 1)).any(axis=0).mean() < 0.025
    assert bootstrap.share_interval(pairs, 1).percent == (100.0, 100.0)


@pytest.mark.parametrize(("seed", "undefined"), [(2, 0.027), (3, 0.024)])
def test_an_end_of_an_interval_is_never_an_undefined_resample(seed, undefined):
    """Prevents a middle 95 % whose end may lie among resamples that have no value."""
    labels = np.arange(8.0)
    said = np.where(labels < 5, 0.0, labels)[:, None]
    pairs = [bootstrap.PairedPredictions(task_named("stsb"), labels, said, said)]
    totals = bootstrap.bootstrap_totals(pairs, seed)
    assert np.isnan(totals).any(axis=0).mean() == pytest.approx(undefined)
    for interval in (bootstrap.share_interval, bootstrap.change_interval):
        found = interval(pairs, seed)
        assert (found.percent is None) == (undefined > 0.025)
        assert found.why == (
            "in 2.7 % of the resamples a score is not defined" if undefined > 0.025 else ""
        )


def test_a_teacher_below_0_in_few_resamples_only():
    """Prevents an end of a share's interval from lying where the teacher's score is 0 or less."""
    labels = np.arange(300) % 2
    for wrong, given in ((135, False), (133, True)):
        weak, good = (np.where(np.arange(300) < n, 1 - labels, labels) for n in (wrong, 60))
        pairs = [
            bootstrap.PairedPredictions(task_named("cola"), labels, good[:, None], weak[:, None])
        ]
        below = np.mean(bootstrap.bootstrap_totals(pairs, 1)[1] <= 0)
        assert 0.015 < below < 0.05
        assert (bootstrap.share_interval(pairs, 1).percent is not None) == given


def test_where_no_resample_has_a_score_it_says_so():
    """Prevents a share without an interval from standing there without a word."""
    labels, constant = np.array([1.0, 2.0, 3.0]), np.ones((3, 1))
    pairs = [bootstrap.PairedPredictions(task_named("stsb"), labels, constant, labels[:, None])]
    nothing = bootstrap.share_interval(pairs, 1)
    assert nothing.percent is None
    assert "100.0 % of the resamples" in nothing.why


def test_a_teacher_that_may_know_nothing_gives_no_interval():
    """Prevents limits of shares whose divisor is 0, or changes its sign, in some resamples."""
    labels = np.arange(300) % 2
    weak, good = (np.where(np.arange(300) < wrong, 1 - labels, labels) for wrong in (141, 60))
    pairs = [bootstrap.PairedPredictions(task_named("cola"), labels, good[:, None], weak[:, None])]
    _, teacher = bootstrap.bootstrap_totals(pairs, 1)
    assert np.median(teacher) > 0
    assert 0.025 < np.mean(teacher <= 0) < 0.5
    found = bootstrap.share_interval(pairs, 1)
    assert (found.percent, found.why) == (None, "the teacher's own interval reaches down to 0")


def test_pieces_make_the_whole(monkeypatch):
    """Prevents a large task, drawn piece by piece, from being drawn fewer times."""
    random = np.random.default_rng(2)
    labels, said = invented(task_named("rte"), 40, 4, random)
    pairs = [bootstrap.PairedPredictions(task_named("rte"), labels, said[:, :2], said[:, 2:])]
    whole = shares(pairs, 7)
    monkeypatch.setattr(bootstrap, "_NUMBERS_AT_ONCE", 40 * 37)
    assert np.array_equal(shares(pairs, 7), whole)
    assert len(whole) == 1000
    assert len(np.unique(whole)) > 100


def test_the_interval_is_where_statistics_says():
    """Prevents an interval that is half as wide, or twice, as sampling error warrants."""
    size, random = 2000, np.random.default_rng(3)
    labels = np.zeros(size, int)
    student, teacher = (random.random((2, size)) > np.array([[0.8], [0.9]])).astype(int)
    task = task_named("rte")
    pairs = [bootstrap.PairedPredictions(task, labels, student[:, None], teacher[:, None])]
    low, high = bootstrap.share_interval(pairs, 5).percent
    ours, theirs = 1 - student.mean(), 1 - teacher.mean()
    error = 100 * ours / theirs * np.sqrt((1 - ours) / ours / size + (1 - theirs) / theirs / size)
    assert low < 100 * ours / theirs < high
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)


def test_a_change_needs_no_score_above_0():
    """Prevents Table 4 from going without an interval where a student has learned nothing."""
    labels = np.arange(300) % 2
    weak, good = (np.where(np.arange(300) < wrong, 1 - labels, labels) for wrong in (141, 60))
    pairs = [bootstrap.PairedPredictions(task_named("cola"), labels, good[:, None], weak[:, None])]
    assert bootstrap.share_interval(pairs, 1).percent is None
    low, high = bootstrap.change_interval(pairs, 1).percent
    score = {name: compute_metrics(task_named("cola"), said, labels)["score"]
             for name, said in (("weak", weak), ("good", good))}  # fmt: skip
    assert low < 100 * (score["good"] - score["weak"]) < high
    assert 10 < high - low < 40


def test_a_change_is_of_the_mean_over_tasks():
    """Prevents an interval of the sum, nine times too wide."""
    random = np.random.default_rng(8)
    labels, said = invented(task_named("rte"), 200, 2, random)
    one = bootstrap.PairedPredictions(task_named("rte"), labels, said[:, :1], said[:, 1:])
    low, high = bootstrap.change_interval([one], 1).percent
    lower, higher = bootstrap.change_interval([one] * 4, 1).percent
    assert higher - lower == pytest.approx((high - low) / 2, rel=0.15)


def test_the_interval_of_a_score_is_of_the_mean_over_tasks():
    """Prevents an interval of the sum, of another model, or of the difference from itself: 0."""
    random = np.random.default_rng(8)
    labels, said = invented(task_named("rte"), 200, 3, random)
    one = bootstrap.PairedPredictions(task_named("rte"), labels, said, said[:, :1])
    low, high = bootstrap.score_interval([one], 1).percent
    ours, _ = bootstrap.bootstrap_totals([one], 1)
    assert (low, high) == pytest.approx(tuple(100 * np.percentile(ours, (2.5, 97.5))), abs=1e-5)
    lower, higher = bootstrap.score_interval([one] * 4, 1).percent
    assert higher - lower == pytest.approx((high - low) / 2, rel=0.15)
    labels, constant = np.array([1.0, 2.0, 3.0]), np.ones((3, 1))
    nothing = bootstrap.PairedPredictions(task_named("stsb"), labels, constant, constant)
    assert "100.0 % of the resamples" in bootstrap.score_interval([nothing], 1).why


def test_a_change_without_a_score_says_why():
    """Prevents a difference of two undefined scores from having an interval."""
    labels, constant = np.array([1.0, 2.0, 3.0]), np.ones((3, 1))
    pairs = [bootstrap.PairedPredictions(task_named("stsb"), labels, constant, labels[:, None])]
    assert "100.0 % of the resamples" in bootstrap.change_interval(pairs, 1).why


@pytest.fixture
def pair(tmp_path):
    """A folder with a teacher and a student of two seeds each, and what was retained."""
    random = np.random.default_rng(4)
    teacher = made.model("bert", "99999999")
    student = made.model("distilbert", teacher="bert")
    for each, errors in ((teacher, 0.1), (student, 0.3)):
        for seed in (1, 2):
            labels = np.arange(50) % 2
            said = np.where(random.random(50) < errors, 1 - labels, labels)
            score = float(np.mean(said == labels))
            made.put(
                tmp_path,
                made.result(each, seed=seed, score=score),
                said=made.predictions(labels, said),
            )

    def retained():
        rows = rows_of(find(tmp_path))
        student = next(row for row in rows if row.label == "distilbert")
        return compare_with_teacher(student, rows, tmp_path).retained

    return tmp_path, retained


def test_an_interval_is_made_once(pair):
    """Prevents a table from changing, or from taking minutes, each time that it is made."""
    root, retained = pair
    first = retained()
    assert first.interval[0] < first.share < first.interval[1]
    assert (first.teacher.label, first.tasks) == ("bert", ("rte",))
    (cached,) = (root / "intervals").iterdir()
    content = cached.read_bytes()
    assert json.loads(content)["made_of"]["recipe"] == {"version": 2, "resamples": 1000}
    assert len(cached.stem) == 16
    marked = {**json.loads(content), "percent": [1.0, 2.0]}
    cached.write_text(json.dumps(marked))
    assert retained().interval == (1.0, 2.0)
    for broken in (content[:50], b"[]", b'{"percent": null}', b"[" * 200_000):
        cached.write_bytes(broken)
        assert retained() == first
    assert cached.read_bytes() == content
    cached.unlink()
    assert retained() == first


@pytest.mark.parametrize(
    ("comparison", "compute", "recipe"),
    [
        ("shares", bootstrap.share_interval, {}),
        ("changes", bootstrap.change_interval, {"comparison": "changes"}),
    ],
)
def test_a_cached_interval_can_be_computed_again(pair, comparison, compute, recipe):
    """Prevents published intervals from being found no more, or from coming out otherwise.

    Their files are named by what they are made of, and that name is the seed of the draws.
    """
    root, _ = pair
    teacher, student = sorted(rows_of(find(root)), key=lambda row: row.label)
    found = cached_interval(comparison, student, teacher, ["rte"], root)
    (cached,) = (root / "intervals").iterdir()
    made_of = json.loads(cached.read_text())["made_of"]
    assert made_of["recipe"] == {"version": 2, "resamples": 1000, **recipe}
    paired = _pair_predictions("rte", student.cells["rte"], teacher.cells["rte"], root)
    assert compute([paired], int(cached.stem, 16)) == found


def test_an_interval_is_kept_without_its_predictions(pair):
    """Prevents predictions that are not published from taking the interval with them."""
    root, retained = pair
    first = retained()
    for result in find(root).results:
        withhold(root, result)
    assert (retained().interval, retained().share) == (first.interval, first.share)
    (cached,) = (root / "intervals").iterdir()
    cached.unlink()
    assert retained().interval is None
    assert "seed-1.json predictions not published" in retained().why_no_interval


def test_why_there_is_no_interval_is_kept(pair):
    """Prevents a table that is made again from forgetting why a share has no interval."""
    root, retained = pair
    retained()
    (cached,) = (root / "intervals").iterdir()
    cached.write_text(json.dumps({**json.loads(cached.read_text()), "percent": None, "why": "so"}))
    assert (retained().interval, retained().why_no_interval) == (None, "so")


def test_new_predictions_need_a_new_interval(pair):
    """Prevents an interval of earlier results from standing beside a new share."""
    root, retained = pair
    before = retained()
    student = made.model("distilbert", teacher="bert")
    labels = np.arange(50) % 2
    result = made.result(student, seed=3, score=1.0)
    made.put(root, result, said=made.predictions(labels))
    assert retained().interval != before.interval
    assert len(list((root / "intervals").iterdir())) == 2


def test_the_teacher_itself_retained_all(tmp_path):
    """Prevents a share or an interval that is not exactly 100 where nothing was lost."""
    teacher, copy = made.model("bert"), made.model("copy", "77777777", teacher="bert")
    random = np.random.default_rng(5)
    for task, score in (("cola", 0.31), ("mrpc", 0.77), ("stsb", 0.62)):
        labels, said = invented(task_named(task), 40, 3, random)
        for seed in (1, 2, 3):
            for each in (teacher, copy):
                result = made.result(each, task, seed=seed, score=score + seed / 100)
                made.put(tmp_path, result, said=made.predictions(labels, said[:, seed - 1]))
    rows = rows_of(find(tmp_path))
    student = next(row for row in rows if row.label == "copy")
    retained = compare_with_teacher(student, rows, tmp_path).retained
    assert retained.tasks == ("cola", "mrpc", "stsb")
    assert retained.share == 100
    assert retained.interval == (100, 100)


def test_damaged_predictions_give_no_interval(pair):
    """Prevents a flipped bit in predictions from moving an interval, and from stopping a table."""
    root, retained = pair
    share = retained().share
    next((root / "intervals").iterdir()).unlink()
    result = made.result(made.model("distilbert", teacher="bert"), seed=2)
    (path,) = path_of(root, result.key).parent.glob("seed-2.*.parquet")
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    damaged = retained()
    assert (damaged.share, damaged.interval) == (share, None)
    assert f"{path.name} is not what the result was saved with" in damaged.why_no_interval
    assert list((root / "intervals").iterdir()) == []


def test_other_examples_give_no_interval(pair):
    """Prevents examples from being paired by their number where they are not the same."""
    root, retained = pair
    odd = made.result(made.model("distilbert", teacher="bert"), seed=3, score=0.5)
    made.put(root, odd, said=made.predictions([1, 0] * 25))
    assert retained().interval is None
    assert "has other examples" in retained().why_no_interval
    assert load(path_of(root, odd.key)).score == 0.5
