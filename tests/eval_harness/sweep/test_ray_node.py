"""What a node of a Ray cluster does with a run, without Ray: it saves it, or sends it home."""

import pytest
from work_for_sweeps import WORK, notes, result_of, run

from angels_share.errors import RunFailed, UserError
from eval_harness.results.predictions import to_parquet
from eval_harness.results.store import find, load, path_of, publish
from eval_harness.sweep import ray_node
from eval_harness.sweep.executor import Assignment
from eval_harness.sweep.ray_node import Site, attempt, clear
from eval_harness.sweep.worker import stamp


def attempted(root, one, *, sees=True, before=None):
    """What comes home of a run on a node that sees the results folder, or does not."""
    site = Site(root, f"of-{root.name}")
    if sees:
        site.marker.touch()
    try:
        return attempt(Assignment(one, before), WORK, site, None, lambda _key, _share: None)
    finally:
        clear(site)


def test_a_node_that_sees_the_results_publishes_there(tmp_path):
    """Prevents predictions from travelling to a machine that finds them in the folder anyway."""
    one = run("rte", 1)
    assert attempted(tmp_path, one) is None
    assert load(path_of(tmp_path, one.key)).score == 0.5


def test_a_node_that_does_not_see_them_sends_all_home(tmp_path):
    """Prevents a result that is written where nobody looks for it."""
    one = run("rte", 1)
    brought = attempted(tmp_path, one, sees=False)
    assert (brought.result.key, brought.files) == (one.key, {})
    assert to_parquet(brought.predictions) == to_parquet(result_of(one)[1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("where", "fault"),
    [("require_locks", OSError("read-only")), ("require_locks", UserError("no locks")),
     ("save", OSError("gone")), ("save", UserError("newer")), ("save", RunFailed("full"))],
)  # fmt: skip
def test_what_a_node_cannot_save_comes_home(tmp_path, monkeypatch, where, fault):
    """Prevents hours of training from being lost since one node may not write to the results."""

    def fails(*_):
        raise fault

    monkeypatch.setattr(ray_node, where, fails)
    one = run("rte", 1)
    assert attempted(tmp_path, one).result.key == one.key
    assert not find(tmp_path).results


def test_a_repeated_run_that_was_saved_is_not_made_again(tmp_path):
    """Prevents hours for nothing where a worker died between saving a result and saying so."""
    one = run("rte", 1, log=str(tmp_path / "log"))
    assert [attempted(tmp_path, one) for _ in range(2)] == [None, None]
    assert len(notes(tmp_path / "log")) == 1


def test_a_node_replaces_the_result_that_is_to_be_replaced(tmp_path):
    """Prevents a forced run without effect."""
    one = run("rte", 1)
    publish(tmp_path, *result_of(one, 0.25))
    assert attempted(tmp_path, one, before=stamp(tmp_path, one.key)) is None
    assert [each.score for each in find(tmp_path).results] == [0.5]


def test_home_decides_on_a_result_that_a_node_does_not_know(tmp_path):
    """Prevents a lost result where the file's number or time looks otherwise on the node."""
    one = run("rte", 1)
    publish(tmp_path, *result_of(one, 0.25))
    inode, modified = stamp(tmp_path, one.key)
    brought = attempted(tmp_path, one, before=(inode + 1, modified))
    assert brought.result.score == 0.5
    assert [each.score for each in find(tmp_path).results] == [0.25]


@pytest.mark.parametrize(
    ("do", "kind", "line"),
    [({"diverges": "at 3e-4"}, RunFailed, "the loss is not finite at 3e-4"),
     ({"breaks": "a wheel"}, RunFailed, "ZeroDivisionError: a wheel"),
     ({"refuses": "no labels"}, UserError, "no labels")],
)  # fmt: skip
def test_a_run_that_fails_at_a_node_is_one_line(tmp_path, do, kind, line):
    """Prevents an error that can't be sent home, and bad input that is taken for a crash."""
    with pytest.raises(kind, match=line) as caught:
        attempted(tmp_path, run("rte", 1, **do))
    assert type(caught.value) is kind
    assert not find(tmp_path).results
