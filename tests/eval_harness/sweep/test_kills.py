"""A real `run_glue`, workers and all, killed with -9 again and again: its end is the same."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import worlds
from places import ROOT

from eval_harness.results.store import find

KILLS = 15


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def started(world, root):
    """Start a sweep of two teachers' runs and four of their students, in a group of its own."""
    words = [
        "--model", str(world / "distilbert"), "--teacher", str(world / "bert"),
        "--data_dir", str(world / "glue"), "--results_dir", str(root), "--tasks", "rte", "cola",
        "--num_seeds", "2", "--workers", "2", "--threads", "1", "--learning_rate", "3e-3",
        "--num_train_epochs", "4", "--per_device_train_batch_size", "8", "--max_seq_length", "32",
    ]  # fmt: skip
    root.mkdir(exist_ok=True)
    with (root / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "run_glue.py", *words],
            cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def leases(root):
    return list((root / "claims").glob("*.json"))


def wait_for_new_lease(root, process, known, *, seconds=180):
    """Wait until a worker is at work; return whether one was before the sweep ended."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if {path.read_bytes() for path in leases(root) if path.exists()} - known:
            return True
        assert time.monotonic() < end, (root / "log").read_text()
        time.sleep(0.005)
    return False


def killed(world, root, moment):
    """Start the sweep and kill all of it some seconds after its first run began; False if over."""
    known = {path.read_bytes() for path in leases(root)}
    process = started(world, root)
    try:
        if wait_for_new_lease(root, process, known):
            time.sleep(moment)
        over = process.poll() is not None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return not over


def outcome(root):
    """Return what the folder says, to the last bit; nothing in it may be damaged or left behind."""
    found = find(root)
    assert found.invalid == ()
    weights = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.glob("models/**/*.safetensors")
    }
    scores = {
        key: (result.score, result.scores, result.predictions["sha256"], result.marks)
        for key, result in found.by_key.items()
    }
    return scores, weights


@pytest.mark.slow
def test_fifteen_kills_change_no_bit(world, tmp_path):
    """Prevents a result, predictions or a teacher's weights that depend on when it was killed."""
    whole = tmp_path / "whole"
    process = started(world, whole)
    assert wait_for_new_lease(whole, process, set()), (whole / "log").read_text()
    began = time.monotonic()
    assert process.wait(timeout=600) == 0, (whole / "log").read_text()
    # With two workers a share of the whole time holds the end of one run and the begin of another.
    longest = 0.5 * (time.monotonic() - began)
    expected = outcome(whole)
    assert (len(expected[0]), len(expected[1])) == (6, 2)

    draw, kills, rounds = random.Random(13), 0, 0
    while kills < KILLS:
        rounds += 1
        root = tmp_path / f"round-{rounds}"
        while kills < KILLS and killed(world, root, draw.uniform(0, longest)):
            kills += 1
        process = started(world, root)
        assert process.wait(timeout=600) == 0, (root / "log").read_text()
        assert outcome(root) == expected
        assert leases(root) == []
    print(f"{kills} kills in {rounds} folders, up to {longest:.1f} s after a run began")
