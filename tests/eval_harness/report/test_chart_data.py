"""The data behind the charts: like with like, nothing cut off, nothing of another model."""

import os
from dataclasses import replace

import made_results as made
import pytest
from made_report import TIMED, session, write_results, write_students
from made_results import BERT, STUDENT

from angels_share.errors import UserError
from eval_harness.report.chart_data import (
    ALL,
    ablation_effects,
    cost_points,
    retained_shares,
    seed_scores,
)
from eval_harness.report.charts import ablation
from eval_harness.report.training_curves import Curve, load_training_curves
from eval_harness.results.speed import Speeds, find_speeds
from eval_harness.results.store import find
from eval_harness.tables.paper import load_paper
from eval_harness.tables.write import load_results


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of results."""
    folder = tmp_path_factory.mktemp("shown")
    write_results(folder)
    return folder


def test_shares_are_of_the_medians(root):
    """Prevents a share of another teacher, or of one task under the name of another."""
    shares = retained_shares(load_results(find(root), root).compared, root)
    ours = {each.task: each for each in shares if each.label == "distilbert"}
    assert list(ours) == [ALL, "MRPC", "RTE"]
    percents = [100 * 1.3 / 1.62, 100 * 0.7 / 0.81, 100 * 0.6 / 0.81]
    assert [each.percent for each in ours.values()] == pytest.approx(percents)
    assert {each.teacher for each in shares} == {"bert"}
    assert all(each.interval[0] <= each.interval[1] for each in ours.values())


def test_scores_are_compared_over_the_same_tasks(root):
    """Prevents a model from standing higher for having been evaluated on easier tasks."""
    rows = load_results(find(root), root).rows
    points = cost_points(load_paper(), rows, find_speeds(root))
    assert points.tasks == ("mrpc", "rte")
    assert points.reference == "bert"
    ours = {each.label: (each.score, each.cost) for each in points.sizes if not each.is_paper}
    assert ours == {"bert": pytest.approx((81.0, 109.5)), "distilbert": pytest.approx((65, 66.4))}
    paper = {each.label: each.score for each in points.sizes if each.is_paper}
    assert paper["DistilBERT (paper)"] == pytest.approx((87.5 + 59.9) / 2)
    times = {each.label: each.cost for each in points.speeds}
    assert times["distilbert"] == 2.0
    assert times["DistilBERT (paper)"] == pytest.approx(668 / 410)
    only = replace(rows[0], cells={"rte": rows[0].cells["rte"]})
    assert only.label not in {each.label for each in cost_points(
        load_paper(), [only, *rows[1:]], find_speeds(root)).sizes}  # fmt: skip


def test_without_glue_other_scores_stand_against_costs(tmp_path):
    """Prevents "no data yet" for who has timed models and evaluated them on a task of their own."""
    for of, score in ((BERT, 0.8), (STUDENT, 0.7)):
        data = {**made.result(task="spam").data, "title": "Spam or not"}
        made.put(tmp_path, *made.seeds(score, of=of, task="spam", data=data))
        made.put(tmp_path, *made.on_squad(score, of=of), said=made.answers())
    rows = load_results(find(tmp_path), tmp_path).rows
    found = cost_points(load_paper(), rows, Speeds((TIMED,)))
    assert {each.label: each.score for each in found.sizes} == {"bert": 80.0, "distilbert": 70.0}
    assert list(found.titles) == ["SQuAD F1", "Spam or not"]
    assert found.has_ours


def test_speeds_are_of_one_session(root):
    """Prevents a ratio of times from two machines, and the paper's beside another first model."""
    rows = load_results(find(root), root).rows
    alone = session(("mine", STUDENT.key, 66_400_000, 1.0), finished="2026-02-01")
    found = cost_points(load_paper(), rows, Speeds((TIMED, alone)))
    assert {each.label: each.cost for each in found.speeds}["distilbert"] == 2.0
    other = session(("mine", STUDENT.key, 66_000_000, 1.0), ("b", BERT.key, 110_000_000, 2.0))
    found = cost_points(load_paper(), rows, Speeds((TIMED, other)))
    assert {each.label: each.cost for each in found.speeds} == {"bert": 0.5, "distilbert": 1.0}
    assert not cost_points(load_paper(), rows, Speeds((alone,))).speeds
    assert not cost_points(load_paper(), rows, Speeds()).has_ours


def test_losses_are_those_of_table_4(root):
    """Prevents a change whose full loss nobody evaluated from being drawn as none."""
    found = ablation_effects(load_results(find(root), root).changes)
    assert [(each.label, each.left_out, each.tasks) for each in found] == [
        ("study/no-ce", "no-ce", 2)
    ]
    assert found[0].points == pytest.approx(-5.0)


def test_losses_name_the_seeds_of_both(tmp_path):
    """Prevents one seed against three from passing for three against three."""
    for name, scores in (("none", (0.7, 0.72, 0.74)), ("no-ce", (0.65,))):
        made.put(tmp_path, *made.seeds(*scores, of=made.student(name)))
    (found,) = ablation_effects(load_results(find(tmp_path), tmp_path).changes)
    assert (found.n, found.n_full) == ("1", "3")
    (words, _) = ablation([found], {"no-ce": -2.96}).words
    assert words.endswith("), n 1 against 3.")


def test_seeds_are_in_the_order_of_the_tables(root):
    """Prevents MNLI's second part, or a task of Table 2, from going astray."""
    found = seed_scores(load_results(find(root), root).rows)
    assert list(dict.fromkeys(each.task for each in found)) == ["MRPC", "RTE", "IMDb", "SQuAD F1"]
    (imdb,) = [each for each in found if each.task == "IMDb"]
    assert (imdb.label, imdb.scores, imdb.median) == ("distilbert", (91.0, 92.0), 91.5)
    (squad,) = [each for each in found if each.task == "SQuAD F1"]
    assert dict(zip(squad.scores, squad.degenerate, strict=True)) == {
        10: True, 40: False, 50: False,
    }  # fmt: skip


def test_a_score_that_is_not_defined_marks_no_other(tmp_path):
    """Prevents a seed without a score from handing its mark to the next one."""
    without, others = made.seeds(None, 0.5, task="cola")
    made.put(tmp_path, replace(without, marks=("degenerate: one answer for all of validation",)))
    made.put(tmp_path, others)
    (found,) = seed_scores(load_results(find(tmp_path), tmp_path).rows)
    assert (found.scores, found.degenerate) == ((50.0,), (False,))


def test_curves_are_the_last_checkpoints(tmp_path):
    """Prevents half a curve, and held-out text from passing for what was trained on."""
    write_students(tmp_path)
    found = load_training_curves([tmp_path]).curves
    assert Curve("full", "loss_mlm", (10, 20), (4.0, 3.0)) in found
    assert Curve("full", "loss_mlm", (20,), (3.25,), held_out=True) in found
    assert Curve(f"{tmp_path.name}/no-ce", "loss_cos", (10,), (0.1,)) in found
    assert load_training_curves([tmp_path / "full", tmp_path]).curves == found
    assert not [each for each in found if each.part in ("loss", "loss_ce")]


def test_students_of_one_name_are_told_apart(tmp_path):
    """Prevents two studies' curves from being drawn as one student's."""
    for study in ("a", "b"):
        write_students(tmp_path / study)
    found = load_training_curves([tmp_path / "a", tmp_path / "b" / "full"])
    assert {each.student for each in found.curves} == {"a/full", "b/full", "a/no-ce"}


def test_a_folder_without_students_is_one_line(tmp_path):
    """Prevents a report without curves that doesn't say why."""
    with pytest.raises(
        UserError, match=r"--students .*nowhere: not a folder; name a student that run_pretr"
    ):
        load_training_curves([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"no distil.json and no checkpoints in it"):
        load_training_curves([tmp_path])


@pytest.mark.parametrize(
    "content",
    [
        '{"log_history": [{"step": 20, "loss_mlm": 3.0',
        '{"log_history": null}',
        '{"log_history": [null]}',
        '{"log_history": [{"step": 20, "loss_mlm": "3.0"}]}',
        '{"log_history": [{"step": true, "loss_mlm": 3.0}]}',
        f'{{"log_history": [{{"step": 20, "loss_mlm": 1{"0" * 400}}}]}}',
        "[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_an_odd_checkpoint_is_passed_over(tmp_path, content):
    """Prevents one torn file from costing the whole page, where resuming takes an older one."""
    write_students(tmp_path)
    odd = tmp_path / "full" / "checkpoint-20" / "trainer_state.json"
    odd.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = load_training_curves([tmp_path])
    assert Curve("full", "loss_mlm", (10,), (4.0,)) in found.curves
    (each,) = found.invalid
    assert each.path == "full/checkpoint-20/trainer_state.json"
    assert each.reason.startswith("its log_history can't be read: ")


def test_a_fifo_in_the_place_of_a_checkpoint_is_passed_over(tmp_path):
    """Prevents a report that waits for ever for somebody to write into a FIFO."""
    write_students(tmp_path)
    odd = tmp_path / "full" / "checkpoint-20" / "trainer_state.json"
    odd.unlink()
    os.mkfifo(odd)
    found = load_training_curves([tmp_path])
    assert Curve("full", "loss_mlm", (10,), (4.0,)) in found.curves
    assert [each.reason for each in found.invalid] == ["not a file to read"]


def test_a_torn_record_is_passed_over(tmp_path):
    """Prevents a student whose last file was cut off from taking all others' curves with it."""
    write_students(tmp_path)
    (tmp_path / "full" / "distil.json").write_text("{")
    found = load_training_curves([tmp_path])
    assert Curve("full", "loss_mlm", (10, 20), (4.0, 3.0)) in found.curves
    assert [each.path for each in found.invalid] == ["full/distil.json"]
