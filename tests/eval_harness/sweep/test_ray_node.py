"""What a node of a Ray cluster does with a run, without Ray: it saves it, or sends it home."""

import errno
from pathlib import Path

import pytest
from work_for_sweeps import WORK, result_of, run

from angels_share.errors import RunFailed, UserError
from eval_harness.results.predictions import to_parquet
from eval_harness.results.store import find, load, path_of, publish
from eval_harness.sweep.executor import Assignment
from eval_harness.sweep.ray_node import Site, attempt
from eval_harness.sweep.worker import UnwritableError, stamp


def attempted(root, one, *, sees, before=None):
    """What comes home of a run on a node that sees the results folder, or does not."""
    site = Site(root, "a-token")
    if sees:
        site.marker.touch()
    return attempt(Assignment(one, before), WORK, site, None, lambda _key, _share: None)


def test_a_node_that_sees_the_results_publishes_there(tmp_path):
    """Prevents predictions from travelling to a machine that finds them in the folder anyway."""
    one = run("rte", 1)
    assert attempted(tmp_path, one, sees=True) is None
    assert load(path_of(tmp_path, one.key)).score == 0.5


def test_a_node_that_does_not_see_them_sends_all_home(tmp_path):
    """Prevents a result that is written where nobody looks for it."""
    one = run("rte", 1)
    brought = attempted(tmp_path, one, sees=False)
    assert (brought.result.key, brought.files) == (one.key, {})
    assert to_parquet(brought.predictions) == to_parquet(result_of(one)[1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("saved_meanwhile", [False, True])
def test_a_node_replaces_only_the_result_that_is_to_be_replaced(tmp_path, saved_meanwhile):
    """Prevents a forced run without effect, and a result that somebody else has just saved."""
    one = run("rte", 1)
    publish(tmp_path, *result_of(one, 0.25))
    before = stamp(tmp_path, one.key)
    if saved_meanwhile:
        publish(tmp_path, *result_of(one, 0.75), replace=True)
    attempted(tmp_path, one, sees=True, before=before)
    assert [each.score for each in find(tmp_path).results] == [0.75 if saved_meanwhile else 0.5]


def test_a_full_disk_at_a_node_is_told_from_a_run_that_fails(tmp_path, monkeypatch):
    """Prevents a sweep that goes on to compute what can't be saved anywhere."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(UnwritableError, match=f"{tmp_path}: the disk is full"):
        attempted(tmp_path, run("rte", 1), sees=True)


@pytest.mark.parametrize(
    ("do", "kind", "line"),
    [({"diverges": "at 3e-4"}, RunFailed, "the loss is not finite at 3e-4"),
     ({"breaks": "a wheel"}, RunFailed, "ZeroDivisionError: a wheel"),
     ({"refuses": "no labels"}, UserError, "no labels")],
)  # fmt: skip
def test_a_run_that_fails_at_a_node_is_one_line(tmp_path, do, kind, line):
    """Prevents an error that can't be sent home, and bad input that is taken for a crash."""
    with pytest.raises(kind, match=line) as caught:
        attempted(tmp_path, run("rte", 1, **do), sees=True)
    assert type(caught.value) is kind
    assert not find(tmp_path).results
