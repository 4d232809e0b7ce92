"""Trackers: a run of theirs for each result, among the results, and no number changed by them."""

import importlib.machinery
import os
import sys
import types
from contextlib import suppress
from dataclasses import replace

import pytest
import worlds

from angels_share.errors import UserError
from angels_share.files import sha256_of_file
from eval_harness.runs.settings import check_overrides, neutral, settings_of
from eval_harness.runs.trackers import how_to_watch, trackers_in
from eval_harness.tasks.lookup import task_named
from eval_harness.training.runner import run_task
from eval_harness.training.tracking import tracked


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def run_with(world, root, seed=1, **flags):
    run = worlds.run_on(
        world / "glue", world / "distilbert", seed=seed, neutral=flags, results_dir=str(root)
    )
    return replace(run, save_weights_to=str(root / "models" / run.key))


def logged(root, run, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(root / "logs" / run.key))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_each_result_has_its_own_log_and_the_same_number(world, tmp_path):
    """Prevents 45 runs in one curve, and a curve that costs bits: weights, scores, predictions.

    What a killed attempt logged is not in the curve of the next.
    """
    pytest.importorskip("tensorboard")
    shown = run_with(world, tmp_path / "a", report_to=["tensorboard"], logging_steps=3)
    plain = run_with(world, tmp_path / "b")
    for _ in range(2):
        result, predictions = run_task(shown, lambda share: None)
    other = run_with(world, tmp_path / "a", seed=2, report_to="tensorboard")
    second, _ = run_task(other, lambda share: None)
    unseen, the_same = run_task(plain, lambda share: None)

    assert [step for step, _ in logged(tmp_path / "a", shown, "train/loss")] == [3, 6, 9, 12]
    assert logged(tmp_path / "a", shown, "train/loss") == [
        (entry["step"], pytest.approx(entry["loss"], rel=1e-4)) for entry in result.history
    ]
    assert len(logged(tmp_path / "a", other, "train/loss")) == len(second.history) == 12
    assert logged(tmp_path / "a", shown, "eval/score") == [(12, pytest.approx(result.score))]
    assert len(unseen.history) == 12
    assert result.key == unseen.key
    assert (result.score, result.scores) == (unseen.score, unseen.scores)
    assert (predictions.logits == the_same.logits).all()
    weights = [
        sha256_of_file(tmp_path / folder / "models" / shown.key / "model.safetensors")
        for folder in ("a", "b")
    ]
    assert weights[0] == weights[1]
    assert not (tmp_path / "b" / "logs").exists()


def test_flags_of_trackers_are_in_no_key():
    """Prevents a second result for the same number."""
    given = {"report_to": ["none"], "logging_steps": 7}
    task = task_named("rte")
    made = {"content": "0" * 16, "limit": None}
    assert settings_of(task, given, **made).hash == settings_of(task, {}, **made).hash
    assert neutral(given) == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"report_to": ["tensorbord"]}, "did you mean 'tensorboard'"),
        ({"report_to": "all"}, "expected some of none, tensorboard, trackio, wandb, mlflow"),
        ({"logging_steps": 0}, "--logging_steps 0: must be above 0"),
        ({"logging_strategy": "epoch"}, "--logging_steps"),
    ],
)
def test_what_can_not_be_reported_to_is_refused(given, said):
    """Prevents hours of training before a tracker is found missing."""
    with pytest.raises(UserError, match=said):
        check_overrides(given)


def test_a_tracker_that_is_not_installed_is_named_with_the_command(monkeypatch):
    """Prevents a traceback from a worker where one package is missing."""
    monkeypatch.setattr("eval_harness.runs.trackers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--report_to wandb: .*: pip install wandb"):
        trackers_in({"report_to": ["wandb"]})
    assert trackers_in({"report_to": "none"}) == trackers_in({}) == ()


@pytest.fixture
def wandb(monkeypatch):
    """A module that stands in for wandb: it is left open by the Trainer, as the real one is."""
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.run, module.ended = object(), []

    def finish(exit_code):
        module.run = None
        module.ended.append(exit_code)

    module.finish, module.logs = finish, []
    module.log = module.logs.append
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.mark.parametrize("fails", [False, True])
def test_what_the_trainer_leaves_open_is_ended(world, tmp_path, wandb, monkeypatch, fails, capsys):
    """Prevents the next run of a worker from going on in the last one's curve.

    A failed run is marked; what the user has set in the environment wins, and is as it was after.
    """
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    run = run_with(world, tmp_path, report_to=["wandb"])
    with suppress(ZeroDivisionError), tracked(run) as trackers:
        assert trackers.arguments == {
            "report_to": ["wandb"], "run_name": run.key, "project": "angels-share",
        }  # fmt: skip
        assert os.environ["WANDB_PROJECT"] == "mine"
        assert os.environ["WANDB_DIR"] == str(tmp_path / "logs")
        print("a word of the tracker's")
        trackers.log({"score": 0.5, "pearson": None}, 12)
        assert wandb.logs == [{"eval/score": 0.5, "train/global_step": 12}]
        assert 1 / (not fails)
    assert wandb.ended == [int(fails)]
    assert os.environ["WANDB_PROJECT"] == "mine"
    assert "WANDB_DIR" not in os.environ
    assert capsys.readouterr().out == ""
    assert "a word" in (tmp_path / "logs" / "output.txt").read_text()


def test_who_watches_is_told_how():
    """Prevents logs that nobody finds."""
    said = how_to_watch(["tensorboard", "wandb"], "results/")
    assert said == "tensorboard --logdir results/logs"
